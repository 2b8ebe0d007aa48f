"""The outlook of a consumer that is watched: ``/healthz``, ``/metrics``, and whether to call outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

from ..config import SECOND
from ..consumer.outlook import Answer, Running
from ..logs import describe, headline
from .health import CRITICAL, Examiner, Health, away
from .site import Site

PLAIN = "text/plain; charset=utf-8"

FRESH = 1.0
"""Seconds for which an answer is good: however many ask, the database is asked once a second."""

REMEMBERED = 30.0
"""Seconds for which it is good what was found of the dead."""

PATIENCE = 2.0
"""Seconds that a request waits for another that asks the database just now."""

DEAD_SINCE = 86_400.0
"""Seconds within which a death is a warning."""

NOT_INSTALLED = (
    "metrics need prometheus-client: pip install 'flagsweep[metrics]' where the consumer runs; /healthz works without\n"
)

APART = 55 * SECOND
"""Microseconds between two pings, of whichever consumers."""


class Outlook:
    """Answer for one consumer, over our own connections, of which each request closes its thread's."""

    def __init__(self, site: Site, running: Running):
        self._site = site
        self._running = running
        self._asking = threading.Lock()
        self._examiner: Examiner | None = None
        self._health: tuple[float, Health] | None = None
        self._metrics: Callable[[], tuple[str, bytes]] | None = None

    def answer(self, path: str) -> Answer:
        """Return what is answered to a request for a path."""
        try:
            if path == "/healthz":
                return self._answer_health()
            if path == "/metrics":
                return self._answer_metrics()
        except Exception as error:
            text = f"this could not be answered: {headline(describe(error))}\n"
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, PLAIN, text.encode())
        return Answer(HTTPStatus.NOT_FOUND, PLAIN, b"there are /healthz and /metrics\n")

    def _answer_health(self) -> Answer:
        health = self.health()
        status = HTTPStatus.SERVICE_UNAVAILABLE if health.level == CRITICAL else HTTPStatus.OK
        return Answer(status, PLAIN, f"{health.line}\n".encode())

    def _answer_metrics(self) -> Answer:
        try:
            from .metrics import Metrics
        except ImportError:
            return Answer(HTTPStatus.NOT_IMPLEMENTED, PLAIN, NOT_INSTALLED.encode())
        if self._metrics is None:
            self._metrics = Metrics(self._site, self._running, self.health, self.ours).text
        with self._one_connection():
            return Answer(HTTPStatus.OK, *self._metrics())

    def is_well(self) -> bool:
        """Return whether a call may go outside: somebody sweeps, no promise is broken, the database was written just now, and
        nobody else has called within this minute."""
        if self.health().level == CRITICAL:
            return False
        with self._site.connections.explained("the ping was not noted"):
            return self._site.store.may_ping(self._site.clock.now(), APART)

    def close(self) -> None:
        """Leave nothing of the calling thread's behind."""
        self._site.connections.close_thread()

    def health(self) -> Health:
        """Return how the site is, as it was a second ago at the most; where nobody gets an answer, that it does not answer."""
        if not self._asking.acquire(timeout=PATIENCE):
            return away("the database has not answered for a while")
        try:
            if self._health is None or time.monotonic() - self._health[0] > FRESH:
                self._health = time.monotonic(), self._checked()
            return self._health[1]
        finally:
            self._asking.release()

    def _checked(self) -> Health:
        site = self._site
        if self._examiner is None:
            handlers = {kind: site.handler_of(kind) for kind in site.handled}
            self._examiner = Examiner(site.connections, site.settings, handlers, site.clock, REMEMBERED)
        return self._examiner.answered(DEAD_SINCE, True, self.ours())

    @contextmanager
    def _one_connection(self) -> Iterator[None]:
        """Have all questions of a request go over one connection: on a server one takes as long as the questions."""
        connections = self._site.connections
        mine = connections.engine.is_closed()
        with suppress(Exception):  # Whoever asks next is told.
            connections.check_file()
            connections.engine.connect(reuse_if_open=True)
        try:
            yield
        finally:
            if mine:
                connections.close_engine()

    @contextmanager
    def ours(self) -> Iterator[Any]:
        """Lend a connection of ours, and close it where it was opened for that."""
        connections = self._site.connections
        mine = connections.engine.is_closed()
        try:
            with connections.explained("the site could not be checked"):
                connections.check_file()
                yield connections.engine
        finally:
            if mine:
                connections.close_engine()

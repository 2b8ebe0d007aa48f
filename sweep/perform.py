"""Perform: take a claimed flag through its handler to an outcome, whatever the handler does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from types import CoroutineType, GeneratorType
from typing import Any

from peewee import Database

from ..adapters.rows import StillOwed
from ..config import Clock, seconds
from ..databases.errors import DATABASE_ERRORS
from ..databases.flags import Damaged
from ..errors import Discard, Retry, Snooze
from ..gates.fingerprint import fingerprint
from ..handlers import Handler
from ..logs import clean, describe, headline
from ..payloads import short
from .atomic import BrokenTransaction, LeakedTransaction, guarded, kept_open, leaked, unmasked
from .claims import NO_RARE, Claimed, Store
from .context import FlagContext
from .outcomes import DONE, EXPIRED, Discarded, Failed, Lowered, Outcome, Parked, Settled, Snoozed

log = logging.getLogger("flagsweep")


class Performer:
    """Perform flags in the calling thread.

    :param handlers: by kind, aliases included.
    :param stopping: whether the consumer is stopping.
    """

    def __init__(self, store: Store, handlers: Mapping[str, Handler], clock: Clock, stopping: Callable[[], bool]):
        self.store = store
        self.handlers = handlers
        self.clock = clock
        self.stopping = stopping
        self.alone = threading.Lock()
        self.turns: threading.Semaphore | None = None
        """Where the site's pool has fewer connections than there are threads: as many perform at once."""

    def take_turns(self, most: int) -> None:
        """Perform no more than so many flags at once."""
        self.turns = threading.Semaphore(most)

    def perform(self, claimed: Claimed) -> Outcome:
        """Return the outcome of one flag."""
        handler = self.handlers[claimed.kind]
        payload = claimed.payload
        if type(payload) is not dict:
            return Parked(str(payload) if isinstance(payload, Damaged) else "its payload is not a JSON object")
        if claimed.rare is not NO_RARE and (until := claimed.rare.expires_at) is not None:
            if type(until) is not int:
                return Parked(f"its time to expire is none: {short(until)}")
            if until <= self.clock.now():
                return EXPIRED
        outcome: Outcome
        try:
            if claimed.trouble:
                raise claimed.trouble
            if handler.wants_flag:
                payload = {**payload, "flag": FlagContext(claimed, handler.options.atomic, self.store, self.stopping)}
            if handler.options.atomic:
                outcome = self._atomically(handler, claimed, payload)
            else:
                outcome = self._call(handler, claimed, payload)
        except BaseException as error:
            outcome = self._failed(handler, error)
        return outcome if self.store.connections.site.is_closed() else self._tidied(handler, outcome)

    def _tidied(self, handler: Handler, outcome: Outcome) -> Outcome:
        """Leave nothing on the site's connection for the next handler, and return what becomes of this one's outcome."""
        if leak := leaked(self.store.connections.site, self.store.connections.dialect):
            leak.__context__ = outcome.exception
            return self._failed(handler, leak)
        if not self.store.connections.in_memory:  # That one ends with its connection.
            self.store.connections.spare.let_go() if isinstance(outcome, Failed) else self.store.connections.spare.put_away()
        return outcome

    def _call(self, handler: Handler, claimed: Claimed, payload: dict[str, Any]) -> Lowered:
        if handler.rows is None:
            if (result := handler.function(**payload)) is not None:
                _refuse_unrun(result)
            return DONE
        arguments = dict(payload)
        # Not on the site's connection, which is the handler's to open; but within its transaction it sees what it wrote.
        db = self.store.connections.site if handler.options.atomic else self.store.connections.engine
        row = claimed.row = handler.rows.load(db, self.store.connections.dialect, str(arguments.pop("row", "")))
        if row is None:
            return DONE  # Done already: discovery can meet a row whose lowering is not committed yet.
        name = next(name for name, p in handler.signature.parameters.items() if p.default is p.empty)
        _refuse_unrun(handler.function(**{name: row.instance}, **arguments))
        if handler.rows.still_owed(db, row.key):
            raise StillOwed(
                f"{handler.kind} returned, but its condition still holds for row {row.key}: change the row so that it does not"
            )
        return Lowered(row)

    def _atomically(self, handler: Handler, claimed: Claimed, payload: dict[str, Any]) -> Settled:
        """Run and settle in one transaction on the site's connection: both take effect, or neither does."""
        with self.store.connections.writing if self.store.connections.dialect.one_writer else nullcontext():
            began = self.clock.monotonic()
            with self.store.connections.borrowed() as site:
                try:
                    with kept_open(site):
                        how = self._in_transaction(site, handler, claimed, payload)
                except BaseException as error:
                    leaked(site, self.store.connections.dialect)
                    raise unmasked(error) from None
            held = self.clock.monotonic() - began
        if held > 1 and self.store.connections.dialect.one_writer:
            log.warning(
                "%s is atomic and held the database's only writer for %.1f s: keep slow work out of it",
                handler.kind,
                held,
            )
        return Settled(how)

    def _in_transaction(self, site: Database, handler: Handler, claimed: Claimed, payload: dict[str, Any]) -> str:
        with ExitStack() as stack:
            try:
                stack.enter_context(site.atomic(*self.store.connections.dialect.begin))
            except DATABASE_ERRORS as error:
                if not self.store.connections.dialect.is_busy(error):
                    raise
                raise Snooze(1) from error  # The site holds the writer: nothing that the handler did.
            with guarded(site):
                outcome = self._call(handler, claimed, payload)
            return self.store.settle_within(claimed, self._row_lowering(handler, outcome))

    def _row_lowering(self, handler: Handler, outcome: Lowered) -> Callable[[Database], None] | None:
        if handler.rows is None or handler.rows.early or outcome.row is None:
            return None
        return partial(handler.rows.lower_done, dialect=self.store.connections.dialect, row=outcome.row)

    def _failed(self, handler: Handler, error: BaseException) -> Outcome:
        try:
            if isinstance(error, Snooze):
                return Snoozed(seconds(error.delay, "Snooze"))
            if isinstance(error, Discard):
                return Discarded(clean(str(error)))
            if isinstance(error, Retry):
                return _asked_again(error)
        except BaseException as bad:  # A bad duration, or a reason that has no text.
            error = bad
        if isinstance(error, handler.options.discard_on):
            return Discarded(headline(describe(error)))
        alike = None if self._is_of_our_database(handler, error) else fingerprint(error)
        return Failed(describe(error), error, final=not isinstance(error, handler.options.retry_on), fingerprint=alike)

    def _is_of_our_database(self, handler: Handler, error: BaseException) -> bool:
        """Return whether an error tells nothing of a kind's provider, but of our own database: it is away, or its disk full,
        whereupon transactions break; or of what an atomic handler does in it."""
        if isinstance(error, (BrokenTransaction, LeakedTransaction)):
            return True
        return (handler.options.atomic and isinstance(error, DATABASE_ERRORS)) or self.store.connections.dialect.is_away(error)


def _asked_again(error: Retry) -> Failed:
    """Return the outcome of a handler that asked to be tried again; one with a wait of its own, or for all, says nothing of its
    provider that a breaker were to guess."""
    after = None if error.after is None else seconds(error.after, "Retry(after)")
    alike = fingerprint(error) if error.after is None and not error.all else None
    return Failed(clean(str(error)), error, after, closes=error.all, fingerprint=alike)


def _refuse_unrun(result: Any) -> None:
    """Refuse what a hidden coroutine function or generator returns: nothing of it has run, and taken for done it is lost."""
    if isinstance(result, (CoroutineType, GeneratorType)):
        result.close()
        raise TypeError(f"the handler returned a {type(result).__name__}, of which nothing has run: wrap it in asyncio.run(...)")

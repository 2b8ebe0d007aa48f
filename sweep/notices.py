"""Telling the site what has happened: which flags failed, which died, whose provider has gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from ..logs import describe

log = logging.getLogger("flagsweep")

OnDead = Callable[[str, str, Any, str], Any]


@dataclass(frozen=True)
class Failure:
    """Tell of the first failed attempt of a flag, or of its last.

    :ivar flag: its id.
    :ivar attempt: which one failed, from 1.
    :ivar error: the traceback, or what there is of an error without one.
    :ivar fingerprint: what failures of one cause have in common: ``"ValueError mail.py:send:12"``, ``"crashed"``.
    :ivar first: whether none had failed since it was raised, retried, or last came further.
    :ivar final: whether the flag is dead.
    :ivar payload: its arguments; of a damaged row None. They are in no ``repr``, so that no log shows them; nor is ``key``, which
        is the arguments where the raise names none.
    """

    kind: str
    key: str = field(repr=False)
    flag: int
    attempt: int
    error: str
    fingerprint: str
    first: bool
    final: bool
    payload: Any = field(default=None, repr=False, compare=False)


OnFailed = Callable[[Failure, BaseException | None], None]
"""Is told of a failure, and of the exception that it was, where there is one in this process."""


class Notices:
    """Tell the site in a thread of its own, so that a slow listener holds nothing up.

    :param to: the name of what takes listeners.
    :param at_end: called in that thread before it ends.
    """

    def __init__(self, to: str, at_end: Callable[[], object] = lambda: None) -> None:
        self.listeners: list[Callable[..., Any]] = []
        self._to = to
        self._at_end = at_end
        self._queue: SimpleQueue[tuple] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def tell(self, *news: Any) -> None:
        """Have every listener called with this."""
        if not self.listeners:
            return
        self._queue.put(news)
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=f"flagsweep-{self._to}", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # Python 3.12 starts none any more while the interpreter ends.
                    log.error("%s was not called for %s: %s", self._to, _named(news), error)
                    return
                self._thread = thread

    def flush(self, timeout: float = 10.0) -> None:
        """Wait until all that has happened so far has been told, at most ``timeout`` seconds."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._queue.put(())  # No need to wait for more.
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            news: tuple = ()
            with suppress(Empty):
                news = self._queue.get(timeout=0.2)
            if not news:
                if self._ended():
                    return
                continue
            for listener in self.listeners:
                try:
                    listener(*news)
                except BaseException as error:  # SystemExit, too: the thread must live for the next.
                    # As text: whoever collects log records with their frames would find the payload in them.
                    log.error("a function given to %s failed for %s\n%s", self._to, _named(news), describe(error))
            del news

    def _ended(self) -> bool:
        """Return whether nothing is left to tell, so that this thread ends."""
        with suppress(Exception):
            self._at_end()
        with self._lock:
            if not self._queue.empty():
                return False
            self._thread = None
            return True


def _named(news: tuple) -> str:
    """Return the kind that news are of."""
    return str(getattr(news[0], "kind", news[0]))

"""Telling the site what has happened: which flags died, whose provider has gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

log = logging.getLogger("flagsweep")

OnDead = Callable[[str, str, Any, str], Any]


class Notices:
    """Tell the site in a thread of its own, so that a slow listener holds nothing up.

    :param to: the name of what takes listeners.
    """

    def __init__(self, to: str) -> None:
        self.listeners: list[Callable[..., Any]] = []
        self._to = to
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
                    log.error("%s was not called with %s: %s", self._to, news[:2], error)
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
                with self._lock:
                    if self._queue.empty():
                        self._thread = None
                        return
                continue
            for listener in self.listeners:
                try:
                    listener(*news)
                except BaseException:  # SystemExit, too: the thread must live for the next.
                    log.exception("a function given to %s failed for %s", self._to, news[0])

"""Telling the site which flags died."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

log = logging.getLogger("flagsweep")

OnDead = Callable[[str, str, Any, str], Any]


class DeathNotices:
    """Tell the site of each death in a thread of its own, so that a slow listener holds nothing up."""

    def __init__(self) -> None:
        self.listeners: list[OnDead] = []
        self._queue: SimpleQueue[tuple] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def tell(self, *death: Any) -> None:
        """Have every listener called with this death."""
        if not self.listeners:
            return
        self._queue.put(death)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="flagsweep-deaths", daemon=True)
                self._thread.start()

    def flush(self, timeout: float = 10.0) -> None:
        """Wait until all that died so far has been told, at most ``timeout`` seconds."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._queue.put(())  # No need to wait for more.
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            death: tuple = ()
            with suppress(Empty):
                death = self._queue.get(timeout=0.2)
            if not death:
                with self._lock:
                    if self._queue.empty():
                        self._thread = None
                        return
                continue
            for listener in self.listeners:
                try:
                    listener(*death)
                except BaseException:  # SystemExit, too: the thread must live for the next death.
                    log.exception("a function given to on_dead failed for a dead flag of %s", death[0])

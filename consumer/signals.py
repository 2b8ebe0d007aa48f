"""Signals: SIGTERM, SIGINT and SIGHUP stop the consumer, and a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any


class Signals:
    """Turn SIGTERM, SIGINT and SIGHUP into a call of ``stop``, and a second one into the end at once.

    SIGHUP comes when the terminal is closed; under ``nohup``, which ignores it, it stays ignored.

    Python's C code writes each into a pipe. A handler in Python would wait until the main thread wakes: the signal may have gone
    to another thread, or to the main one just before it fell asleep.
    """

    NUMBERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
    TWICE = 0.3
    """Seconds from a first to a second signal: ``timeout`` and some supervisors signal process and group at one instant."""

    def __init__(self, stop: Callable[[str], None], at_once: Callable[[], None]):
        self._stop = stop
        self._at_once = at_once
        self._before: dict[int, Any] = {}
        self._thread = threading.Thread(target=self._wait, name="flagsweep-signals", daemon=True)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._read_end, self._write_end = os.pipe()
            os.set_blocking(self._write_end, False)
            try:
                self._thread.start()
            except BaseException:
                self._close()
                raise
            self._wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
            heard = [n for n in self.NUMBERS if n in (signal.SIGTERM, signal.SIGINT) or signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, lambda *_: None) for number in heard}

    def __exit__(self, *error: Any) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._write_end, b"\0")
        self._thread.join(1.0)
        self._close()

    def _close(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)

    def _wait(self) -> None:
        first: float | None = None
        while number := os.read(self._read_end, 1)[0]:
            if number not in self.NUMBERS:  # Others that the site handles come by here, too.
                continue
            if first is None:
                first = time.monotonic()
                self._stop(signal.Signals(number).name)
            elif time.monotonic() - first >= self.TWICE:
                self._at_once()

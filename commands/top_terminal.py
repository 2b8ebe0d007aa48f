"""The terminal while ``top`` has it: keys one by one, signals, and everything as it was when it ends."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.live import Live

ARROWS = {"[A": "k", "OA": "k", "[B": "j", "OB": "j"}
"""What a terminal sends for the arrow keys, after ESC, and the letters that mean the same."""

ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[@-~]|O.|.)?", re.DOTALL)
"""What a terminal sends for one key that has no letter."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(Exception):
    """End because of a signal."""


class Screen:
    """Have the whole terminal: its other screen, no cursor, and each key as it is pressed.

    Signals are only noted where they come, which may be in the middle of a frame, and heeded between two.
    """

    def __init__(self, console: Console):
        self._console = console
        self._live: Live | None = None
        self._fd = sys.stdin.fileno()
        self._before: list[Any] = []
        self._typed = ""
        self._came: list[int] = []

    @contextmanager
    def held(self) -> Iterator[Screen]:
        """Have it, and give it back as it was, however this ends."""
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        kept = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        heard = (*ENDING, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
        handlers = {number: signal.signal(number, self._note) for number in heard}
        try:
            self._take()
            yield self
        finally:
            for number in ENDING:  # Nothing comes between, or the terminal stays as it is.
                signal.signal(number, signal.SIG_IGN)
            self._give_back()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(kept)
            self._wake, woken = -1, (self._wake, self._woken)
            for end in woken:
                os.close(end)

    def draw(self, renderable: Callable[[int, int], Any]) -> None:
        """Draw a frame over the one before it.

        :param renderable: returns it for so many columns and lines.
        """
        if self._live is not None:
            size = os.get_terminal_size(self._fd)  # Not what the environment said of it when all began.
            self._console.size = size
            self._live.update(renderable(*size), refresh=True)

    def wake(self) -> None:
        """Have ``key`` return. Any thread may call it."""
        with suppress(OSError):  # It is full, or closed: then nobody waits.
            os.write(self._wake, b"\0")

    def key(self, seconds: float) -> str:
        """Return the key that is pressed within so many seconds, or nothing: time is up, or there is something to draw.

        :raises Ended: where a signal wants it.
        """
        if not self._typed:
            self._wait(seconds)
        self._heed()
        if escape := ESCAPE.match(self._typed):
            key = ARROWS.get(escape[1] or "", "")
            self._typed = self._typed[escape.end() :]
        else:
            key, self._typed = self._typed[:1], self._typed[1:]
        return key

    def _wait(self, seconds: float) -> None:
        ready, _, _ = select.select([self._fd, self._woken], [], [], seconds)
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._fd in ready:
            data = os.read(self._fd, 64)
            if not data:
                raise Ended("the end of the terminal")
            self._typed = data.decode("utf-8", "replace")

    def _note(self, number: int, _: Any) -> None:
        if number in ENDING and number in self._came:
            raise Ended(signal.Signals(number).name)  # Twice: whatever goes on takes too long.
        self._came.append(number)

    def _heed(self) -> None:
        """Do what signals want that came meanwhile."""
        came, self._came = self._came, []
        for number in came:
            if number in ENDING:
                raise Ended(signal.Signals(number).name)
        if signal.SIGTSTP in came:
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)  # Until the shell has us go on.
            self._take()
        elif signal.SIGCONT in came:  # It was stopped where nobody could see it coming, and the shell has had the terminal.
            self._give_back()
            self._take()

    def _take(self) -> None:
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)  # Ctrl-C and Ctrl-Z stay signals.
        self._live = Live(console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def _give_back(self) -> None:
        live, self._live = self._live, None
        try:
            if live is not None:
                live.stop()
        finally:
            if self._before:
                with suppress(termios.error):  # The terminal is gone.
                    termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

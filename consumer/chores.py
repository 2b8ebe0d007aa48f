"""Chores: what a thread does again and again, each by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..config import Clock
from ..logs import Seldom

log = logging.getLogger("flagsweep")


@dataclass
class Chore:
    """Say what is done again and again, and when: seconds of the monotonic clock.

    :param every: seconds from one time to the next; ``inf``: once.
    :param due: when it is done next.
    """

    do: Callable[[], None]
    every: float
    due: float = 0.0
    told: Seldom = field(default_factory=Seldom)
    """Tells of its failures."""


class Chores(threading.Thread):
    """Do chores, each when it is due. One that fails is logged once a minute, tried again in a minute or when it is next due,
    whichever comes first, and hinders no other.

    :param tick: seconds between two looks at what is due.
    """

    def __init__(self, name: str, tick: float, chores: Iterable[Chore], clock: Clock):
        super().__init__(name=name, daemon=True)
        self._tick = tick
        self._chores = list(chores)
        self._clock = clock
        self._done = threading.Event()

    def stop(self) -> None:
        """End the thread."""
        self._done.set()

    def run(self) -> None:
        """Do the chores until stopped."""
        self.run_once(self._clock.monotonic())
        while not self._done.wait(self._tick):
            self.run_once(self._clock.monotonic())
        self._end()

    def run_once(self, now: float) -> None:
        """Do what is due at ``now``, seconds of the monotonic clock."""
        for chore in self._chores:
            if now >= chore.due:
                chore.due = now + chore.every
                try:
                    chore.do()
                except Exception as error:
                    self._failed(chore, error, now)

    def _failed(self, chore: Chore, error: Exception, now: float) -> None:
        chore.due = min(chore.due, now + 60)  # What is done once, or once an hour, must not wait for that.
        if chore.told.may_tell(now):
            what = chore.do.__name__.strip("_").replace("_", " ")
            log.error("a chore of the %s failed, it is tried again (%s): %s", self.name.rpartition("-")[2], what, error)

    def _end(self) -> None:
        """Leave nothing behind."""

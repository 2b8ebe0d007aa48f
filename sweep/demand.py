"""Demand: what is wanted of a lane, and whether somebody attends to it."""

from __future__ import annotations

import threading
from collections.abc import Callable

SATED, WHEN_FREE, HUNGRY = range(3)
"""Whether a lane's sweep wants to claim more: no, as soon as a thread is free, or as soon as its threads run low."""


class Demand:
    """Know what whoever sees work, the lane's threads, its sweep and Huey's task want of each other.

    A sweep that has nothing to do lingers: Huey's task, which holds the lane's lock, waits for the next call. While somebody
    attends, nobody needs to be queued.
    """

    def __init__(self) -> None:
        self.hungry = SATED
        self.called = False
        """Whether somebody has said since the last turn began that there may be more to claim, of whatever kind."""
        self.ended = False
        """Whether the lane stops."""
        self.lingers = False
        """Whether a sweep waits for the next call, under the lane's lock."""
        self.posts = 0
        """How often somebody was to be woken: who compares it before and after a look misses nothing that came in between."""
        self._lock = threading.Lock()
        self._attending = 0
        self._asked = False
        self._lingering = False
        self._posted = threading.Condition()
        self._retry_at = 0.0

    # Whoever sees that there may be something to do.

    def ask(self) -> bool:
        """Say that there may be more to claim; return whether a sweep is to be queued: nobody attends, and none is asked for."""
        self.call()
        with self._lock:
            if self._attending or self._asked:
                return False
            self._asked = True
            return True

    def call(self) -> None:
        """Say to whoever attends that there may be more to claim."""
        self.hungry, self.called = HUNGRY, True
        self.post()

    def end(self) -> None:
        """Say that the lane stops: nobody lingers any more."""
        self.ended = True
        self.call()

    def lose(self) -> None:
        """Say that the sweep which was asked for never came, so that the next one who asks has one queued."""
        self._asked = False

    # Whoever sweeps.

    def sate(self) -> None:
        """Begin a turn: it looks for itself."""
        self.hungry, self.called = SATED, False

    def want(self, more: int) -> None:
        """Say how soon the next claim is worth its transaction, at the latest."""
        self.hungry = max(self.hungry, more)

    def arrive(self) -> None:
        """Attend to the lane: what was asked for has come."""
        with self._lock:
            self._asked = False
            self._attending += 1

    def leave(self) -> None:
        """Attend to the lane no longer."""
        with self._lock:
            self._attending -= 1

    def linger(self, has_done: Callable[[], bool], holds_lock: bool = True) -> bool:
        """Wait until something is wanted; return False at once where another sweep of this lane does: Huey's lock has failed.

        :param has_done: whether there are outcomes to settle.
        :param holds_lock: whether all of the lane's locks are held meanwhile, so that others may claim for it.
        """
        with self._lock:
            if self._lingering:
                return False
            self._lingering = True
        self.lingers = holds_lock
        try:
            while True:
                seen = self.posts
                if self.ended or self.hungry != SATED or has_done():
                    return True
                self.read(seen, None)
        finally:
            self.lingers = self._lingering = False

    def may_retry(self, now: float) -> bool:
        """Return whether a sweep that failed is to be tried again: one retry a lane, or those of an outage would pile up."""
        return now >= self._retry_at

    def retries_at(self, moment: float) -> None:
        """Take note when a sweep that failed is tried again, in seconds of the monotonic clock."""
        self._retry_at = moment

    # Between the threads that perform and the sweep that waits for them.

    def post(self) -> None:
        """Wake whoever waits."""
        with self._posted:
            self.posts += 1
            self._posted.notify_all()

    def read(self, seen: int, timeout: float | None) -> bool:
        """Wait until somebody posts, so many seconds at the most; return whether anybody did.

        A count, not an event or a queue: there one reader takes what another waits for.

        :param seen: ``posts`` as it was before the caller looked whether to wait.
        """
        with self._posted:
            return self.posts != seen or self._posted.wait(timeout)

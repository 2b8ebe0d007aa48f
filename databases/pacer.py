"""The pace at which we write, so that the site finds its turn."""

from __future__ import annotations

import threading
import time


class Pacer:
    """Share SQLite's only writer with the site.

    :param share: the largest share of time in which this process holds it; 1 never waits.
    :param batch: the most flags of one transaction.
    :param target: seconds that a transaction should last where the writer is shared.
    """

    TARGET = 0.0065
    """For a process of our own."""
    GENTLE = 0.002
    """For one that answers requests: what each of these needs of the interpreter it gets only between two steps of ours."""

    def __init__(self, share: float, batch: int, target: float = TARGET):
        self.share = share
        self.most = batch
        self._target = target
        self.batch = batch if share >= 1 else min(batch, 100)
        self._free_at = 0.0
        self._lock = threading.Lock()

    def turn(self) -> None:
        """Wait for our turn to write."""
        with self._lock:
            now = time.monotonic()
            wait = self._free_at - now
        if wait > 0:
            time.sleep(wait)

    def is_free(self) -> bool:
        """Return whether it is our turn to write just now."""
        return time.monotonic() >= self._free_at

    def ended(self, began: float, flags: int) -> None:
        """Take note of a transaction that had the writer since ``began``.

        :param flags: of how many flags it was; one that settles some and claims as many is of that many.
        """
        if self.share >= 1:
            return
        now = time.monotonic()
        lasted = now - began
        self._free_at = now + lasted * (1 / self.share - 1)
        if flags >= self.batch // 2 and lasted > 0:
            self.batch = int(min(self.most, max(20, flags * self._target / lasted)))

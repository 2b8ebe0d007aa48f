"""What every store of a shared queue does: it holds a few nudges for each lane and the locks of sweeps.

Nothing here may be lost with harm: a wiped store costs a nudge, which the next look at the database makes good, and a lock, which
is a politeness. So no store waits for the disk, keeps more than the latest nudges, or holds a lock that nobody renews.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

KEPT = 100
"""Nudges kept for a lane that nobody sweeps: one would do, since each says the same."""
BATCH = 1000
"""Messages taken at once."""
LONGEST_LOCK = 60.0
"""Seconds for which a lock may be held without being renewed: one that says more was written by a wrong clock."""


class Storage(ABC):
    """Keep nudges and locks. Any method may raise whatever the store's driver raises."""

    @abstractmethod
    def post(self, lane: str, message: bytes) -> None:
        """Add a nudge for a lane; the oldest make room for it."""

    @abstractmethod
    def take(self, lanes: Sequence[str], wait: float, done: threading.Event) -> list[bytes]:
        """Take what is there for these lanes, waiting up to ``wait`` seconds for the first.

        :param done: is set, and followed by a ``wake``, when there is nothing more to wait for.
        """

    @abstractmethod
    def hold(self, lock: str, owner: str, seconds: float) -> bool:
        """Take a lock that is free, or renew one that this owner has; return whether it is the owner's now."""

    @abstractmethod
    def let_go(self, lock: str, owner: str) -> None:
        """Free a lock if this owner has it."""

    def wake(self) -> None:
        """Let whoever takes with the same token go on at once."""
        return  # Who takes from a file looks every tenth of a second, and sees that it is done.

    @abstractmethod
    def disconnect(self) -> None:
        """Close every connection that this object has."""


def is_free(value: bytes, owner: str, now: float) -> bool:
    """Return whether a lock that says ``owner until`` may be taken: it is ours, too old, or was not written by us."""
    holder, _, until = value.partition(b" ")
    if holder == owner.encode():
        return True
    try:
        return not now < float(until) <= now + LONGEST_LOCK
    except ValueError:
        return True

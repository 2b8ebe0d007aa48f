"""Drain: have nothing start, wait until nothing runs, and have it go on again. What a deploy wants."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..config import Clock
from ..databases.connections import Connections
from ..gates.shut import ALL
from ..models import Gate
from ..schedules.book import is_paused
from .gates import Gates
from .pauses import end_of
from .running import InHand

REASON = "drain"
"""Why all is paused meanwhile. A pause of all with another reason is somebody else's, and stays as it is."""

SEEN = 1.0
"""Seconds for which nothing must be in hand: a claim that had begun when the pause committed is seen only once it has, too."""

EVERY = 0.2


class Drain:
    """Hold a pause of all, which ends by itself, and look at what still runs.

    :param running: returns what is in hand.
    """

    def __init__(self, connections: Connections, gates: Gates, running: Callable[[], InHand], clock: Clock):
        self._connections = connections
        self._gates = gates
        self._running = running
        self._clock = clock
        self.mine = False
        """Whether this is what holds all back; otherwise somebody had paused it before."""
        self.ends_at: int | None = None
        """When it goes on by itself, in microseconds UTC; None: not by itself."""

    def begin(self, until: object, by: str | None = None) -> None:
        """Pause all, unless it is paused by somebody for a reason of theirs. One that drains already is followed by this one."""
        with self._connections.lent("nothing was drained") as db, db.atomic():
            row = self._row(db)
            theirs = row is not None and is_paused(row, self._clock.now()) and row.reason != REASON
            if not theirs:
                self._gates.pause(None, None, None, REASON, until, by)
            self.ends_at = row.paused_until if theirs else end_of(until, self._clock.now())
        self.mine = not theirs

    def wait(self, seconds: float, look: Callable[[InHand], Any] = lambda found: None) -> InHand:
        """Return once nothing is in hand, or after so long; what is in hand then.

        :param look: called with what is in hand each time that it was looked at. An exception that it raises ends the wait.
        """
        begin = time.monotonic()
        empty_since: float | None = None
        while True:
            found = self._running()
            look(found)
            now = time.monotonic()
            empty_since = None if found.claimed else now if empty_since is None else empty_since
            if empty_since is not None and now - empty_since >= SEEN:
                return found
            if now - begin >= seconds and empty_since is None:
                return found
            time.sleep(EVERY)

    def resume(self) -> bool:
        """Have all go on, where it is drained; return whether it was. A pause with another reason stays."""
        with self._connections.lent("nothing was resumed") as db, db.atomic():
            row = self._row(db)
            return row is not None and row.reason == REASON and self._gates.resume(None, None, None, None)

    def _row(self, db: Any) -> Any:
        found = Gate.select().where(Gate.sort == ALL, Gate.name == "", Gate.bucket == "").execute(db)
        return next(iter(found), None)

"""What a lane has in hand: flags that were given and wait, run, or are done and not collected; and places in which they run."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from operator import itemgetter

from ..config import SECOND
from ..logs import Seldom
from .claims import Claimed
from .demand import HUNGRY, SATED, WHEN_FREE, Demand
from .doubts import Doubts
from .member import Member
from .outcomes import DONE, Outcome
from .perform import Performer
from .slots import Slots

CLAIMED = itemgetter(0)


class LaneThread(threading.Thread):
    """Perform flags, and nothing else: what a handler leaves in such a thread is nobody's."""


class Places:
    """Where flags of one sort run at the same time: the threads of a lane, or the tasks of its event loop.

    :param size: how many there are.
    """

    def __init__(self, size: int):
        self.size = size
        self.todo: deque[Claimed] = deque()
        """What was given and has not started, in its order."""
        self.running: dict[int, Claimed] = {}
        """What runs just now, by who runs it."""
        self.wants = SATED
        """How soon a claim for them is worth its transaction."""
        self.has_asked = False
        """Whether the sweep was told that they run low."""
        self._low_water = 0

    def line_up(self, flags: list[Claimed]) -> None:
        """Have more flags wait."""
        self.todo.extend(flags)
        self._low_water = len(self.todo) // 2

    def is_low(self) -> bool:
        """Return whether they will soon have nothing to do."""
        return len(self.todo) <= self._low_water

    def is_ready(self, called: bool) -> bool:
        """Return whether a claim for them is worth its transaction now.

        :param called: somebody has seen that there may be more.
        """
        if called or self.wants == HUNGRY:
            return self.is_low()
        return self.wants == WHEN_FREE and len(self.running) + len(self.todo) < self.size


class Starting:
    """Say since when a thread is being started, in seconds of the monotonic clock, and tell seldom that the system has none."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.told = Seldom()

    def takes(self, most: float) -> bool:
        """Return whether it takes so many seconds, so that it will not start any more."""
        return (since := self.since) is not None and time.monotonic() - since >= most


class InHand:
    """Keep the flags that a lane was given, from there to their outcomes.

    :param member: the consumer.
    """

    LATE = 0.1
    """Seconds after which a flag that took of a rate and has not begun is given back: it would come beside those of later."""

    def __init__(self, performer: Performer, member: Member):
        self.outstanding = 0
        self.demand = Demand()
        self.slots = Slots({}, {})
        """The limits of kinds within this consumer."""
        self.doubts = Doubts({}, {})
        """Kinds of which no flag is to start until their gates have heard of those that failed."""
        self._performer = performer
        self._member = member
        self._parked: deque[Claimed] = deque()
        """What must not start yet: a suspect beside another, or a flag that still runs."""
        self._runs: dict[int, Claimed] = {}
        """The claim under which each flag runs: others may have freed one, of which it is not known yet that it is lost."""
        self._done: deque[tuple[Claimed, Outcome, float]] = deque()
        self._first_done = 0.0
        self._sorts: list[Places] = []
        """Where flags run, of each sort."""

    # For the sweep.

    def collect(self) -> list[tuple[Claimed, Outcome, float]]:
        """Return the outcomes so far, with the seconds that each took."""
        self.doubts.collected, take = self.doubts.kinds, self._done.popleft
        done = [take() for _ in range(len(self._done))]  # Nobody else takes of them.
        for places in self._sorts:
            places.has_asked = False
        self.outstanding -= len(done)
        self.slots.count(map(CLAIMED, done), -1)
        return done

    def put_back(self, done: list[tuple[Claimed, Outcome, float]]) -> None:
        """Keep outcomes that could not be settled now."""
        self._done.extendleft(reversed(done))
        self.outstanding += len(done)
        self.slots.count(map(CLAIMED, done), 1)

    def has_done(self) -> bool:
        """Return whether there are outcomes."""
        return bool(self._done)

    def _answered(self, has_heard: Callable[[str], bool]) -> list[Claimed]:
        """Return what waited until the gates of its kind had heard of the failures that were collected, and which stayed open."""
        if not (self.doubts.collected or self.doubts):
            return []
        return self.doubts.answered(frozenset(name for name in self.doubts.collected if has_heard(name)))

    def _next_parked(self) -> Claimed | None:
        """Return a parked flag that may start now, or None."""
        for _ in range(len(self._parked)):
            try:
                claimed = self._parked.popleft()
            except IndexError:
                return None
            if claimed.id not in self._runs and not (claimed.suspect and self._performer.alone.locked()):
                return claimed
            self._parked.append(claimed)
        return None

    # For whoever performs. A thread asks what is asked of every flag itself: a call for each would slow it down.

    def may_start(self, claimed: Claimed) -> bool:
        """Return whether a flag may start; if not, it waits where it will be found."""
        if self.doubts.kinds and self.doubts.holds(claimed):
            return False
        self._runs.setdefault(claimed.id, claimed)
        return self._is_admitted(claimed)

    def must_wait(self, claimed: Claimed, places: Places) -> bool:
        """Return whether a flag that may start is to wait all the same, since others of its kind have failed meanwhile."""
        if not (self.doubts.kinds and self.doubts.holds(claimed)):
            return False
        del self._runs[claimed.id]
        self._let_others(claimed, places)
        return True

    def _is_admitted(self, claimed: Claimed) -> bool:
        """Return whether a flag may start that was entered where none of its id ran; if not, it waits where it will be found."""
        if self._runs.get(claimed.id) is not claimed:  # Claimed anew, under whatever id: it starts not beside itself.
            self._parked.append(claimed)
            return False
        if claimed.suspect and not self._performer.alone.acquire(blocking=False):
            del self._runs[claimed.id]
            self._parked.append(claimed)
            return False
        if claimed.kind in self.slots.names and not self.slots.begin(claimed):
            del self._runs[claimed.id]
            if claimed.suspect:
                self._performer.alone.release()
            return False
        return True

    def is_lost(self, claimed: Claimed) -> bool:
        """Return whether a claim was given back just as its flag was taken, or took of a rate too long ago."""
        if claimed.consumer != self._member.id:
            return True
        return claimed.taken_at is not None and self._performer.clock.now() - claimed.taken_at > self.LATE * SECOND

    def ended(self, claimed: Claimed, outcome: Outcome, began: float, places: Places) -> None:
        """Take note of how a flag has ended that began at this time of the monotonic clock."""
        del self._runs[claimed.id]
        now = time.monotonic()
        if not self._done:
            self._first_done = now
        self._done.append((claimed, outcome, now - began))
        self._look_after(claimed, outcome, places)
        low = places.is_low()
        if len(self._done) == 1 or (low and not places.has_asked) or self.doubts.kinds:
            places.has_asked = low
            self.demand.post()

    def _look_after(self, claimed: Claimed, outcome: Outcome, places: Places) -> None:
        """Have those go on that waited for a flag that has ended, or wait that are like it."""
        self._let_others(claimed, places)
        if outcome is not DONE or self.doubts.failing:
            self.doubts.note(claimed, outcome)

    def _let_others(self, claimed: Claimed, places: Places) -> None:
        if claimed.suspect:  # No other ran beside it, so that the next death tells more.
            self._performer.alone.release()
        if claimed.kind in self.slots.names and (next_one := self.slots.end(claimed)) is not None:
            places.todo.appendleft(next_one)

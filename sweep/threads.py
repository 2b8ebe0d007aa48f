"""The threads of a lane: they take claimed flags one by one, perform them, and keep the outcomes for the sweep."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from queue import SimpleQueue

from ..config import SECOND
from ..logs import Seldom
from .blackbox import crash_stack
from .claims import Claimed
from .demand import HUNGRY, WHEN_FREE, Demand
from .doubts import Doubts
from .member import Member
from .outcomes import DONE, NOT_STARTED, Outcome
from .perform import Performer
from .slots import Slots

log = logging.getLogger("flagsweep")

KIND = attrgetter("kind")


class Pool:
    """The threads of one lane: they take claimed flags one by one and keep the outcomes for the sweep.

    :param threads: how many; 0 performs in the thread that waits, for a database that only one thread can see.
    :param member: the consumer; in its box each thread writes down what it runs.
    """

    GROUP = 0.05
    """Seconds after its first outcome in which a group is settled at the latest."""
    AHEAD = 0.2
    """Seconds of work that are claimed ahead."""
    TURN = 0.02
    """Seconds of that of a kind whose buckets take turns: a fresh bucket's flag waits for it."""
    CHUNK = 0.005
    """Seconds of work that need no second thread."""
    START = 10.0
    """Seconds after which a thread will not start any more: where memory ends within a new one, Python waits for it for ever."""

    LATE = 0.1
    """Seconds after which a flag that took of a rate and has not begun is given back: it would come beside those of later."""

    def __init__(self, name: str, threads: int, performer: Performer, member: Member):
        self.name = name
        self.size = max(1, threads)
        self.outstanding = 0
        self.demand = Demand()
        self.stopping = False
        self.running: dict[int, Claimed] = {}
        """What each thread runs just now."""
        self.is_inline = threads == 0
        """Whether there are none, and whoever waits performs."""
        self._performer = performer
        self._member = member
        self._todo: deque[Claimed] = deque()
        self._parked: deque[Claimed] = deque()
        """What must not start yet: a suspect beside another, or a flag that a thread still runs."""
        self._done: deque[tuple[Claimed, Outcome, float]] = deque()
        self._runs: dict[int, int] = {}
        """The thread that runs each flag: others may have freed a claim of which it does not know yet that it is lost."""
        self._first_done = 0.0
        self._low_water = 0
        self._asked = False
        self._work: SimpleQueue[bool] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._leaving = threading.Lock()
        self._pace: dict[str, float] = {}
        self._starting: float | None = None
        self._lacking = Seldom()
        self._closed = False
        self.slots = Slots({}, {})
        """The limits of kinds within this consumer."""
        self.doubts = Doubts({}, {})
        """Kinds of which no flag is to start until their gates have heard of those that failed."""
        self._asked_of: frozenset[str] = frozenset()
        """Those of which the turn has collected the failures."""
        self.by_turns: frozenset[str] = frozenset()
        """Kinds whose buckets take turns."""
        self.is_urgent: Callable[[], bool] = lambda: False
        """Whether something that was given must be given back, so that the next turn is not to wait."""

    # For the sweep.

    @property
    def manned(self) -> int:
        """How many threads there are, or may be: one that is to end still does what it does."""
        return max(self.size, len(self._threads))

    def resize(self, size: int) -> None:
        """Have so many threads: more at once, fewer as they end what they do."""
        self.size = size
        for _ in range(len(self._threads) - size):
            self._work.put(True)  # Those that wait for work see that they are too many.
        self.demand.call()

    def free_threads(self) -> int:
        """Return how many threads have nothing to do, and nothing that they would take next."""
        return self.size - len(self.running) - len(self._todo) - len(self.doubts)

    def room(self, kind: str) -> int:
        """Return how many flags of a kind would be started within ``AHEAD``; its pace unknown: how many threads are free."""
        free = self.size - len(self.running)
        pace = self._pace.get(kind)
        ahead = self.TURN if kind in self.by_turns else self.AHEAD
        return int(free if pace is None else max(free, self.size * ahead / pace)) - len(self._todo) - len(self.doubts)

    def give(self, flags: list[Claimed]) -> None:
        """Hand over claimed flags."""
        self.outstanding += len(flags)
        self.slots.count(flags, 1)
        self._todo.extend(flags)
        self._low_water = len(self._todo) // 2
        if flags and not self.is_inline:
            expected = sum(count * self._pace.get(kind, self.CHUNK) for kind, count in Counter(map(KIND, flags)).items())
            self._wake(min(len(flags), 1 + int(expected / self.CHUNK)))

    def has_threads(self) -> bool:
        """Return whether there is a thread that takes what was given: the system may have had none to spare."""
        return bool(self._threads)

    def collect(self) -> list[tuple[Claimed, Outcome, float]]:
        """Return the outcomes so far, with the seconds that each took."""
        self._asked_of, take = self.doubts.kinds, self._done.popleft
        done = [take() for _ in range(len(self._done))]  # Nobody else takes of them.
        self._asked = False
        self.outstanding -= len(done)
        self.slots.count((claimed for claimed, *_ in done), -1)
        return done

    def put_back(self, done: list[tuple[Claimed, Outcome, float]]) -> None:
        """Keep outcomes that could not be settled now."""
        self._done.extendleft(reversed(done))
        self.outstanding += len(done)
        self.slots.count((claimed for claimed, *_ in done), 1)

    def let_start(self, has_heard: Callable[[str], bool]) -> None:
        """Let those start that waited until the gates of their kinds have heard of the failures that were collected, and which
        stayed open."""
        if not (self._asked_of or self.doubts):
            return
        flags = self.doubts.answered(frozenset(name for name in self._asked_of if has_heard(name)))
        self._todo.extendleft(reversed(flags))
        if flags and not self.is_inline:
            self._wake(len(flags))

    def recall(self, unwanted: Callable[[Claimed], bool] = lambda claimed: True) -> list[Claimed]:
        """Return what was given, has not started and is unwanted."""
        flags = self.slots.recall()
        with suppress(IndexError):
            while True:
                flags.append(self._todo.pop() if self._todo else self._parked.pop())
        kept = [claimed for claimed in reversed(flags) if not unwanted(claimed)]
        flags = [claimed for claimed in flags if unwanted(claimed)] + self.doubts.recall(unwanted)
        self._todo.extend(kept)
        self.outstanding -= len(flags)
        self.slots.count(flags, -1)
        return flags

    def has_done(self) -> bool:
        """Return whether there are outcomes."""
        return bool(self._done)

    def tokens(self) -> set[int]:
        """Return the claims of the flags it has; one that a thread takes at this instant may be missing."""
        running = list(self.running.values())
        done = [claimed for claimed, *_ in self._done.copy()]
        waiting = (*self._todo.copy(), *self._parked.copy(), *self.slots.waiting(), *self.doubts.waiting())
        return {claimed.token for claimed in (*waiting, *running, *done)}

    def learn(self, kind: str, count: int, spent: float) -> None:
        """Take note of how long flags of a kind took: a moving average, ever slow to forget and at least a microsecond."""
        mean, known = max(spent / count, 1e-6), self._pace.get(kind)
        self._pace[kind] = mean if known is None else known + (mean - known) * 0.3

    def stop(self) -> None:
        """Have whoever waits give back what has not started."""
        self.stopping = True
        self.demand.end()

    def wait(self) -> None:
        """Block until a turn is worth its transaction: all is done, a group is due, or the threads will soon run dry."""
        if self.is_inline:
            return self._perform_some(None, sys.maxsize)
        woke = time.monotonic()
        while True:
            seen = self.demand.posts
            if self._is_ready():
                return None
            quiet = not self.demand.read(seen, self._patience())
            self._unpark()
            if self._has_stuck():
                # Measured, and not left to a quiet moment: beside a busy site there may be none.
                if time.monotonic() - woke >= self.CHUNK:
                    self._wake(min(len(self._todo), self.size - len(self.running)))
                    woke = time.monotonic()
            elif quiet and not self._done:
                return None

    def _has_stuck(self) -> bool:
        """Return whether flags wait behind others although a thread is free for them."""
        return bool(self._todo) and len(self.running) < self.size

    def trouble(self, stuck_after: float | None) -> str | None:
        """Return why no flag of this lane will be done any more, or None.

        :param stuck_after: seconds after which a handler counts as hung; None: however long it takes.
        """
        if not self._closed and any(thread.ident is not None and not thread.is_alive() for thread in self._threads):
            return "a thread died"
        now, starting = time.monotonic(), self._starting
        if starting is not None and now - starting >= self.START:
            return f"a thread has not started within {self.START:g} s"
        since = [claimed.began for claimed in list(self.running.values())]
        if stuck_after is not None and len(since) >= self.size and all(now - began >= stuck_after for began in since):
            return f"all its handlers run for more than {stuck_after:g} s"
        return None

    def close(self, timeout: float = 1.0) -> None:
        """Let the threads end and wait for them, at most ``timeout`` seconds."""
        with self._leaving:
            self._closed = True
            threads = list(self._threads)
        for _ in threads:
            self._work.put(False)
        limit = time.monotonic() + timeout
        for thread in threads:
            if thread.ident is not None:  # Ctrl-C may have come while it was started.
                thread.join(max(0.0, limit - time.monotonic()))

    def _is_ready(self) -> bool:
        done = len(self._done)
        if (
            self.is_urgent()
            or done >= self.outstanding
            or (done and self.doubts.kinds)
            or (done and time.monotonic() - self._first_done >= self.GROUP)
        ):
            return True
        if self.demand.hungry == HUNGRY:
            return len(self._todo) <= self._low_water or self.stopping
        return self.demand.hungry == WHEN_FREE and len(self.running) + len(self._todo) < self.size

    def _patience(self) -> float:
        if self._has_stuck():
            return self.CHUNK
        if self._parked or self.doubts:
            return self.GROUP
        return max(0.0, self.GROUP - (time.monotonic() - self._first_done)) if self._done else 1.0

    # The threads.

    def _wake(self, count: int) -> None:
        idle = len(self._threads) - len(self.running)
        for _ in range(min(count - idle, self.size - len(self._threads))):
            thread = threading.Thread(target=self._run, name=f"flagsweep-{self.name}-{len(self._threads) + 1}", daemon=True)
            self._threads.append(thread)
            self._starting = time.monotonic()
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:  # The system has no more: who waits for this lane tries again.
                self._threads.remove(thread)
                self._tell_of(error)
                break
            finally:
                self._starting = None
        for _ in range(count):
            self._work.put(True)

    def _tell_of(self, error: Exception) -> None:
        if self._lacking.may_tell():
            log.error("lane %s goes on with %d threads for now: %s", self.name, len(self._threads), error)
        if not self._threads:
            time.sleep(0.1)  # Nobody else does this lane's work: no need to ask without a pause.

    def _run(self) -> None:
        box = self._member.box
        slot = box.slot() if box else None
        stack = crash_stack() if box else None
        while self._work.get():
            self._perform_in_turns(slot) if self._performer.turns else self._perform_all(slot)
            self._performer.store.connections.close_thread()
            if self._todo:
                self._work.put(True)  # One too many leaves that to others, which may wait for work.
            if self._leaves(slot):
                return
        if box and slot:
            box.free(slot)
        del stack

    def _is_surplus(self) -> bool:
        return len(self._threads) > self.size

    def _leaves(self, slot: int | None) -> bool:
        """Return whether the calling thread is one too many, and give up its place and its slot."""
        with self._leaving:
            if self._closed or not self._is_surplus():
                return False
            if (box := self._member.box) and slot:
                box.free(slot)  # Before another thread may begin in its place.
            self._threads.remove(threading.current_thread())
            return True

    def _perform_in_turns(self, slot: int | None) -> None:
        """Perform one flag after the other, and give the site's connection back in between: other threads have none."""
        while self._todo and not self._is_surplus():
            with self._performer.turns, self._performer.store.connections.spare.performing():  # type: ignore[union-attr]
                self._perform_some(slot, 1)

    def _perform_all(self, slot: int | None) -> None:
        with self._performer.store.connections.spare.performing():
            self._perform_some(slot, sys.maxsize)

    def _perform_some(self, slot: int | None, most: int) -> None:
        me, todo, running, runs, done = threading.get_ident(), self._todo, self.running, self._runs, self._done
        doubts, limited_kinds, threads = self.doubts, self.slots.names, self._threads
        began = time.monotonic()
        for _ in range(most):
            try:
                if len(threads) > self.size:  # As ``_is_surplus`` says, without a call for each flag.
                    break
                claimed = todo.popleft()
            except IndexError:
                break
            if doubts.kinds and doubts.holds(claimed):
                continue
            if runs.setdefault(claimed.id, me) != me:  # Claimed anew, under whatever id: it starts not beside itself.
                self._parked.append(claimed)
                continue
            if claimed.suspect and not self._performer.alone.acquire(blocking=False):
                del runs[claimed.id]
                self._parked.append(claimed)
                continue
            limited = limited_kinds and claimed.kind in limited_kinds
            if limited and not self.slots.begin(claimed):
                del runs[claimed.id]
                if claimed.suspect:
                    self._performer.alone.release()
                continue
            claimed.began = began
            running[me] = claimed
            outcome = self._one(claimed, slot) if not claimed.suspect else self._alone(claimed, slot)
            del runs[claimed.id]
            if limited and (next_one := self.slots.end(claimed)) is not None:
                todo.appendleft(next_one)
            ended = time.monotonic()
            if not done:
                self._first_done = ended
            done.append((claimed, outcome, ended - began))
            began = ended
            if outcome is not DONE or doubts.failing:
                doubts.note(claimed, outcome)
            low = len(todo) <= self._low_water
            if len(done) == 1 or (low and not self._asked) or doubts.kinds:
                self._asked = low
                self.demand.post()
        running.pop(me, None)
        self.demand.post()

    def _alone(self, claimed: Claimed, slot: int | None) -> Outcome:
        """Perform a flag that was running when a process died: no other suspect beside it, so that the next death tells more."""
        try:
            return self._one(claimed, slot)
        finally:
            self._performer.alone.release()

    def _unpark(self) -> None:
        """Let the next parked flag try that may start now: it waits here and not in a thread, where it would hold up others."""
        with suppress(IndexError):
            for _ in range(len(self._parked)):
                claimed = self._parked.popleft()
                if claimed.id in self._runs or (claimed.suspect and self._performer.alone.locked()):
                    self._parked.append(claimed)
                else:
                    self._todo.appendleft(claimed)
                    return self._wake(1)

    def _one(self, claimed: Claimed, slot: int | None) -> Outcome:
        if claimed.consumer != self._member.id:  # Its claim was given back just as this thread took it.
            return NOT_STARTED
        if claimed.taken_at is not None and self._performer.clock.now() - claimed.taken_at > self.LATE * SECOND:
            return NOT_STARTED
        box = self._member.box
        if slot is None or box is None:
            return self._performer.perform(claimed)
        box.cells[slot + 1] = claimed.token
        box.cells[slot] = claimed.id
        outcome = self._performer.perform(claimed)
        box.cells[slot] = 0
        return outcome

"""The threads of a lane: they take claimed flags one by one, perform them, and keep the outcomes for the sweep."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from .blackbox import crash_stack
from .claims import KIND, Claimed
from .demand import HUNGRY, SATED
from .in_hand import InHand, LaneThread, Places, Starting
from .member import Member
from .outcomes import DONE, NOT_STARTED, Outcome
from .perform import Performer

if TYPE_CHECKING:
    from .loop import EventLoop

log = logging.getLogger("flagsweep")


class Pool(InHand, Places):
    """The threads of one lane: they take claimed flags one by one and keep the outcomes for the sweep.

    Flags of async handlers it hands on to the lane's event loop, which has places of its own.

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

    def __init__(self, name: str, threads: int, performer: Performer, member: Member):
        # Python reads attributes of an object that has 30 or more of them by a longer way: a cost for each flag.
        InHand.__init__(self, performer, member)
        Places.__init__(self, max(1, threads))
        self.name = name
        self.is_inline = threads == 0
        """Whether there are none, and whoever waits performs."""
        self.loop: EventLoop | None = None
        """Where async handlers run, in a lane that has any."""
        self._sorts = [self]
        self._work: SimpleQueue[bool] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._leaving = threading.Lock()
        self._pace: dict[str, float] = {}
        self._starting = Starting()
        self._closed = False
        self.by_turns: frozenset[str] = frozenset()
        """Kinds whose buckets take turns."""
        self.is_urgent: Callable[[], bool] = lambda: False
        """Whether something that was given must be given back, so that the next turn is not to wait."""

    def have_loop(self, tasks: int, kinds: frozenset[str], alone: bool) -> None:
        """Run flags of async handlers in an event loop.

        :param tasks: how many may run at the same time.
        :param kinds: those whose handlers are async.
        :param alone: whether the lane has no others.
        """
        from .loop import EventLoop  # With all of asyncio: 4 MiB that only a lane with such handlers takes.

        self.loop = EventLoop(self.name, tasks, kinds, self, self._performer, self._member)
        self._sorts = [self.loop] if alone and not self.is_inline else [self, self.loop]

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

    def places_of(self, kind: str) -> Places:
        """Return where flags of a kind run: in the lane's threads, or in its event loop."""
        return self.loop if self.loop is not None and kind in self.loop.kinds and not self.is_inline else self

    def free_places(self, kind: str) -> int:
        """Return how many threads, or tasks, have nothing to do, and nothing that they would take next."""
        places = self.places_of(kind)
        return places.size - len(places.running) - len(places.todo) - self._doubted(places)

    def room(self, kind: str) -> int:
        """Return how many flags of a kind would be started within ``AHEAD``; its pace unknown: how many places are free."""
        places = self.places_of(kind)
        free = places.size - len(places.running)
        pace = self._pace.get(kind)
        ahead = self.TURN if kind in self.by_turns else self.AHEAD
        room = int(free if pace is None else max(free, places.size * ahead / pace))
        return room - len(places.todo) - self._doubted(places)

    def _doubted(self, places: Places) -> int:
        """Return how many flags that would take such places wait until their gates have heard of failures."""
        if self.loop is None or not self.doubts:
            return len(self.doubts)
        return sum(1 for claimed in self.doubts.waiting() if self.places_of(claimed.kind) is places)

    def sate(self) -> None:
        """Begin a turn: it looks for itself."""
        for places in self._sorts:
            places.wants = SATED
        self.demand.sate()

    def want(self, kind: str, more: int) -> None:
        """Say how soon the next claim of a kind is worth its transaction, at the latest."""
        places = self.places_of(kind)
        places.wants = max(places.wants, more)
        self.demand.want(more)

    def give(self, flags: list[Claimed]) -> None:
        """Hand over claimed flags."""
        self.outstanding += len(flags)
        self._performer.look_for_spans()
        self.slots.count(flags, 1)
        if self.loop is not None and not self.is_inline:
            flags = self.loop.take_its_own(flags)
        self.line_up(flags)
        if flags and not self.is_inline:
            expected = sum(count * self._pace.get(kind, self.CHUNK) for kind, count in Counter(map(KIND, flags)).items())
            self._wake(min(len(flags), 1 + int(expected / self.CHUNK)))

    def _give_first(self, flags: list[Claimed]) -> None:
        """Have flags start before all others."""
        for claimed in reversed(flags):
            self.places_of(claimed.kind).todo.appendleft(claimed)
        if flags and not self.is_inline:
            self._wake(min(len(flags), len(self.todo)))
            if self.loop is not None:
                self.loop.wake()

    def has_threads(self, kind: str) -> bool:
        """Return whether there is a thread that takes flags of a kind: the system may have had none to spare."""
        return bool(self._threads) if (places := self.places_of(kind)) is self else places.has_thread()  # type: ignore[attr-defined]

    def cut_off(self) -> bool:
        """Cancel async handlers that still run, so that their flags are free again; return whether there were any."""
        return self.loop is not None and self.loop.cut_off()

    def under_way(self) -> list[Claimed]:
        """Return what runs just now."""
        return [claimed for places in (self, self.loop) if places is not None for claimed in list(places.running.values())]

    def let_start(self, has_heard: Callable[[str], bool]) -> None:
        """Let those start that waited until the gates of their kinds have heard of the failures that were collected, and which
        stayed open."""
        self._give_first(self._answered(has_heard))

    def recall(self, unwanted: Callable[[Claimed], bool] = lambda claimed: True) -> list[Claimed]:
        """Return what was given, has not started and is unwanted."""
        flags = self.slots.recall()
        for given in (*(places.todo for places in self._sorts), self._parked):
            with suppress(IndexError):
                while True:
                    flags.append(given.pop())
        kept = [claimed for claimed in reversed(flags) if not unwanted(claimed)]
        flags = [claimed for claimed in flags if unwanted(claimed)] + self.doubts.recall(unwanted)
        for claimed in kept:
            self.places_of(claimed.kind).todo.append(claimed)
        if self.loop is not None and kept:
            self.loop.wake()
        self.outstanding -= len(flags)
        self.slots.count(flags, -1)
        return flags

    def tokens(self) -> set[int]:
        """Return the claims of the flags it has; one that a thread takes at this instant may be missing."""
        running = self.under_way()
        done = [claimed for claimed, *_ in self._done.copy()]
        todo = [claimed for places in self._sorts for claimed in places.todo.copy()]
        waiting = (*todo, *self._parked.copy(), *self.slots.waiting(), *self.doubts.waiting())
        return {claimed.token for claimed in (*waiting, *running, *done)}

    def learn(self, kind: str, count: int, spent: float) -> None:
        """Take note of how long flags of a kind took: a moving average, ever slow to forget and at least a microsecond."""
        mean, known = max(spent / count, 1e-6), self._pace.get(kind)
        self._pace[kind] = mean if known is None else known + (mean - known) * 0.3

    def stop(self) -> None:
        """Have whoever waits give back what has not started."""
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
                    self._wake(min(len(self.todo), self.size - len(self.running)))
                    if self.loop is not None:
                        self.loop.wake()
                    woke = time.monotonic()
            elif quiet and not self._done:
                return None

    def _has_stuck(self) -> bool:
        """Return whether flags wait behind others although a thread is free for them."""
        if self.loop is not None and self.loop.lacks_thread():
            return True
        return bool(self.todo) and len(self.running) < self.size

    def trouble(self, stuck_after: float | None) -> str | None:
        """Return why no flag of this lane will be done any more, or None.

        :param stuck_after: seconds after which a handler counts as hung; None: however long it takes.
        """
        if not self._closed and any(thread.ident is not None and not thread.is_alive() for thread in self._threads):
            return "a thread died"
        if self._starting.takes(self.START):
            return f"a thread has not started within {self.START:g} s"
        now, since = time.monotonic(), [claimed.began for claimed in list(self.running.values())]
        if stuck_after is not None and len(since) >= self.size and all(now - began >= stuck_after for began in since):
            return f"all its handlers run for more than {stuck_after:g} s"
        return None if self.loop is None else self.loop.trouble(stuck_after)

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
        if self.loop is not None:
            self.loop.close(max(0.0, limit - time.monotonic()))

    def _is_ready(self) -> bool:
        done = len(self._done)
        if (
            self.is_urgent()
            or done >= self.outstanding
            or (done and self.doubts.kinds)
            or (done and time.monotonic() - self._first_done >= self.GROUP)
        ):
            return True
        hungry = self.demand.hungry
        if hungry == SATED:
            return False
        if hungry == HUNGRY and self.demand.ended:
            return True
        return any(places.is_ready(self.demand.called) for places in self._sorts)

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
            thread = LaneThread(target=self._run, name=f"flagsweep-{self.name}-{len(self._threads) + 1}", daemon=True)
            self._threads.append(thread)
            self._starting.since = time.monotonic()
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:  # The system has no more: who waits for this lane tries again.
                self._threads.remove(thread)
                self._tell_of(error)
                break
            finally:
                self._starting.since = None
        for _ in range(count):
            self._work.put(True)

    def _tell_of(self, error: Exception) -> None:
        if self._starting.told.may_tell():
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
            if self.todo:
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
        while self.todo and not self._is_surplus():
            with self._performer.turns, self._performer.store.connections.spare.performing():  # type: ignore[union-attr]
                self._perform_some(slot, 1)

    def _perform_all(self, slot: int | None) -> None:
        with self._performer.store.connections.spare.performing():
            self._perform_some(slot, sys.maxsize)

    def _perform_some(self, slot: int | None, most: int) -> None:
        me, todo, running, runs, done = threading.get_ident(), self.todo, self.running, self._runs, self._done
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
            other = runs.setdefault(claimed.id, claimed) is not claimed
            if (other or limited_kinds or claimed.suspect) and not self._is_admitted(claimed):
                continue
            claimed.began = began
            running[me] = claimed
            outcome = self._one(claimed, slot)
            del runs[claimed.id]
            ended = time.monotonic()
            if not done:
                self._first_done = ended
            done.append((claimed, outcome, ended - began))
            began = ended
            if outcome is not DONE or limited_kinds or claimed.suspect or doubts.failing:
                self._look_after(claimed, outcome, self)
            low = len(todo) <= self._low_water
            if len(done) == 1 or (low and not self.has_asked) or doubts.kinds:
                self.has_asked = low
                self.demand.post()
        running.pop(me, None)
        self.demand.post()

    def _unpark(self) -> None:
        """Let the next parked flag try that may start now: it waits here and not in a thread, where it would hold up others."""
        if (claimed := self._next_parked()) is not None:
            self._give_first([claimed])

    def _one(self, claimed: Claimed, slot: int | None) -> Outcome:
        if (claimed.taken_at is not None or claimed.consumer != self._member.id) and self.is_lost(claimed):
            return NOT_STARTED
        box = self._member.box
        if slot is None or box is None:
            if self.loop is not None and claimed.kind in self.loop.kinds:
                return self.loop.perform_alone(claimed)
            return self._performer.perform(claimed)
        box.cells[slot + 1] = claimed.token
        box.cells[slot] = claimed.id
        outcome = self._performer.perform(claimed)
        box.cells[slot] = 0
        return outcome

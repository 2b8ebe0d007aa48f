"""The threads of a lane: they take claimed flags one by one, perform them, and keep the outcomes for the sweep."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from ..consumer.file_lease import BlackBox, crash_stack
from .claims import Claimed
from .perform import Performer, Settled

log = logging.getLogger("flagsweep")

SATED, WHEN_FREE, HUNGRY = range(3)
"""Whether a pool's sweep wants to claim more: no, as soon as a thread is free, or as soon as it runs low."""


class Pool:
    """The threads of one lane: they take claimed flags one by one and keep the outcomes for the sweep.

    :param threads: how many; 0 performs in the thread that waits, for a database that only one thread can see.
    :param box: where each thread writes down what it runs.
    """

    GROUP = 0.05
    """Seconds after its first outcome in which a group is settled at the latest."""
    AHEAD = 0.2
    """Seconds of work that are claimed ahead."""
    CHUNK = 0.005
    """Seconds of work that need no second thread."""

    def __init__(self, name: str, threads: int, performer: Performer, box: BlackBox | None):
        self.name = name
        self.size = max(1, threads)
        self.outstanding = 0
        self.hungry = SATED
        self.stopping = False
        self.running: dict[int, tuple[Claimed, float]] = {}
        self._inline = threads == 0
        self._performer = performer
        self._box = box
        self._todo: deque[Claimed] = deque()
        self._parked: deque[Claimed] = deque()
        self._done: deque[tuple[Claimed, Any, float]] = deque()
        self._era = 0
        """Grows with each new id of the consumer: what was claimed under one before is not ours any more."""
        self._calm = 0
        """The era in which no thread runs anything of an earlier one."""
        self._first_done = 0.0
        self._low_water = 0
        self._asked = False
        self._work: SimpleQueue[bool] = SimpleQueue()
        self._mail = threading.Event()
        self._threads: list[threading.Thread] = []
        self._pace: dict[str, float] = {}
        self._silent_until = 0.0
        self._closed = False

    # For the sweep.

    def room(self, kind: str) -> int:
        """Return how many flags of a kind would be started within ``AHEAD``; its pace unknown: how many threads are free."""
        free = self.size - len(self.running)
        pace = self._pace.get(kind)
        return int(free if pace is None else max(free, self.size * self.AHEAD / pace)) - len(self._todo)

    def give(self, flags: list[Claimed]) -> None:
        """Hand over claimed flags."""
        self.outstanding += len(flags)
        for flag in flags if self._era else ():
            flag.era = self._era
        self._todo.extend(flags)
        self._low_water = len(self._todo) // 2
        if flags and not self._inline:
            expected = sum(self._pace.get(f.kind, self.CHUNK) for f in flags)
            self._wake(min(len(flags), 1 + int(expected / self.CHUNK)))

    def collect(self) -> list[tuple[Claimed, Any, float]]:
        """Return the outcomes so far, with the seconds that each took."""
        done = []
        with suppress(IndexError):
            while True:
                done.append(self._done.popleft())
        self._asked = False
        self.outstanding -= len(done)
        return done

    def put_back(self, done: list[tuple[Claimed, Any, float]]) -> None:
        """Keep outcomes that could not be settled now."""
        self._done.extendleft(reversed(done))
        self.outstanding += len(done)

    def recall(self) -> list[Claimed]:
        """Return what was given and not started."""
        flags = []
        with suppress(IndexError):
            while True:
                flags.append(self._todo.pop() if self._todo else self._parked.pop())
        self.outstanding -= len(flags)
        return flags

    def abandon(self) -> list[Claimed]:
        """Return what was not started, and start nothing that a thread still runs under a claim that is not ours any more."""
        self._era += 1  # First: what a thread takes at this instant is in no list.
        return self.recall()

    def tokens(self) -> set[int]:
        """Return the claims of the flags it has; one that a thread takes at this instant may be missing."""
        running = [claimed for claimed, _ in list(self.running.values())]
        done = [claimed for claimed, *_ in self._done.copy()]
        return {claimed.token for claimed in (*self._todo.copy(), *self._parked.copy(), *running, *done)}

    def learn(self, kind: str, count: int, spent: float) -> None:
        """Take note of how long flags of a kind took: a moving average, ever slow to forget and at least a microsecond."""
        mean, known = max(spent / count, 1e-6), self._pace.get(kind)
        self._pace[kind] = mean if known is None else known + (mean - known) * 0.3

    def nudge(self) -> None:
        """Say that there may be more to claim."""
        self.hungry = HUNGRY
        self._mail.set()

    def wait(self) -> None:
        """Block until a turn is worth its transaction: all is done, a group is due, or the threads will soon run dry."""
        if self._inline:
            return self._perform_some(None, sys.maxsize)
        woke = time.monotonic()
        while not self._is_ready():
            quiet = not self._read_mail(self._patience())
            self._unpark()
            if self._has_stuck():
                # Measured, and not left to a quiet moment: beside a busy site there may be none.
                if time.monotonic() - woke >= self.CHUNK:
                    self._wake(min(len(self._todo), self.size - len(self.running)))
                    woke = time.monotonic()
            elif quiet and not self._done:
                return

    def _read_mail(self, timeout: float) -> bool:
        """Wait for mail and drop it; return whether there was any.

        An event, not a ``SimpleQueue``: there a reader whose mail another took at the end of its time waits for ever.
        """
        came = self._mail.wait(timeout)
        self._mail.clear()
        return came

    def _has_stuck(self) -> bool:
        """Return whether flags wait behind others although a thread is free for them."""
        return bool(self._todo) and len(self.running) < self.size

    def trouble(self, stuck_after: float | None) -> str | None:
        """Return why no flag of this lane will be done any more, or None.

        :param stuck_after: seconds after which a handler counts as hung; None: however long it takes.
        """
        if not self._closed and any(thread.ident is not None and not thread.is_alive() for thread in self._threads):
            return "a thread died"
        now, since = time.monotonic(), [began for _, began in list(self.running.values())]
        if stuck_after is not None and len(since) >= self.size and all(now - began >= stuck_after for began in since):
            return f"all its handlers run for more than {stuck_after:g} s"
        return None

    def close(self, timeout: float = 1.0) -> None:
        """Let the threads end and wait for them, at most ``timeout`` seconds."""
        self._closed = True
        for _ in self._threads:
            self._work.put(False)
        limit = time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:  # Ctrl-C may have come while it was started.
                thread.join(max(0.0, limit - time.monotonic()))

    def _is_ready(self) -> bool:
        done = len(self._done)
        if done >= self.outstanding or (done and time.monotonic() - self._first_done >= self.GROUP):
            return True
        if self.hungry == HUNGRY:
            return len(self._todo) <= self._low_water or self.stopping
        return self.hungry == WHEN_FREE and len(self.running) + len(self._todo) < self.size

    def _patience(self) -> float:
        if self._has_stuck():
            return self.CHUNK
        if self._parked:
            return self.GROUP
        return max(0.0, self.GROUP - (time.monotonic() - self._first_done)) if self._done else 1.0

    # The threads.

    def _wake(self, count: int) -> None:
        idle = len(self._threads) - len(self.running)
        for _ in range(min(count - idle, self.size - len(self._threads))):
            thread = threading.Thread(target=self._run, name=f"flagsweep-{self.name}-{len(self._threads) + 1}", daemon=True)
            self._threads.append(thread)
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:  # The system has no more: who waits for this lane tries again.
                self._threads.remove(thread)
                self._told_of(error)
                break
        for _ in range(count):
            self._work.put(True)

    def _told_of(self, error: Exception) -> None:
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + 60
            log.error("lane %s goes on with %d threads for now: %s", self.name, len(self._threads), error)
        if not self._threads:
            time.sleep(0.1)  # Nobody else does this lane's work: no need to ask without a pause.

    def _run(self) -> None:
        slot = self._box.slot() if self._box else None
        stack = crash_stack() if self._box else None
        while self._work.get():
            self._perform_in_turns(slot) if self._performer.turns else self._perform_all(slot)
            self._performer.store.close_thread()
        if self._box and slot:
            self._box.free(slot)
        del stack

    def _perform_in_turns(self, slot: int | None) -> None:
        """Perform one flag after the other, and give the site's connection back in between: other threads have none."""
        while self._todo:
            with self._performer.turns, self._performer.store.spare.performing():  # type: ignore[union-attr]
                self._perform_some(slot, 1)

    def _perform_all(self, slot: int | None) -> None:
        with self._performer.store.spare.performing():
            self._perform_some(slot, sys.maxsize)

    def _perform_some(self, slot: int | None, most: int) -> None:
        me, todo, running, done = threading.get_ident(), self._todo, self.running, self._done
        began = time.monotonic()
        for _ in range(most):
            try:
                claimed = todo.popleft()
            except IndexError:
                break
            if self._calm != self._era and self._is_a_ghosts(claimed.id):
                self._parked.append(claimed)
                continue
            if claimed.suspect and not self._performer.alone.acquire(blocking=False):
                self._parked.append(claimed)
                continue
            running[me] = (claimed, began)
            outcome = self._one(claimed, slot) if not claimed.suspect else self._alone(claimed, slot)
            ended = time.monotonic()
            if not done:
                self._first_done = ended
            done.append((claimed, outcome, ended - began))
            began = ended
            low = len(todo) <= self._low_water
            if len(done) == 1 or (low and not self._asked):
                self._asked = low
                self._mail.set()
        running.pop(me, None)
        self._mail.set()

    def _is_a_ghosts(self, flag: int) -> bool:
        """Return whether a thread still runs this flag under a claim that is not ours any more."""
        era = self._era
        ghosts = [claimed for claimed, _ in list(self.running.values()) if claimed.era != era]
        if not ghosts:
            self._calm = era
        return any(ghost.id == flag for ghost in ghosts)

    def _alone(self, claimed: Claimed, slot: int | None) -> Any:
        """Perform a flag that was running when a process died: no other suspect beside it, so that the next death tells more."""
        try:
            return self._one(claimed, slot)
        finally:
            self._performer.alone.release()

    def _unpark(self) -> None:
        """Let the next suspect try, once none runs: it waits here and not in a thread, where it would hold up the innocent."""
        with suppress(IndexError):
            if not self._performer.alone.locked():
                self._todo.appendleft(self._parked.popleft())
                self._wake(1)

    def _one(self, claimed: Claimed, slot: int | None) -> Any:
        if claimed.era != self._era:  # Its claim was given back just as this thread took it.
            return Settled("lost")
        if slot is None:
            return self._performer.perform(claimed)
        cells = self._box.cells  # type: ignore[union-attr]
        cells[slot + 1] = claimed.token
        cells[slot] = claimed.id
        outcome = self._performer.perform(claimed)
        self._box.cells[slot] = 0  # type: ignore[union-attr]  # It may have got another file meanwhile.
        return outcome

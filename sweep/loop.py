"""The event loop of a lane: async handlers run as tasks in one thread, beside those that run in the lane's threads."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, suppress
from contextvars import Context
from typing import Any

from ..errors import FlagSweepError
from ..logs import Seldom, describe, headline
from .blackbox import crash_stack
from .claims import Claimed
from .in_hand import InHand, LaneThread, Places, Starting
from .member import Member
from .outcomes import NOT_STARTED, Outcome
from .perform import Performer
from .steps import Run, SharedConnection, Steps

log = logging.getLogger("flagsweep")


class EventLoop(Places):
    """Run flags of async handlers as tasks of one thread, which begins with the first of them.

    :param tasks: how many flags may run at the same time.
    :param kinds: those whose handlers are async.
    :param in_hand: where flags may wait, and where their outcomes go.
    :param member: the consumer; in its box stands what runs, and who of those has the thread.
    """

    BLOCKING = 0.5
    """Seconds after which a handler that does not await is named: nothing else of the loop goes on meanwhile."""
    START = 10.0
    """Seconds after which its thread will not start any more."""
    LAST = 0.5
    """Seconds that what handlers have left behind gets to end, once it is cancelled."""

    def __init__(self, name: str, tasks: int, kinds: frozenset[str], in_hand: InHand, performer: Performer, member: Member):
        super().__init__(tasks)
        self.name = name
        self.kinds = kinds
        self._in_hand = in_hand
        self._performer = performer
        self._member = member
        self._connections = performer.store.connections
        self._connection = SharedConnection(self._connections)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = Starting()
        self._closing = False
        self._runs: set[Run] = set()
        self._slots: list[int] = []
        """Places in the black box that no flag of this loop has just now."""
        self._is_filling = False
        self._performing: AbstractContextManager[None] | None = None
        self._stepping: Run | None = None
        """Whose flag has the thread just now."""
        self._since = 0.0
        self._told: dict[str, Seldom] = defaultdict(Seldom)
        """By kind: tells that its handler blocks."""

    # For whoever sweeps.

    def take_its_own(self, flags: list[Claimed]) -> list[Claimed]:
        """Take those of the flags that run here, and return the others."""
        own = [claimed for claimed in flags if claimed.kind in self.kinds]
        if not own:
            return flags
        self.line_up(own)
        self.wake()
        return [claimed for claimed in flags if claimed.kind not in self.kinds]

    def wake(self) -> None:
        """Have what was given begin, as far as there are tasks for it."""
        if self.todo and (self._thread is not None or self._start()):
            with suppress(RuntimeError):  # Closed just now.
                self._loop.call_soon_threadsafe(self._fill)  # type: ignore[union-attr]

    def has_thread(self) -> bool:
        """Return whether its thread is there."""
        return self._thread is not None

    def lacks_thread(self) -> bool:
        """Return whether flags wait for its thread, for which the system had none to spare."""
        return bool(self.todo) and self._thread is None

    def cut_off(self) -> bool:
        """Cancel what runs, which is to be free again; return whether there was anything."""
        if self._loop is None or not self.running:
            return False
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)
        return True

    def close(self, timeout: float) -> None:
        """Let its thread end, and wait for it, at most so many seconds."""
        self._closing = True
        loop, thread = self._loop, self._thread
        if thread is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)  # type: ignore[union-attr]
            thread.join(timeout)
        elif loop is not None:
            self._wind_up(loop)

    # For the guard.

    def trouble(self, stuck_after: float | None) -> str | None:
        """Return why no flag will be done here any more, or None; who blocks the loop is to blame, and no other flag in it.

        :param stuck_after: seconds after which a handler counts as hung; None: however long it takes.
        """
        thread, now = self._thread, time.monotonic()
        if thread is not None and not self._closing and not thread.is_alive():
            return "the thread of its event loop died"
        if self._starting.takes(self.START):
            return f"the thread of its event loop has not started within {self.START:g} s"
        if stuck_after is None:
            return None
        run, since = self._stepping, self._since
        if run is not None and now - since >= stuck_after and run is self._stepping:
            self._acquit_all_but(run)
            return f"{run.claimed.kind} (flag {run.claimed.id}) blocks its event loop for more than {stuck_after:g} s"
        began = [claimed.began for claimed in list(self.running.values())]
        if len(began) >= self.size and all(now - each >= stuck_after for each in began):
            return f"all its tasks run for more than {stuck_after:g} s"
        return None

    def tell_of_blocking(self) -> None:
        """Name the handler that blocks the loop just now, if any does."""
        run, since, now = self._stepping, self._since, time.monotonic()
        if run is not None and now - since >= self.BLOCKING and run is self._stepping:
            self._tell(run.claimed, now - since)

    def _tell(self, claimed: Claimed, seconds: float) -> None:
        if self._told[claimed.kind].may_tell():
            text = "%s (flag %d) blocks the event loop of lane %s, for %.1f s so far: %s"
            log.warning(text, claimed.kind, claimed.id, self.name, seconds, "await, or hand it to asyncio.to_thread()")

    def _acquit_all_but(self, guilty: Run) -> None:
        if (box := self._member.box) is not None:
            for run in list(self._runs):
                if run is not guilty and run.slot:
                    box.cells[run.slot] = 0

    # The thread.

    def _start(self) -> bool:
        loop = None
        self._starting.since = time.monotonic()
        try:
            loop = asyncio.new_event_loop()
            thread = LaneThread(target=self._run, args=(loop,), name=f"flagsweep-{self.name}-loop", daemon=True)
            self._loop = loop
            thread.start()
            self._thread = thread
        except (RuntimeError, MemoryError, OSError) as error:  # The system has no more: who waits for this lane tries again.
            self._loop = None
            if loop is not None:
                loop.close()
            if self._starting.told.may_tell():
                log.error("lane %s has no event loop for now: %s", self.name, error)
            time.sleep(0.1)
            return False
        finally:
            self._starting.since = None
        return True

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        box = self._member.box
        stack = crash_stack() if box else None
        loop.set_task_factory(self._task_of_a_handler)
        told = Seldom()
        while not self._closing:
            try:
                loop.run_forever()
            except BaseException as error:  # SystemExit in a task that a handler has made: asyncio lets it end the loop.
                if told.may_tell():
                    what = headline(describe(error))
                    log.error("a task in the event loop of lane %s ends nothing but itself: %s", self.name, what)
        self._wind_up(loop)
        if box is not None:
            for slot in self._slots:
                box.free(slot)
        del stack

    def _wind_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what handlers have left behind, and close the loop."""
        try:
            if left := asyncio.all_tasks(loop):
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(left, timeout=self.LAST))
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:
            log.debug("the event loop of lane %s: %s", self.name, headline(describe(error)))
        finally:
            self._rest()
            loop.close()

    def _fill(self) -> None:
        """Begin what may begin."""
        self._is_filling = False
        while len(self.running) < self.size:
            try:
                claimed = self.todo.popleft()
            except IndexError:
                break
            if self._in_hand.may_start(claimed):
                self._begin(claimed)
        if not self.running:
            self._in_hand.demand.post()
            self._rest()

    def _begin(self, claimed: Claimed) -> None:
        assert self._loop is not None
        if self._performing is None:
            self._performing = self._connections.spare.performing()
            self._performing.__enter__()
        box = self._member.box
        run = Run(claimed, 0 if box is None else self._slots.pop() if self._slots else box.slot())
        if box is not None:
            box.cells[run.slot + 2] = 0
        claimed.began = time.monotonic()
        self.running[claimed.id] = claimed
        self._runs.add(run)
        self._give_task(run, self._loop, self._start_one(run), self._end)

    def _give_task(
        self,
        run: Run,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, None],
        on_end: Callable[[Run], None] | None = None,
    ) -> None:
        """Have a flag performed in a task, whose context is as empty as that of a new thread."""
        steps = Steps(coroutine, run, self, self._connection, on_end)
        name = f"{run.claimed.kind}-{run.claimed.id}"
        run.task = asyncio.Task(steps, loop=loop, name=name, context=Context())

    def _task_of_a_handler(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task:
        """Make a task: what a handler makes is a part of its run."""
        if self._stepping is not None and asyncio.iscoroutine(coroutine):
            coroutine = Steps(coroutine, self._stepping, self, self._connection)
        return asyncio.Task(coroutine, loop=loop, **options)

    async def _start_one(self, run: Run) -> None:
        claimed, box = run.claimed, self._member.box
        claimed.began = time.monotonic()
        if self._in_hand.must_wait(claimed, self):
            run.is_kept_waiting = True
            return
        if self._in_hand.is_lost(claimed):
            return
        if box is not None and run.slot:
            box.cells[run.slot + 1], box.cells[run.slot] = claimed.token, claimed.id
        await self._perform(run)

    async def _perform(self, run: Run) -> None:
        run.outcome = await self._performer.perform_async(run.claimed, run)

    def _end(self, run: Run) -> None:
        box, claimed, slot = self._member.box, run.claimed, run.slot
        if box is not None and slot:
            box.cells[slot] = 0
            self._slots.append(slot)
            run.slot = 0  # What it has left behind is no part of the next one's run.
        self._runs.discard(run)
        del self.running[claimed.id]
        if not run.is_kept_waiting:
            self._in_hand.ended(claimed, run.outcome or NOT_STARTED, claimed.began, self)
        if not self._is_filling and self._loop is not None:
            self._is_filling = True
            self._loop.call_soon(self._fill)

    def _cancel(self) -> None:
        for run in list(self._runs):
            run.is_cut_off = True
            run.task.cancel()

    def _rest(self) -> None:
        """Give up the thread's connections, as long as nothing runs."""
        performing, self._performing = self._performing, None
        if performing is not None:
            performing.__exit__(None, None, None)
            self._connections.close_thread()

    # Each step of what runs.

    def begin(self, run: Run) -> Run | None:
        """Take note of whose step begins; return whose it interrupts."""
        before, self._since, self._stepping = self._stepping, time.monotonic(), run
        if run.slot and (box := self._member.box) is not None:
            box.cells[run.slot + 2] = threading.get_ident()  # A crash is its own, and no other's that only waits.
        return before

    def end(self, before: Run | None) -> None:
        """Take note that it has ended."""
        run, spent = self._stepping, time.monotonic() - self._since
        self._stepping = before
        if run is not None:
            if run.slot and (box := self._member.box) is not None:
                box.cells[run.slot + 2] = 0
            if spent >= self.BLOCKING:
                self._tell(run.claimed, spent)

    # Without a thread of its own.

    def perform_alone(self, claimed: Claimed) -> Outcome:
        """Perform one flag in the calling thread, for a database that only this one can see."""
        handler = self._performer.handlers[claimed.kind]
        run = Run(claimed)
        try:
            loop = self._loop_here()
            self._give_task(run, loop, self._perform(run))
            loop.run_until_complete(run.task)
        except BaseException as error:  # Ctrl-C, or what a task of the handler's own made of it.
            if run.outcome is None:
                if run.task is not None:
                    run.task.cancel()
                    with suppress(BaseException):
                        loop.run_until_complete(asyncio.wait([run.task], timeout=self.LAST))
                return self._performer.failed(handler, error)
        assert run.outcome is not None
        return run.outcome

    def _loop_here(self) -> asyncio.AbstractEventLoop:
        if asyncio._get_running_loop() is not None:
            raise FlagSweepError(
                "sweep() of a database in memory cannot run an async handler where an event loop runs already: "
                "call it outside of one, or use a file"
            )
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.set_task_factory(self._task_of_a_handler)
        return self._loop

"""Huey, which drives the sweeps: the periodic task of each lane, its lock, its retries, and the queue in memory.

Huey carries ``sweep(lane)`` and nothing more. Its lock keeps two sweeps of a lane apart as a politeness; the claim is what makes
two of them harmless.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any

from huey import Huey
from huey.api import Task, TaskLock
from huey.exceptions import RetryTask, TaskLockedException
from huey.serializer import Serializer
from huey.storage import MemoryStorage

from .errors import ConfigError
from .logs import Outage
from .models import AWAY
from .sweep.lane import Lane
from .sweep.member import Member

if TYPE_CHECKING:
    from .queues.client import SharedQueue

log = logging.getLogger("flagsweep")


class WakingStorage(MemoryStorage):
    """Huey's memory storage, made to wake a worker at once: one process, no file, no stale lock."""

    blocking = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._filled = threading.Condition(self._lock)
        self._closed = False

    def enqueue(self, data: bytes, priority: float | None = None) -> None:
        with self._filled:
            super().enqueue(data, priority)
            self._filled.notify()

    def dequeue(self) -> bytes | None:
        with self._filled:
            if not self._queue and not self._closed:
                self._filled.wait(timeout=30)
            return super().dequeue()

    def reopen(self) -> None:
        """Take back a close."""
        self._closed = False

    def close(self) -> None:
        """Wake every worker, so that it sees the consumer's stop flag."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()


class JsonSerializer(Serializer):
    """Write JSON where Huey would pickle: nothing that comes out of a store is ever executed."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()

    def _deserialize(self, data: bytes) -> Any:
        return json.loads(data)


class SweepHuey(Huey):
    """A Huey whose messages say ``sweep(lane)`` and nothing else."""

    def serialize_task(self, task: Task) -> bytes:
        if task.args or task.kwargs or task.on_complete or task.on_error:
            raise ConfigError(f"this Huey carries sweeps only, not {task.name}: give the site's own tasks a Huey of their own")
        times = {"eta": task.eta, "expires": task.expires_resolved}
        message = {name: value.isoformat() if value else None for name, value in times.items()}
        return self.serializer.serialize(
            {"sweep": task.name, "id": task.id, "retries": task.retries, "delay": task.retry_delay, **message}
        )

    def deserialize_task(self, data: bytes) -> Task:
        message = self.serializer.deserialize(data)
        times = {name: datetime.fromisoformat(message[name]) if message[name] else None for name in ("eta", "expires")}
        known = {task.__name__: task for task in self._registry._registry.values()}
        return known[message["sweep"]](
            id=message["id"],
            retries=message["retries"],
            retry_delay=message["delay"],
            eta=times["eta"],
            expires_resolved=times["expires"],
        )


class SweepLock(TaskLock):
    """Huey's lock with its owner's name in it, so that only the owner, or whoever rescues the owner, takes it away."""

    def __init__(self, huey: Huey, name: str, owner: int):
        super().__init__(huey, name)
        self._owner = owner

    def acquire(self) -> bool:
        if not self._huey.put_if_empty(self._key, self._owner):
            raise TaskLockedException(f"sweep of {self._name} is held")
        return True

    def __exit__(self, *error: Any) -> None:
        if self._huey.get(self._key, peek=True) == self._owner:
            self._huey.delete(self._key)


def make_huey() -> Huey:
    """Return the Huey of one FlagSweep: in memory, without results."""
    return SweepHuey("flagsweep", storage_class=WakingStorage, serializer=JsonSerializer(), results=False)


def every_minute(_: datetime) -> bool:
    """Say yes: a schedule that could raise would stop Huey's scheduler for every lane."""
    return True


class SweepTasks:
    """Make each lane's sweep a periodic task of Huey's, due every minute, which may also be asked for.

    :param member: the consumer, whose id is in the locks.
    :param queue: what the consumers of several hosts share, if they do: a lane's locks, too.
    :param sweepers: how many of them may sweep a lane at the same time.
    """

    RETRIES = 5
    EXPIRES = 55
    """Seconds after which a queued sweep is not worth running: the next minute brings another."""

    def __init__(
        self,
        huey: Huey,
        lanes: Mapping[str, Lane],
        member: Member,
        queue: SharedQueue | None = None,
        sweepers: int = 1,
    ):
        self.huey = huey
        self.lanes = lanes
        self.member = member
        self.queue = queue
        self.sweepers = sweepers
        self.outage = Outage("the database", "nothing is lost, sweeps are tried again", logging.ERROR)
        self._tasks: dict[str, Any] = {}
        try:
            for name, lane in lanes.items():
                self._tasks[name] = self._register(lane)
        except BaseException:  # Huey knows a task of this name already.
            self.unregister()
            raise

    def ask(self, name: str) -> None:
        """Ask for a sweep of a lane, unless one is asked for already; call the one that runs, or lingers."""
        lane = self.lanes[name]
        if not lane.stopping and lane.demand.ask():
            self.huey.enqueue(self._tasks[name].task_class())

    def unregister(self) -> None:
        """Take the tasks out of Huey's registry, so that the next run starts afresh."""
        for task in self._tasks.values():
            task.unregister()

    def _register(self, lane: Lane) -> Any:
        wrap = self.huey.periodic_task(
            every_minute, name=lane.name, retries=self.RETRIES, retry_delay=2, retry_backoff=2, expires=self.EXPIRES
        )
        return wrap(lambda: self._sweep(lane))

    def _sweep(self, lane: Lane) -> None:
        """Sweep under the lane's lock until the consumer stops: between two sweeps this one lingers, so that the next need not
        go through Huey. The minute's task finds the lock held, and calls it."""
        try:
            with SweepLock(self.huey, f"sweep:{lane.name}", self.member.id):
                self._attend(lane)
        except TaskLockedException:
            lane.demand.call()

    def _attend(self, lane: Lane) -> None:
        lane.demand.arrive()
        try:
            while True:
                with self._lock_elsewhere(lane):
                    lane.sweep()
                self.outage.is_back()
                if not lane.linger(holds_lock=self.queue is None):  # What other hosts wait for is given back meanwhile.
                    return
        except AWAY as error:
            now = time.monotonic()
            if lane.demand.may_retry(now):
                wait = self.outage.tell(error)
                lane.demand.retries_at(now + wait)
                raise RetryTask(delay=wait) from None
        finally:
            lane.demand.leave()

    def _lock_elsewhere(self, lane: Lane) -> AbstractContextManager[None]:
        if self.queue is None or not self.member.may_claim(lane.name):
            return nullcontext()
        return self.queue.lock(lane.group, self.member.id, self.sweepers)

    def listen(self) -> None:
        """Sweep when other processes ask for it through the shared queue, if there is one."""
        if self.queue:
            self.queue.listen(list(self.lanes), self.ask, self.member.may_claim)

    def forget(self, consumer: int) -> None:
        """Free what a dead consumer had locked in the shared queue, if there is one."""
        if self.queue:
            self.queue.forget(consumer, [lane.group for lane in self.lanes.values()], self.sweepers)

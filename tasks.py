"""Huey, which drives the sweeps: the periodic task of each lane, its lock, its retries, and the queue in memory.

Huey carries ``sweep(lane)`` and nothing more. Its lock keeps two sweeps of a lane apart as a politeness; the claim is what makes
two of them harmless.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any

from huey import Huey
from huey.api import Task, TaskLock
from huey.exceptions import RetryTask, TaskLockedException
from huey.serializer import Serializer
from huey.storage import MemoryStorage

from .errors import ConfigError
from .models import AWAY
from .sweep.lane import Lane
from .sweep.threads import SATED

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

    :param owner: the consumer's id, for the lock.
    :param queue: what the consumers of several hosts share, if they do: a lane's locks, too.
    :param sweepers: how many of them may sweep a lane at the same time.
    :param may_claim: says of a lane whether this consumer claims its flags just now; where not, it takes no other's lock.
    """

    RETRIES = 5
    EXPIRES = 55
    """Seconds after which a queued sweep is not worth running: the next minute brings another."""

    def __init__(
        self,
        huey: Huey,
        lanes: Mapping[str, Lane],
        owner: int,
        queue: SharedQueue | None = None,
        sweepers: int = 1,
        may_claim: Callable[[str], bool] = lambda lane: True,
    ):
        self.huey = huey
        self.lanes = lanes
        self.owner = owner
        self.queue = queue
        self.sweepers = sweepers
        self.may_claim = may_claim
        self.away = Away()
        self._tasks: dict[str, Any] = {}
        try:
            for name, lane in lanes.items():
                self._tasks[name] = self._register(lane)
        except BaseException:  # Huey knows a task of this name already.
            self.unregister()
            raise

    def ask(self, name: str) -> None:
        """Ask for a sweep of a lane, unless one is asked for already; wake the one that runs."""
        lane = self.lanes[name]
        lane.pool.nudge()
        if not (lane.busy or lane.asked or lane.stopping):
            lane.asked = True
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
        lane.asked = False
        try:
            with SweepLock(self.huey, f"sweep:{lane.name}", self.owner), self._lock_elsewhere(lane):
                swept = lane.sweep()
            self.away.is_back()
            # What is due and was not claimed is held by a transaction of somebody else: the watcher asks again in a second.
            if lane.pool.hungry != SATED or (any(swept.values()) and lane.has_due()):
                self.ask(lane.name)
        except TaskLockedException:
            lane.pool.nudge()
        except AWAY as error:
            # One retry a lane: Huey resolves expires= anew at every enqueue, so the ticks of an outage would pile up.
            now = time.monotonic()
            if now >= lane.retry_at:
                wait = self.away.wait(error)
                lane.retry_at = now + wait
                raise RetryTask(delay=wait) from None

    def _lock_elsewhere(self, lane: Lane) -> AbstractContextManager[None]:
        if self.queue is None or not self.may_claim(lane.name):
            return nullcontext()
        return self.queue.lock(lane.group, self.owner, self.sweepers)

    def listen(self) -> None:
        """Sweep when other processes ask for it through the shared queue, if there is one."""
        if self.queue:
            self.queue.listen(list(self.lanes), self.ask, self.may_claim)

    def forget(self, consumer: int) -> None:
        """Free what a dead consumer had locked in the shared queue, if there is one."""
        if self.queue:
            self.queue.forget(consumer, [lane.group for lane in self.lanes.values()], self.sweepers)


class Away:
    """Keep count of how long the database is away: waits grow from a second to half a minute, the log gets a line a minute."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told = 0.0
        self._wait = 0.5

    def wait(self, error: BaseException) -> float:
        """Return the seconds to wait after an error of the database."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._told >= 60:
            self._told = now
            log.error(
                "the database is away since %.0f s: %s; nothing is lost, sweeps are tried again",
                now - self._since,
                str(error),  # The error itself would hold a cursor, and with it the connection, as long as the record is kept.
            )
        self._wait = min(30.0, self._wait * 2)
        return self._wait

    def is_back(self) -> None:
        """Take note that the database answers."""
        if self._since is not None:
            log.info("the database is back after %.0f s", time.monotonic() - self._since)
            self._since, self._told, self._wait = None, 0.0, 0.5

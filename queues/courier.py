"""The courier: whoever needs the shared store of a queue asks it, and waits for nothing that takes long."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

from ..databases.forks import at_fork
from ..logs import Outage
from .storage import Storage

log = logging.getLogger("flagsweep")


EXIT_BUDGET = 0.2
"""Seconds for which a process that ends, or forks, waits for its couriers."""


class _Job:
    """One thing to be done with the store; whoever waits for it may give up."""

    __slots__ = ("act", "done", "given_up", "result")

    def __init__(self, act: Callable[[Storage], Any]):
        self.act = act
        self.done = threading.Event()
        self.given_up = False
        self.result: Any = None


_NOTHING = _Job(lambda _: None)
"""Stands for a job that was taken back."""

_couriers: weakref.WeakSet[Courier] = weakref.WeakSet()
_inherited: list[Storage] = []


class Courier:
    """Talk to the store in a thread of its own, started when there is something to do: nobody waits for a store that is away.

    After a failure it tries nothing for ``REST`` seconds. In a forked child it begins anew.

    :param open: opens the store.
    :param pause: seconds before each job, in which more of the same become one.
    :param idle: seconds without a job after which the thread ends and the connection is closed.
    :param budget: seconds for which an answer is waited.
    """

    REST = 5.0

    def __init__(
        self, open: Callable[[], Storage], outage: Outage, pause: float = 0.0, idle: float = 1.0, budget: float = EXIT_BUDGET
    ):
        self._open = open
        self._outage = outage
        self._pause = pause
        self._idle = idle
        self._budget = budget
        self._begin()
        _couriers.add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._jobs: dict[Hashable, _Job] = {}
        self._thread: threading.Thread | None = None
        self._storage: Storage | None = None
        self._rests_until = 0.0
        self._closing = False
        self._doing = False
        self.at_store = threading.Lock()
        """Held while the thread is at the store: a fork just then would copy a driver's locks as they are, held by nobody."""

    def forked(self) -> None:
        """Leave what the parent has to the parent: neither used nor closed here."""
        if self._storage is not None:
            _inherited.append(self._storage)
        self._begin()

    def send(self, act: Callable[[Storage], Any], key: Hashable = None) -> None:
        """Have something done, and do not wait; unless the same, by its key, waits already. Dropped while the store is away."""
        self._put(_Job(act), key if key is not None else object())

    def ask(self, act: Callable[[Storage], Any]) -> Any:
        """Have something done and return its result; None where that took longer than ``budget`` or the store is away."""
        job = _Job(act)
        if self._put(job, job) and not job.done.wait(self._budget):
            job.given_up = True
            with self._changed:
                self._jobs.pop(job, None)
            if not job.done.is_set():
                self._failed(TimeoutError(f"no answer within {self._budget} s"))
        return job.result

    def flush(self, limit: float) -> None:
        """Wait until all is done that was sent, at most ``limit`` seconds."""
        end = time.monotonic() + limit
        with self._changed:
            while (self._jobs or self._doing) and self._thread is not None and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)

    def close(self) -> None:
        """Do what is left, if that takes no longer than ``budget``, and close the connection."""
        with self._changed:
            thread, self._closing = self._thread, True
            self._changed.notify_all()
        if thread is not None:
            thread.join(self._budget)

    def _rests(self) -> bool:
        return time.monotonic() < self._rests_until

    def _put(self, job: _Job, key: Hashable) -> bool:
        """Queue a job; return whether it will be done, or the same is queued already."""
        if self._rests():
            return False
        if key in self._jobs:
            return True
        with self._changed:
            self._jobs.setdefault(key, job)
            self._closing = False
            if self._thread is None and not self._start():
                self._jobs.clear()
                return False
            self._changed.notify_all()
        return True

    def _start(self) -> bool:
        self._thread = threading.Thread(target=self._run, name="flagsweep-courier", daemon=True)
        try:
            self._thread.start()
        except Exception as error:  # As many threads run as may.
            self._thread = None
            self._failed(error)
        return self._thread is not None

    def _run(self) -> None:
        while self._is_there_work():
            time.sleep(self._pause)
            job = self._next()
            if not self._rests() and not job.given_up:
                with self.at_store:
                    self._do(job)
            job.done.set()

    def _is_there_work(self) -> bool:
        """Wait for a job; where none comes, close the connection, so that the thread can end."""
        with self._changed:
            end, self._doing = time.monotonic() + self._idle, False
            self._changed.notify_all()  # For whoever flushes.
            while not self._jobs and not self._closing and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            if self._jobs:
                return True
            storage, self._storage, self._thread = self._storage, None, None
        with self.at_store:
            _disconnect(storage)
        return False

    def _next(self) -> _Job:
        with self._changed:
            self._doing = True
            return self._jobs.pop(next(iter(self._jobs), None), _NOTHING)

    def _do(self, job: _Job) -> None:
        for last in (self._storage is None, True):  # A connection that was open may have been cut since: a new one may do.
            try:
                if self._storage is None:
                    self._storage = self._open()
                job.result = job.act(self._storage)
                self._outage.is_back()
                return
            except Exception as error:
                storage, self._storage = self._storage, None
                _disconnect(storage)
                if last or job.given_up:
                    self._failed(error)
                    return

    def _failed(self, error: Exception) -> None:
        self._rests_until = time.monotonic() + self.REST
        self._outage.tell(error)


def _disconnect(storage: Storage | None) -> None:
    if storage is not None:
        with suppress(Exception):
            storage.disconnect()


_stopped: list[Courier] = []


def _before_fork() -> None:
    _stopped[:] = [courier for courier in list(_couriers) if courier.at_store.acquire(timeout=EXIT_BUDGET)]


def _after_fork_in_parent() -> None:
    while _stopped:
        _stopped.pop().at_store.release()


def _after_fork_in_child() -> None:
    _stopped.clear()
    for courier in list(_couriers):
        courier.forked()


def _at_exit() -> None:
    end = time.monotonic() + EXIT_BUDGET
    for courier in list(_couriers):
        courier.flush(max(0.0, end - time.monotonic()))


at_fork(_before_fork, _after_fork_in_parent, _after_fork_in_child)
atexit.register(_at_exit)

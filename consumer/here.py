"""Here: the workers of this process, which end with it, and which a forked child has none of."""

from __future__ import annotations

import atexit
import threading
import time
from contextlib import suppress
from typing import Any

from ..databases.connections import Connections
from ..databases.forks import at_fork
from ..errors import ConfigError
from .embedded import Worker


class Here:
    """Hold the workers of this process, one for a database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: dict[str, Worker] = {}
        self._ends: dict[str, float] = {}
        self._is_hooked = False
        at_fork(in_child=self._forget)

    def start(self, worker: Worker, shutdown_timeout: float) -> Worker | None:
        """Start a worker, unless its owner has one already; return that one, or None where the interpreter ends.

        :param shutdown_timeout: seconds that it gets when the process ends.
        :raises ConfigError: where another one serves the same database.
        """
        place = _place(worker.connections)
        with self._lock:
            other = self._workers.get(place)
            if other is not None and other.serves:
                if other.owner is worker.owner:
                    return other
                raise ConfigError(
                    f"another FlagSweep sweeps {worker.connections.where} in this process already: "
                    "register all handlers with one, or set mode='external' for the other and run a consumer for it"
                )
            if not self._hook():
                return None
            worker.start()
            self._workers[place], self._ends[place] = worker, shutdown_timeout
            return worker

    def _hook(self) -> bool:
        """Have the workers stopped when the interpreter ends; return False where it does already."""
        if self._is_hooked:
            return True
        # Before the threads of executors are ended, which handlers may use. The end of a forked multiprocessing child calls
        # nothing else: ``atexit`` it leaves out before Python 3.13.
        register: Any = getattr(threading, "_register_atexit", atexit.register)
        with suppress(RuntimeError):
            register(self._end)
            self._is_hooked = True
        return self._is_hooked

    def _end(self) -> None:
        workers = [(worker, self._ends[place]) for place, worker in list(self._workers.items())]
        for worker, _ in workers:
            worker.stop("the process ends")
        began = time.monotonic()
        for worker, timeout in workers:
            worker.leave_within(began + timeout + GRACE - time.monotonic())

    def _forget(self) -> None:
        """A forked child has the memory of its parent's threads, and none of them."""
        self._lock = threading.Lock()
        for worker in self._workers.values():
            worker.connections.forget_consumers()
        self._workers.clear()


GRACE = 2.0
"""Seconds to settle and strike off, once handlers have had their time."""


def _place(connections: Connections) -> str:
    return connections.where if connections.file is None else str(connections.file.resolve())


here = Here()
"""That of this process: what the interpreter's end and a fork mean is the process's, too."""

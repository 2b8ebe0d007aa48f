"""Embedded: the consumer in a process that serves the site. Of a server's workers one sweeps, the others stand by.

Who stands by holds the lease file open, asks for one lock four times a second, and has neither Huey, lanes nor a connection. The
kernel drops the lock with its process, so the next one has it at once, however the one before ended.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..databases import schema
from ..databases.connections import Connections
from ..errors import ConfigError, LaneStuck, LeaseHeld
from ..logs import Outage
from .duties import Duties
from .file_lease import RUN, Lease
from .host import GUEST
from .membership import folder_for
from .terms import EMBEDDED

if TYPE_CHECKING:
    from ..queues.client import SharedQueue
    from .runner import Runner

log = logging.getLogger("flagsweep")

ELECTIONS = 1 << 62
"""The first byte of the lease file that elects a worker: no consumer's id comes so far."""


class Election:
    """Elect one of the processes of this host that serve the same site.

    :param folder: where the consumers of this host keep their leases.
    :param group: what tells the site from another application on the same database.
    """

    def __init__(self, folder: Path, group: str):
        self._lease = Lease(folder)
        self._byte = ELECTIONS + zlib.crc32(group.encode())

    def is_won(self) -> bool:
        """Return whether this process is the one."""
        try:
            self._lease.take(self._byte)
        except LeaseHeld:
            return False
        return True

    def is_run_held(self) -> bool:
        """Return whether a consumer runs beside this file."""
        return self._lease.is_held(RUN)

    def is_intact(self) -> bool:
        """Return whether the others of this host still ask for the same lock."""
        return self._lease.is_intact()

    def close(self) -> None:
        """Leave it to the others."""
        self._lease.close()


class Worker(threading.Thread):
    """Sweep in this process, whenever no other worker of the site does, until stopped.

    Nothing that fails here ends the process: it is told in the log, others have their turn, and this one tries again.

    :param owner: whose it is; nobody else may have one for the same database in this process.
    :param duties: returns what is swept: all that is registered by then.
    :param flush: waits until the site's listeners have been told what happened.
    """

    LOOK_EVERY = 0.25
    """Seconds between two looks whether it is this one's turn: a small part of those within which it is to take over."""
    REST = 3.0
    """Seconds for which others have their turn after this one's has ended."""

    def __init__(
        self,
        owner: object,
        connections: Connections,
        duties: Callable[[], Duties],
        queue: SharedQueue | None,
        flush: Callable[[], None],
    ):
        super().__init__(name="flagsweep-embedded", daemon=True)
        self.owner = owner
        self.connections = connections
        self.has_left = threading.Event()
        """Set once it sweeps no more, and others may."""
        self._duties = duties
        self._queue = queue
        self._flush = flush
        self._stopping = threading.Event()
        self._election: Election | None = None
        self._runner: Runner | None = None
        self._late: list[Runner] = []
        """Those whose handlers outlasted their stop, and hold their flags until they end."""
        self._kept_out = 0
        """How often in a row a consumer ran that is not one of ours."""
        self._outage = _outage()

    @property
    def serves(self) -> bool:
        """Whether it sweeps or stands by, in this process, and was not told to stop. None does in a forked child."""
        return self.is_alive() and not self._stopping.is_set()

    @property
    def sweeping(self) -> bool:
        """Whether it is the one that sweeps."""
        return self.is_alive() and self._runner is not None and self._runner.is_going

    def stop(self, reason: str) -> None:
        """Have what runs finish, and what has not started given back; then others may sweep."""
        self._stopping.set()
        if runner := self._runner:
            runner.stop(reason)

    def leave_within(self, seconds: float) -> None:
        """Wait until it sweeps no more."""
        if self.is_alive() and threading.current_thread() is not self:
            self.has_left.wait(seconds)

    def run(self) -> None:
        """Stand by, sweep, and stand by again."""
        while not self._stopping.is_set():
            self._stopping.wait(self._take_turn())
        self._step_down()
        self._flush()
        self.has_left.set()
        while self._late:
            time.sleep(self._rest_of_late())
        self.connections.close_thread()

    def _take_turn(self) -> float:
        """Sweep if it is this one's turn; return the seconds until it is to be asked again."""
        try:
            self._settle_late()
            if not self._is_elected() or (self._kept_out >= 2 and self._is_run_held()):
                return self.LOOK_EVERY
            self._sweep()
            self._step_down()
            return self.REST
        except LeaseHeld as error:
            self._kept_out += 1
            if self._kept_out == 2:  # The first time the kernel may just be freeing the locks of one that was killed.
                log.warning("this process stands by, it sweeps when that one has ended: %s", error)
            return self.LOOK_EVERY
        except LaneStuck as error:
            self._step_down()
            log.error("%s; this process goes on serving, and another one sweeps, or this one in %g s", error, self.REST)
            return self.REST
        except Exception as error:
            self._step_down()
            return self._outage.tell(error)

    def _is_elected(self) -> bool:
        if self._election is not None and not self._election.is_intact():
            self._step_down()
        if self._election is None:
            self._election = self._candidacy()
        return self._election.is_won()

    def _candidacy(self) -> Election:
        """Return where this process stands for election, once the database is there; no connection is kept."""
        duties = self._duties()
        try:
            with self.connections.explained("nothing is swept in this process"):
                schema.require(self.connections)
                folder = folder_for(duties.store, duties.settings.state_dir)
        finally:
            self.connections.close_thread()
        assert folder is not None  # A database in memory was refused.
        kinds = (kind for handlers in duties.lanes().values() for kind in handlers)
        return Election(folder, " ".join(sorted(kinds)))

    def _is_run_held(self) -> bool:
        return self._election is not None and self._election.is_run_held()

    def _sweep(self) -> None:
        """Be the consumer until it ends."""
        try:
            from ..tasks import make_huey  # Huey, too, is only loaded by who sweeps.
            from .runner import Runner
        except RuntimeError:  # Python's executors cannot be loaded any more where the interpreter ends.
            if not _is_interpreter_ending():
                raise
            return
        self._runner = runner = Runner(self._duties(), make_huey(), self._queue, GUEST, EMBEDDED)
        if self._stopping.is_set():
            return
        try:
            with self.connections.explained("the consumer did not start"):
                schema.require(self.connections)
                runner.run()
            self._outage, self._kept_out = _outage(), 0
        finally:
            self._runner = None
            if runner.has_left_some():
                self._late.append(runner)
            else:
                self.connections.close_thread()

    def _settle_late(self) -> None:
        for runner in self._late.copy():
            if runner.settle_late():
                self._late.remove(runner)

    def _rest_of_late(self) -> float:
        """Settle those that have ended since; return the seconds until the others are to be asked again."""
        try:
            self._settle_late()
        except Exception as error:
            return self._outage.tell(error)
        return self.LOOK_EVERY

    def _step_down(self) -> None:
        election, self._election = self._election, None
        if election is not None:
            election.close()
        if not self._late:
            self.connections.close_thread()


def _is_interpreter_ending() -> bool:
    return bool(getattr(threading, "_SHUTTING_DOWN", False))


def _outage() -> Outage:
    return Outage("the consumer in this process", "the site goes on, and flags wait until it is back", logging.ERROR)


def refuse_green_threads() -> None:
    """Refuse a process whose threads are none: a handler that waits would hold up all requests, and these our leases.

    :raises ConfigError: naming who has replaced them.
    """
    patched = {
        "gevent": ("gevent.monkey", lambda module: module.is_module_patched("threading")),
        "eventlet": ("eventlet.patcher", lambda module: module.is_monkey_patched("thread")),
    }
    for name, (module, has_patched) in patched.items():
        if module in sys.modules and has_patched(sys.modules[module]):
            raise ConfigError(
                f"mode='embedded' needs threads, and {name} has replaced those of this process: "
                "set mode='external' and have 'flagsweep run' as a consumer of its own, or take a worker class with threads"
            )

"""Being a consumer: who claims has an id, a lease and seats in its lanes."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..config import SECOND
from ..databases.state_folder import folder_of, folder_on_host
from ..errors import LeaseHeld, NotReady
from ..logs import Seldom
from ..models import AWAY
from ..sweep.blackbox import BlackBox
from ..sweep.claims import Store
from .crash_log import CrashLog
from .duties import MOST_THREADS, Duties
from .host import GUEST, Host
from .leases import Leases
from .seats import Seats
from .session_lease import SessionLease
from .terms import STAYING, SWEEP, Terms

log = logging.getLogger("flagsweep")


class Enlisted:
    """Be a consumer for a while: entered under a new id, with a lease that is dropped when this process dies.

    Beside a file the kernel holds the lease, on a server a session of its own, with one thread that looks after it. Lanes and
    their threads read ``id`` and ``may_claim``, which may change at any time: others may take this consumer for dead.
    """

    LOOK_EVERY = 0.25
    """Seconds between two signs of life on a server."""

    def __init__(self, duties: Duties, terms: Terms = SWEEP, host: Host = GUEST):
        self.store = duties.store
        self.clock = duties.clock
        self.terms = terms
        self.id = 0
        self.folder: Path | None = None
        self.box: BlackBox | None = None
        self.leases: Leases
        self._settings = duties.settings
        self._app = duties.app
        self._seats: Seats | None = None
        self._crash_log: CrashLog | None = None
        self._closing = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        try:
            self._enter(duties, host)
        except BaseException as error:
            self.close() if self.id else self._close_lease()
            if isinstance(error, OSError):
                raise NotReady(
                    f"{self.folder}, where consumers keep their leases, cannot be written: {error.strerror}"
                ) from error
            raise

    def _enter(self, duties: Duties, host: Host) -> None:
        connections = self.store.connections
        self.folder = folder_for(self.store, self._settings.state_dir)
        self.leases = Leases(connections, self.folder)
        if self.terms.alone:
            self._be_the_one()
        self.id = self._enlist()
        if self.folder is not None:
            self.box = BlackBox(self.folder, self.id, MOST_THREADS)  # Lanes may be given more while they run.
            self._crash_log = CrashLog(self.folder, self.id) if host.crash_log else None
        if self.leases.session is not None:
            thread = threading.Thread(target=self._look_after, args=(self.leases.session,), name="flagsweep-lease", daemon=True)
            thread.start()
            self._thread = thread

    def _enlist(self) -> int:
        return self.store.enlist(self.terms.mode, os.getpid(), platform.node(), self.clock.now(), self._hold, self._app)

    def _hold(self, id: int) -> None:
        self.leases.take(id)

    def _be_the_one(self) -> None:
        try:
            self.leases.take_run()
        except LeaseHeld:
            holder = next((c for c in self.store.consumers() if c.mode in STAYING and self.leases.is_held(c.id)), None)
            who = (
                "that has just started"
                if holder is None
                else f"{holder.id} (pid {holder.pid} on {holder.host}, since {when(holder.started_at)})"
            )
            raise LeaseHeld(
                f"consumer {who} runs on {self.store.connections.where} already: stop it first, one consumer is enough; "
                "another application has its handlers imported by that one, "
                "uses a file of its own, or has 'flagsweep sweep' called by cron"
            ) from None

    @property
    def notes(self) -> Path:
        """The folder where consumers of this host note what they run."""
        assert self.folder is not None
        return self.folder

    # What lanes read.

    def may_claim(self, lane: str) -> bool:
        """Return whether this consumer may claim flags of a lane just now."""
        session = self.leases.session
        if session is None:
            return True
        if self.terms.seated and (self._seats is None or not self._seats.has(lane)):
            return False
        # Its thread may be late where handlers compute: then ask here, but leave it to that thread to take anything again.
        return session.is_sure() or session.keep(again=False)

    # On a server.

    def sit(self, groups: Mapping[str, str], on_seat: Callable[[str], None]) -> None:
        """Take a seat in each lane, so that no more consumers than ``sweepers`` sweep it; where all are taken, stand by.

        :param groups: what tells each lane from another application's of the same name, whose kinds are others.
        :param on_seat: called with each lane that may be swept from now on.
        """
        if self.leases.session is None:
            return
        seats = Seats(self.leases.session, groups, self._settings.sweepers, on_seat)
        self._seats = seats
        seats.take(at_once=not [c for c in self.store.consumers() if c.id != self.id and c.mode in STAYING])
        if waiting := seats.standing_by():
            log.info("standing by for lanes that others sweep: %s", ", ".join(waiting))

    def _look_after(self, lease: SessionLease) -> None:
        lost_at: float | None = None
        told = Seldom()
        while not self._closing.wait(self.LOOK_EVERY):
            try:
                if not lease.keep():
                    if lost_at is None:
                        lost_at = time.monotonic()
                        log.warning("the lease is lost: nothing is claimed until it is ours again")
                    continue
                if lease.needs_confirming():
                    self._come_back(lease, lost_at)
                    lost_at = None
                if self._seats is not None:
                    self._seats.take()
            except AWAY as error:
                log.debug("the lease could not be looked after: %s", error)
            except Exception as error:  # Such as a full disk: without this thread nothing would ever be claimed again.
                if told.may_tell():
                    log.error("the lease could not be looked after, it is tried again: %s", error)
        self.store.connections.close_thread()

    def _come_back(self, lease: SessionLease, lost_at: float | None) -> None:
        """Go on with a lease that was lost and taken again."""
        if not self.store.come_back(self.id):
            self._enlist_again(lease)
        kept = [] if self._seats is None else self._seats.keep_those_held()
        lease.confirm()
        now = time.monotonic()
        log.warning("the lease is ours again after %.1f s", now - (now if lost_at is None else lost_at))
        if self._seats is not None:
            self._seats.tell(kept)

    def _enlist_again(self, lease: SessionLease) -> None:
        """Go on under a new id: others have taken this consumer for dead, and given its flags back."""
        before = self.id
        lease.drop(before)
        self.id = self._enlist()
        for trace in (self.box, self._crash_log):
            if trace:
                trace.move(self.id)
        self.store.adopt(before, self.id)  # Else others would find that nobody has it, while it runs.
        log.warning("consumer %d was taken for dead while it could not be reached: it is consumer %d now", before, self.id)

    # The end.

    @property
    def is_closed(self) -> bool:
        """Whether this consumer is struck off."""
        return self._closed

    def mark_clean(self) -> None:
        """Say that this process ends on purpose. Safe within a signal handler."""
        if self.box:
            self.box.mark_clean()

    def leave(self) -> None:
        """Strike this consumer off; but where a handler still runs, its flag stays claimed until this process ends."""
        if self._closed:
            return
        if self.box is None or self.box.is_empty():
            self.close()
        else:
            self.mark_clean()

    def step_down(self) -> None:
        """Let another one sweep, while this process lives on, and with it a handler that still runs and holds its flag."""
        self.leases.give_up_run()
        if self._seats is not None:
            self._seats.give_up()

    def close(self) -> None:
        """Strike this consumer off; whatever it still had claimed is free."""
        self._closed = True
        try:
            self.store.strike(self.id, self.clock.now())
        except AWAY as error:
            log.warning("consumer %d could not be struck off, the next one will do that: %s", self.id, error)
        finally:
            for trace in (self.box, self._crash_log):
                if trace:
                    trace.remove()
            self._close_lease()

    def _close_lease(self) -> None:
        self._closing.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(2)
        if (leases := getattr(self, "leases", None)) is not None:  # It may have been refused.
            leases.close()
        self.store.connections.files.left(self.id)

    def lost(self) -> str | None:
        """Return why the lease no longer proves anything, or None."""
        return self.leases.lost()


def folder_for(store: Store, state_dir: str) -> Path | None:
    """Return the folder where the consumers of this host keep their leases and notes; None for a database in memory."""
    connections = store.connections
    if connections.file is not None:
        return folder_of(connections.file)
    return None if connections.in_memory else folder_on_host(f"{connections.where} {store.made_at()}", state_dir)


def when(moment: int) -> str:
    """Return a time as text, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment / SECOND))

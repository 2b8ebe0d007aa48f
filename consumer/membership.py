"""Being a consumer: who claims has an id, a lease and seats in its lanes, and frees what the dead had claimed."""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from ..config import SECOND, Clock, Settings
from ..errors import LeaseHeld, NotReady
from ..handlers import Options
from ..models import AWAY, Consumer, Flag
from ..sweep.claims import Claimed, Store
from .blame import charge, suspect
from .file_lease import RUN, BlackBox, CrashLog, Lease, folder_of, folder_on_host, leftovers
from .session_lease import SessionLease

log = logging.getLogger("flagsweep")


class Enlisted:
    """Be a consumer for a while: entered under a new id, with a lease that is dropped when this process dies.

    Beside a file the kernel holds the lease, on a server a session of its own, with one thread that looks after it.

    :param path: the database file; None for one on a server, or in memory.
    :param mode: ``run`` or ``sweep``.
    :param threads: how many threads its lanes have in all, at the most.
    """

    LOOK_EVERY = 0.25
    """Seconds between two signs of life on a server."""

    def __init__(
        self,
        store: Store,
        path: Path | None,
        clock: Clock,
        mode: str,
        settings: Settings | None = None,
        threads: int = BlackBox.SLOTS,
    ):
        settings = settings or Settings()
        self.store = store
        self.folder: Path | None = None
        self.box: BlackBox | None = None
        self.on_seat: Callable[[str, int], None] = lambda lane, seat: None
        self._on_new_id: Callable[[int], None] = lambda id: None
        self.on_rescued: Callable[[int], None] = lambda id: None
        self._lease: Lease | SessionLease | None = None
        self._on_host: Lease | None = None
        self._mode = mode
        self._clock = clock
        self._sweepers = settings.sweepers
        self._seats: dict[str, int | None] = {}
        self._groups: dict[str, str] = {}
        self._crash_log: CrashLog | None = None
        self._closing = threading.Event()
        self._closed = False
        self._naming = threading.Lock()
        self._thread: threading.Thread | None = None
        self.id = 0
        try:
            self._enter(path, settings, threads)
        except BaseException as error:
            self.close() if self.id else self._close_lease()
            if isinstance(error, OSError):
                raise NotReady(
                    f"{self.folder}, where consumers keep their leases, cannot be written: {error.strerror}"
                ) from error
            raise

    def _enter(self, path: Path | None, settings: Settings, threads: int) -> None:
        self.folder = _folder(self.store, path, settings)
        self._lease = open_lease(self.store, path)
        if self.folder is not None and path is None:
            self._on_host = Lease(self.folder)
        if self._mode == "run" and path is not None:
            self._take_run_byte()
        self.id = self.store.enlist(self._mode, os.getpid(), platform.node(), self._clock.now(), self._hold)
        if self.folder is not None:
            self.box = BlackBox(self.folder, self.id, threads)
            self._crash_log = CrashLog(self.folder, self.id) if self._mode == "run" else None
        if isinstance(self._lease, SessionLease):
            thread = threading.Thread(target=self._look_after, args=(self._lease,), name="flagsweep-lease", daemon=True)
            thread.start()
            self._thread = thread

    def follow(self, on_new_id: Callable[[int], None]) -> None:
        """Have a function called with the id now, and with each new one: others may take this consumer for dead at any time."""
        with self._naming:
            self._on_new_id = on_new_id
            on_new_id(self.id)

    def _hold(self, id: int) -> None:
        for lease in (self._on_host, self._lease):
            if lease:
                lease.take(id)

    def _take_run_byte(self) -> None:
        assert isinstance(self._lease, Lease)
        try:
            self._lease.take(RUN)
        except LeaseHeld:
            holder = next((c for c in self.store.consumers() if c.mode == "run" and self._lease.is_held(c.id)), None)
            who = (
                "that has just started"
                if holder is None
                else f"{holder.id} (pid {holder.pid} on {holder.host}, since {when(holder.started_at)})"
            )
            raise LeaseHeld(
                f"consumer {who} runs on {self.store.where} already: stop it first, one consumer is enough; another application "
                "has its handlers imported by that one, uses a file of its own, or has 'flagsweep sweep' called by cron"
            ) from None

    # On a server.

    def may_claim(self, lane: str) -> bool:
        """Return whether this consumer may claim flags of a lane just now."""
        if not isinstance(self._lease, SessionLease):
            return True
        seated = self._mode == "sweep" or self._seats.get(lane) is not None
        # Its thread may be late where handlers compute: then ask here, but leave it to that thread to take anything again.
        return seated and (self._lease.is_sure() or self._lease.keep(again=False))

    def sit(self, groups: Mapping[str, str]) -> None:
        """Take a seat in each lane, so that no more consumers than ``sweepers`` sweep it; where all are taken, stand by.

        :param groups: what tells each lane from another application's of the same name, whose kinds are others.
        """
        self._groups = dict(groups)
        self._seats = dict.fromkeys(groups)
        if isinstance(self._lease, SessionLease):
            alone = not [c for c in self.store.consumers() if c.id != self.id and c.mode == "run"]
            self._take_seats(self._lease, at_once=alone)
            waiting = [lane for lane, seat in self._seats.items() if seat is None]
            if waiting:
                log.info("standing by for lanes that others sweep: %s", ", ".join(waiting))

    def _seat(self, lane: str, seat: int | None) -> str:
        return f"lane {self._groups[lane]} {seat}"

    def _take_seats(self, lease: SessionLease, at_once: bool = False) -> None:
        for lane in [lane for lane, seat in self._seats.items() if seat is None]:
            names = {seat: self._seat(lane, seat) for seat in range(self._sweepers)}
            taken = next((seat for seat, name in names.items() if lease.take_free_name(name, at_once)), None)
            if taken is not None:
                self._seats[lane] = taken
                self.on_seat(lane, taken)

    def _look_after(self, lease: SessionLease) -> None:
        lost_at: float | None = None
        quiet_until = 0.0
        while not self._closing.wait(self.LOOK_EVERY):
            try:
                if not lease.keep():
                    if lost_at is None:
                        lost_at = time.monotonic()
                        log.warning("the lease is lost: nothing is claimed until it is ours again")
                    continue
                if lease.needs_confirming():
                    if not self.store.come_back(self.id):
                        self._enlist_again(lease)
                    kept = {lane: seat for lane, seat in self._seats.items() if lease.holds(self._seat(lane, seat))}
                    self._seats = {**dict.fromkeys(self._seats), **kept}
                    lease.confirm()
                    log.warning("the lease is ours again after %.1f s", time.monotonic() - (lost_at or time.monotonic()))
                    lost_at = None
                    for lane, seat in kept.items():
                        self.on_seat(lane, seat or 0)
                self._take_seats(lease)
            except AWAY as error:
                log.debug("the lease could not be looked after: %s", error)
            except Exception as error:  # Such as a full disk: without this thread nothing would ever be claimed again.
                if time.monotonic() >= quiet_until:
                    quiet_until = time.monotonic() + 60
                    log.error("the lease could not be looked after, it is tried again: %s", error)
        self.store.close_thread()

    def _enlist_again(self, lease: SessionLease) -> None:
        """Go on under a new id: others have taken this consumer for dead, and given its flags back."""
        before = self.id
        lease.drop(before)
        with self._naming:
            self.id = self.store.enlist(self._mode, os.getpid(), platform.node(), self._clock.now(), self._hold)
            self._on_new_id(self.id)
        for trace in (self.box, self._crash_log):
            if trace:
                trace.move(self.id)
        self.store.adopt(before, self.id)  # Else others would find that nobody has it, while it runs.
        log.warning("consumer %d was taken for dead while it could not be reached: it is consumer %d now", before, self.id)

    # The dead.

    def rescue(self, options_of: Callable[[str], Options | None], on_dead: Callable[[Claimed, str], None]) -> int:
        """Free what dead consumers had claimed, charging only what was running; return how many flags."""
        if self._lease is None:
            return 0
        if isinstance(self._lease, SessionLease) and self._mode == "sweep":
            self._wait_for_the_dying(self._lease)
        return sum(self._rescue_one(peer, options_of, on_dead) for peer in self._others() if self._is_dead(self._lease, peer))

    def _others(self) -> list[Consumer]:
        return [peer for id, peer in self.store.peers().items() if id != self.id]

    def _is_dead(self, lease: Lease | SessionLease, peer: Consumer) -> bool:
        if isinstance(lease, Lease):
            return lease.is_dead(peer.id)
        alive = self._knows_alive(peer)
        return lease.is_dead(peer.id, peer.comebacks) if alive is None else not (alive or lease.is_held(peer.id))

    def _knows_alive(self, peer: Consumer) -> bool | None:
        """Return whether a consumer of this host lives, by the kernel's word, or None for one of another host.

        Its session alone would have to be gone for a while: a connection may break, and the process live on.
        """
        if self._on_host is None or self.folder is None or peer.host != platform.node():
            return None
        if not BlackBox.is_there(self.folder, peer.id):  # The same name in another container, or it is just being entered.
            return None
        return self._on_host.is_held(peer.id)

    def _wait_for_the_dying(self, lease: SessionLease) -> None:
        """Wait until each lock that is free now has been for long enough: a sweep does not live to see it otherwise."""
        while any(self._may_be_dying(lease, peer) for peer in self._others()):
            time.sleep(0.1)

    def _may_be_dying(self, lease: SessionLease, peer: Consumer) -> bool:
        is_unknown = self._knows_alive(peer) is None
        return is_unknown and not lease.is_held(peer.id) and not lease.is_dead(peer.id, peer.comebacks)

    def _rescue_one(
        self, peer: Consumer, options_of: Callable[[str], Options | None], on_dead: Callable[[Claimed, str], None]
    ) -> int:
        assert self.folder is not None
        consumer, now = peer.id, self._clock.now()
        thread, report = CrashLog.read(self.folder, consumer)
        try:
            clean, running = BlackBox.read(self.folder, consumer)
        except FileNotFoundError:
            steps = [] if self.store.dialect.one_writer else suspect(self.store.claimed_by(consumer), options_of, now)
        else:
            tokens = {r.flag: r.token for r in running}
            flags = [] if clean else [f for f in self.store.claimed_by(consumer, tokens) if f.claim_token == tokens[f.id]]
            steps = charge(flags, {r.flag for r in running if r.thread == thread}, report, options_of, now)
        rescued = self.store.rescue(consumer, [(f.id, f.claim_token or 0, step) for f, step in steps], now, peer.comebacks)
        if rescued is None:
            return 0
        freed, dead = rescued
        self.on_rescued(consumer)
        for file in leftovers(self.folder, consumer):
            file.unlink(missing_ok=True)
        if freed:
            charged = ", ".join(f"{f.kind} (flag {f.id})" for f, _ in steps) or "none"
            log.warning(
                "consumer %d died: %d flags are free again; charged, since they were running: %s",
                consumer,
                freed,
                charged,
            )
        for flag, step in steps:
            if flag.id in dead:
                on_dead(claimed_from(flag), step.error or "")
        return freed

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

    def close(self) -> None:
        """Strike this consumer off; whatever it still had claimed is free."""
        self._closed = True
        try:
            self.store.strike(self.id, self._clock.now())
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
        for lease in (self._lease, self._on_host):
            if lease:
                lease.close()
        self.store.left(self.id)

    def lost(self) -> str | None:
        """Return why the lease no longer proves anything, or None."""
        if isinstance(self._lease, Lease) and not self._lease.is_intact():
            return f"the lease {self._lease.path} was deleted or replaced"
        return None


def open_lease(store: Store, path: Path | None) -> Lease | SessionLease | None:
    """Return what proves that consumers live: beside a file, or in a session of the server; None for a database in memory."""
    if path is not None:
        return Lease(folder_of(path))
    return None if store.session is None else SessionLease(store.session, store.dialect)  # type: ignore[arg-type]


def _folder(store: Store, path: Path | None, settings: Settings) -> Path | None:
    if path is not None:
        return folder_of(path)
    return None if store.in_memory else folder_on_host(f"{store.where} {store.made_at()}", settings.state_dir)


def claimed_from(flag: Flag) -> Claimed:
    """Return a row as the sweep would have claimed it."""
    payload = None
    with suppress(ValueError):
        payload = json.loads(flag.payload)
    return Claimed(flag.kind, flag.claim_token or 0, [flag.due_at, flag.id, flag.key, payload, flag.attempts, flag.suspect, None])


def when(moment: int) -> str:
    """Return a time as text, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment / SECOND))

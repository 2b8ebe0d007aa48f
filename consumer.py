"""A consumer: who claims, holds a lease, frees what the dead had claimed, and runs the lanes until it is told to stop."""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huey import Huey
from huey.consumer import Consumer as HueyConsumer

from .claims import CRASHES, Claimed, Step, Store
from .config import SECOND, Backoff, Clock, Settings
from .dialects import DATABASE_ERRORS
from .errors import LaneStuck, LeaseHeld, NotReady
from .handlers import Handler, Options
from .lanes import Lane, Pacer
from .lease import RUN, BlackBox, CrashLog, Lease, folder_of, folder_on_host, leftovers
from .models import AWAY, Flag
from .perform import Performer
from .pool import Pool
from .sessions import SessionLease
from .tasks import SweepTasks
from .watch import Keeper, Watcher, choose_bell

if TYPE_CHECKING:
    from .queues import SharedQueue

log = logging.getLogger("flagsweep")

DeathNotice = Callable[[str, str, Any, str], None]


class Enlisted:
    """Be a consumer for a while: entered under a new id, with a lease that is dropped when this process dies.

    Beside a file the kernel holds the lease, on a server a session of its own, with one thread that looks after it.

    :param path: the database file; None for one on a server, or in memory.
    :param mode: ``run`` or ``sweep``.
    """

    LOOK_EVERY = 0.25
    """Seconds between two signs of life on a server."""

    def __init__(self, store: Store, path: Path | None, clock: Clock, mode: str, settings: Settings | None = None):
        settings = settings or Settings()
        self.store = store
        self.folder: Path | None = None
        self.box: BlackBox | None = None
        self.on_seat: Callable[[str, int], None] = lambda lane, seat: None
        self.on_new_id: Callable[[int], None] = lambda id: None
        self.on_rescued: Callable[[int], None] = lambda id: None
        self._lease: Lease | SessionLease | None = None
        self._mode = mode
        self._clock = clock
        self._sweepers = settings.sweepers
        self._seats: dict[str, int | None] = {}
        self._crash_log: CrashLog | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self.folder = _folder(store, path, settings)
            self._lease = open_lease(store, path)
            if mode == "run" and path is not None:
                self._take_run_byte()
            self.id = store.enlist(mode, os.getpid(), platform.node(), clock.now(), self._hold)
            if self.folder is not None:
                self.box = BlackBox(self.folder, self.id)
                self._crash_log = CrashLog(self.folder, self.id) if mode == "run" else None
        except OSError as error:
            self._close_lease()
            raise NotReady(f"{self.folder}, where consumers keep their leases, cannot be written: {error.strerror}") from error
        except BaseException:
            self._close_lease()
            raise
        if isinstance(self._lease, SessionLease):
            self._thread = threading.Thread(target=self._look_after, args=(self._lease,), name="flagsweep-lease", daemon=True)
            self._thread.start()

    def _hold(self, id: int) -> None:
        if self._lease:
            self._lease.take(id)

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
            raise LeaseHeld(f"consumer {who} runs on {self.store.where} already: stop it first; one consumer is enough") from None

    # On a server.

    def may_claim(self, lane: str) -> bool:
        """Return whether this consumer may claim flags of a lane just now."""
        if not isinstance(self._lease, SessionLease):
            return True
        seated = self._mode == "sweep" or self._seats.get(lane) is not None
        # Its thread may be late where handlers compute: then ask here, but leave it to that thread to take anything again.
        return seated and (self._lease.is_sure() or self._lease.keep(again=False))

    def sit(self, lanes: Iterable[str]) -> None:
        """Take a seat in each lane, so that no more consumers than ``sweepers`` sweep it; where all are taken, stand by."""
        self._seats = dict.fromkeys(lanes)
        if isinstance(self._lease, SessionLease):
            alone = not [c for c in self.store.consumers() if c.id != self.id and c.mode == "run"]
            self._take_seats(self._lease, at_once=alone)
            waiting = [lane for lane, seat in self._seats.items() if seat is None]
            if waiting:
                log.info("standing by for lanes that others sweep: %s", ", ".join(waiting))

    def _take_seats(self, lease: SessionLease, at_once: bool = False) -> None:
        for lane in [lane for lane, seat in self._seats.items() if seat is None]:
            names = {seat: f"lane {lane} {seat}" for seat in range(self._sweepers)}
            taken = next((seat for seat, name in names.items() if lease.take_free_name(name, at_once)), None)
            if taken is not None:
                self._seats[lane] = taken
                self.on_seat(lane, taken)

    def _look_after(self, lease: SessionLease) -> None:
        lost_at: float | None = None
        while not self._closing.wait(self.LOOK_EVERY):
            try:
                if not lease.keep():
                    if lost_at is None:
                        lost_at = time.monotonic()
                        log.warning("the lease is lost: nothing is claimed until it is ours again")
                    continue
                if lease.needs_confirming():
                    if self.id not in self.store.peers():
                        self._enlist_again(lease)
                    kept = {lane: seat for lane, seat in self._seats.items() if lease.holds(f"lane {lane} {seat}")}
                    self._seats = {**dict.fromkeys(self._seats), **kept}
                    lease.confirm()
                    log.warning("the lease is ours again after %.1f s", time.monotonic() - (lost_at or time.monotonic()))
                    lost_at = None
                    for lane, seat in kept.items():
                        self.on_seat(lane, seat or 0)
                self._take_seats(lease)
            except AWAY as error:
                log.debug("the lease could not be looked after: %s", error)
        self.store.close_thread()

    def _enlist_again(self, lease: SessionLease) -> None:
        """Go on under a new id: others have taken this consumer for dead, and given its flags back."""
        before = self.id
        lease.drop(before)
        self.id = self.store.enlist(self._mode, os.getpid(), platform.node(), self._clock.now(), self._hold)
        if self.box:
            self.box.move(self.id)
        self.on_new_id(self.id)
        log.warning("consumer %d was taken for dead while it could not be reached: it is consumer %d now", before, self.id)

    # The dead.

    def rescue(self, options_of: Callable[[str], Options | None], on_dead: Callable[[Claimed, str], None]) -> int:
        """Free what dead consumers had claimed, charging only what was running; return how many flags."""
        if self._lease is None:
            return 0
        if isinstance(self._lease, SessionLease) and self._mode == "sweep":
            self._wait_for_the_dying(self._lease)
        dead = [id for id in self.store.peers() if id != self.id and self._lease.is_dead(id)]
        return sum(self._rescue_one(id, options_of, on_dead) for id in dead)

    def _wait_for_the_dying(self, lease: SessionLease) -> None:
        """Wait until each lock that is free now has been for long enough: a sweep does not live to see it otherwise."""
        while any(id != self.id and lease.is_dying(id) for id in self.store.peers()):
            time.sleep(0.1)

    def _rescue_one(
        self, consumer: int, options_of: Callable[[str], Options | None], on_dead: Callable[[Claimed, str], None]
    ) -> int:
        assert self.folder is not None
        now = self._clock.now()
        thread, report = CrashLog.read(self.folder, consumer)
        try:
            clean, running = BlackBox.read(self.folder, consumer)
        except FileNotFoundError:
            steps = [] if self.store.dialect.one_writer else suspect(self.store.claimed_by(consumer), options_of, now)
        else:
            tokens = {r.flag: r.token for r in running}
            flags = [] if clean else [f for f in self.store.claimed_by(consumer, tokens) if f.claim_token == tokens[f.id]]
            steps = charge(flags, {r.flag for r in running if r.thread == thread}, report, options_of, now)
        freed, dead = self.store.rescue(consumer, [(f.id, f.claim_token or 0, step) for f, step in steps], now)
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
        if self.box is None or self.box.is_empty():
            self.close()
        else:
            self.mark_clean()

    def close(self) -> None:
        """Strike this consumer off; whatever it still had claimed is free."""
        try:
            self.store.strike(self.id, self._clock.now())
        except DATABASE_ERRORS as error:
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
        if self._lease:
            self._lease.close()

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
    return None if store.in_memory else folder_on_host(store.where, settings.state_dir)


def suspect(flags: list[Flag], options_of: Callable[[str], Options | None], now: int) -> list[tuple[Flag, Step]]:
    """Return how the flags of a consumer go on of which nothing is known: it died on another host.

    Each becomes a suspect, which runs alone; one that was a suspect before and is among them again is charged an attempt.
    """
    steps = []
    for flag in flags:
        step = _unexplained(flag, options_of(flag.kind), now)
        if not flag.suspect:
            step = step._replace(state="waiting", attempts=flag.attempts, bumped_attempts=flag.attempts, error=None)
        steps.append((flag, step))
    return steps


def charge(
    flags: list[Flag], crashed: set[int], report: str, options_of: Callable[[str], Options | None], now: int
) -> list[tuple[Flag, Step]]:
    """Return which flags are to blame for a death, and how each goes on.

    A recorded crash (segfault, abort) names its thread: that flag alone is charged, and dead after three. A death without a
    record (kill -9, out of memory, power) charges one attempt to what was running; where suspects of an earlier such death
    were among it, to those alone.
    """
    if any(f.id in crashed for f in flags):
        return [(f, _crash(f, report, options_of(f.kind), now)) for f in flags if f.id in crashed]
    suspects = [f for f in flags if f.suspect] or flags
    return [(f, _unexplained(f, options_of(f.kind), now)) for f in suspects]


def _crash(flag: Flag, report: str, options: Options | None, now: int) -> Step:
    last = flag.crashes + 1 >= CRASHES
    error = f"it crashed the process (time {flag.crashes + 1} of {CRASHES}):\n{report[:4000]}"
    due = _due_again(flag, options, last, now)
    return Step(_dead_or_waiting(last), flag.attempts, min(flag.due_at, now), flag.attempts, due, error=error, crashed=1)


def _unexplained(flag: Flag, options: Options | None, now: int) -> Step:
    attempts, most = flag.attempts + 1, options.max_attempts if options else Options.max_attempts
    last = attempts >= most
    error = f"its process died while it ran, without a record (kill -9, out of memory, power): attempt {attempts} of {most}"
    due = _due_again(flag, options, last, now)
    fresh = 0 if last else attempts
    return Step(_dead_or_waiting(last), attempts, min(flag.due_at, now), fresh, due, error=error, suspect=True)


def _dead_or_waiting(last: bool) -> str:
    return "dead" if last else "waiting"


def _due_again(flag: Flag, options: Options | None, last: bool, now: int) -> int:
    """Return when a flag that was raised again while it ran is due: at once; but where it would be dead, it must not spin."""
    backoff = options.backoff if options else Backoff()
    return now + int(backoff.longest() * SECOND) if last else min(flag.due_at, now)


def claimed_from(flag: Flag) -> Claimed:
    """Return a row as the sweep would have claimed it."""
    payload = None
    with suppress(ValueError):
        payload = json.loads(flag.payload)
    return Claimed(flag.kind, flag.claim_token or 0, [flag.due_at, flag.id, flag.key, payload, flag.attempts, flag.suspect, None])


def when(moment: int) -> str:
    """Return a time as text, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment / SECOND))


class _Consumer(HueyConsumer):
    """Huey's consumer without its signals: Huey would cut threads off at SIGTERM, and wait for ever at SIGINT."""

    def __init__(self, huey: Huey, **options: Any):
        super().__init__(huey, **options)
        self._stop_flag_timeout = 10.0  # The main thread need not wake ten times a second: our signals set the flag themselves.

    def _set_signal_handlers(self) -> None:
        pass


class Signals:
    """Turn SIGTERM, SIGINT and SIGHUP into a call of ``stop``, and a second one into the end at once.

    SIGHUP comes when the terminal is closed; under ``nohup``, which ignores it, it stays ignored.

    Python's C code writes each into a pipe. A handler in Python would wait until the main thread wakes: the signal may have gone
    to another thread, or to the main one just before it fell asleep.
    """

    NUMBERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
    TWICE = 0.3
    """Seconds from a first to a second signal: ``timeout`` and some supervisors signal process and group at one instant."""

    def __init__(self, stop: Callable[[str], None], at_once: Callable[[], None]):
        self._stop = stop
        self._at_once = at_once
        self._before: dict[int, Any] = {}
        self._thread = threading.Thread(target=self._wait, name="flagsweep-signals", daemon=True)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._read_end, self._write_end = os.pipe()
            os.set_blocking(self._write_end, False)
            self._wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
            self._thread.start()
            heard = [n for n in self.NUMBERS if n in (signal.SIGTERM, signal.SIGINT) or signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, lambda *_: None) for number in heard}

    def __exit__(self, *error: Any) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._write_end, b"\0")
        self._thread.join(1.0)
        os.close(self._read_end)
        os.close(self._write_end)

    def _wait(self) -> None:
        first: float | None = None
        while number := os.read(self._read_end, 1)[0]:
            if number not in self.NUMBERS:  # Others that the site handles come by here, too.
                continue
            if first is None:
                first = time.monotonic()
                self._stop(signal.Signals(number).name)
            elif time.monotonic() - first >= self.TWICE:
                self._at_once()


class Runner:
    """The consumer in the foreground.

    :param handlers: by kind, aliases included.
    """

    def __init__(
        self,
        store: Store,
        path: Path | None,
        settings: Settings,
        clock: Clock,
        handlers: Mapping[str, Handler],
        huey: Huey,
        on_dead: Callable[[Claimed, str], None],
        queue: SharedQueue | None = None,
    ):
        self.store = store
        self.path = path
        self.settings = settings
        self.clock = clock
        self.handlers = handlers
        self.huey = huey
        self.on_dead = on_dead
        self.queue = queue
        self.stop_requested = threading.Event()
        self._reason = ""
        self._gave_up = ""
        self._consumer: _Consumer | None = None
        self._enlisted: Enlisted | None = None

    def run(self) -> bool:
        """Run until stopped; return whether everything ended in time. Where not, handlers still run and hold their flags.

        :raises LeaseHeld: where another consumer runs on this database.
        :raises LaneStuck: where a lane could do nothing any more.
        """
        if self.queue:
            self.queue.check()
        enlisted = self._enlisted = Enlisted(self.store, self.path, self.clock, "run", self.settings)
        self._inode = None if self.path is None else os.stat(self.path)
        lanes = make_lanes(
            self.settings, self.handlers, self.store, self.clock, enlisted, self.stop_requested.is_set, self.on_dead
        )
        tasks = SweepTasks(self.huey, lanes, enlisted.id, self.queue, self.settings.sweepers, enlisted.may_claim)
        enlisted.on_rescued = tasks.forget
        enlisted.on_new_id = partial(_go_on_as, lanes)
        try:
            with Signals(self.stop, self._end_at_once):
                self._free_the_dead()
                threads = self._start(lanes, tasks)
                enlisted.on_seat = partial(_sweep_from, lanes, tasks)
                enlisted.sit(lanes)
                for name in lanes:
                    tasks.ask(name)
                self._consumer.run()  # type: ignore[union-attr]
                return self._wind_down(lanes, threads)
        except LaneStuck:
            raise
        except BaseException:
            enlisted.leave()
            raise
        finally:
            tasks.unregister()
            if self.queue:
                self.queue.stop()

    def stop(self, reason: str = "") -> None:
        """Ask the consumer to stop, from any thread."""
        self._reason = self._reason or reason
        self.stop_requested.set()
        if self._consumer:
            self._consumer.stop_flag.set()

    def _give_up(self, reason: str) -> None:
        """Stop, but not as a good end: what hangs is charged, or it would hang again and again."""
        if not self._gave_up:
            self._gave_up = reason
            log.error("%s; the consumer ends, to be started again", reason)
            self.stop(reason)

    def _start(self, lanes: Mapping[str, Lane], tasks: SweepTasks) -> list[Watcher | Keeper]:
        threads: list[Watcher | Keeper] = []
        bell = None
        if self.settings.watch != "off":
            bell = choose_bell(self.settings.watch, self.store, self.settings.poll_every)
            threads.append(Watcher(self.store, lanes, tasks.ask, bell, self.clock))
        threads.append(
            Keeper(
                self.store,
                lanes,
                tasks.ask,
                self.clock,
                self._free_the_dead,
                self._replaced,
                self.stop,
                self.settings.keep_history,
                self._give_up,
                self.settings.stuck_after,
            )
        )
        for thread in threads:
            thread.start()
        tasks.listen()
        self.huey.storage.reopen()
        self.huey.on_shutdown("flagsweep")(self.store.close_thread)  # Huey's workers have connections of their own.
        if not logging.getLogger("huey").level:
            logging.getLogger("huey").setLevel(
                logging.WARNING
            )  # Three lines a sweep, with nothing in them that ours does not say.
        self._consumer = _Consumer(self.huey, workers=len(lanes) + 1, check_worker_health=True)
        if self.stop_requested.is_set():
            self._consumer.stop_flag.set()
        self._banner(lanes, bell.name if bell else "the minute's sweep alone")
        return threads

    def _banner(self, lanes: Mapping[str, Lane], seen_by: str) -> None:
        assert self._enlisted is not None
        log.info(
            "flagsweep sweeps %s; queue %s; commits seen by %s; lease %d",
            self.store.where,
            self.queue.where if self.queue else "in memory",
            seen_by,
            self._enlisted.id,
        )
        for name, lane in lanes.items():
            log.info("lane %s, %d threads: %s", name, lane.pool.size, ", ".join(sorted(lane.kinds())) or "no kinds")

    def _free_the_dead(self) -> int:
        assert self._enlisted is not None
        return self._enlisted.rescue(lambda kind: self.handlers[kind].options if kind in self.handlers else None, self.on_dead)

    def _replaced(self) -> str | None:
        assert self._enlisted is not None
        if self.path is None or self._inode is None:
            return None
        try:
            now = os.stat(self.path)
        except OSError as error:
            return f"the database is gone: {error}"
        if (now.st_dev, now.st_ino) != (self._inode.st_dev, self._inode.st_ino):
            return f"{self.path} was replaced by another file: start the consumer again to sweep that one"
        return self._enlisted.lost()

    def _wind_down(self, lanes: Mapping[str, Lane], threads: list[Watcher | Keeper]) -> bool:
        """Give back what has not started, wait for what runs, settle it, and strike this consumer off."""
        assert self._enlisted is not None and self._consumer is not None
        log.info(
            "stopping%s: running handlers get %g s",
            f" ({self._reason})" if self._reason else "",
            self.settings.shutdown_timeout,
        )
        for lane in lanes.values():
            lane.stop()
        for thread in threads:
            thread.stop()
        self.huey.storage.close()
        limit = time.monotonic() + self.settings.shutdown_timeout
        for _, worker in self._consumer.worker_threads:
            worker.join(max(0.0, limit - time.monotonic()))
        for thread in threads:
            thread.join(1.0)
        if any(worker.is_alive() for _, worker in self._consumer.worker_threads):
            left = [c for lane in lanes.values() for c, _ in list(lane.pool.running.values())]
            log.warning(
                "stopped while these still run, they run again: %s",
                ", ".join(f"{c.kind} (flag {c.id})" for c in left) or "none",
            )
            if self._gave_up:
                raise LaneStuck(self._gave_up)
            self._enlisted.mark_clean()
            return False
        for lane in lanes.values():
            lane.settle_rest()
            lane.pool.close()
        self._enlisted.close()
        self.store.close_thread()
        log.info("stopped")
        if self._gave_up:
            raise LaneStuck(self._gave_up)
        return True

    def _end_at_once(self) -> None:
        if self._enlisted:
            self._enlisted.mark_clean()
        os._exit(0)


def _go_on_as(lanes: Mapping[str, Lane], id: int) -> None:
    """Have lanes claim under a new id, and forget what they had not started: it was given back."""
    for lane in lanes.values():
        lane.consumer = id
        lane.pool.recall()


def _sweep_from(lanes: Mapping[str, Lane], tasks: SweepTasks, name: str, seat: int) -> None:
    """Have a lane swept from the seat that was taken in it."""
    lanes[name].seat = seat
    tasks.ask(name)


def make_lanes(
    settings: Settings,
    handlers: Mapping[str, Handler],
    store: Store,
    clock: Clock,
    enlisted: Enlisted,
    stopping: Callable[[], bool],
    on_dead: Callable[[Claimed, str], None],
    only: str | None = None,
    flat_out: bool = False,
) -> dict[str, Lane]:
    """Return the lanes that these handlers name, each with its threads.

    :param only: this lane alone.
    :param flat_out: leave the site no share of the writer, and look for own rows every time: for ``sweep()``.
    """
    by_lane: dict[str, dict[str, Handler]] = {name: {} for name in settings.lanes}
    for kind, handler in handlers.items():
        by_lane.setdefault(handler.lane, {})[kind] = handler
    performer = Performer(store, handlers, clock, stopping)
    pacer = Pacer(settings.writer_share if store.dialect.one_writer and not flat_out else 1.0, settings.batch)
    inline = store.in_memory
    lanes = {}
    for name, mine in by_lane.items():
        if only in (None, name):
            threads = 0 if inline else settings.lanes.get(name, settings.threads)
            pool = Pool(name, threads, performer, enlisted.box)
            may_claim = partial(enlisted.may_claim, name)
            lanes[name] = Lane(name, mine, store, clock, pool, pacer, enlisted.id, on_dead, flat_out, may_claim)
    return lanes

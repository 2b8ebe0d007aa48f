"""The consumer: it runs the lanes, with Huey and the threads that look after them, until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huey import Huey
from huey.consumer import Consumer as HueyConsumer

from ..config import Clock, Settings
from ..databases.spare import free_connections, too_small
from ..errors import ConfigError, LaneStuck
from ..handlers import Handler
from ..sweep.claims import Claimed, Store
from ..sweep.lane import Lane, Pacer
from ..sweep.perform import Performer
from ..sweep.threads import Pool
from ..tasks import SweepTasks
from .membership import Enlisted
from .watcher import Chores, Guard, Keeper, Watcher, choose_bell

if TYPE_CHECKING:
    from ..queues.client import SharedQueue

log = logging.getLogger("flagsweep")

MOST_THREADS = 4096
"""Threads of all lanes of a consumer: each has a stack, a connection or two, and a slot in the black box."""


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
            try:
                self._thread.start()
            except BaseException:
                self._close()
                raise
            self._wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
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
        self._close()

    def _close(self) -> None:
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
        self._innocent = False
        self._consumer: _Consumer | None = None
        self._enlisted: Enlisted | None = None
        self._tasks: SweepTasks | None = None
        self._lanes: dict[str, Lane] = {}
        self._threads: list[Watcher | Chores] = []

    def run(self) -> bool:
        """Run until stopped; return whether everything ended in time. Where not, handlers still run and hold their flags.

        :raises LeaseHeld: where another consumer runs on this database.
        :raises LaneStuck: where a lane could do nothing any more.
        """
        with Signals(self.stop, self._end_at_once):
            if self.queue:
                self.queue.check()
            threads = sum(threads_of_lanes(self.settings, self.handlers).values())
            self._enlisted = Enlisted(self.store, self.path, self.clock, "run", self.settings, threads)
            try:
                self._begin(self._enlisted)
                self._consumer.run()  # type: ignore[union-attr]
            except BaseException:
                with suppress(Exception):  # What failed first is what there is to say.
                    self._wind_down()
                raise
            return self._wind_down()

    def _begin(self, enlisted: Enlisted) -> None:
        """Set everything up that a consumer needs, once it is entered; what has begun where this fails, ``_wind_down`` ends."""
        self._lanes = make_lanes(
            self.settings, self.handlers, self.store, self.clock, enlisted, self.stop_requested.is_set, self.on_dead
        )
        tasks = self._tasks = SweepTasks(
            self.huey, self._lanes, enlisted.id, self.queue, self.settings.sweepers, enlisted.may_claim
        )
        enlisted.on_rescued = tasks.forget
        enlisted.follow(self._go_on_as)
        self._free_the_dead()
        self._start(self._lanes, tasks)
        enlisted.on_seat = partial(_sweep_from, self._lanes, tasks)
        enlisted.sit({name: lane.group for name, lane in self._lanes.items()})
        for name in self._lanes:
            tasks.ask(name)

    def _go_on_as(self, id: int) -> None:
        """Claim, and lock sweeps, under a new id."""
        assert self._tasks is not None
        self._tasks.owner = id
        go_on_as(self._lanes.values(), id)

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

    def _start(self, lanes: Mapping[str, Lane], tasks: SweepTasks) -> None:
        bell = None
        if self.settings.watch != "off":
            bell = choose_bell(self.settings.watch, self.store, self.settings.poll_every)
            self._threads.append(Watcher(self.store, lanes, tasks.ask, bell, self.clock))
        keep = self.settings.keep_history
        self._threads.append(Keeper(self.store, lanes, tasks.ask, self.clock, self._free_the_dead, keep))
        self._threads.append(Guard(lanes, self.clock, self._replaced, self._lose, self._give_up, self.settings.stuck_after))
        for thread in self._threads:
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
        if problem := too_small(self.store.site, threads_of_lanes(self.settings, self.handlers)):
            log.warning("%s; %s", *problem)

    def _free_the_dead(self) -> int:
        assert self._enlisted is not None
        return self._enlisted.rescue(lambda kind: self.handlers[kind].options if kind in self.handlers else None, self.on_dead)

    def _replaced(self) -> str | None:
        assert self._enlisted is not None
        return self.store.lost() or self._enlisted.lost()

    def _lose(self, reason: str) -> None:
        """Stop since the database is no longer ours; where only its log is not, it takes a new process to go on."""
        if self.store.has_lost_log():
            self._innocent = True
            self._give_up(reason)
        else:
            self.stop(reason)

    def _wind_down(self) -> bool:
        """Give back what has not started, wait for what runs, settle it, and strike this consumer off."""
        assert self._enlisted is not None
        if self._consumer is not None:
            reason = f" ({self._reason})" if self._reason else ""
            log.info("stopping%s: running handlers get %g s", reason, self.settings.shutdown_timeout)
        try:
            ended = self._end_threads()
            if ended:
                for lane in self._lanes.values():
                    lane.settle_rest()
                    lane.pool.close()
        except BaseException:
            self._enlisted.leave()
            raise
        finally:
            if self._tasks:
                self._tasks.unregister()
            if self.queue:
                self.queue.stop()
        return self._leave(ended)

    def _end_threads(self) -> bool:
        """Have everybody stop; return whether the lanes' sweeps have ended within ``shutdown_timeout``."""
        self.stop()
        for lane in self._lanes.values():
            lane.stop()
        for thread in self._threads:
            thread.stop()
        self.huey.storage.close()
        workers = [worker for _, worker in self._consumer.worker_threads] if self._consumer else []
        limit = time.monotonic() + self.settings.shutdown_timeout
        for thread in (*workers, *self._threads):
            if thread.ident is not None:  # It was never started where the start failed.
                thread.join(max(0.0, limit - time.monotonic()) if thread in workers else 1.0)
        return not any(worker.is_alive() for worker in workers)

    def _leave(self, ended: bool) -> bool:
        """Strike this consumer off, unless handlers still run; return whether all had ended.

        :raises LaneStuck: where a lane could do nothing any more.
        """
        assert self._enlisted is not None
        if ended:
            self._enlisted.close()
            self.store.close_engine()
            self.store.close_thread()
            log.log(logging.INFO if self._consumer else logging.DEBUG, "stopped")
        else:
            left = [c for lane in self._lanes.values() for c, _ in list(lane.pool.running.values())]
            names = ", ".join(f"{c.kind} (flag {c.id})" for c in left) or "none"
            log.warning("stopped while these still run, they run again: %s", names)
        if not ended and (self._innocent or not self._gave_up):
            self._enlisted.mark_clean()
        if self._gave_up:
            raise LaneStuck(self._gave_up)
        return ended

    def _end_at_once(self) -> None:
        if self._enlisted:
            self._enlisted.mark_clean()
        os._exit(0)


def go_on_as(lanes: Iterable[Lane], id: int) -> None:
    """Have lanes claim under a new id."""
    for lane in lanes:
        lane.go_on_as(id)


def _sweep_from(lanes: Mapping[str, Lane], tasks: SweepTasks, name: str, seat: int) -> None:
    """Have a lane swept from the seat that was taken in it."""
    lanes[name].seat = seat
    tasks.ask(name)


def threads_of_lanes(settings: Settings, handlers: Mapping[str, Handler]) -> dict[str, int]:
    """Return how many threads each lane has.

    :raises ConfigError: where they are more than a process should have.
    """
    names = dict.fromkeys([*settings.lanes, *(handler.lane for handler in handlers.values())])
    threads = {name: settings.lanes.get(name, settings.threads) for name in names}
    if (total := sum(threads.values())) > MOST_THREADS:
        most = ", ".join(f"{name} {count}" for name, count in sorted(threads.items(), key=lambda item: -item[1])[:5])
        raise ConfigError(
            f"the lanes have {total:,} threads in all, and {MOST_THREADS:,} are the most: give them fewer ({most}), "
            "or some lanes a consumer of their own"
        )
    return threads


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
    inline, free = store.in_memory, free_connections(store.site)
    most = sys.maxsize if free is None else max(1, free)
    threads, lanes = threads_of_lanes(settings, handlers), {}
    for name, mine in by_lane.items():
        if only in (None, name):
            pool = Pool(name, 0 if inline else min(most, threads[name]), performer, enlisted.box)
            may_claim = partial(enlisted.may_claim, name)
            lanes[name] = Lane(name, mine, store, clock, pool, pacer, enlisted.id, on_dead, flat_out, may_claim)
    if sum(lane.pool.size for lane in lanes.values()) > most:
        performer.turns = threading.Semaphore(most)
    return lanes

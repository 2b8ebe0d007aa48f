"""The consumer: it runs the lanes, with Huey and the threads that look after them, until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huey import Huey
from huey.consumer import Consumer as HueyConsumer

from .claims import Claimed, Store
from .config import Clock, Settings
from .enlisted import Enlisted
from .errors import LaneStuck
from .handlers import Handler
from .lanes import Lane, Pacer
from .perform import Performer
from .pool import Pool
from .tasks import SweepTasks
from .watch import Chores, Guard, Keeper, Watcher, choose_bell

if TYPE_CHECKING:
    from .queues import SharedQueue

log = logging.getLogger("flagsweep")


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

    def _start(self, lanes: Mapping[str, Lane], tasks: SweepTasks) -> list[Watcher | Chores]:
        threads: list[Watcher | Chores] = []
        bell = None
        if self.settings.watch != "off":
            bell = choose_bell(self.settings.watch, self.store, self.settings.poll_every)
            threads.append(Watcher(self.store, lanes, tasks.ask, bell, self.clock))
        keep = self.settings.keep_history
        threads.append(Keeper(self.store, lanes, tasks.ask, self.clock, self._free_the_dead, keep))
        threads.append(Guard(lanes, self.clock, self._replaced, self.stop, self._give_up, self.settings.stuck_after))
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

    def _wind_down(self, lanes: Mapping[str, Lane], threads: list[Watcher | Chores]) -> bool:
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
    """Have lanes claim under a new id."""
    for lane in lanes.values():
        lane.go_on_as(id)


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

"""The consumer: it runs the lanes, with Huey and the threads that look after them, until it is told to stop."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huey import Huey
from huey.consumer import Consumer as HueyConsumer

from ..databases.spare import too_small
from ..errors import LaneStuck
from ..logs import AS_EVENT, printable, tell_event
from ..sweep.lane import Lane
from ..sweep.totals import Totals
from ..tasks import SweepTasks
from .beside import Beside
from .duties import Duties
from .firing import Firing
from .guard import Guard
from .host import OWN, Host
from .keeper import Keeper
from .lanes import make_lanes
from .membership import Enlisted
from .outlook import Running
from .rescue import Rescuer
from .signals import Signals
from .stamping import Stamping
from .terms import RUN, Terms
from .wakeups import choose_bell
from .watcher import Watcher

if TYPE_CHECKING:
    from ..queues.client import SharedQueue

log = logging.getLogger("flagsweep")

CUT_OFF = 1.0
"""Seconds that async handlers get to end, once they are cancelled, and that their flags get to be given back."""


Stoppable = Any
"""A thread that ends once its ``stop`` is called."""


class _Consumer(HueyConsumer):
    """Huey's consumer without its signals: Huey would cut threads off at SIGTERM, and wait for ever at SIGINT."""

    def __init__(self, huey: Huey, **options: Any):
        super().__init__(huey, **options)
        self._stop_flag_timeout = 10.0  # The main thread need not wake ten times a second: our signals set the flag themselves.

    def _set_signal_handlers(self) -> None:
        pass


def _idents(consumer: HueyConsumer, caller: int) -> set[int | None]:
    """Return the threads of a consumer of Huey's, and the one that runs it."""
    return {caller, consumer.scheduler.ident, *(worker.ident for _, worker in consumer.worker_threads)}


class Runner:
    """The consumer in the foreground.

    :param host: what of the process is ours.
    :param terms: how it is entered.
    :param listen: the address at which it answers monitoring.
    """

    def __init__(
        self,
        duties: Duties,
        huey: Huey,
        queue: SharedQueue | None = None,
        host: Host = OWN,
        terms: Terms = RUN,
        listen: tuple[str, int] | None = None,
    ):
        self.duties = duties
        self.huey = huey
        self.queue = queue
        self.host = host
        self.terms = terms
        self.stop_requested = threading.Event()
        self._store = duties.store
        self._connections = duties.store.connections
        self._settings = duties.settings
        self._reason = ""
        self._gave_up = ""
        self._innocent = False
        self._consumer: _Consumer | None = None
        self._enlisted: Enlisted | None = None
        self._stamping: Stamping | None = None
        self._tasks: SweepTasks | None = None
        self._lanes: dict[str, Lane] = {}
        self._threads: list[Stoppable] = []
        self._listen = listen
        self._watched = (listen is not None or duties.settings.ping is not None) and duties.watch is not None
        self._totals = Totals() if self._watched else None
        self._beside = None if duties.also is None else Beside(duties.also, duties.settings.shutdown_timeout)

    def run(self) -> bool:
        """Run until stopped; return whether everything ended in time. Where not, handlers still run and hold their flags.

        :raises LeaseHeld: where another consumer runs on this database.
        :raises LaneStuck: where a lane could do nothing any more.
        """
        with Signals(self.stop, self._end_at_once) if self.host.signals else nullcontext():
            if self.queue:
                self.queue.check()
            self._enlisted = Enlisted(self.duties, self.terms, self.host)
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
        lanes = make_lanes(self.duties, enlisted, self.stop_requested.is_set, gentle=not self.host.alone, totals=self._totals)
        self._lanes = lanes
        self._stamping = Stamping(self.duties, enlisted)
        self._stamping.check()
        tasks = self._tasks = SweepTasks(self.huey, self._lanes, enlisted, self.queue, self._settings.sweepers)
        rescuer = Rescuer(enlisted, self.duties.options_of, self.duties.on_failed, tasks.forget)
        rescuer.free_the_dead()
        self._start(tasks, rescuer, enlisted.folder, self.duties.firing())
        enlisted.sit({name: lane.group for name, lane in self._lanes.items()}, tasks.ask)
        for name in self._lanes:
            tasks.ask(name)

    def stop(self, reason: str = "") -> None:
        """Ask the consumer to stop, from any thread."""
        self._reason = self._reason or reason
        self.stop_requested.set()
        if self._consumer:
            self._consumer.stop_flag.set()

    @property
    def is_going(self) -> bool:
        """Whether it sweeps just now: all has begun, and nobody has asked it to stop."""
        return self._consumer is not None and not self.stop_requested.is_set()

    def has_left_some(self) -> bool:
        """Return whether handlers still run that have outlasted the stop, and hold their flags."""
        return self._enlisted is not None and not self._enlisted.is_closed

    def settle_late(self) -> bool:
        """Where handlers have outlasted the stop, settle what they did once all have ended; return whether they have."""
        if any(worker.is_alive() for worker in self._workers()):
            return False
        assert self._enlisted is not None
        for lane in self._lanes.values():
            lane.settle_rest()
            lane.pool.close()
        self._enlisted.close()
        return True

    def _workers(self) -> list[threading.Thread]:
        return [worker for _, worker in self._consumer.worker_threads] if self._consumer else []

    def _give_up(self, reason: str) -> None:
        """Stop, but not as a good end: what hangs is charged, or it would hang again and again."""
        if not self._gave_up:
            self._gave_up = reason
            log.error("%s; the consumer ends, to be started again", reason)
            self.stop(reason)

    def _start(self, tasks: SweepTasks, rescuer: Rescuer, folder: Path | None, firing: Firing) -> None:
        duties, lanes, bell = self.duties, self._lanes, None
        if self._settings.watch != "off":
            bell = choose_bell(self._settings.watch, self._store, self._settings.poll_every, folder)
            self._threads.append(Watcher(self._store, lanes, tasks.ask, bell, duties.clock, firing))
        look = None if self._stamping is None else self._stamping.look
        self._threads.append(Keeper(duties, lanes, tasks.ask, rescuer.free_the_dead, firing, self._id, look))
        self._threads.append(Guard(lanes, duties.clock, self._replaced, self._lose, self._give_up, self._stuck_after()))
        self._threads += self._watchers()
        for thread in self._threads:
            thread.start()
        tasks.listen()
        self.huey.storage.reopen()
        self.huey.on_shutdown("flagsweep")(self._connections.close_thread)  # Huey's workers have connections of their own.
        if self.host.huey_level is not None and not logging.getLogger("huey").level and not self._beside:
            logging.getLogger("huey").setLevel(self.host.huey_level)
        # A worker for each lane's sweep, which stays with it, and one for what each minute brings.
        self._consumer = _Consumer(self.huey, workers=len(lanes) + 1, check_worker_health=True)
        if self.stop_requested.is_set():
            self._consumer.stop_flag.set()
        if self._beside:
            self._beside.start(partial(_idents, self._consumer, threading.get_ident()))
        self._banner(bell.name if bell else "the minute's sweep alone")

    def _id(self) -> int:
        assert self._enlisted is not None
        return self._enlisted.id

    def _watchers(self) -> list[Stoppable]:
        """Return what answers monitoring, and calls outside; who is watched by nobody has none of it loaded."""
        watch, enlisted = self.duties.watch, self._enlisted
        if not self._watched or watch is None or enlisted is None or self._totals is None:
            return []
        outlook = watch(Running(self._lanes, self._totals, lambda: enlisted.id))
        found: list[Stoppable] = []
        if self._listen is not None:
            from .listening import Listener

            found.append(listener := Listener(self._listen, outlook))
            log.info("%s/healthz and %s/metrics answer", listener.where, listener.where)
        if self._settings.ping is not None:
            from .pinging import Pinger, redacted

            found.append(Pinger(self._settings.ping, outlook.is_well, outlook.close))
            log.info("while all is well, %s is called once a minute", redacted(self._settings.ping))
        return found

    def _stuck_after(self) -> float | None:
        return self._settings.stuck_after if self.host.exits else None

    def _banner(self, seen_by: str) -> None:
        assert self._enlisted is not None
        log.info(
            "flagsweep sweeps %s; queue %s; commits seen by %s; lease %d",
            self._connections.where,
            self.queue.where if self.queue else "in memory",
            seen_by,
            self._enlisted.id,
        )
        tell_event("started", consumer=self._enlisted.id, mode=self.terms.mode, pid=os.getpid(), lanes=sorted(self._lanes))
        for name, lane in self._lanes.items():
            tasks = f" and {lane.pool.loop.size} tasks" if lane.pool.loop is not None else ""
            log.info("lane %s, %d threads%s: %s", name, lane.pool.size, tasks, ", ".join(sorted(lane.kinds)) or "no kinds")
        for line in self.duties.overridden():
            log.info("%s", printable(line))
        if unknown := self.duties.unknown_kinds():
            log.warning("settings name kinds without a handler here: %s", printable(", ".join(unknown)))
        if problem := too_small(self._connections.site, self.duties.users()):
            log.warning("%s; %s", *problem)

    def _replaced(self) -> str | None:
        assert self._enlisted is not None
        return self._connections.files.lost() or self._enlisted.lost()

    def _lose(self, reason: str) -> None:
        """Stop since the database is no longer ours; where only its log is not, it takes a new process to go on."""
        if self._connections.files.is_log_lost():
            self._innocent = True
            self._give_up(reason)
        else:
            self.stop(reason)

    def _wind_down(self) -> bool:
        """Give back what has not started, wait for what runs, settle it, and strike this consumer off."""
        assert self._enlisted is not None
        if self._consumer is not None:
            reason = f" ({self._reason})" if self._reason else ""
            log.info("stopping%s: running handlers get %g s", reason, self._settings.shutdown_timeout)
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
        if self._beside:
            self._beside.stop()
        self.huey.storage.close()
        workers = self._workers()
        limit = time.monotonic() + self._settings.shutdown_timeout
        threads: list[threading.Thread] = [*workers, *self._threads]
        for each in threads:
            if each.ident is not None:  # It was never started where the start failed.
                each.join(max(0.0, limit - time.monotonic()) if each in workers else 1.0)
        cut_off = [lane for lane in self._lanes.values() if lane.pool.cut_off()]
        limit = time.monotonic() + CUT_OFF
        for worker in workers if cut_off else ():
            worker.join(max(0.0, limit - time.monotonic()))
        if self._beside:
            self._beside.join()
        return not any(worker.is_alive() for worker in workers)

    def _leave(self, ended: bool) -> bool:
        """Strike this consumer off, unless handlers still run; return whether all had ended.

        :raises LaneStuck: where a lane could do nothing any more.
        """
        assert self._enlisted is not None
        if ended:
            if self._stamping:
                self._stamping.close()
            self._enlisted.close()
            self._connections.close_engine()
            self._connections.close_thread()
            log.log(logging.INFO if self._consumer else logging.DEBUG, "stopped", extra=AS_EVENT)
            tell_event("stopped", consumer=self._enlisted.id, why=self._reason)
        else:
            left = [claimed for lane in self._lanes.values() for claimed in lane.pool.under_way()]
            names = ", ".join(f"{c.kind} (flag {c.id})" for c in left) or "none"
            log.warning("stopped while these still run, they run again: %s", names, extra=AS_EVENT)
            tell_event("stopped", logging.WARNING, consumer=self._enlisted.id, why=self._reason, left=[c.id for c in left])
        if not ended and (self._innocent or not self._gave_up):
            self._enlisted.mark_clean()
        if not ended and not self.host.exits:
            self._enlisted.step_down()
        if self._gave_up:
            raise LaneStuck(self._gave_up)
        return ended

    def _end_at_once(self) -> None:
        if self._enlisted:
            self._enlisted.mark_clean()
        os._exit(0)

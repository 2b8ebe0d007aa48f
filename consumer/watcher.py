"""The watcher, which sees commits; the keeper, which looks after the database, and the guard, after the process."""

from __future__ import annotations

import faulthandler
import json
import logging
import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import LONGEST, SECOND, Clock
from ..databases import alive
from ..databases.dialect import DATABASE_ERRORS, read_news
from ..models import AWAY
from ..sweep.claims import Store
from ..sweep.lane import Lane
from ..sweep.perform import printable

log = logging.getLogger("flagsweep")

LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "jfs", "bcachefs"))
"""File systems on which inotify sees every writer. On a network's or FUSE's another host's writes are not seen."""

OVERDUE = 30
"""Seconds after which a due flag that has no handler here counts as nobody's: another application would have begun it."""

_BLIND: tuple[type[Exception], ...] = (*AWAY, OSError)


class Bell:
    """Tell that somebody may have committed, by asking the clock again and again: works everywhere, costs CPU."""

    name = "polling"
    rings_early = True
    """Whether a ring, or a change, may come before the commit can be read."""

    def __init__(self, every: float):
        self._every = every
        self._stop = threading.Event()

    def wait(self, timeout: float, alert: float | None) -> bool:
        """Wait until the next look.

        :param timeout: seconds at the most.
        :param alert: seconds until the next look where a commit is on its way, else None.
        :return: whether a write was seen, as far as this bell can tell.
        """
        self._stop.wait(min(self._every, timeout))
        return False

    def heard(self) -> set[tuple[int, str]]:
        """Return priority and kind of the flags that this bell was told of since the last call."""
        return set()

    def close(self) -> None:
        """Let the waiting thread go on at once."""
        self._stop.set()

    def free(self) -> None:
        """Close what is open; only once nobody waits any more."""


class FileBell(Bell):
    """Ring when the write-ahead log is written, told by the kernel (inotify): no CPU while nothing happens."""

    name = "inotify"

    def __init__(self, database: Path):
        from inotify_simple import INotify, flags

        super().__init__(1.0)
        self._names = {database.name + "-wal", database.name}
        self._freeing = threading.Lock()
        self._freed = False
        self._notify = INotify(nonblocking=True)
        self._read_end, self._write_end = os.pipe()
        try:
            self._notify.add_watch(database.parent, flags.MODIFY | flags.CREATE | flags.MOVED_TO)
        except OSError:
            self.close()
            self.free()
            raise
        self._overflow = flags.Q_OVERFLOW
        self._poll = select.poll()
        self._poll.register(self._notify.fileno(), select.POLLIN)
        self._poll.register(self._read_end, select.POLLIN)

    def wait(self, timeout: float, alert: float | None) -> bool:
        patience = timeout if alert is None else min(alert, timeout)
        if patience < 0.002:
            time.sleep(patience)
            patience = 0
        if not self._poll.poll(patience * 1000):
            return False
        return any(event.name in self._names or event.mask & self._overflow for event in self._notify.read(timeout=0))

    def close(self) -> None:
        super().close()
        with self._freeing:  # Who waited may have gone on by itself, and freed what this would write to.
            if not self._freed:
                os.write(self._write_end, b".")

    def free(self) -> None:
        with self._freeing:
            self._freed = True
            self._notify.close()
            os.close(self._read_end)
            os.close(self._write_end)


class SessionBell(Bell):
    """Ring when the server tells that flags were raised, at their commit; look once a second besides."""

    name = "LISTEN"
    rings_early = False

    def __init__(self, listen: Callable[[], Any]):
        super().__init__(1.0)
        self._listen = listen
        self._session: Any = None
        self._asked = time.monotonic()
        self._heard: set[tuple[int, str]] = set()
        self._lock = threading.Lock()
        self._read_end, self._write_end = os.pipe()

    def wait(self, timeout: float, alert: float | None) -> bool:
        if self._session is None:
            self._listen_anew()
        connection = self._session.connection()
        ends = select.poll()  # select() takes no descriptor above 1,023.
        ends.register(connection, select.POLLIN)
        ends.register(self._read_end, select.POLLIN)
        if all(ready == self._read_end for ready, _ in ends.poll(min(timeout, self._every) * 1000)):
            return self._ask_whether_it_lives(connection)
        try:
            told = [notice.payload for notice in connection.notifies(timeout=0)]
        except DATABASE_ERRORS:  # Such as the end of a session that was idle for too long, which this one ever is.
            self._listen_anew()
            return True  # What was told meanwhile nobody heard: look.
        self._heard |= {news for news in map(read_news, told) if news}
        return bool(told)

    def _ask_whether_it_lives(self, connection: Any) -> bool:
        """Where nothing was told for long, see whether it still could be; return whether something may have been missed."""
        if time.monotonic() - self._asked < alive.LONG:
            return False
        self._asked = time.monotonic()
        if not alive.answers(connection):
            self._listen_anew()
        return True  # What was told just now may have come with the answer.

    def _listen_anew(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(Exception):
                session.close()
        self._session = self._listen()

    def heard(self) -> set[tuple[int, str]]:
        heard, self._heard = self._heard, set()
        return heard

    def close(self) -> None:
        super().close()
        with self._lock:
            if self._write_end >= 0:
                os.write(self._write_end, b".")

    def free(self) -> None:
        with self._lock:
            for end in (self._read_end, self._write_end):
                os.close(end)
            self._write_end = -1
        if self._session is not None:
            self._session.close()


def choose_bell(mode: str, store: Store, every: float) -> Bell:
    """Return the best bell for this place.

    :param mode: the setting ``watch``.
    :param every: seconds between two looks where polling a file has to do; a server is asked once a second.
    """
    if store.dialect.shared:
        listen = store.dialect.listener(store.session)
        return Bell(1.0) if mode == "poll" or listen is None else SessionBell(listen)
    database = store.file
    if database is None or mode == "poll" or not store.dialect.tells_writes(store.engine) or file_system(database) not in LOCAL:
        return Bell(every)
    try:
        return FileBell(database.resolve())
    except (ImportError, OSError) as error:
        log.warning("commits are seen by polling every %g s: inotify is not to be had: %s", every, error)
        return Bell(every)


def file_system(path: Path) -> str:
    """Return the type of the file system that holds a path, or ``unknown``."""
    best = (-1, "unknown")
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, mount, kind = line.split(" ")[:3]
            mount = mount.encode().decode("unicode_escape")
            if path.is_relative_to(mount):
                best = max(best, (len(mount), kind))
    return best[1]


class Watcher(threading.Thread):
    """Ask for a sweep as soon as a commit made a flag due, or its time has come.

    A write to the log is seen a little before its commit can be read, so the database's ``data_version`` is asked for a while
    after each: every 0.3 ms at first, then less and less often, until nothing has changed for ten seconds.
    """

    FIRST, GROWTH, LAST, WINDOW = 0.0003, 1.5, 0.25, 10.0
    BUSY = 0.005
    """Seconds between two looks while a sweep runs: its own commits ring, too."""
    LATER = 0.02
    """Seconds until a look where the server has told what is due: not beside the claim of that."""

    def __init__(self, store: Store, lanes: Mapping[str, Lane], ask: Callable[[str], None], bell: Bell, clock: Clock):
        super().__init__(name="flagsweep-watcher", daemon=True)
        self._store = store
        self._lanes = lanes
        self._ask = ask
        self._bell = bell
        self._clock = clock
        self._lane_of = {kind: name for name, lane in lanes.items() for kind in lane.kinds()}
        self._kinds = json.dumps(list(self._lane_of))
        self._version: int | None = None
        self._next_due: float = 0.0
        self._stopping = False

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._bell.close()
        if self.ident is None:  # It was never started, and frees nothing.
            self._bell.free()

    def run(self) -> None:
        """Watch until stopped; a database that is away is asked again every second."""
        alert, window = None, 0.0
        while not self._stopping:
            try:
                rung = self._bell.wait(self._until_due(), alert)
                asked = self._pass_on(self._bell.heard())
                changed = self._has_changed()
                now = self._clock.monotonic()
                if asked:
                    self._next_due = min(self._next_due, now + self.LATER)
                if now >= self._next_due or (not asked and (changed or self._may_a_lane_see(now))):
                    self._look(changed)
            except Exception as error:  # Out of memory, too: without a watcher only the sweep of the minute would find work.
                level = logging.DEBUG if isinstance(error, _BLIND) else logging.ERROR
                log.log(level, "the watcher cannot look: %s", error)
                with suppress(Exception):
                    self._store.close_thread()
                self._next_due = self._clock.monotonic() + 1
                time.sleep(0.2)
                continue
            if (rung or changed) and self._bell.rings_early:
                alert, window = self.BUSY if self._is_busy() else self.FIRST, now + self.WINDOW
            elif alert is not None:
                alert = min(self.LAST, alert * self.GROWTH) if now < window else None
        self._store.close_thread()
        self._bell.free()

    def _until_due(self) -> float:
        return max(0.0, min(self._next_due - self._clock.monotonic(), 1.0 if self._is_busy() else 30.0))

    def _is_busy(self) -> bool:
        return any(lane.busy for lane in self._lanes.values())

    def _may_a_lane_see(self, now: float) -> bool:
        """Return whether a lane that was asked too early to look for own rows may look now: it says so only once asked."""
        return any(lane.wake_at is not None and lane.wake_at <= now for lane in self._lanes.values())

    def _has_changed(self) -> bool:
        version = self._store.changes()
        changed = version != self._version
        self._version = version
        return changed

    def _pass_on(self, heard: set[tuple[int, str]]) -> bool:
        """Ask for a sweep of what the server told of, which spares two looks; return whether there was anything."""
        known = [(priority, kind, self._lane_of[kind]) for priority, kind in heard if kind in self._lane_of]
        for priority, kind, name in known:
            self._lanes[name].hint(priority, kind)
        for name in {name for _, _, name in known}:
            self._ask(name)
        return bool(known)

    def _look(self, changed: bool) -> None:
        """Ask for a sweep of each lane that has something to do, and take note when to look next."""
        now, clock = self._clock.now(), self._clock.monotonic()
        next_due = clock + 30
        due = set()
        for kind, _, earliest in self._store.agenda_of(self._kinds):
            if earliest <= now:
                due.add(self._lane_of[kind])
            else:
                next_due = min(next_due, clock + (earliest - now) / SECOND)
        for name, lane in self._lanes.items():
            wake_at = lane.wake_at
            if wake_at is not None:
                next_due = min(next_due, max(wake_at, clock + 0.001))
            if lane.has_own_rows() and (changed or (wake_at is not None and wake_at <= clock)):
                due.add(name)
        if due:
            next_due = min(next_due, clock + 1)
        self._next_due = next_due
        for name in due:
            self._ask(name)


@dataclass
class Chore:
    """Say what is done again and again, and when: seconds of the monotonic clock.

    :param every: seconds from one time to the next; ``inf``: once.
    :param due: when it is done next.
    """

    do: Callable[[], None]
    every: float
    due: float = 0.0
    told: float = -math.inf
    """When its failure was last told of."""


class Chores(threading.Thread):
    """Do chores, each when it is due. One that fails is logged once a minute, tried again in a minute or when it is next due,
    whichever comes first, and hinders no other.

    :param tick: seconds between two looks at what is due.
    """

    def __init__(self, name: str, tick: float, chores: Iterable[Chore], clock: Clock):
        super().__init__(name=name, daemon=True)
        self._tick = tick
        self._chores = list(chores)
        self._clock = clock
        self._done = threading.Event()

    def stop(self) -> None:
        """End the thread."""
        self._done.set()

    def run(self) -> None:
        """Do the chores until stopped."""
        self.run_once(self._clock.monotonic())
        while not self._done.wait(self._tick):
            self.run_once(self._clock.monotonic())
        self._end()

    def run_once(self, now: float) -> None:
        """Do what is due at ``now``, seconds of the monotonic clock."""
        for chore in self._chores:
            if now >= chore.due:
                chore.due = now + chore.every
                try:
                    chore.do()
                except Exception as error:
                    self._failed(chore, error, now)

    def _failed(self, chore: Chore, error: Exception, now: float) -> None:
        chore.due = min(chore.due, now + 60)  # What is done once, or once an hour, must not wait for that.
        if now - chore.told >= 60:
            chore.told = now
            what = chore.do.__name__.strip("_").replace("_", " ")
            log.error("a chore of the %s failed, it is tried again (%s): %s", self.name.rpartition("-")[2], what, error)

    def _end(self) -> None:
        """Leave nothing behind."""


class Guard(Chores):
    """Once a second: is the database still the one we opened, can each lane still do something, does a handler take long.

    It asks no database: a server that is away or hangs must not hold it up, since the process is ended while it stands still.

    :param replaced: tells why the database under us is no longer ours, or returns None.
    :param stop: ends the consumer, for the reason given.
    :param give_up: the same where a lane can do nothing any more.
    :param stuck_after: seconds after which a handler counts as hung; None: however long it takes.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        clock: Clock,
        replaced: Callable[[], str | None],
        stop: Callable[[str], None],
        give_up: Callable[[str], None],
        stuck_after: float | None = None,
    ):
        chores = (self._beat, self._check_database, self._check_threads, self._report_slow)
        super().__init__("flagsweep-guard", 1.0, [Chore(chore, 1) for chore in chores], clock)
        self._lanes = lanes
        self._replaced = replaced
        self._stop_consumer = stop
        self._give_up = give_up
        self._stuck_after = stuck_after
        self._reported: dict[int, float] = {}

    def start(self) -> None:
        """Begin, before any handler does."""
        self._beat()
        try:
            super().start()
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        if self._stuck_after is not None:
            faulthandler.cancel_dump_traceback_later()

    def _beat(self) -> None:
        """Put off the end of the process, which C code brings about: a handler may keep the interpreter from this thread, too."""
        if self._stuck_after is not None and sys.stderr is not None:
            faulthandler.dump_traceback_later(self._stuck_after, exit=True, file=sys.stderr)

    def _check_database(self) -> None:
        reason = self._replaced()
        if reason:
            self._stop_consumer(reason)

    def _check_threads(self) -> None:
        """End where a lane can do nothing any more: whoever watches over this process starts it again."""
        for lane in self._lanes.values():
            trouble = lane.pool.trouble(self._stuck_after)
            if trouble and not self._done.is_set():
                self._give_up(f"lane {lane.name} is stuck: {trouble}")

    def _report_slow(self) -> None:
        now = time.monotonic()
        for lane in self._lanes.values():
            for claimed, began in list(lane.pool.running.values()):
                limit = lane.handlers[claimed.kind].options.slow_after
                if limit is None or now - began < limit:
                    continue
                if now - self._reported.get(claimed.id, -60.0) >= 60:
                    self._reported[claimed.id] = now
                    log.warning("%s (flag %d) runs for %.0f s", claimed.kind, claimed.id, now - began)
        self._reported = {flag: told for flag, told in self._reported.items() if now - told < 120}


class Keeper(Chores):
    """Look after what nobody else does in the database: free what the dead had claimed, mend times, ask for what is overdue.

    :param rescue: frees what dead consumers had claimed; returns how many flags.
    :param keep_history: seconds for which history is kept.
    """

    LONG_LOG = 64 * 1024 * 1024
    """Bytes of a write-ahead log that are worth a line in ours."""

    def __init__(
        self,
        store: Store,
        lanes: Mapping[str, Lane],
        ask: Callable[[str], None],
        clock: Clock,
        rescue: Callable[[], int],
        keep_history: float,
    ):
        # On a server a lock must have been free for a while: to take over within two seconds, it is looked at more often.
        tick, now = 0.25 if store.dialect.shared else 1.0, clock.monotonic()
        self._mending = Chore(self._mend_times, math.inf, now)
        chores = [
            Chore(self._free_the_dead, tick, now + tick),
            Chore(self._check_clock, 1, now + 1),
            self._mending,
            Chore(self._trim_log, 5),
            Chore(self._release_strays, 15, now + 15),
            Chore(self._ask_for_the_overdue, 30, now + 30),
            Chore(self._name_unknown_kinds, 20),
            Chore(self._prune, 3600, now + 60),
        ]
        super().__init__("flagsweep-keeper", tick, chores, clock)
        self._store = store
        self._lanes = lanes
        self._ask = ask
        self._rescue = rescue
        self._keep_history = keep_history
        self._offset = self._clock_offset()
        self._unknown: set[str] = set()
        self._told_of_log = -60.0

    def _end(self) -> None:
        self._store.close_thread()

    def _free_the_dead(self) -> None:
        if self._rescue():
            for name in self._lanes:
                self._ask(name)

    def _clock_offset(self) -> float:
        return self._clock.now() / SECOND - self._clock.monotonic()

    def _check_clock(self) -> None:
        """Mend due times where the wall clock was set back: what it had dated would wait for the old time to come again."""
        offset = self._clock_offset()
        jump, self._offset = offset - self._offset, offset
        if abs(jump) >= 2:
            log.warning("the clock jumped by %+.0f s", jump)
            self._mending.due = self._clock.monotonic()

    def _mend_times(self) -> None:
        now = self._clock.now()
        mended = self._store.heal_clock(now, now + int((LONGEST + 86400) * SECOND))
        if mended:
            log.warning("mended the due times of %d flags that a wrong clock had written", mended)

    def _release_strays(self) -> None:
        """Give back claims of which nobody knows: a server may carry one out after its consumer gave up waiting, or died."""
        for lane in self._lanes.values():
            lane.release_strays()
        freed = self._store.release_orphans(self._clock.now())
        if freed:
            log.warning("%d flags are free again that were claimed by a consumer which is gone", freed)

    def _ask_for_the_overdue(self) -> None:
        """Do the minute's work where Huey's scheduler does not."""
        for name, lane in self._lanes.items():
            if not lane.busy and lane.has_due():
                lane.asked = False  # What was asked for half a minute ago was lost with the queue.
                self._ask(name)

    def _trim_log(self) -> None:
        """Shorten the write-ahead log. A reader that never ends keeps anybody from that, so it is told of once a minute."""
        size, now = self._store.trim_log(), self._clock.monotonic()
        if size > self.LONG_LOG and now - self._told_of_log >= 60:
            self._told_of_log = now
            log.warning(
                "the database's log has %d MiB and cannot be written back: some program leaves a query or a transaction open",
                size >> 20,
            )

    def _name_unknown_kinds(self) -> None:
        """Tell of kinds that nobody serves: flags that are overdue and have no handler here, nor, it seems, elsewhere."""
        now = self._clock.now()
        served = {kind for lane in self._lanes.values() for kind in lane.kinds()}
        unknown = set(self._store.waiting_kinds()) - served
        overdue = (
            {kind for kind, _, due in self._store.agenda(list(unknown)) if due <= now - OVERDUE * SECOND} if unknown else set()
        )
        if overdue - self._unknown:
            log.warning(
                "flags of kinds without a handler wait: %s; no other application has begun them for %d s, either",
                ", ".join(sorted(printable(str(kind)) for kind in overdue)),
                OVERDUE,
            )
        self._unknown = overdue

    def _prune(self) -> None:
        self._store.prune(self._clock.now() - int(self._keep_history * SECOND))

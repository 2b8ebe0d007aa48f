"""Wake-ups: what tells a consumer that somebody may have committed."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..databases import alive
from ..databases.doorbell import Door, Due
from ..databases.errors import DATABASE_ERRORS
from ..databases.news import read_news
from ..sweep.claims import Store

log = logging.getLogger("flagsweep")

LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "jfs", "bcachefs"))
"""File systems on which inotify sees every writer. On a network's or FUSE's another host's writes are not seen."""

FD_SETSIZE = 1024
"""``select`` takes no descriptor from this number on."""


class Bell:
    """Tell that somebody may have committed, by asking the clock again and again: works everywhere, costs CPU.

    :param every: seconds between two looks.
    :param door: where raises of this host ring.
    """

    name = "polling"
    rings_early = True
    """Whether a ring, or a change, may come before the commit can be read."""

    def __init__(self, every: float, door: Door | None = None):
        self._every = every
        self._door = door
        self._heard: set[Due] = set()
        self._lock = threading.Lock()
        self._freed = False
        self._read_end, self._write_end = os.pipe()
        self._poll = select.poll()  # select() takes no descriptor above 1,023.
        self._ends = [self._read_end, *([door.fileno()] if door else [])]
        for end in self._ends:
            self._poll.register(end, select.POLLIN)

    def wait(self, timeout: float, alert: float | None) -> bool:
        """Wait until the next look.

        :param timeout: seconds at the most.
        :param alert: seconds until the next look where a commit is on its way, else None.
        :return: whether a write was seen, as far as this bell can tell.
        """
        return self._has_rung(self._wait(min(self._every, timeout)))

    def _wait(self, seconds: float) -> set[int]:
        """Wait until something can be read, or the time is over; return what can be read."""
        return {ready for ready, _ in self._poll.poll(seconds * 1000)}

    def _wait_shortly(self, seconds: float) -> set[int]:
        """Do the same for less than a millisecond, which ``poll`` cannot, and for whatever rings but the file."""
        if max(self._ends) >= FD_SETSIZE:
            time.sleep(seconds)
            return self._wait(0)
        return set(select.select(self._ends, (), (), seconds)[0]) or self._wait(0)

    def _has_rung(self, ready: set[int]) -> bool:
        if self._door is None or self._door.fileno() not in ready:
            return False
        self._heard |= self._door.heard()
        return True

    def heard(self) -> set[Due]:
        """Return priority and kind of the flags that this bell was told of since the last call."""
        heard, self._heard = self._heard, set()
        return heard

    def close(self) -> None:
        """Let the waiting thread go on at once."""
        with self._lock:  # Who waited may have gone on by itself, and freed what this would write to.
            if not self._freed:
                os.write(self._write_end, b".")

    def free(self) -> None:
        """Close what is open; only once nobody waits any more."""
        with self._lock:
            self._freed = True
            os.close(self._read_end)
            os.close(self._write_end)
        if self._door is not None:
            self._door.close()


class FileBell(Bell):
    """Ring when the write-ahead log is written, told by the kernel (inotify): no CPU while nothing happens."""

    name = "inotify"
    SHORT = 0.002
    """Seconds below which a wait is cut short by no write: the log is written, and the commit is not there yet."""

    def __init__(self, database: Path, door: Door | None = None):
        from inotify_simple import INotify, flags

        self._notify = INotify(nonblocking=True)  # First: where the system has no more of them, nothing else is open yet.
        super().__init__(1.0, door)
        self._names = {database.name + "-wal", database.name}
        try:
            self._notify.add_watch(database.parent, flags.MODIFY | flags.CREATE | flags.MOVED_TO)
        except OSError:
            self._door = None  # Another bell will have it.
            self.free()
            raise
        self._overflow = flags.Q_OVERFLOW
        self._poll.register(self._notify.fileno(), select.POLLIN)

    def wait(self, timeout: float, alert: float | None) -> bool:
        patience = timeout if alert is None else min(alert, timeout)
        ready = self._wait(patience) if patience >= self.SHORT else self._wait_shortly(patience)
        rung = self._has_rung(ready)
        if self._notify.fileno() not in ready:
            return rung
        seen = self._notify.read(timeout=0)
        return rung or any(event.name in self._names or event.mask & self._overflow for event in seen)

    def free(self) -> None:
        super().free()
        self._notify.close()


class SessionBell(Bell):
    """Ring when the server tells that flags were raised, at their commit; look once a second besides."""

    name = "LISTEN"
    rings_early = False

    def __init__(self, listen: Callable[[], Any]):
        super().__init__(1.0)
        self._listen = listen
        self._session: Any = None
        self._asked = time.monotonic()

    def wait(self, timeout: float, alert: float | None) -> bool:
        if self._session is None:
            self._listen_anew()
        connection = self._session.connection()
        number = connection.fileno()
        self._poll.register(number, select.POLLIN)
        try:
            ready = self._wait(min(timeout, self._every))
        finally:
            self._poll.unregister(number)
        if number not in ready:
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

    def free(self) -> None:
        super().free()
        if self._session is not None:
            self._session.close()


def choose_bell(mode: str, store: Store, every: float, folder: Path | None = None, results: bool = False) -> Bell:
    """Return the best bell for this place.

    :param mode: the setting ``watch``.
    :param every: seconds between two looks where polling a file has to do; a server is asked once a second.
    :param folder: where the consumers of this host keep what they note, and where raises ring.
    :param results: it is to ring for settled flags whose results are kept, and not for raises.
    """
    connections = store.connections
    dialect, database = connections.dialect, connections.file
    listener = dialect.result_listener if results else dialect.listener
    if dialect.shared and mode != "poll" and (listen := listener(connections.session)) is not None:
        return SessionBell(listen)
    silent = mode == "poll" or dialect.shared or not dialect.tells_writes(connections.engine)
    door = _open_door(folder)
    if silent or database is None or file_system(database) not in LOCAL:
        return Bell(1.0 if dialect.shared and not results else every, door)
    try:
        return FileBell(database.resolve(), door)
    except (ImportError, OSError) as error:
        log.warning("commits are seen by polling every %g s: inotify is not to be had: %s", every, error)
        return Bell(every, door)


def _open_door(folder: Path | None) -> Door | None:
    try:
        return None if folder is None else Door(folder)
    except (OSError, AttributeError) as error:  # Too long a path; a system without such sockets.
        log.debug("raises of this host cannot ring: %s", error)
        return None


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

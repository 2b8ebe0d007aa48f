"""The doorbell: on one host, whoever raises a flag tells the consumers of its commit, through a socket in their folder.

Nothing depends on it: a consumer that hears nothing sees the commit as it would without, only later. What it hears is taken for
a hint, whoever rang; the folder is its user's alone.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from .news import news, read_news

PREFIX = "bell-"
LONGEST = 1024
"""Bytes of a message that are read: a kind is shorter."""
SORTS = 1024
"""Kinds and priorities whose rings are kept ready."""
MOST = 64
"""Messages that are read at once: a socket holds about ten."""
PAUSE = 0.005
"""Seconds between two looks at who is there, and between two rings of one sort: who has heard one looks by itself a little later.
So a raise in a loop costs no more for it."""
SETTLED = 0.05
"""Seconds for which a folder must have stood still: within one tick of the clock, its time of change does not tell of another."""

Due = tuple[int, str]
"""Priority and kind of a flag that is due."""


class Doorbell:
    """Ring at the consumers of this host.

    :param folder: returns where they keep their bells, or None where nobody can have any; asked at the first ring.
    """

    def __init__(self, folder: Callable[[], Path | None]):
        self._find = folder
        self._folder: str | None = None
        self._found = False
        self._bells: list[str] = []
        self._seen = -1
        self._look_at = 0.0
        self._rings_again: dict[bytes, float] = {}
        self._socket: socket.socket | None = None
        self._ring_for = lru_cache(SORTS)(self._prepared)

    def ring_after_commit(self, db: Any, kind: str, priority: int) -> None:
        """Tell, once the open transaction commits, or at once, that flags of a sort are due. Never raises, never waits.

        :param db: tells of that commit, as Peewee's do.
        """
        try:
            if not self._is_anybody_there():
                return
            ring = self._ring_for(kind, priority)
            if not is_waiting(db, ring):
                db.after_commit(ring)
        except Exception:  # Within manual_commit() nobody knows when it commits.
            return

    def _prepared(self, kind: str, priority: int) -> Callable[[], None]:
        return partial(self._ring, news(kind, priority).encode())

    def _ring(self, message: bytes) -> None:
        """Run after a commit: an error here would make a committed transaction look like a failed one."""
        now = time.monotonic()
        if now < self._rings_again.get(message, 0.0):
            return
        if len(self._rings_again) >= SORTS:
            self._rings_again.clear()
        self._rings_again[message] = now + PAUSE
        for bell in self._bells:
            with suppress(OSError):  # It is full: who reads it has enough to look for. Or nobody has it any more.
                self._socket.sendto(message, bell)  # type: ignore[union-attr]

    def _is_anybody_there(self) -> bool:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + PAUSE
            self._look()
        return bool(self._bells)

    def _look(self) -> None:
        """See whose bells there are."""
        if not self._found:
            self._found = True
            folder = self._find()
            self._folder = None if folder is None else str(folder)
        try:
            changed = os.stat(self._folder).st_mtime_ns if self._folder is not None else self._seen
            if changed != self._seen:
                self._bells = list(_bells(str(self._folder)))
                self._seen = changed if time.time_ns() - changed > SETTLED * 1e9 else -1
                self._socket = self._socket or (_unix_socket() if self._bells else None)
        except OSError:
            self._bells = []


class Door:
    """Hear who rings, as one consumer.

    :param folder: where the consumers of this host keep what they note.
    :raises OSError: where there can be no such socket, as with too long a path.
    """

    def __init__(self, folder: Path):
        for left in _bells(str(folder)):
            _remove_if_nobodys(left)
        self.path = folder / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self._socket = _unix_socket()
        try:
            self._socket.bind(str(self.path))
            os.chmod(self.path, 0o600)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that can be read once somebody has rung."""
        return self._socket.fileno()

    def heard(self) -> set[Due]:
        """Return what was told since the last call, without waiting. What makes no sense is dropped."""
        told = []
        with suppress(OSError):
            for _ in range(MOST):
                told.append(self._socket.recv(LONGEST).decode(errors="replace"))
        return {due for due in map(read_news, told) if due}

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
        with suppress(OSError):
            self.path.unlink()


def _unix_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


def _bells(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from [entry.path for entry in entries if entry.name.startswith(PREFIX)]


def _remove_if_nobodys(bell: str) -> None:
    """Remove what a dead consumer has left."""
    with _unix_socket() as asking:
        try:
            asking.connect(bell)
        except ConnectionRefusedError:
            with suppress(OSError):
                os.unlink(bell)
        except OSError:
            pass


def is_waiting(db: Any, ring: Callable[[], None]) -> bool:
    """Return whether that runs already once the open transaction commits."""
    if hasattr(db, "is_waiting"):
        return bool(db.is_waiting(ring))
    return ring in getattr(db._state, "commit_callbacks", ())

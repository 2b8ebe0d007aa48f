"""Leases on a database server: locks that belong to a session, which the server drops with its connection.

A consumer keeps one connection for nothing else. Where it breaks, the locks are gone while the process lives, so it takes them
again at once, and claims nothing until it has; others wait a moment before they take it for dead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from peewee import Database

from ..databases.errors import DATABASE_ERRORS
from ..databases.server import Server
from ..errors import LeaseHeld, NotReady

_LOST: tuple[type[Exception], ...] = (*DATABASE_ERRORS, LeaseHeld, NotReady)


class SessionLease:
    """Hold numbers, one for each consumer, and names, one for each lane's seat, in a session of the server.

    :param connect: makes a database object with one connection of its own, which it does not open by itself.
    :raises NotReady: where the server cannot be asked, or a pooler would share the session with others.
    """

    GRACE = 1.0
    """Seconds for which a lock must be free before its consumer counts as dead."""
    GRACE_AFTER_RESTART = 10.0
    """The same for a server that has just started: everybody's connection broke at that time."""
    FENCE = 0.75
    """Seconds since the last sign of life after which nothing may be claimed: less than the time others wait."""

    def __init__(self, connect: Callable[[], Database], dialect: Server):
        self._dialect = dialect
        self._db = connect()
        self._lock = threading.RLock()
        self._held: set[str] = set()
        self._free_since: dict[str, tuple[int, float]] = {}
        self._seen = time.monotonic()
        self._lost = False
        self._unconfirmed = False
        try:
            self._db.connect()
            problem = dialect.unfit_session(self._db)
        except DATABASE_ERRORS as error:
            raise NotReady(f"a lease cannot be had: {' '.join(str(error).split())}") from error
        if problem:
            self.close()
            raise NotReady(problem)

    def take(self, consumer: int) -> None:
        """Take the lock of one consumer.

        :raises LeaseHeld: where another session has it.
        """
        if not self.take_name(_of(consumer)):
            raise LeaseHeld(f"the lease {consumer} is held by another consumer")

    def take_name(self, name: str) -> bool:
        """Take a lock by its name; return whether it is ours now."""
        with self._lock:
            if name not in self._held and not self._dialect.try_lock(self._db, name):
                return False
            self._held.add(name)
        return True

    def holds(self, name: str) -> bool:
        """Return whether a lock is ours, as far as we know."""
        return name in self._held

    def drop(self, consumer: int) -> None:
        """Give up the lock of one consumer, without asking the server: its session is gone."""
        self._held.discard(_of(consumer))

    def drop_name(self, name: str) -> None:
        """Give a lock back."""
        with self._lock, suppress(*DATABASE_ERRORS):
            self._held.discard(name)
            self._dialect.unlock(self._db, name)

    def is_held(self, consumer: int) -> bool:
        """Return whether somebody holds this consumer's lock."""
        with self._lock:
            return self._dialect.is_locked(self._db, _of(consumer))

    def is_dead(self, consumer: int, comebacks: int = 0) -> bool:
        """Return whether its lock has been free for so long that the consumer must be dead.

        :param comebacks: how often it has come back: between two looks it may have, and lost its session once more.
        """
        return self._is_free_for_long(_of(consumer), comebacks)

    def take_free_name(self, name: str, at_once: bool) -> bool:
        """Take a lock by its name, unless its last owner may still come back for it."""
        return (at_once or self._is_free_for_long(name)) and self.take_name(name)

    def _is_free_for_long(self, name: str, comebacks: int = 0) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._dialect.is_locked(self._db, name):
                self._free_since.pop(name, None)
                return False
            young = self._dialect.uptime(self._db) < self.GRACE_AFTER_RESTART
        seen, since = self._free_since.get(name, (comebacks, now))
        self._free_since[name] = (comebacks, since if seen == comebacks else now)
        return seen == comebacks and now - since >= (self.GRACE_AFTER_RESTART if young else self.GRACE)

    def keep(self, again: bool = True) -> bool:
        """Ask for a sign of life, and take everything again where the session was lost; return whether all is ours.

        :param again: take it again. Only who then asks whether the consumer was taken for dead, and confirms, may do that.
        """
        with self._lock:
            if not again and (self._lost or self._unconfirmed):
                return False
            try:
                if self._lost:
                    self._take_again()
                else:
                    self._dialect.ping(self._db)
            except _LOST:
                self._lost = True
                return False
            self._seen = time.monotonic()
        return True

    def _take_again(self) -> None:
        self._dialect.drop(self._db)
        self._db.connect()
        for name in sorted(self._held):
            if not self._dialect.try_lock(self._db, name):
                if name.startswith(_of("")):
                    raise LeaseHeld(f"{name} is held by another session")
                self._held.discard(name)  # Who stood by has the seat now.
        self._lost, self._unconfirmed = False, True

    def needs_confirming(self) -> bool:
        """Return whether everything was taken again, and nobody has asked yet whether the consumer was taken for dead."""
        return self._unconfirmed

    def confirm(self) -> None:
        """Say that the consumer is entered, under an id whose lock is ours: it may claim again."""
        self._unconfirmed = False

    def is_sure(self) -> bool:
        """Return whether this process may claim: its locks were ours a moment ago, which is less than others wait."""
        return not self._unconfirmed and time.monotonic() - self._seen < self.FENCE

    def is_intact(self) -> bool:
        """Return whether there is a lease at all; a broken session is taken again."""
        return True

    def close(self) -> None:
        """Give up all that is held."""
        with self._lock, suppress(*DATABASE_ERRORS):
            self._held.clear()
            self._db.close()


def _of(consumer: int | str) -> str:
    return f"consumer {consumer}"

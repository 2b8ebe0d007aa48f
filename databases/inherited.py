"""Connections that a forked child gets from its parent and must not use: who has made them is told here."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from peewee import Database

from .alive import descriptor
from .forks import at_fork
from .identity import identity

FORK_PATIENCE = 2.0
"""Seconds for which a fork waits for threads that are just connecting: what they get would be the child's, too."""


class Inheritance:
    """Keep a forked child from the connections of its parent's."""

    def __init__(self) -> None:
        self._databases: weakref.WeakSet[Database] = weakref.WeakSet()
        self._sockets: dict[int, tuple[int, int] | None] = {}
        """What each connection to a server is, by its descriptor, which another file may have got since."""
        self._connecting: set[int] = set()
        self._changed = threading.Condition()
        self._kept: list[Any] = []
        at_fork(self._before, self._in_parent, self._in_child)

    def add(self, db: Database) -> None:
        """Look after the connections of a database object."""
        self._databases.add(db)

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """Have no fork take place while this thread connects to a server."""
        with self._changed:
            self._connecting.add(threading.get_ident())
        try:
            yield
        finally:
            with self._changed:
                self._connecting.discard(threading.get_ident())
                self._changed.notify_all()

    def connected(self, connection: Any) -> None:
        """Look after a driver's connection to a server, made while ``connecting``."""
        number = descriptor(connection)
        self._sockets[number] = identity(number)

    def _before(self) -> None:
        self._changed.acquire()
        self._changed.wait_for(lambda: not self._connecting, FORK_PATIENCE)

    def _in_parent(self) -> None:
        self._changed.release()

    def _in_child(self) -> None:
        """Forget connections that a fork inherited, and never close them: SQLite forbids to use or close them in the child.

        Those to a server are cut off from it, without a word: its session, and with that a lease, would live on with the child.
        """
        self._connecting.clear()
        self._changed.release()
        db: Any
        for db in list(self._databases):
            if not db._state.closed:  # Not is_closed(), which hides what is kept for a thread's next handler.
                self._kept.append(db._state.conn)
                db.dispose()
        # No driver is asked for anything: another thread may have been within it at the fork.
        for number, found in list(self._sockets.items()):
            if found is not None and identity(number) == found:
                with suppress(OSError):  # It was closed already.
                    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                    os.dup2(nowhere, number, inheritable=False)
                    os.close(nowhere)
        self._sockets.clear()


inheritance = Inheritance()
"""That of this process: a fork copies all of it."""

"""The site's connection between two flags: kept open for the thread's next handler, and closed in every handler's sight.

A handler finds it closed, as in a thread of its own, whatever the one before left: so ``connect()`` is as good as doing without.
To connect anew for each flag would cost more than most handlers do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .alive import TRIES, discard


class Spare:
    """Keep the connection of each thread that performs, one flag after the other.

    Meanwhile the database object calls closed what is kept, and connecting takes it, unless the server has ended it.

    :param is_stale: whether a driver's connection must not be used any more.
    """

    def __init__(self, db: Any, is_stale: Callable[[Any], bool]):
        self._db = db
        self._is_stale = is_stale
        self._lock = threading.Lock()
        self._threads: set[int] = set()
        self._inherited: list[Any] = []

    @classmethod
    def of(cls, db: Any, is_stale: Callable[[Any], bool]) -> Spare:
        """Return the one that there is for a database object, which several stores may share."""
        return vars(db).setdefault("_flagsweep_spare", cls(db, is_stale))

    @contextmanager
    def performing(self) -> Iterator[None]:
        """Keep this thread's connection from one flag to the next, until it has no more to do."""
        me = threading.get_ident()
        with self._lock:
            nested = me in self._threads  # A handler sweeps, in its own thread.
            if not self._threads:
                self._wrap()
            self._threads.add(me)
        if nested:
            yield
            return
        try:
            yield
        finally:
            self.let_go()
            with self._lock:
                self._threads.discard(me)
                if not self._threads:
                    self._unwrap()

    def put_away(self) -> None:
        """Close this thread's connection in the eyes of the site; in truth only where the thread does not perform."""
        state = self._db._state
        if state.closed:
            return
        if threading.get_ident() not in self._threads:
            self._db.close()
            return
        if state.ctx:  # A handler has entered a context and not left it.
            state.ctx = []
        state.spare = os.getpid()

    def let_go(self) -> None:
        """Close this thread's connection in truth, after a failure: its traceback may hold a cursor, and with a statement that is
        not done with, SQLite keeps the transaction of a connection that the next handler closes behind our back."""
        if self._take() and not self._db._state.closed:
            try:
                self._db.close()
            except Exception:  # Ended by the server just now, or left in a state that Peewee does not close.
                discard(self._db)

    def _wrap(self) -> None:
        names = ("connect", "is_closed")
        self._own = {name: vars(self._db)[name] for name in names if name in vars(self._db)}
        self._connect_anew, state = self._db.connect, self._db._state
        self._db.connect = self._connect
        self._db.is_closed = lambda: state.closed or getattr(state, "spare", 0) != 0

    def _unwrap(self) -> None:
        del self._db.connect, self._db.is_closed
        vars(self._db).update(self._own)

    def _connect(self, reuse_if_open: bool = False) -> bool:
        state = self._db._state
        if getattr(state, "spare", 0) and not state.closed and self._take():
            return True
        state.spare = 0
        opened = self._connect_anew(reuse_if_open)
        for _ in range(TRIES):  # A pool keeps what the server has ended.
            if not opened or not self._is_stale(state.conn):
                break
            discard(self._db)
            self._connect_anew()
        return opened

    def _take(self) -> bool:
        """Have what this thread has kept be open again; return False, and let go of it, where it cannot be used."""
        state = self._db._state
        owner, state.spare = getattr(state, "spare", 0), 0
        if owner not in (0, os.getpid()):  # A handler has forked: the connection is the parent's, and is not to be closed either.
            self._inherited.append(state.conn)
            state.reset()
            return False
        if not state.closed and self._is_stale(state.conn):
            discard(self._db)
            return False
        return True


def pool_size(db: Any) -> int | None:
    """Return how many connections a pool of the site's may have at once; None where it is none, or has no limit."""
    return getattr(db, "_max_connections", None) or None


def free_connections(db: Any) -> int | None:
    """Return how many of a pool's connections nobody has just now; None without a limit."""
    size = pool_size(db)
    return None if size is None else size - len(db._in_use)


def too_small(db: Any, threads: Mapping[str, int]) -> tuple[str, str] | None:
    """Return what is wrong with a pool that has fewer connections than our lanes have threads, and the fix; or None.

    :param threads: how many each lane has.
    """
    size, wanted = pool_size(db), sum(threads.values())
    if size is None or size >= wanted:
        return None
    text = f"the site's pool has {size} connections for {wanted} threads ({_listed(threads)}): {size} handlers run at once"
    return text, f"give it max_connections={wanted} or more, or the lanes fewer threads"


def _listed(threads: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(threads.items()))

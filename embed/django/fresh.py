"""Fresh connections: each handler finds Django's as a request does, and leaves none in a transaction."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from ...sweep.atomic import LeakedTransaction
from ...sweep.in_hand import LaneThread

log = logging.getLogger("flagsweep")


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Run a handler as Django runs a request: what a server has ended, or is older than CONN_MAX_AGE, is not used any more.

    :raises LeakedTransaction: where the handler left a transaction open, which is rolled back.
    """
    if asyncio._get_running_loop() is not None:
        with _coroutines.one():
            yield
        return
    # Who raised, or called sweep(), in this very thread may be reading from its connection.
    ours = isinstance(threading.current_thread(), LaneThread)
    tidy = _tidy if ours else _nothing
    tidy()
    before = frozenset() if ours else _with_transaction()
    try:
        yield
    finally:
        leaked = _rolled_back(before)
        tidy()
        if leaked:
            raise LeakedTransaction(_told(leaked))


class _Coroutines:
    """Count async handlers: all have their connections in the one thread of ``sync_to_async``, where one may read while another
    ends."""

    def __init__(self) -> None:
        self._running = 0
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Tidy before the first and after the last of those that run; in between only what is broken is replaced."""
        self._count(1, _tidy)
        try:
            yield
        finally:
            self._count(-1, _tidy_last)

    def _count(self, change: int, alone: Callable[[], None]) -> None:
        from asgiref.sync import SyncToAsync

        with self._lock:  # What is asked of the thread is done in this order.
            others = self._running if change > 0 else self._running - 1
            self._running += change
            SyncToAsync.single_thread_executor.submit(_close_broken if others else alone)


_coroutines = _Coroutines()


def _nothing() -> None:
    """Leave all as it is."""


def _tidy() -> None:
    from django.db import close_old_connections, reset_queries

    reset_queries()
    close_old_connections()


def _tidy_last() -> None:
    if leaked := _rolled_back(frozenset()):
        log.error("an async handler's writes are lost: %s", _told(leaked))
    _tidy()


def _close_broken() -> None:
    for wrapper in _opened():
        if wrapper.connection is None or wrapper.in_atomic_block or not wrapper.errors_occurred:
            continue
        if wrapper.is_usable():
            wrapper.errors_occurred = False
        else:
            wrapper.close()


def _opened() -> list[Any]:
    """Return this thread's connections, without one in memory, which would end with its transaction."""
    from django.db import connections

    return [each for each in connections.all(initialized_only=True) if each.vendor != "sqlite" or not each.is_in_memory_db()]


def _with_transaction() -> frozenset[str]:
    """Return the aliases of connections that have a transaction open: that of a test, or of who raises inline."""
    return frozenset(each.alias for each in _opened() if _has_transaction(each))


def _rolled_back(before: frozenset[str]) -> list[str]:
    """Roll back and forget connections that have a transaction open and had none before; return their aliases."""
    leaked = [each for each in _opened() if each.alias not in before and _has_transaction(each)]
    for wrapper in leaked:
        _forget(wrapper)
    return [each.alias for each in leaked]


def _forget(wrapper: Any) -> None:
    """Begin anew under an alias: nothing else takes a wrapper out of an ``atomic()`` that is never left."""
    from django.db import connections

    with suppress(Exception):
        wrapper.connection.rollback()
    with suppress(Exception):
        wrapper.close()
    del connections[wrapper.alias]


def _has_transaction(wrapper: Any) -> bool:
    if wrapper.in_atomic_block:
        return True
    raw = wrapper.connection
    return raw is not None and bool(wrapper.autocommit) and _IN_TRANSACTION.get(wrapper.vendor, _in_none)(raw)


def _in_postgresql(raw: Any) -> bool:
    return raw.info.transaction_status in (1, 2, 3)  # Neither idle, nor closed.


def _in_mysql(raw: Any) -> bool:
    if (status := getattr(raw, "server_status", None)) is not None:
        return bool(status & 1)
    # mysqlclient does not tell, so the server does: outside a transaction a savepoint ends with its statement (MySQL's manual).
    with suppress(Exception), closing(raw.cursor()) as cursor:
        cursor.execute("SAVEPOINT flagsweep_open")
        cursor.execute("RELEASE SAVEPOINT flagsweep_open")
        return True
    return False


def _in_none(raw: Any) -> bool:
    return False


_IN_TRANSACTION: dict[str, Callable[[Any], bool]] = {
    "sqlite": lambda raw: bool(raw.in_transaction),
    "postgresql": _in_postgresql,
    "mysql": _in_mysql,
}
"""By what Django calls a connection's vendor: whether the driver has a transaction open, whatever Django believes."""


def _told(aliases: list[str]) -> str:
    return (
        f"the handler left a transaction open on Django's connection {', '.join(map(repr, aliases))}: it was rolled back; "
        "use 'with transaction.atomic():'"
    )

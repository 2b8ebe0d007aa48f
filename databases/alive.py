"""Whether a server is still at the other end of a driver's connection: asked of the socket, which costs no round trip.

A server that ends an idle connection says so at that time, and only who looks hears it. Every driver has other names for that.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LONG = 60.0
"""Seconds without use after which a firewall may have forgotten a connection, and told neither end."""
PATIENCE = 1.0
"""Seconds that such a connection gets to answer."""
TRIES = 100
"""How many dead connections of a pool are passed over, one after the other."""


def descriptor(connection: Any) -> int:
    """Return the file descriptor of a driver's connection."""
    return connection.fileno() if hasattr(connection, "fileno") else connection._sock.fileno()


def is_cut(connection: Any) -> bool:
    """Return whether the driver knows already that its connection is of no use."""
    return not connection.open if hasattr(connection, "open") else bool(connection.closed)


def is_stale(connection: Any, idle: float = 0.0) -> bool:
    """Return whether a connection must not be used any more; never one that is within a transaction.

    :param idle: seconds since it was used, as far as that is known.
    """
    if is_cut(connection):
        return True
    if not (idle >= LONG or _is_readable(connection, 0.0)) or _is_within(connection):
        return False
    return not answers(connection)


def answers(connection: Any) -> bool:
    """Return whether the server answers within ``PATIENCE``, on a connection that does nothing else just now."""
    try:
        if hasattr(connection, "pgconn"):
            return _answers_psycopg(connection)
        if not hasattr(connection, "ping"):  # psycopg2
            connection.cursor().execute("SELECT 1")
            return not connection.closed
        with _bounded(connection):
            connection.ping(False)
    except Exception:  # Whatever a driver says: nobody should use it.
        return False
    return True


def _answers_psycopg(connection: Any) -> bool:
    ask = connection.pgconn
    ask.send_query(b"")
    if not _is_readable(connection, PATIENCE):
        return False
    while ask.get_result() is not None:
        pass
    return not connection.closed


@contextmanager
def _bounded(connection: Any) -> Iterator[None]:
    """Have PyMySQL wait for an answer no longer than ``PATIENCE``."""
    before = getattr(connection, "_read_timeout", None)
    connection._read_timeout = PATIENCE
    try:
        yield
    finally:
        connection._read_timeout = before


def _is_within(connection: Any) -> bool:
    """Return whether a driver knows of an open transaction. What a server has ended without a word still counts as open."""
    if hasattr(connection, "info"):
        return connection.info.transaction_status in (1, 2, 3)  # Active, in a transaction, in a failed one: libpq's numbers.
    return bool(getattr(connection, "server_status", 0) & 1)


def _is_readable(connection: Any, patience: float) -> bool:
    number = descriptor(connection)
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([number], [], [], patience)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(patience * 1000))


def discard(db: Any) -> None:
    """Close this thread's connection for good, which no pool gets back. Who is within a ``connection_context()`` stays in it."""
    within = db._state.ctx
    try:
        if hasattr(db, "manual_close"):
            db.manual_close()
        else:
            db._state.conn.close()
    except Exception:  # It is dead: it may fail to say good-bye.
        pass
    finally:
        db._state.reset()
        db._state.ctx = within


def renew(db: Any) -> None:
    """Open a new connection in the place of one that is stale."""
    discard(db)
    within = db._state.ctx
    try:
        db.connect()
    finally:
        db._state.ctx = within


def refresh(db: Any, idle: float = 0.0) -> None:
    """Have this thread's open connection be one that the server has not ended; within a transaction leave it as it is.

    :param idle: seconds since it was used, as far as that is known.
    """
    for _ in range(TRIES):
        if db.transaction_depth() or not is_stale(db.connection(), idle):
            return
        renew(db)
        idle = 0.0

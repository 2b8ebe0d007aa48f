"""Transactions around a handler: that of an atomic one, which must hold until it is settled, and what any may leave open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peewee import Database, OperationalError

from ..databases.alive import discard
from ..databases.dialect import Dialect
from ..databases.errors import DATABASE_ERRORS

_UNCLOSABLE: tuple[type[Exception], ...] = (*DATABASE_ERRORS, OSError)


class LeakedTransaction(Exception):
    """A handler returned with a transaction open on ``flags.database``: nobody else would ever see what it wrote."""


class BrokenTransaction(Exception):
    """The transaction of an atomic handler ended before its handler did."""


class guarded:
    """Notice a transaction that ends early: a full disk makes SQLite roll it all back, and a handler can swallow that error."""

    def __init__(self, db: Database):
        self._db = db

    def __enter__(self) -> None:
        self._depth = self._db.transaction_depth()
        self._db.execute_sql("SAVEPOINT flagsweep_guard")

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            return
        if self._db.transaction_depth() != self._depth:
            raise LeakedTransaction("the handler left a transaction open")
        try:
            self._db.execute_sql("RELEASE SAVEPOINT flagsweep_guard")
        except DATABASE_ERRORS as gone:
            raise BrokenTransaction(
                f"the handler's transaction ended before it returned ({gone}): it committed, or swallowed a database error"
            ) from gone


@contextmanager
def kept_open(db: Any) -> Iterator[None]:
    """Keep a connection open in which our transaction is: a ``connection_context()`` within leaves it to who is around it.

    :raises OperationalError: Peewee's own where a handler connects or closes, saying why that cannot be.
    """
    db._state.ctx.append(None)
    try:
        yield
    except OperationalError as error:
        if error.args[:1] in _TAKEN:
            text = "an atomic handler runs in a transaction on flags.database, whose connection is open: leave connect() and "
            error.args = (f"{error.args[0]} {text}close() out, or write 'with flags.database.connection_context():'",)
        raise
    finally:
        if db._state.ctx:
            db._state.ctx.pop()


_TAKEN = (("Connection already opened.",), ("Attempting to close database while transaction is open.",))
"""What Peewee says to a handler that connects or closes within our transaction."""


def unmasked(error: BaseException) -> BaseException:
    """Return what broke a transaction: leaving one that has vanished fails in its own way, and hides why."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (BrokenTransaction, LeakedTransaction)):
        cause = cause.__context__
    return cause or error


def leaked(db: Any, dialect: Dialect) -> LeakedTransaction | None:
    """Roll back and close a connection on which a transaction was left open, and return what to say about it."""
    connection = db.connection()
    try:
        if not db.transaction_depth() and not dialect.in_transaction(db):
            return None
    except DATABASE_ERRORS:
        pass  # The handler closed it behind Peewee's back.
    while db.transaction_depth():
        db.pop_transaction()
    try:
        connection.rollback() if hasattr(connection, "rollback") else db.rollback()
        if getattr(db, "database", None) != ":memory:":  # That one ends with its connection.
            db.close()
    except _UNCLOSABLE:
        discard(db)
        db._state.reset()
    return LeakedTransaction(
        "the handler left a transaction open on flags.database, or closed its connection: it was rolled back; "
        "use 'with flags.database.atomic():'"
    )

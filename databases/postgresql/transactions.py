"""PostgreSQL: transactions, and how long one waits in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from peewee import Database

from ..errors import RolledBack
from ..server import Server


class PostgresqlTransactions(Server):
    """Begin, commit, and wait for little."""

    def transaction(self, db: Database, only_claims: bool, together: bool = True) -> AbstractContextManager[None]:
        """A claim that takes from no gate is one statement, which commits by itself: two answers less to wait for."""
        return super().transaction(db, only_claims, together) if together else nullcontext()

    @contextmanager
    def impatient(self, db: Database) -> Iterator[None]:
        """What fails within is undone by its savepoint, and this setting with it."""
        db.execute_sql("SET LOCAL lock_timeout = '2ms'")
        yield
        db.execute_sql("SET LOCAL lock_timeout TO DEFAULT")

    def commit(self, db: Database) -> None:
        """PostgreSQL answers the COMMIT of a transaction that an error has undone with ROLLBACK, and no error."""
        if db.execute_sql("COMMIT").statusmessage != "COMMIT":
            raise RolledBack("the transaction was undone by an error within it: nothing of it took place")

    def in_transaction(self, db: Any) -> bool:
        connection = db.connection()
        return not connection.closed and db._adapter.txn_status(connection) != db._adapter.txn_idle

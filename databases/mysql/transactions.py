"""MySQL and MariaDB: transactions, which a statement or a deadlock may end by itself."""

from __future__ import annotations

from typing import Any

from peewee import Database

from ..errors import RolledBack
from ..server import Server


class MysqlTransactions(Server):
    """Commit what is still a transaction."""

    def commit(self, db: Database) -> None:
        if not self.in_transaction(db):
            raise RolledBack("the transaction ended before its COMMIT: a deadlock undid it, or a statement committed it")
        db.execute_sql("COMMIT")

    def in_transaction(self, db: Any) -> bool:
        connection = db.connection()
        return bool(connection.open and connection.server_status & 1)

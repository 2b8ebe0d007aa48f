"""PostgreSQL, MySQL and MariaDB: gates that somebody else is just making."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewee import Database

from ..errors import DATABASE_ERRORS
from .native import Native


class ServerGates(Native):
    """Wait for nobody who makes a gate: a site may have its transaction open for as long as it likes."""

    def make_gate(self, db: Database, which: Sequence[Any]) -> bool:
        try:
            with self.undoable(db), self.impatient(db):
                self.insert_gate(db, which)
        except DATABASE_ERRORS as error:
            if not self.is_busy(error) or not self.in_transaction(db):
                raise
            return False
        return True

    def insert_gate(self, db: Database, which: Sequence[Any]) -> None:
        """Make a kind's gate, within a part of a transaction that is undone where somebody else is just making it."""
        db.execute_sql(self.own(self.making), ("kind", *which))

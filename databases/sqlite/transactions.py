"""SQLite: one writer at a time, and what it waits for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from peewee import Database

from ..dialect import Dialect
from ..errors import DATABASE_ERRORS


class SqliteTransactions(Dialect):
    """Take the one writer at once: who reads first and then writes fails beside others."""

    one_writer = True
    begin = ("IMMEDIATE",)

    @contextmanager
    def transaction(self, db: Database, only_claims: bool, together: bool = True) -> Iterator[None]:
        """Claims alone do without an fsync: what loses them, a power cut, ends their handlers, too, and they run again.

        Not Peewee's atomic(): where SQLite has rolled back by itself, that fails at rolling back, and hides why.
        """
        if db.database == ":memory:":
            with db.atomic():
                yield
            return
        self._synchronous(db, "NORMAL" if only_claims else "FULL")
        try:
            if together:
                db.execute_sql("BEGIN IMMEDIATE")
                yield
                db.execute_sql("COMMIT")
            else:
                yield
        except BaseException as error:
            self._roll_back(db, sqlite3.SQLITE_FULL in self.codes(error))
            raise

    def _synchronous(self, db: Any, mode: str) -> None:
        if getattr(db._state, "flagsweep_mode", None) != (mode, id(db.connection())):
            db.execute_sql(f"PRAGMA synchronous = {mode}")
            db._state.flagsweep_mode = (mode, id(db.connection()))

    def _roll_back(self, db: Database, full: bool) -> None:
        """Undo the open transaction, if there still is one: SQLite ends it by itself when the disk is full.

        :param full: the disk is full: the log may hold pages that the database has room for already.
        """
        with suppress(*DATABASE_ERRORS):
            if db.connection().in_transaction:
                db.execute_sql("ROLLBACK")
            if full:
                db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def in_transaction(self, db: Database) -> bool:
        return db.connection().in_transaction

    @contextmanager
    def lenient(self, db: Database) -> Iterator[None]:
        """Read text that is not UTF-8, too."""
        connection = db.connection()
        if not hasattr(connection, "text_factory"):  # APSW reads what is UTF-8, and no other text.
            yield
            return
        before, connection.text_factory = connection.text_factory, lambda raw: raw.decode(errors="backslashreplace")
        try:
            yield
        finally:
            connection.text_factory = before

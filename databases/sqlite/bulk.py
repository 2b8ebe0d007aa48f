"""SQLite: whole rows, many at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import peewee
from peewee import Database

from ..bulk import Record, Shape, ended, is_unicode
from ..dialect import Dialect

HIGHEST = "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?), 0), coalesce((SELECT max(id) FROM {table}), 0))"


def _whole(raw: bytes) -> str:
    """Read text that is not UTF-8 so that the same bytes can be written again."""
    return raw.decode(errors="surrogateescape")


class SqliteBulk(Dialect):
    """Hold whatever another SQLite file held."""

    lists_values = True

    def fetched(self, db: Database, shape: Shape, sql: str, parameters: Sequence[Any]) -> list[Record]:
        try:
            return super().fetched(db, shape, sql, parameters)
        except (peewee.OperationalError, sqlite3.OperationalError) as error:
            if "decode" not in str(error):
                raise
        connection: Any = db.connection()
        before, connection.text_factory = connection.text_factory, _whole
        try:
            return super().fetched(db, shape, sql, parameters)
        finally:
            connection.text_factory = before

    def insert_rows(self, db: Database, shape: Shape, rows: Sequence[Record]) -> None:
        sql = f"INSERT INTO {shape.table} ({shape.listed}) VALUES ({{marks}})"
        plain = sql.replace("{marks}", ", ".join("?" * len(shape.columns)))
        try:
            db.cursor().executemany(plain, rows)
        except UnicodeEncodeError:  # It names no row, and those before it were written.
            self.erase(db, shape, [shape.key_of(row) for row in rows])
            for row in rows:
                marks = ", ".join("?" if _is_plain(value) else "CAST(? AS TEXT)" for value in row)
                values = [value if _is_plain(value) else value.encode(errors="surrogateescape") for value in row]
                db.execute_sql(sql.replace("{marks}", marks), values)

    def can_hold(self, db: Database, shape: Shape, column: str, value: Any) -> bool:
        """A column takes a value of any type; but what is no text is none for it, and the id is a number."""
        if value is None or column in ("id", "state"):
            return super().can_hold(db, shape, column, value)
        return True

    def highest_id(self, db: Database, table: str) -> int:
        return int(db.execute_sql(HIGHEST.format(table=table), (table,)).fetchone()[0])

    def begin_ids_after(self, db: Database, table: str, id: int) -> None:
        db.execute_sql("BEGIN IMMEDIATE")
        with ended(db, "COMMIT"):
            written = db.execute_sql("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (id, table))
            if not db.rows_affected(written):
                db.execute_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, id))

    @contextmanager
    def snapshot(self, db: Database) -> Iterator[None]:
        db.execute_sql("BEGIN")
        with ended(db, "COMMIT"):
            yield

    def still(self, db: Database, tables: Sequence[str]) -> AbstractContextManager[None]:
        """One writes at a time, whatever it writes."""
        return self.transaction(db, only_claims=False)


def _is_plain(value: Any) -> bool:
    return not isinstance(value, str) or is_unicode(value)

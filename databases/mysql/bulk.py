"""MySQL and MariaDB: whole rows, many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from peewee import Database

from ..bulk import Record, Shape, ended
from ..errors import DATABASE_ERRORS
from ..server import Server
from .words import quoted

MOST_TEXT = 4_000_000
"""Characters of one INSERT: a quarter of what a server takes at least, even where each takes four bytes."""
HIGHEST = """
SELECT greatest(coalesce((SELECT auto_increment FROM information_schema.tables
  WHERE table_schema = DATABASE() AND table_name = %s), 1) - 1, (SELECT coalesce(max(id), 0) FROM {table}))
"""
LENGTHS = """
SELECT column_name, data_type, character_maximum_length FROM information_schema.columns
WHERE table_schema = DATABASE() AND table_name = %s AND character_maximum_length IS NOT NULL
"""


class MysqlBulk(Server):
    """Insert many rows with one statement."""

    def __init__(self, notify: str = "off") -> None:
        super().__init__(notify)
        self._lengths: dict[str, dict[str, tuple[str, int]]] = {}

    def fetched(self, db: Database, shape: Shape, sql: str, parameters: Sequence[Any]) -> list[Record]:
        """Kinds and keys are kept as bytes; what is no text of them stays what it is."""
        rows = super().fetched(db, shape, sql, parameters)
        return [tuple([_as_text(value) if value.__class__ is bytes else value for value in row]) for row in rows]

    def insert_rows(self, db: Database, shape: Shape, rows: Sequence[Record]) -> None:
        head = quoted(f"INSERT INTO {shape.table} ({shape.listed}) VALUES ")
        texts: list[str] = []
        parameters: list[Any] = []
        size = 0
        for row in rows:
            given = [value for value in row if value is not None and value.__class__ is not int]
            length = sum(len(value) for value in given if isinstance(value, (str, bytes)))
            if texts and size + length > MOST_TEXT:
                db.execute_sql(head + ", ".join(texts), parameters)
                texts, parameters, size = [], [], 0
            # Numbers go as they are: to hand each to the driver takes twice the time.
            texts.append(f"({', '.join([_written(value) for value in row])})")
            parameters += given
            size += length
        if texts:
            db.execute_sql(head + ", ".join(texts), parameters)

    def can_hold(self, db: Database, shape: Shape, column: str, value: Any) -> bool:
        sort, length = self._lengths_of(db, shape.table).get(column, ("", 0))
        if sort == "varbinary" and isinstance(value, bytes):
            return len(value) <= length
        if not super().can_hold(db, shape, column, value):
            return False
        if isinstance(value, str) and length:
            return (len(value) if sort == "varchar" else len(value.encode())) <= length
        return True

    def _lengths_of(self, db: Database, table: str) -> dict[str, tuple[str, int]]:
        if table not in self._lengths:
            rows = db.execute_sql(LENGTHS, (table,)).fetchall()
            self._lengths[table] = {name: (sort, int(length)) for name, sort, length in rows}
        return self._lengths[table]

    def highest_id(self, db: Database, table: str) -> int:
        with suppress(*DATABASE_ERRORS):  # MySQL 8 keeps it in mind for a day.
            db.execute_sql("SET SESSION information_schema_stats_expiry = 0")
        return int(db.execute_sql(HIGHEST.format(table=table), (table,)).fetchone()[0])

    def begin_ids_after(self, db: Database, table: str, id: int) -> None:
        if id > self.highest_id(db, table):
            db.execute_sql(f"ALTER TABLE {table} AUTO_INCREMENT = {int(id) + 1}")

    @contextmanager
    def snapshot(self, db: Database) -> Iterator[None]:
        db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        db.execute_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        with ended(db, "COMMIT"):
            yield

    @contextmanager
    def still(self, db: Database, tables: Sequence[str]) -> Iterator[None]:
        """Locks of tables, and no transaction begun by BEGIN, which would give them back. Within, no table has an alias.

        Not waiting for long: who raises would wait behind us for a transaction that somebody else has open.
        """
        db.execute_sql("SET SESSION lock_wait_timeout = 2, autocommit = 0")
        try:
            db.execute_sql("LOCK TABLES " + ", ".join(f"{name} WRITE" for name in tables))
            with ended(db, "COMMIT"):
                yield
        finally:
            with suppress(*DATABASE_ERRORS):
                db.execute_sql("UNLOCK TABLES")
                db.execute_sql("SET SESSION lock_wait_timeout = DEFAULT, autocommit = 1")


def _written(value: Any) -> str:
    if value is None:
        return "NULL"
    return str(value) if value.__class__ is int else "%s"


def _as_text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value

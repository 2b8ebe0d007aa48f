"""PostgreSQL: whole rows, many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from peewee import Database

from ..bulk import Record, Shape, ended
from ..server import Server

SEQUENCE = "SELECT pg_get_serial_sequence('{table}', 'id')"
HIGHEST = """
SELECT greatest((SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}),
  (SELECT coalesce(max(id), 0) FROM {table}))
"""
GO_ON = "SELECT setval(pg_get_serial_sequence('{table}', 'id'), %s)"


class PostgresqlBulk(Server):
    """Copy rows in."""

    returns_id = " RETURNING id"

    def insert_rows(self, db: Database, shape: Shape, rows: Sequence[Record]) -> None:
        """With COPY, twice as fast as any INSERT; over psycopg 2, which has none that takes rows, one INSERT for each."""
        cursor: Any = db.cursor()
        with cursor:
            if not hasattr(cursor, "copy"):
                marks = ", ".join(["%s"] * len(shape.columns))
                sql = f"INSERT INTO {shape.table} ({shape.listed}) OVERRIDING SYSTEM VALUE VALUES ({marks})"
                cursor.executemany(sql, rows)
                return
            with cursor.copy(f"COPY {shape.table} ({shape.listed}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)

    def can_hold(self, db: Database, shape: Shape, column: str, value: Any) -> bool:
        return super().can_hold(db, shape, column, value) and not (isinstance(value, str) and "\0" in value)

    def highest_id(self, db: Database, table: str) -> int:
        sequence = db.execute_sql(SEQUENCE.format(table=table)).fetchone()[0]
        return int(db.execute_sql(HIGHEST.format(table=table, sequence=sequence)).fetchone()[0])

    def begin_ids_after(self, db: Database, table: str, id: int) -> None:
        if highest := max(id, self.highest_id(db, table)):  # Rows that were written with their ids have moved no sequence.
            db.execute_sql(GO_ON.format(table=table), (highest,)).fetchall()

    @contextmanager
    def snapshot(self, db: Database) -> Iterator[None]:
        db.execute_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        with ended(db, "COMMIT"):
            yield

    @contextmanager
    def still(self, db: Database, tables: Sequence[str]) -> Iterator[None]:
        """Not waiting for long: who raises would wait behind us for a transaction that somebody else has open."""
        with self.transaction(db, only_claims=False):
            db.execute_sql("SET LOCAL lock_timeout = '2s'")
            db.execute_sql(f"LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE")
            yield

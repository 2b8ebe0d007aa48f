"""SQLite: what status and doctor ask."""

from __future__ import annotations

from collections.abc import Sequence

from peewee import Database, Field, Model, Node, OperationalError, Select

from ..dialect import Dialect

LATEST_RAISE = """
SELECT max(raised_at) FROM (SELECT raised_at FROM flagsweep_flag ORDER BY id DESC LIMIT ?) WHERE typeof(raised_at) = 'integer'
"""

DAMAGED = """
SELECT id FROM (SELECT id, state, due_at, payload FROM flagsweep_flag ORDER BY id DESC LIMIT ?)
WHERE state <> 'dead' AND (typeof(due_at) <> 'integer' OR json_valid(payload) IS NOT 1) ORDER BY id
"""


class SqliteChecks(Dialect):
    """Answer what people ask."""

    def synchronous(self, db: Database) -> int:
        """Return how a connection waits for the disk: 0 off, 1 normal, 2 full, 3 extra."""
        return db.execute_sql("PRAGMA synchronous").fetchone()[0]

    def is_writer_free(self, db: Database) -> bool:
        """Return whether nobody holds the writer: it is taken, without waiting, and given back."""
        (patience,) = db.execute_sql("PRAGMA busy_timeout").fetchone()
        db.execute_sql("PRAGMA busy_timeout = 0").fetchall()
        try:
            db.execute_sql("BEGIN IMMEDIATE")
            db.execute_sql("ROLLBACK")
        except OperationalError:
            return False
        finally:
            db.execute_sql(f"PRAGMA busy_timeout = {patience}").fetchall()
        return True

    def latest_raise(self, db: Database, last: int) -> int | None:
        return db.execute_sql(LATEST_RAISE, (last,)).fetchone()[0]

    def damaged(self, db: Database, last: int) -> list[int]:
        return [row[0] for row in db.execute_sql(DAMAGED, (last,)).fetchall()]

    def reads_all(self, db: Database, query: Select) -> bool:
        sql, parameters = db.get_sql_context().sql(query).query()
        steps = [row[3] for row in db.execute_sql("EXPLAIN QUERY PLAN " + sql, parameters).fetchall()]
        return any(step.startswith("SCAN") and "USING" not in step for step in steps)

    def index_for(self, db: Database, model: type[Model], condition: Node, fields: Sequence[Field]) -> str:
        """Name a partial index, the smallest there is, but for a condition with parameters: SQLite does not look into those."""
        meta, (_, parameters) = model._meta, db.get_sql_context().sql(condition).query()
        if parameters:
            return super().index_for(db, model, condition, fields)
        name = "_".join([meta.table_name, "owed", *(field.column_name for field in fields)])
        index = model.index(meta.primary_key, name=name, where=condition)
        return db.get_sql_context().sql(index).query()[0].replace(" IF NOT EXISTS", "")

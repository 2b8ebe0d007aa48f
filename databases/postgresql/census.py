"""PostgreSQL: how much is up."""

from __future__ import annotations

from typing import Any

from peewee import Database

from ..deaths import Grave
from ..errors import DATABASE_ERRORS
from ..server import Server
from ..server.flags import readable
from .flags import KINDS

# Where VACUUM was there, the index alone tells; else each row is looked for in the table, which is quicker read from end to end.
IS_VISIBLE = "SELECT relallvisible > 0.8 * relpages FROM pg_class WHERE oid = 'flagsweep_flag'::regclass"
BY_INDEX = """
SELECT kind, 'waiting', count(*), count(*) FILTER (WHERE due_at <= %s), min(due_at)
FROM flagsweep_flag WHERE state = 'waiting' GROUP BY kind
UNION ALL SELECT kind, 'claimed', count(*), 0, NULL FROM flagsweep_flag WHERE state = 'claimed' GROUP BY kind
UNION ALL SELECT kind, 'dead', count(*), 0, NULL FROM flagsweep_flag WHERE state = 'dead' GROUP BY kind
"""
BY_TABLE = """
SELECT kind, state, count(*), count(*) FILTER (WHERE state = 'waiting' AND due_at <= %s),
  CASE WHEN state = 'waiting' THEN min(due_at) END
FROM flagsweep_flag GROUP BY kind, state
"""
DUE_COUNTS = """
SELECT kind, count(*) FILTER (WHERE due_at <= %s), min(due_at) FROM flagsweep_flag WHERE state = 'waiting' GROUP BY kind
"""
CLAIMED_KINDS = "SELECT DISTINCT kind FROM flagsweep_flag WHERE state = 'claimed'"
DEAD_KINDS = """
WITH RECURSIVE step (kind) AS (
  SELECT min(kind) FROM flagsweep_flag WHERE state = 'dead'
  UNION ALL
  SELECT (SELECT min(kind) FROM flagsweep_flag WHERE state = 'dead' AND kind > step.kind) FROM step WHERE kind IS NOT NULL)
SELECT kind FROM step WHERE kind IS NOT NULL
"""
DEAD_GROUPS = """
SELECT kind, died_as, count(*), min(died_at), max(died_at) FROM flagsweep_flag
WHERE state = 'dead'{} GROUP BY kind, died_as LIMIT %s
"""
CANCELLED = "57014"


class PostgresqlCensus(Server):
    """Count what is up."""

    def all_counts(self, db: Database, now: int, patience: float | None) -> list[Any] | None:
        return self._within(db, BY_INDEX if self._is_visible(db) else BY_TABLE, (now,), patience)

    def due_counts(self, db: Database, now: int, patience: float | None = None) -> tuple[list[Any], bool]:
        if not self._is_visible(db):
            return super().due_counts(db, now, patience)
        rows = self._within(db, DUE_COUNTS, (now,), patience)
        return super().due_counts(db, now, 0.001) if rows is None else (rows, True)

    def _is_visible(self, db: Database) -> bool:
        return bool(db.execute_sql(IS_VISIBLE).fetchone()[0])

    def _within(self, db: Database, sql: str, values: tuple[Any, ...], patience: float | None) -> list[Any] | None:
        """Ask within so many seconds. What was set for that is undone with the part of a transaction, which writes nothing."""
        if patience is None:
            return db.execute_sql(sql, values).fetchall()
        rows = None
        with db.atomic() as part:
            try:
                db.execute_sql(f"SET LOCAL statement_timeout = {max(1, int(patience * 1000))}")
                rows = db.execute_sql(sql, values).fetchall()
            except DATABASE_ERRORS as error:
                if CANCELLED not in self.codes(error):
                    raise
            part.rollback()
        return rows

    def kinds_in(self, db: Database, state: str) -> list[str]:
        sql = {"waiting": KINDS, "claimed": CLAIMED_KINDS, "dead": DEAD_KINDS}[state]
        return [readable(row[0]) for row in db.execute_sql(sql).fetchall()]

    def grouped(self, db: Database, kind: str | None, most: int, patience: float | None) -> list[Grave] | None:
        sql, values = (DEAD_GROUPS.format(""), (most,)) if kind is None else (DEAD_GROUPS.format(" AND kind = %s"), (kind, most))
        rows = self._within(db, sql, values, patience)
        return rows and [(readable(kind), died_as and readable(died_as), *more) for kind, died_as, *more in rows]

"""MySQL and MariaDB: how much is up."""

from __future__ import annotations

from typing import Any

from peewee import Database

from ..deaths import Grave
from ..errors import DATABASE_ERRORS
from ..server import Server
from ..server.flags import readable

# One walk over one index. The first comment is MariaDB's own way to set a limit, and the second MySQL's.
COUNTS = """
SELECT kind, state, count(*), count(CASE WHEN state = 'waiting' AND due_at <= ? THEN 1 END),
  CASE WHEN state = 'waiting' THEN min(due_at) END
FROM flagsweep_flag FORCE INDEX (flagsweep_waiting) GROUP BY state, kind
"""
DUE_COUNTS = """
SELECT kind, count(CASE WHEN due_at <= ? THEN 1 END), min(due_at)
FROM flagsweep_flag FORCE INDEX (flagsweep_waiting) WHERE state = 'waiting' GROUP BY state, kind
"""
KINDS_IN = "SELECT kind FROM flagsweep_flag FORCE INDEX (flagsweep_waiting) WHERE state = ? GROUP BY state, kind"
# What is not dead has no died_at.
DEAD_GROUPS = """
SELECT kind, died_as, count(*), min(died_at), max(died_at) FROM flagsweep_flag FORCE INDEX (flagsweep_dead_group)
WHERE died_as > ''{} GROUP BY died_as, kind LIMIT ?
"""
NAMELESS = """
SELECT count(*), min(died_at), max(died_at) FROM flagsweep_flag FORCE INDEX (flagsweep_dead_group)
WHERE died_as IS NULL AND kind = ? AND died_at IS NOT NULL
"""
GAVE_UP = {1969, 3024}


class MysqlCensus(Server):
    """Count what is up."""

    def all_counts(self, db: Database, now: int, patience: float | None) -> list[Any] | None:
        return self._within(db, COUNTS, (now,), patience)

    def due_counts(self, db: Database, now: int, patience: float | None = None) -> tuple[list[Any], bool]:
        rows = self._within(db, DUE_COUNTS, (now,), patience)
        if rows is None:
            return super().due_counts(db, now, 0.001)
        return [(readable(kind), due, earliest) for kind, due, earliest in rows], True

    def _within(self, db: Database, sql: str, values: tuple[Any, ...], patience: float | None) -> list[Any] | None:
        text = self.sql[sql]
        if patience is not None:
            limit = f"/*M! SET STATEMENT max_statement_time = {max(0.001, patience)} FOR */"
            hint = f"SELECT /*+ MAX_EXECUTION_TIME({max(1, int(patience * 1000))}) */"
            text = f"{limit} {text.strip().replace('SELECT', hint, 1)}"
        try:
            return list(db.execute_sql(text, values).fetchall())
        except DATABASE_ERRORS as error:
            if GAVE_UP.isdisjoint(self.codes(error)):
                raise
        return None

    def kinds_in(self, db: Database, state: str) -> list[str]:
        return [readable(row[0]) for row in db.execute_sql(self.sql[KINDS_IN], (state,)).fetchall()]

    def grouped(self, db: Database, kind: str | None, most: int, patience: float | None) -> list[Grave] | None:
        among, values = ("", (most,)) if kind is None else (" AND kind = ?", (kind.encode(), most))
        rows = self._within(db, DEAD_GROUPS.format(among), values, patience)
        if rows is None:
            return None
        found: list[Grave] = [(readable(its), readable(died_as), *more) for its, died_as, *more in rows]
        for its in self.kinds_in(db, "dead") if kind is None else [kind]:
            ((many, first, last),) = self._within(db, NAMELESS, (its.encode(),), patience) or ((0, None, None),)
            if many:
                found.append((its, None, many, first, last))
        return found

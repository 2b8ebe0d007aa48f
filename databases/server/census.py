"""PostgreSQL, MySQL and MariaDB: how much is up, as far as they have it in common."""

from __future__ import annotations

import json
from typing import Any

from peewee import Database

from ..census import MOST
from .flags import readable
from .native import Native

CLAIMED_COUNTS = "SELECT kind, count(*) FROM flagsweep_flag WHERE state = 'claimed' GROUP BY kind"
SOME_WAITING = """
SELECT count(*), coalesce(sum(CASE WHEN due_at <= ? THEN 1 ELSE 0 END), 0) FROM (
  SELECT due_at FROM flagsweep_flag WHERE state = 'waiting' AND kind = ? AND priority = ? ORDER BY due_at LIMIT ?) AS counted
"""
SOME_DEAD = "SELECT count(*) FROM (SELECT 1 FROM flagsweep_flag WHERE state = 'dead' AND kind = ? LIMIT ?) AS counted"


class ServerCensus(Native):
    """Count what is up, all of it or as much as there is time for."""

    def counts(self, db: Database, now: int, patience: float | None = None) -> tuple[list[Any], bool]:
        rows = self.all_counts(db, now, patience)
        return (self._some_counts(db, now), False) if rows is None else (_read(rows), True)

    def all_counts(self, db: Database, now: int, patience: float | None) -> list[Any] | None:
        """Return the counts of all that is up; None where that took longer than somebody has patience."""
        raise NotImplementedError

    def _some_counts(self, db: Database, now: int) -> list[Any]:
        """Return how many there are at least."""
        lines = self.agenda(db, json.dumps(self.kinds_in(db, "waiting")))
        dead = self.kinds_in(db, "dead")
        most = max(100, MOST // (len(lines) + len(dead) or 1))
        found: dict[Any, tuple[int, int, int]] = {}
        for kind, priority, earliest in lines:
            many, due = db.execute_sql(self.sql[SOME_WAITING], (now, self.encoded_name(kind), priority, most)).fetchone()
            before = found.get(kind, (0, 0, earliest))
            found[kind] = (before[0] + many, before[1] + int(due), min(before[2], earliest))
        rows: list[Any] = [(kind, "waiting", *more) for kind, more in found.items()]
        rows += [(readable(kind), "claimed", many, 0, None) for kind, many in db.execute_sql(self.sql[CLAIMED_COUNTS]).fetchall()]
        for kind in dead:
            (many,) = db.execute_sql(self.sql[SOME_DEAD], (self.encoded_name(kind), most)).fetchone()
            rows.append((kind, "dead", many, 0, None))
        return rows


def _read(rows: list[Any]) -> list[Any]:
    return [(readable(kind), readable(state), many, int(due or 0), earliest) for kind, state, many, due, earliest in rows]

"""SQLite: how much is up."""

from __future__ import annotations

from typing import Any

from peewee import Database

from ..deaths import Grave, as_text
from ..dialect import Dialect
from .flags import KINDS

# Each kind's flags are counted within a range of the index that has nothing but its state, from kind to kind and from priority to
# priority: a GROUP BY takes four times as long, and for claimed flags it would read the whole table.
LINES = """step (kind) AS (
  SELECT min(kind) FROM flagsweep_flag INDEXED BY flagsweep_waiting WHERE state = 'waiting'
  UNION ALL
  SELECT (SELECT min(kind) FROM flagsweep_flag INDEXED BY flagsweep_waiting WHERE state = 'waiting' AND kind > step.kind)
  FROM step WHERE kind IS NOT NULL),
line (kind, priority) AS (
  SELECT kind, (SELECT max(priority) FROM flagsweep_flag INDEXED BY flagsweep_waiting
                WHERE state = 'waiting' AND kind = step.kind)
  FROM step WHERE kind IS NOT NULL
  UNION ALL
  SELECT kind, (SELECT max(priority) FROM flagsweep_flag INDEXED BY flagsweep_waiting
                WHERE state = 'waiting' AND kind = line.kind AND priority < line.priority)
  FROM line WHERE priority IS NOT NULL)"""
OF_LINE = """FROM flagsweep_flag INDEXED BY flagsweep_waiting
WHERE state = 'waiting' AND kind = line.kind AND priority = line.priority"""

DUE_COUNTS = f"""WITH RECURSIVE {LINES}
SELECT kind, (SELECT count(*) {OF_LINE} AND due_at <= ?), (SELECT min(due_at) {OF_LINE}) FROM line WHERE priority IS NOT NULL
"""

CORPSES = """corpse (kind) AS (
  SELECT min(kind) FROM flagsweep_flag INDEXED BY flagsweep_dead WHERE state = 'dead'
  UNION ALL
  SELECT (SELECT min(kind) FROM flagsweep_flag INDEXED BY flagsweep_dead WHERE state = 'dead' AND kind > corpse.kind)
  FROM corpse WHERE kind IS NOT NULL)"""

COUNTS = f"""WITH RECURSIVE {LINES}, {CORPSES}
SELECT kind, 'waiting', (SELECT count(*) {OF_LINE} AND due_at > ?), (SELECT count(*) {OF_LINE} AND due_at <= ?),
  (SELECT min(due_at) {OF_LINE})
FROM line WHERE priority IS NOT NULL
UNION ALL
SELECT kind, 'claimed', count(*), 0, NULL
FROM flagsweep_flag INDEXED BY flagsweep_claimed WHERE state = 'claimed' GROUP BY kind
UNION ALL
SELECT kind, 'dead',
  (SELECT count(*) FROM flagsweep_flag INDEXED BY flagsweep_dead WHERE state = 'dead' AND kind = corpse.kind), 0, NULL
FROM corpse WHERE kind IS NOT NULL
"""

CLAIMED_KINDS = "SELECT DISTINCT kind FROM flagsweep_flag INDEXED BY flagsweep_claimed WHERE state = 'claimed'"

DEAD_KINDS = f"WITH RECURSIVE {CORPSES} SELECT kind FROM corpse WHERE kind IS NOT NULL"


DEAD_GROUPS = """
SELECT kind, died_as, count(*), min(died_at), max(died_at) FROM flagsweep_flag INDEXED BY flagsweep_dead_group
WHERE state = 'dead' GROUP BY kind, died_as LIMIT ?
"""

DEAD_GROUPS_OF = """
SELECT kind, died_as, count(*), min(died_at), max(died_at) FROM flagsweep_flag INDEXED BY flagsweep_dead_group
WHERE state = 'dead' AND kind = ? GROUP BY kind, died_as LIMIT ?
"""


class SqliteCensus(Dialect):
    """Count what is up."""

    def counts(self, db: Database, now: int, patience: float | None = None) -> tuple[list[Any], bool]:
        found: dict[tuple[Any, str], tuple[int, int, Any]] = {}
        for kind, state, later, due, earliest in db.execute_sql(COUNTS, (now, now)).fetchall():
            many, so_far, first = found.get((kind, state), (0, 0, earliest))
            found[kind, state] = (many + later + due, so_far + due, _earlier(first, earliest))
        return [(*which, *more) for which, more in found.items()], True

    def due_counts(self, db: Database, now: int, patience: float | None = None) -> tuple[list[Any], bool]:
        found: dict[Any, tuple[int, Any]] = {}
        for kind, due, earliest in db.execute_sql(DUE_COUNTS, (now,)).fetchall():
            so_far, first = found.get(kind, (0, earliest))
            found[kind] = (so_far + due, _earlier(first, earliest))
        return [(kind, *more) for kind, more in found.items()], True

    def kinds_in(self, db: Database, state: str) -> list[str]:
        sql = {"waiting": KINDS, "claimed": CLAIMED_KINDS, "dead": DEAD_KINDS}[state]
        return [row[0] for row in db.execute_sql(sql).fetchall()]

    def grouped(self, db: Database, kind: str | None, most: int, patience: float | None) -> list[Grave] | None:
        found = db.execute_sql(DEAD_GROUPS, (most,)) if kind is None else db.execute_sql(DEAD_GROUPS_OF, (kind, most))
        return [(as_text(kind), as_text(died_as), *more) for kind, died_as, *more in found.fetchall()]


def _earlier(one: Any, other: Any) -> Any:
    """Return the earlier of two due times; one that is damaged is none."""
    if isinstance(one, int) and isinstance(other, int):
        return min(one, other)
    return one if isinstance(one, int) else other

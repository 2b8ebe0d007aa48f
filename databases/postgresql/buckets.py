"""PostgreSQL: claiming among buckets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewee import Database

from ..buckets import Look, Oldest, Seen, Taken
from ..server.flags import BUCKET, CLAIMED
from ..way import is_open
from .flags import EVER, PostgresqlFlags

WAITING = "state = 'waiting' AND kind = %(kind)s AND priority = %(priority)s"
SET = """SET state = 'claimed', claim_token = %(token)s, claimed_by = %(consumer)s, claimed_at = %(now)s,
  claimed_generation = flag.generation"""

# kind, priority, now, most, and those of the way; low: nothing that waits is due before, so that dead versions of rows are passed
# over which an old snapshot keeps from being cleared away, as in CLAIM.
OLDEST = f"""
SELECT due_at, id, bucket FROM flagsweep_flag WHERE {WAITING} AND due_at >= %(low)s AND due_at <= %(now)s
  AND {is_open("%({})s".format)}
ORDER BY due_at, id LIMIT %(most)s
"""

# kind, priority, now, low; first, before (or NULL), most, visits; closed: an array. PostgreSQL works out a recursion row by row,
# and stops at the outer LIMIT. A list in a subquery is hashed, whatever the version.
WALK = f"""
WITH RECURSIVE step (nth, bucket, due_at) AS (
  (SELECT 1, bucket, due_at FROM flagsweep_flag WHERE {WAITING} AND bucket >= %(first)s AND due_at >= %(low)s
   ORDER BY bucket, due_at, id LIMIT 1)
  UNION ALL
  SELECT step.nth + 1, next.bucket, next.due_at FROM step CROSS JOIN LATERAL (
    SELECT bucket, due_at FROM flagsweep_flag WHERE {WAITING} AND bucket > step.bucket AND due_at >= %(low)s
    ORDER BY bucket, due_at, id LIMIT 1) AS next
  WHERE step.nth < %(visits)s AND (step.bucket >= %(before)s::text) IS NOT TRUE)
SELECT nth, bucket, ready FROM (
  SELECT nth, bucket, due_at <= %(now)s AND bucket NOT IN (SELECT unnest(%(closed)s::text[])) AS ready FROM step) AS seen
WHERE (bucket >= %(before)s::text) IS NOT TRUE AND (ready OR nth = %(visits)s) LIMIT %(most)s
"""

# kind, priority, now, low, token, consumer; buckets: an array; share: flags of each. A bucket is compared as a range and ordered
# by: with ``bucket = turn.bucket`` and one bucket that has nearly all flags, an ANALYZE makes PostgreSQL read the flags of all
# buckets in the order of their due times.
TAKE = f"""
UPDATE flagsweep_flag AS flag {SET} WHERE flag.id = ANY(ARRAY(
  SELECT first.id FROM unnest(%(buckets)s::text[]) AS turn (bucket) CROSS JOIN LATERAL (
    SELECT id FROM flagsweep_flag
    WHERE {WAITING} AND bucket IS NOT NULL
      AND (bucket, due_at) >= (turn.bucket, %(low)s) AND (bucket, due_at) <= (turn.bucket, %(now)s)
    ORDER BY bucket, due_at, id LIMIT %(share)s FOR UPDATE SKIP LOCKED) AS first))
RETURNING {CLAIMED}
"""

# now, token, consumer; ids: an array. Asked for the state in these words, no index of waiting flags is read from end to end.
TAKE_THESE = f"""
UPDATE flagsweep_flag AS flag {SET} WHERE flag.id = ANY(ARRAY(
  SELECT id FROM flagsweep_flag WHERE id = ANY(%(ids)s) AND state NOT IN ('claimed', 'dead') AND due_at <= %(now)s
  FOR UPDATE SKIP LOCKED))
RETURNING {CLAIMED}
"""


class PostgresqlBuckets(PostgresqlFlags):
    """Hand lists over as arrays, and read what a statement returns."""

    def oldest(self, db: Database, look: Look, most: int) -> Oldest:
        """Look from where the oldest one was the last time, as ``claim`` does; now and then, and where that shows nothing to
        claim, or few, from the beginning."""
        low, turn = self._low.pop((look.kind, look.priority), (EVER, 0))
        low = EVER if turn >= self.FULL_LOOK else low
        found = self._oldest(db, look, most, low)
        few = len(found) < most or all(bucket in look.closed for _, _, bucket in found)
        if few and low > EVER:
            found = self._oldest(db, look, most, low := EVER)
        if len(found) == most:
            self._low[look.kind, look.priority] = (found[0][0], 0 if low == EVER else turn + 1)
        return [(id, bucket) for _, id, bucket in found]

    def _oldest(self, db: Database, look: Look, most: int, low: int) -> list[Any]:
        named = _named(look) | {"most": most, "low": low} | look.way.named(look.now)
        return db.execute_sql(OLDEST, named).fetchall()

    def step(self, db: Database, look: Look, first: str, before: str | None, most: int, visits: int) -> Seen:
        named = {"first": first, "before": before, "most": most, "visits": visits, "closed": list(look.closed)}
        return db.execute_sql(WALK, _named(look) | named | self._since(look)).fetchall()

    def _since(self, look: Look) -> dict[str, int]:
        """Return the due time of the oldest flag that this look has seen."""
        return {"low": self._low.get((look.kind, look.priority), (EVER, 0))[0]}

    def take(self, db: Database, look: Look, buckets: Sequence[str], share: int) -> Taken:
        named = _named(look) | {"buckets": list(buckets), "share": share} | self._since(look)
        return self._taken(db.execute_sql(TAKE, named).fetchall())

    def take_these(self, db: Database, look: Look, ids: Sequence[int]) -> Taken:
        return self._taken(db.execute_sql(TAKE_THESE, _named(look) | {"ids": list(ids)}).fetchall())

    def _taken(self, found: Sequence[Any]) -> Taken:
        bucket = {row[1]: row[BUCKET] for row in found}
        return {row[1]: (bucket[row[1]], row) for row in self.rows(found)}


def _named(look: Look) -> dict[str, Any]:
    return {name: value for name, value in look._asdict().items() if name not in ("closed", "way")}

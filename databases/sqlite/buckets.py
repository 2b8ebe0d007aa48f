"""SQLite: claiming among buckets."""

from __future__ import annotations

import json
from collections.abc import Sequence

from peewee import Database

from ..buckets import Look, Oldest, Seen, Taken
from ..flags import Row
from ..way import is_open
from .flags import CLAIMED, SqliteFlags

# Each index by name: after an ANALYZE SQLite would rather read other ones, or the whole table.
DUE = """flagsweep_flag INDEXED BY flagsweep_waiting
WHERE state = 'waiting' AND kind = :kind AND priority = :priority AND due_at <= :now"""
IN_BUCKET = """flagsweep_flag INDEXED BY flagsweep_bucket
WHERE state = 'waiting' AND bucket IS NOT NULL AND kind = :kind AND priority = :priority"""
SET = "SET state = 'claimed', claim_token = :token, claimed_by = :consumer, claimed_at = :now, claimed_generation = generation"

# kind, priority, now, most, and those of the way.
OLDEST = f"""
SELECT json_group_array(json_array(id, bucket)) FROM (
  SELECT id, bucket FROM {DUE} AND {is_open(":{}".format)} ORDER BY due_at, id LIMIT :most)
"""

# kind, priority, now; first, before (or NULL), most, visits; closed: a JSON array. SQLite works out a recursion row by row, and
# stops at the outer LIMIT.
WALK = f"""
WITH RECURSIVE step (nth, bucket, due_at) AS (
  SELECT 1, bucket, due_at FROM (SELECT bucket, due_at FROM {IN_BUCKET} AND bucket >= :first ORDER BY bucket, due_at, id LIMIT 1)
  UNION ALL
  SELECT nth + 1, flag.bucket, flag.due_at FROM step CROSS JOIN flagsweep_flag AS flag ON flag.id = (
    SELECT id FROM {IN_BUCKET} AND bucket > step.bucket ORDER BY bucket, due_at, id LIMIT 1)
  WHERE nth < :visits AND (step.bucket >= :before) IS NOT TRUE)
SELECT json_group_array(json_array(nth, bucket, ready)) FROM (
  SELECT nth, bucket, due_at <= :now AND bucket NOT IN (SELECT value FROM json_each(:closed)) AS ready FROM step
  WHERE (step.bucket >= :before) IS NOT TRUE AND (ready OR nth = :visits) LIMIT :most)
"""

# kind, priority, now, token, consumer; buckets: a JSON array; share: flags of each.
TAKE = f"""
UPDATE flagsweep_flag {SET}
WHERE id IN (
  SELECT flag.id FROM json_each(:buckets) AS turn CROSS JOIN flagsweep_flag AS flag ON flag.id IN (
    SELECT id FROM {IN_BUCKET} AND bucket = turn.value AND due_at <= :now ORDER BY due_at, id LIMIT :share))
"""

# now, token, consumer; ids: a JSON array.
TAKE_THESE = f"""
UPDATE flagsweep_flag {SET}
WHERE id IN (SELECT value FROM json_each(:ids)) AND +state = 'waiting' AND due_at <= :now
"""

# consumer, token.
CLAIMED_BUCKETS = f"SELECT json_group_array(json_array(id, bucket)) {CLAIMED}"


class SqliteBuckets(SqliteFlags):
    """Hand over many values as one JSON text."""

    def oldest(self, db: Database, look: Look, most: int) -> Oldest:
        named = {"kind": look.kind, "priority": look.priority, "now": look.now, "most": most}
        named |= look.way.named(look.now)
        return json.loads(db.execute_sql(OLDEST, named).fetchone()[0])

    def step(self, db: Database, look: Look, first: str, before: str | None, most: int, visits: int) -> Seen:
        named = {"first": first, "before": before, "most": most, "visits": visits, "closed": json.dumps(list(look.closed))}
        named |= {"kind": look.kind, "priority": look.priority, "now": look.now}
        return json.loads(db.execute_sql(WALK, named).fetchone()[0])

    def take(self, db: Database, look: Look, buckets: Sequence[str], share: int) -> Taken:
        named = {"kind": look.kind, "priority": look.priority, "buckets": json.dumps(buckets), "share": share}
        db.execute_sql(TAKE, named | _claim(look))
        claimed = json.loads(db.execute_sql(CLAIMED_BUCKETS, (look.consumer, look.token)).fetchone()[0])
        return {id: (bucket, None) for id, bucket in claimed}

    def take_these(self, db: Database, look: Look, ids: Sequence[int]) -> Taken:
        db.execute_sql(TAKE_THESE, {"ids": json.dumps(ids)} | _claim(look))
        return dict.fromkeys(ids, (None, None))

    def rows_of(self, db: Database, look: Look, taken: Taken) -> list[Row]:
        return self._claimed(db, look.consumer, look.token) if taken else []


def _claim(look: Look) -> dict[str, int]:
    return {"token": look.token, "consumer": look.consumer, "now": look.now}

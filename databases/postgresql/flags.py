"""PostgreSQL: the statements about flags."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from peewee import Database

from ...payloads import Item
from ..flags import Row
from ..news import news
from ..raising import FORMS, Terms, columns
from ..server import Server
from ..server.flags import CLAIMED, SETTLE_ONE, raised, rounds
from ..statement import Execute, Statement
from ..way import FORCED, Way, is_open
from .listening import CHANNEL, RESULTS

UPSERT = {form: "ON CONFLICT (kind, key) DO UPDATE SET " + raised(form, "flag.", "excluded.{}".format) for form in FORMS}
RAISE = {
    form: f"INSERT INTO flagsweep_flag AS flag ({', '.join(columns(form))}) VALUES ({', '.join(['%s'] * len(columns(form)))}) "
    f"{UPSERT[form]} RETURNING id, raised_as, generation"
    for form in FORMS
}
RAISE_AND_TELL = {
    form: f"WITH raised AS ({raising}) SELECT id, raised_as, generation, pg_notify('{CHANNEL}', %s) FROM raised"
    for form, raising in RAISE.items()
}
# Ordered by key: two requests that raise the same flags in different orders would wait for each other.
RAISE_MANY = {
    form: f"""
INSERT INTO flagsweep_flag AS flag ({", ".join(columns(form))})
SELECT %s, key, payload, bucket, %s, %s, %s, %s{", %s" * form.traced}
FROM unnest(%s::text[], %s::text[], %s::text[]) AS item (key, payload, bucket)
ORDER BY key COLLATE "C"
{UPSERT[form]} RETURNING raised_as
"""
    for form in FORMS
    if not form.scheduled
}
AGENDA = """
WITH RECURSIVE step (kind, priority) AS (
  SELECT kinds.kind, (SELECT max(priority) FROM flagsweep_flag WHERE state = 'waiting' AND kind = kinds.kind)
  FROM unnest(%s::text[]) AS kinds (kind)
  UNION ALL
  SELECT step.kind, (SELECT max(priority) FROM flagsweep_flag
                     WHERE state = 'waiting' AND kind = step.kind AND priority < step.priority)
  FROM step WHERE step.priority IS NOT NULL)
SELECT kind, priority, (SELECT min(due_at) FROM flagsweep_flag
                        WHERE state = 'waiting' AND kind = step.kind AND priority = step.priority)
FROM step WHERE priority IS NOT NULL
"""
KINDS = """
WITH RECURSIVE step (kind) AS (
  SELECT min(kind) FROM flagsweep_flag WHERE state = 'waiting'
  UNION ALL
  SELECT (SELECT min(kind) FROM flagsweep_flag WHERE state = 'waiting' AND kind > step.kind) FROM step WHERE kind IS NOT NULL)
SELECT kind FROM step WHERE kind IS NOT NULL
"""


def _marked(name: str) -> str:
    return "%s"


CLAIM = f"""
WITH due AS MATERIALIZED (
  SELECT id AS due_id FROM flagsweep_flag
  WHERE state = 'waiting' AND kind = %s AND priority = %s AND due_at >= %s AND due_at <= %s AND {is_open(_marked)}
  ORDER BY due_at, id LIMIT %s FOR UPDATE SKIP LOCKED)
UPDATE flagsweep_flag AS flag
SET state = 'claimed', claim_token = %s, claimed_by = %s, claimed_at = %s, claimed_generation = flag.generation
FROM due WHERE id = due_id
RETURNING {CLAIMED}
"""
CLAIM_THESE = f"""
WITH due AS MATERIALIZED (
  SELECT id AS due_id FROM flagsweep_flag WHERE id = ANY(%s) AND state = 'waiting' AND {is_open(_marked)}
  FOR UPDATE SKIP LOCKED)
UPDATE flagsweep_flag AS flag
SET state = 'claimed', claim_token = %s, claimed_by = %s, claimed_at = %s, claimed_generation = flag.generation
FROM due WHERE id = due_id
RETURNING {CLAIMED}
"""
SPACE = """
UPDATE flagsweep_flag AS flag SET due_at = %s + (%s + item.turn - 1) * %s / %s
FROM unnest(%s::bigint[]) WITH ORDINALITY AS item (id, turn) WHERE flag.id = item.id
"""
DISCOVER = """
INSERT INTO flagsweep_flag (kind, key, payload, priority, due_at, raised_at)
SELECT %s, key, payload, %s, %s, %s FROM unnest(%s::text[], %s::text[]) AS item (key, payload) ORDER BY key COLLATE "C"
ON CONFLICT (kind, key) DO NOTHING
"""
SETTLE = f"{SETTLE_ONE} RETURNING state"
GENERATIONS_AND_TELL = f"""
SELECT id, claimed_generation, pg_notify('{RESULTS}', '') FROM flagsweep_flag WHERE id {{among}} AND claim_token = ?
"""
TELL = f"SELECT pg_notify('{CHANNEL}', %s)"
EVER = -(2**63)


class PostgresqlFlags(Server):
    """Hand lists over as arrays, and read what a statement returns."""

    among = "= ANY(%s)"
    FULL_LOOK = 20
    """Every so many claims one looks from the beginning."""

    def __init__(self, notify: str = "raise") -> None:
        super().__init__(notify)
        self._low: dict[tuple[str, int], tuple[int, int]] = {}

    def raising(self, kind: str, item: Item, terms: Terms) -> Statement:
        parameters = (*terms.values(kind, *item), *terms.updating)
        if terms.due_at > terms.now or self.notify != "raise":
            return Statement(RAISE[terms.form], parameters)
        return Statement(RAISE_AND_TELL[terms.form], (*parameters, news(kind, terms.priority)))

    def space(self, db: Database, ids: Sequence[int], now: int, turn: int, count: int, period: int) -> None:
        db.execute_sql(SPACE, (now, turn, period, count, list(ids)))

    def raise_many_over(self, execute: Execute, kind: str, chunk: str, terms: Terms) -> Counter[str]:
        counts: Counter[str] = Counter()
        for found in rounds(chunk):
            common = (terms.priority, terms.due_at, terms.now, terms.expires_at)
            parameters = (kind, *common, *terms.traced, *map(list, zip(*found.values(), strict=True)), *terms.updating)
            counts.update(row[0] for row in execute(RAISE_MANY[terms.form], parameters).fetchall())
        if self.notify == "raise" and terms.due_at <= terms.now:
            execute(TELL, (news(kind, terms.priority),)).fetchall()
        return counts

    def asking_agenda(self, kinds: str) -> Statement:
        return Statement(AGENDA, (json.loads(kinds),))

    def asking_waiting_kinds(self) -> Statement:
        return Statement(KINDS)

    def claim(
        self, db: Database, kind: str, priority: int, limit: int, consumer: int, token: int, now: int, way: Way = FORCED
    ) -> list[Row]:
        """Begin where the last claim ended: below stand only dead versions of rows, which an old snapshot keeps from being
        cleared away, and what came late. Now and then, and where that brings fewer than it may, look from the beginning.
        """
        low, turn = self._low.get((kind, priority), (EVER, 0))
        low = EVER if turn >= self.FULL_LOOK else low
        by = (token, consumer, now)
        rows = db.execute_sql(CLAIM, (kind, priority, low, now, *way.values(now), limit, *by)).fetchall()
        if len(rows) < limit and low > EVER:
            rows += db.execute_sql(CLAIM, (kind, priority, EVER, now, *way.values(now), limit - len(rows), *by)).fetchall()
        if len(rows) == limit:
            self._low[kind, priority] = (max(row[0] for row in rows), 0 if low == EVER else turn + 1)
        else:
            self._low.pop((kind, priority), None)
        return self.rows(rows)

    def claim_these(self, db: Database, ids: Sequence[int], consumer: int, token: int, now: int, way: Way = FORCED) -> list[Row]:
        return self.rows(db.execute_sql(CLAIM_THESE, (list(ids), *way.values(now), token, consumer, now)).fetchall())

    def asking_generations(self, ids: Sequence[int], token: int) -> Statement:
        if not self.notifies:
            return super().asking_generations(ids, token)
        return Statement(self.sql[GENERATIONS_AND_TELL], (self.listed(ids), token))

    def settling(self, named: dict[str, Any]) -> Statement:
        return Statement(self.sql[SETTLE], self.settle_arguments(named))

    def discovering(self, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> Statement:
        keys, payloads = [key for key, _ in rows], [payload for _, payload in rows]
        return Statement(DISCOVER, (kind, priority, now, now, keys, payloads))

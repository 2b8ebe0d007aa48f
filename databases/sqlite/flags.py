"""SQLite: the statements about flags.

Whatever runs once a batch is one statement that hands over or returns one JSON text: Python's sqlite3 gives up the interpreter
lock at every row, and next to a busy handler each row then costs a thread switch of up to 5 ms.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from peewee import Database

from ...payloads import Item
from ..dialect import Dialect
from ..errors import DATABASE_ERRORS
from ..flags import Damaged, Row
from ..raising import FORMS, Form, Terms, columns
from ..statement import Execute, Statement
from ..way import FORCED, Way, is_open

# Waits from before, or since it was raised again while it runs.
STANDS = "flag.state = 'waiting' OR flag.generation > flag.claimed_generation"

EARLIER = "min(flag.due_at, excluded.due_at)"


def on_conflict(form: Form) -> str:
    """Return what a raise does to a flag that is up.

    Waiting: the earlier due time wins, unless the flag is backing off. Claimed and not bumped yet, or dead: the new raise
    decides.
    """
    first = "CASE WHEN {stands} THEN flag.{name} ELSE excluded.{name} END" if form.keeps else "excluded.{name}"
    payload, expires_at, bucket = (first.format(stands=STANDS, name=name) for name in ("payload", "expires_at", "bucket"))
    debounced = f"""
  first_at = CASE WHEN {STANDS} THEN coalesce(flag.first_at, flag.raised_at) ELSE excluded.raised_at END,"""
    scheduled = """
  schedule = excluded.schedule, zone = excluded.zone, intended = excluded.intended,
  missed = CASE WHEN flag.intended IS NULL THEN excluded.missed ELSE flag.missed + 1 + excluded.missed END,"""
    earlier = "min(excluded.due_at, coalesce(flag.first_at, flag.raised_at) + ?)" if form.debounced else EARLIER
    return f"""
ON CONFLICT (kind, key) DO UPDATE SET
  payload = {payload}, expires_at = {expires_at}, bucket = {bucket},
  raised_at = excluded.raised_at, generation = flag.generation + 1, died_at = NULL, died_as = NULL,
  raised_as = CASE flag.state WHEN 'waiting' THEN 'coalesced' WHEN 'claimed' THEN 'bumped' ELSE 'revived' END,
  due_at = CASE WHEN flag.state = 'waiting' AND flag.attempts > 0 THEN flag.due_at
                WHEN {STANDS} THEN {earlier} ELSE excluded.due_at END,
  priority = CASE WHEN {STANDS} THEN max(flag.priority, excluded.priority) ELSE excluded.priority END,
  attempts = CASE flag.state WHEN 'dead' THEN 0 ELSE flag.attempts END,
  crashes = CASE flag.state WHEN 'dead' THEN 0 ELSE flag.crashes END,
  suspect = CASE flag.state WHEN 'dead' THEN 0 ELSE flag.suspect END,
  strikes = CASE flag.state WHEN 'dead' THEN 0 ELSE flag.strikes END,{debounced if form.debounced else ""}{
        scheduled if form.scheduled else ""
    }{" trace = excluded.trace," if form.traced else ""}
  state = CASE flag.state WHEN 'dead' THEN 'waiting' ELSE flag.state END
"""


RAISE = {
    form: f"INSERT INTO flagsweep_flag AS flag ({', '.join(columns(form))}) VALUES ({', '.join('?' * len(columns(form)))})"
    f"{on_conflict(form)} RETURNING id, raised_as, generation"
    for form in FORMS
}

RAISE_MANY = {
    form: f"""
INSERT INTO flagsweep_flag AS flag ({", ".join(columns(form))})
SELECT ?, CASE type WHEN 'object' THEN value ELSE json_extract(value, '$[0]') END,
  CASE type WHEN 'object' THEN value ELSE json_extract(value, '$[1]') END,
  CASE type WHEN 'object' THEN NULL ELSE json_extract(value, '$[2]') END, ?, ?, ?, ?{", ?" * form.traced}
FROM json_each(?) WHERE true
{on_conflict(form)} RETURNING raised_as
"""
    for form in FORMS
    if not form.scheduled
}

DISCOVER = """
INSERT INTO flagsweep_flag (kind, key, payload, priority, due_at, raised_at)
SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[1]'), ?, ?, ? FROM json_each(?) WHERE true
ON CONFLICT (kind, key) DO NOTHING
"""

# One range of the index per (kind, priority): ordering by both in one query would read every future flag of a higher priority.
AGENDA = """
WITH RECURSIVE step (kind, priority) AS (
  SELECT kinds.value, (SELECT max(priority) FROM flagsweep_flag WHERE state = 'waiting' AND kind = kinds.value)
  FROM json_each(?) AS kinds
  UNION ALL
  SELECT step.kind, (SELECT max(priority) FROM flagsweep_flag
                     WHERE state = 'waiting' AND kind = step.kind AND priority < step.priority)
  FROM step WHERE step.priority IS NOT NULL)
SELECT kind, priority, (SELECT min(due_at) FROM flagsweep_flag
                        WHERE state = 'waiting' AND kind = step.kind AND priority = step.priority)
FROM step WHERE priority IS NOT NULL
"""

FEW = 8
"""Flags that are claimed and returned by one statement, which hands over a row at a time."""

# What is chosen is waiting still: nobody else writes before this statement ends.
CLAIM = f"""
UPDATE flagsweep_flag SET state = 'claimed', claim_token = ?, claimed_by = ?, claimed_at = ?, claimed_generation = generation
WHERE id IN (
  SELECT id FROM flagsweep_flag WHERE state = 'waiting' AND kind = ? AND priority = ? AND due_at <= ? AND {is_open()}
  ORDER BY due_at, id LIMIT ?)
"""

# What most flags have alike is not said of each: it would be written, read and made an object a thousand times a claim.
ROW = """json_array(due_at, id, key, json(payload),
  CASE WHEN attempts = 0 AND suspect = 0 AND cursor IS NULL AND generation = covered + 1
    AND coalesce(schedule, expires_at, bucket, trace) IS NULL THEN NULL
  ELSE json_array(CAST(attempts AS INTEGER), CAST(suspect AS INTEGER), json(cursor), generation - covered,
    schedule, zone, intended, missed, expires_at, bucket, trace) END)"""

# The index by name: after an ANALYZE beside one large claim SQLite would rather read the whole table, from then on.
CLAIMED = "FROM flagsweep_flag INDEXED BY flagsweep_claimed WHERE state = 'claimed' AND claimed_by = ? AND claim_token = ?"

CLAIMED_ROWS = f"SELECT json_group_array({ROW}) {CLAIMED}"

CLAIMED_IDS = f"SELECT id {CLAIMED}"

CLAIM_FEW = f"{CLAIM} RETURNING {ROW}"

CLAIM_THESE = f"""
UPDATE flagsweep_flag SET state = 'claimed', claim_token = ?, claimed_by = ?, claimed_at = ?, claimed_generation = generation
WHERE id IN (SELECT value FROM json_each(?)) AND +state = 'waiting' AND {is_open()}
"""

CLAIMED_ROW = "SELECT " + ROW + " FROM flagsweep_flag WHERE id = ?"

MINE = "id IN (SELECT value FROM json_each(?)) AND claim_token = ?"

FREE = "claim_token = NULL, claimed_by = NULL, claimed_at = NULL, claimed_generation = NULL"

LOWER = f"DELETE FROM flagsweep_flag WHERE {MINE} AND generation = claimed_generation"

LOWER_BUMPED = f"""
UPDATE flagsweep_flag SET state = 'waiting', attempts = 0, crashes = 0, suspect = 0, strikes = 0, error = NULL, cursor = NULL,
  covered = claimed_generation, {FREE}
WHERE {MINE}
"""

GENERATIONS = f"SELECT id, claimed_generation FROM flagsweep_flag WHERE {MINE}"

SETTLE_ONE = f"""
UPDATE flagsweep_flag SET
  state = CASE WHEN generation > claimed_generation THEN 'waiting' ELSE :state END,
  attempts = CASE WHEN generation > claimed_generation THEN :bumped_attempts ELSE :attempts END,
  due_at = CASE WHEN generation = claimed_generation THEN :due
                WHEN :earlier THEN min(due_at, :bumped_due) ELSE :bumped_due END,
  died_at = CASE WHEN generation = claimed_generation AND :state = 'dead' THEN :now END,
  died_as = CASE WHEN generation = claimed_generation AND :state = 'dead' THEN :died_as END,
  strikes = max(0, strikes + :strikes), crashes = crashes + :crashed, suspect = CASE WHEN :suspect THEN suspect + 1 ELSE 0 END,
  error = coalesce(:error, error), settled_at = :now, {FREE}
WHERE id = :id AND claim_token = :token
RETURNING state
"""

RELEASE = f"UPDATE flagsweep_flag SET state = 'waiting', due_at = min(due_at, ?), {FREE} WHERE {MINE}"

CLAIMED_BY = "SELECT id FROM flagsweep_flag INDEXED BY flagsweep_claimed WHERE state = 'claimed' AND claimed_by = ?"

CLAIMERS = "SELECT DISTINCT claimed_by FROM flagsweep_flag INDEXED BY flagsweep_claimed WHERE state = 'claimed'"

CLAIMS_OF = """
SELECT DISTINCT kind, claim_token FROM flagsweep_flag INDEXED BY flagsweep_claimed WHERE state = 'claimed' AND claimed_by = ?
"""

THESE = "id IN (SELECT value FROM json_each(?))"

RETRY = f"""
UPDATE flagsweep_flag
SET state = 'waiting', attempts = 0, crashes = 0, suspect = 0, strikes = 0, died_at = NULL, died_as = NULL,
  due_at = ?, settled_at = ?
WHERE {THESE} AND (state = 'dead' OR (state = 'waiting' AND attempts > 0))
"""

SPACE = """
UPDATE flagsweep_flag SET due_at = ? + (? + item.key) * ? / ? FROM json_each(?) AS item WHERE flagsweep_flag.id = item.value
"""

RECORD_DEAD = f"""
INSERT INTO flagsweep_history (at, flag, kind, key, event, reason)
SELECT ?, id, kind, key, 'discarded', ? FROM flagsweep_flag WHERE {THESE} AND state = 'dead'
"""

DROP_DEAD = f"DELETE FROM flagsweep_flag WHERE {THESE} AND state = 'dead'"

PROGRESS = "UPDATE flagsweep_flag SET cursor = ? WHERE id = ? AND claim_token = ?"

KINDS = """
WITH RECURSIVE step (kind) AS (
  SELECT min(kind) FROM flagsweep_flag WHERE state = 'waiting'
  UNION ALL
  SELECT (SELECT min(kind) FROM flagsweep_flag WHERE state = 'waiting' AND kind > step.kind) FROM step WHERE kind IS NOT NULL)
SELECT kind FROM step WHERE kind IS NOT NULL
"""

UNREADABLE: tuple[type[Exception], ...] = (*DATABASE_ERRORS, ValueError, RecursionError)


class SqliteFlags(Dialect):
    """Hand over many values as one JSON text."""

    def raising(self, kind: str, item: Item, terms: Terms) -> Statement:
        return Statement(RAISE[terms.form], (*terms.values(kind, *item), *terms.updating))

    def raise_many_over(self, execute: Execute, kind: str, chunk: str, terms: Terms) -> Counter[str]:
        common = (terms.priority, terms.due_at, terms.now, terms.expires_at)
        rows = execute(RAISE_MANY[terms.form], (kind, *common, *terms.traced, chunk, *terms.updating)).fetchall()
        return Counter(row[0] for row in rows)

    def retrying(self, ids: Sequence[int], now: int) -> Statement:
        return Statement(RETRY, (now, now, json.dumps(ids)))

    def space(self, db: Database, ids: Sequence[int], now: int, turn: int, count: int, period: int) -> None:
        db.execute_sql(SPACE, (now, turn, period, count, json.dumps(ids)))

    def recording_dead(self, ids: Sequence[int], reason: str, now: int) -> Statement:
        return Statement(RECORD_DEAD, (now, reason, json.dumps(ids)))

    def dropping_dead(self, ids: Sequence[int]) -> Statement:
        return Statement(DROP_DEAD, (json.dumps(ids),))

    def asking_agenda(self, kinds: str) -> Statement:
        return Statement(AGENDA, (kinds,))

    def asking_waiting_kinds(self) -> Statement:
        return Statement(KINDS)

    def claim(
        self, db: Database, kind: str, priority: int, limit: int, consumer: int, token: int, now: int, way: Way = FORCED
    ) -> list[Row]:
        arguments = (token, consumer, now, kind, priority, now, *way.values(now), limit)
        if limit <= FEW and (rows := self._claim_few(db, *arguments)) is not None:
            return rows
        db.execute_sql(CLAIM, arguments)
        return self._claimed(db, consumer, token)

    def claim_these(self, db: Database, ids: Sequence[int], consumer: int, token: int, now: int, way: Way = FORCED) -> list[Row]:
        db.execute_sql(CLAIM_THESE, (token, consumer, now, json.dumps(ids), *way.values(now)))
        return self._claimed(db, consumer, token)

    def _claimed(self, db: Database, consumer: int, token: int) -> list[Row]:
        """Return what a claim has taken, the longest due first."""
        try:
            rows = json.loads(db.execute_sql(CLAIMED_ROWS, (consumer, token)).fetchone()[0])
        except UNREADABLE:
            ids = db.execute_sql(CLAIMED_IDS, (consumer, token)).fetchall()
            return [self._readable_row(db, row[0]) for row in ids]
        rows.sort()
        return rows

    def _claim_few(self, db: Database, *arguments: Any) -> list[Row] | None:
        """Claim in one statement; return None where a row was damaged by hand: what is claimed then its token finds."""
        try:
            return sorted(json.loads(text) for (text,) in db.execute_sql(CLAIM_FEW, arguments).fetchall())
        except UNREADABLE as error:
            if self.is_away(error):
                raise
            return None

    def _readable_row(self, db: Database, id: int) -> Row:
        """Return one row where some row of a batch was damaged by hand: that one says so, the others go on."""
        try:
            return json.loads(db.execute_sql(CLAIMED_ROW, (id,)).fetchone()[0])
        except UNREADABLE as error:
            if self.is_away(error):
                raise  # It is the disk that is damaged.
            return [0, id, "?", Damaged(f"its row cannot be read: {error}"), None]

    def lowering(self, ids: Sequence[int], token: int) -> Statement:
        return Statement(LOWER, (str(list(ids)), token))  # Whole numbers: that is JSON, and made in a quarter of the time.

    def lowering_bumped(self, ids: Sequence[int], token: int) -> Statement:
        return Statement(LOWER_BUMPED, (json.dumps(ids), token))

    def asking_generations(self, ids: Sequence[int], token: int) -> Statement:
        return Statement(GENERATIONS, (json.dumps(list(ids)), token))

    def settling(self, named: dict[str, Any]) -> Statement:
        return Statement(SETTLE_ONE, named)

    def releasing(self, ids: Sequence[int], token: int, now: int) -> Statement:
        return Statement(RELEASE, (now, json.dumps(ids), token))

    def asking_claimed_ids(self, consumer: int) -> Statement:
        return Statement(CLAIMED_BY, (consumer,))

    def asking_claimers(self) -> Statement:
        return Statement(CLAIMERS)

    def asking_claims_of(self, consumer: int) -> Statement:
        return Statement(CLAIMS_OF, (consumer,))

    def progressing(self, id: int, token: int, cursor: str) -> Statement:
        return Statement(PROGRESS, (cursor, id, token))

    def discovering(self, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> Statement:
        return Statement(DISCOVER, (kind, priority, now, now, json.dumps(rows)))

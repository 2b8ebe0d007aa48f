"""PostgreSQL, MySQL and MariaDB: the statements about flags that they have in common.

Rows that somebody else's open transaction holds are skipped, never waited for: a request that has raised a flag and then talks
to a slow service must not hold up a sweep.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from peewee import Database

from ...payloads import Item
from ..flags import Damaged, Row
from ..raising import Form
from ..statement import Statement
from .native import Native

_to_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True, allow_nan=False).encode

FREE = "claim_token = NULL, claimed_by = NULL, claimed_at = NULL, claimed_generation = NULL"

STANDS = "{old}state = 'waiting' OR {old}generation > {old}claimed_generation"
"""Waits from before, or since it was raised again while it runs."""


def raised(form: Form, old: str, new: Callable[[str], str]) -> str:
    """Return what a raise does to a flag that is up. In this order: MySQL puts each value in place before it works out the next.

    :param old: what stands before a column as it was.
    :param new: returns how the value is written that the raise gives a column.
    """
    stands = STANDS.format(old=old)
    first = f"coalesce({old}first_at, {old}raised_at)"

    def kept(name: str) -> str:
        return f"CASE WHEN {stands} THEN {old}{name} ELSE {new(name)} END" if form.keeps else new(name)

    due_at = f"least({new('due_at')}, {first} + %s)" if form.debounced else f"least({old}due_at, {new('due_at')})"
    how = "CASE WHEN {old}state = 'waiting' THEN 'coalesced' WHEN {old}state = 'claimed' THEN 'bumped' ELSE 'revived' END"
    stays = "{old}state = 'waiting' AND {old}attempts > 0"
    fresh = "CASE WHEN {{old}}state = 'dead' THEN 0 ELSE {{old}}{name} END"
    sets = [
        f"raised_as = {how}",
        f"due_at = CASE WHEN {stays} THEN {{old}}due_at WHEN {stands} THEN {due_at} ELSE {new('due_at')} END",
        f"priority = CASE WHEN {stands} THEN greatest({{old}}priority, {new('priority')}) ELSE {new('priority')} END",
        *(f"{name} = {fresh.format(name=name)}" for name in ("attempts", "crashes", "suspect", "strikes")),
        *(f"{name} = {kept(name)}" for name in ("payload", "expires_at", "bucket")),
        "died_at = NULL",
        "died_as = NULL",
    ]
    if form.debounced:
        sets.append(f"first_at = CASE WHEN {stands} THEN {first} ELSE {new('raised_at')} END")
    if form.scheduled:
        missed = f"CASE WHEN {{old}}intended IS NULL THEN {new('missed')} ELSE {{old}}missed + 1 + {new('missed')} END"
        sets += [f"missed = {missed}", *(f"{name} = {new(name)}" for name in ("schedule", "zone", "intended"))]
    if form.traced:
        sets.append(f"trace = {new('trace')}")
    sets += [
        f"raised_at = {new('raised_at')}",
        "generation = {old}generation + 1",
        "state = CASE WHEN {old}state = 'dead' THEN 'waiting' ELSE {old}state END",
    ]
    return ", ".join(sets).replace("{old}", old)


HOLD = "SELECT id FROM flagsweep_flag WHERE id {among} FOR UPDATE SKIP LOCKED"
THERE = "SELECT id FROM flagsweep_flag WHERE id {among}"
LOWER = "DELETE FROM flagsweep_flag WHERE id {among} AND claim_token = ? AND generation = claimed_generation"
LOWER_BUMPED = f"""
UPDATE flagsweep_flag SET state = 'waiting', attempts = 0, crashes = 0, suspect = 0, strikes = 0, error = NULL, cursor = NULL,
  covered = claimed_generation, {FREE}
WHERE id {{among}} AND claim_token = ?
"""
GENERATIONS = "SELECT id, claimed_generation FROM flagsweep_flag WHERE id {among} AND claim_token = ?"
SETTLE_ONE = f"""
UPDATE flagsweep_flag SET
  state = CASE WHEN generation > claimed_generation THEN 'waiting' ELSE ? END,
  attempts = CASE WHEN generation > claimed_generation THEN ? ELSE ? END,
  due_at = CASE WHEN generation = claimed_generation THEN ? WHEN ? THEN least(due_at, ?) ELSE ? END,
  died_at = CASE WHEN generation = claimed_generation AND ? = 'dead' THEN ? END,
  died_as = CASE WHEN generation = claimed_generation AND ? = 'dead' THEN ? END,
  strikes = greatest(0, strikes + ?), crashes = crashes + ?, suspect = CASE WHEN ? THEN suspect + 1 ELSE 0 END,
  error = coalesce(?, error), settled_at = ?, {FREE}
WHERE id = ? AND claim_token = ?
"""
_SETTLE_ARGUMENTS = (
    *("state", "bumped_attempts", "attempts", "due", "earlier", "bumped_due", "bumped_due", "state", "now"),
    *("state", "died_as"),
    *("strikes", "crashed", "suspect", "error", "now", "id", "token"),
)
CLAIMED = ", ".join(
    [
        *("due_at", "id", "key", "payload", "attempts", "suspect", "cursor", "generation - covered AS raises"),
        *("schedule", "zone", "intended", "missed", "expires_at", "bucket", "trace"),
    ]
)
"""What a claim reads of a flag."""
BUCKET = 13
"""Where of it the bucket stands."""
RELEASE = f"UPDATE flagsweep_flag SET state = 'waiting', due_at = least(due_at, ?), {FREE} WHERE id {{among}} AND claim_token = ?"
CLAIMED_BY = "SELECT id FROM flagsweep_flag WHERE state = 'claimed' AND claimed_by = ?"
CLAIMERS = "SELECT DISTINCT claimed_by FROM flagsweep_flag WHERE state = 'claimed'"
CLAIMS_OF = "SELECT DISTINCT kind, claim_token FROM flagsweep_flag WHERE state = 'claimed' AND claimed_by = ?"
RETRY = """
UPDATE flagsweep_flag
SET state = 'waiting', attempts = 0, crashes = 0, suspect = 0, strikes = 0, died_at = NULL, died_as = NULL,
  due_at = ?, settled_at = ?
WHERE id {among} AND (state = 'dead' OR (state = 'waiting' AND attempts > 0))
"""
RECORD_DEAD = """
INSERT INTO flagsweep_history (at, flag, kind, key, event, reason)
SELECT ?, id, kind, key, 'discarded', {text} FROM flagsweep_flag WHERE id {among} AND state = 'dead'
"""
DROP_DEAD = "DELETE FROM flagsweep_flag WHERE id {among} AND state = 'dead'"
PROGRESS = "UPDATE flagsweep_flag SET cursor = ? WHERE id = ? AND claim_token = ?"


class ServerFlags(Native):
    """Say the statements of the verbs, and read what they bring."""

    def retrying(self, ids: Sequence[int], now: int) -> Statement:
        return Statement(self.sql[RETRY], (now, now, self.listed(ids)))

    def recording_dead(self, ids: Sequence[int], reason: str, now: int) -> Statement:
        return Statement(self.sql[RECORD_DEAD], (now, self.encoded(reason), self.listed(ids)))

    def dropping_dead(self, ids: Sequence[int]) -> Statement:
        return Statement(self.sql[DROP_DEAD], (self.listed(ids),))

    def lowering(self, ids: Sequence[int], token: int) -> Statement:
        return Statement(self.sql[LOWER], (self.listed(ids), token))

    def lowering_bumped(self, ids: Sequence[int], token: int) -> Statement:
        return Statement(self.sql[LOWER_BUMPED], (self.listed(ids), token))

    def asking_generations(self, ids: Sequence[int], token: int) -> Statement:
        return Statement(self.sql[GENERATIONS], (self.listed(ids), token))

    def settling(self, named: dict[str, Any]) -> Statement:
        return Statement(self.sql[SETTLE_ONE], self.settle_arguments(named))

    def settle_arguments(self, named: dict[str, Any]) -> tuple[Any, ...]:
        """Return the parameters of ``SETTLE_ONE`` in their order."""
        return tuple(named[name] for name in _SETTLE_ARGUMENTS)

    def releasing(self, ids: Sequence[int], token: int, now: int) -> Statement:
        return Statement(self.sql[RELEASE], (now, self.listed(ids), token))

    def progressing(self, id: int, token: int, cursor: str) -> Statement:
        return Statement(self.sql[PROGRESS], (cursor, id, token))

    def asking_claimed_ids(self, consumer: int) -> Statement:
        return Statement(self.sql[CLAIMED_BY], (consumer,))

    def asking_claimers(self) -> Statement:
        return Statement(self.sql[CLAIMERS])

    def asking_claims_of(self, consumer: int) -> Statement:
        return Statement(self.sql[CLAIMS_OF], (consumer,))

    def claims_of(self, db: Database, consumer: int) -> list[tuple[str, int]]:
        return [(readable(kind), token) for kind, token in super().claims_of(db, consumer)]

    def free(self, db: Database, ids: Sequence[int]) -> Sequence[int]:
        return [row[0] for row in db.execute_sql(self.sql[HOLD], (self.listed(ids),)).fetchall()]

    def held(self, db: Database, ids: Sequence[int]) -> set[int]:
        others = set(ids) - set(self.free(db, ids))
        return {row[0] for row in db.execute_sql(self.sql[THERE], (self.listed(list(others)),)).fetchall()} if others else set()

    def rows(self, found: Sequence[Any]) -> list[Row]:
        """Return claimed rows, the longest due first; one whose text was damaged by hand says so, the others go on."""
        return sorted((_readable(row) for row in found), key=lambda row: (row[0], row[1]))


def rounds(chunk: str) -> list[dict[str, Item]]:
    """Return the items of a chunk by key; one that comes again is in a round of its own: no statement may meet a row twice."""
    found: list[dict[str, Item]] = []
    for each in json.loads(chunk):
        item = Item(*each) if isinstance(each, list) else Item(*(_to_json(each),) * 2)
        fits = next((one for one in found if item.key not in one), None)
        if fits is None:
            found.append(fits := {})
        fits[item.key] = item
    return found


def readable(value: Any) -> str:
    """Return what a database holds as text or as bytes as text that can be read."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _readable(row: Sequence[Any]) -> Row:
    due_at, id, key, payload, attempts, suspect, cursor, raises, *rest = row
    schedule, zone, intended, missed, expires_at, bucket, trace = rest
    if raises == 1 and not (attempts or suspect) and cursor is schedule is expires_at is bucket is trace is None:
        return due_at, id, readable(key), parsed(payload), None
    rare = (readable(schedule), zone, intended, missed, expires_at, readable(bucket), readable(trace))
    try:
        going = None if cursor is None else json.loads(cursor)
    except (ValueError, RecursionError) as error:
        payload, going = Damaged(f"its cursor cannot be read: {error}"), None
    else:
        payload = parsed(payload)
    return due_at, id, readable(key), payload, (attempts, suspect, going, raises, *rare)


def parsed(payload: str) -> Any:
    """Return a payload, or what stands for one that was damaged by hand."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        return Damaged(f"its payload is no JSON: {error}")

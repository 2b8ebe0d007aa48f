"""What PostgreSQL, MySQL and MariaDB have in common: many writers at once, row locks, and connections that get lost.

Rows that somebody else's open transaction holds are skipped, never waited for: a request that has raised a flag and then talks
to a slow service must not hold up a sweep.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from peewee import Database

from .. import alive
from ..dialect import DATABASE_ERRORS, Damaged, Dialect, Row

_to_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True, allow_nan=False).encode

FREE = "claim_token = NULL, claimed_by = NULL, claimed_at = NULL, claimed_generation = NULL"

RAISED = """
  raised_as = CASE WHEN {old}state = 'waiting' THEN 'coalesced' WHEN {old}state = 'claimed' THEN 'bumped' ELSE 'revived' END,
  due_at = CASE WHEN {old}state = 'waiting' AND {old}attempts > 0 THEN {old}due_at
                WHEN {old}state = 'waiting' OR {old}generation > {old}claimed_generation THEN least({old}due_at, {due_at})
                ELSE {due_at} END,
  priority = CASE WHEN {old}state = 'waiting' OR {old}generation > {old}claimed_generation
                  THEN greatest({old}priority, {priority}) ELSE {priority} END,
  attempts = CASE WHEN {old}state = 'dead' THEN 0 ELSE {old}attempts END,
  crashes = CASE WHEN {old}state = 'dead' THEN 0 ELSE {old}crashes END,
  suspect = CASE WHEN {old}state = 'dead' THEN 0 ELSE {old}suspect END,
  died_at = NULL, payload = {payload}, raised_at = {raised_at}, generation = {old}generation + 1,
  state = CASE WHEN {old}state = 'dead' THEN 'waiting' ELSE {old}state END
"""
"""What a raise does to a flag that is up. In this order: MySQL puts each value in place before it works out the next."""

_COUNTS = """
SELECT kind, 'waiting', count(*), sum(CASE WHEN due_at <= ? THEN 1 ELSE 0 END), min(due_at)
FROM flagsweep_flag WHERE state = 'waiting' GROUP BY kind
UNION ALL SELECT kind, 'claimed', count(*), 0, NULL FROM flagsweep_flag WHERE state = 'claimed' GROUP BY kind
UNION ALL SELECT kind, 'dead', count(*), 0, NULL FROM flagsweep_flag WHERE state = 'dead' GROUP BY kind
"""
_HOLD = "SELECT id FROM flagsweep_flag WHERE id {among} FOR UPDATE SKIP LOCKED"
_THERE = "SELECT id FROM flagsweep_flag WHERE id {among}"
_LOWER = "DELETE FROM flagsweep_flag WHERE id {among} AND claim_token = ? AND generation = claimed_generation"
_LOWER_BUMPED = f"""
UPDATE flagsweep_flag SET state = 'waiting', attempts = 0, crashes = 0, suspect = 0, error = NULL, cursor = NULL, {FREE}
WHERE id {{among}} AND claim_token = ?
"""
_SETTLE_ONE = f"""
UPDATE flagsweep_flag SET
  state = CASE WHEN generation > claimed_generation THEN 'waiting' ELSE ? END,
  attempts = CASE WHEN generation > claimed_generation THEN ? ELSE ? END,
  due_at = CASE WHEN generation = claimed_generation THEN ? WHEN ? THEN least(due_at, ?) ELSE ? END,
  died_at = CASE WHEN generation = claimed_generation AND ? = 'dead' THEN ? END,
  crashes = crashes + ?, suspect = CASE WHEN ? THEN suspect + 1 ELSE 0 END,
  error = coalesce(?, error), settled_at = ?, {FREE}
WHERE id = ? AND claim_token = ?
"""
_SETTLE_ARGUMENTS = (
    *("state", "bumped_attempts", "attempts", "due", "earlier", "bumped_due", "bumped_due", "state", "now"),
    *("crashed", "suspect", "error", "now", "id", "token"),
)
_RELEASE = (
    f"UPDATE flagsweep_flag SET state = 'waiting', due_at = least(due_at, ?), {FREE} WHERE id {{among}} AND claim_token = ?"
)
_CLAIMED_BY = "SELECT id FROM flagsweep_flag WHERE state = 'claimed' AND claimed_by = ?"
_CLAIMERS = "SELECT DISTINCT claimed_by FROM flagsweep_flag WHERE state = 'claimed'"
_CLAIMS_OF = "SELECT DISTINCT kind, claim_token FROM flagsweep_flag WHERE state = 'claimed' AND claimed_by = ?"
_RETRY = """
UPDATE flagsweep_flag
SET state = 'waiting', attempts = 0, crashes = 0, suspect = 0, died_at = NULL, due_at = ?, settled_at = ?
WHERE id {among} AND (state = 'dead' OR (state = 'waiting' AND attempts > 0))
"""
_RECORD_DEAD = """
INSERT INTO flagsweep_history (at, flag, kind, key, event, reason)
SELECT ?, id, kind, key, 'discarded', {text} FROM flagsweep_flag WHERE id {among} AND state = 'dead'
"""
_DROP_DEAD = "DELETE FROM flagsweep_flag WHERE id {among} AND state = 'dead'"
_PROGRESS = "UPDATE flagsweep_flag SET cursor = ? WHERE id = ? AND claim_token = ?"
_LATEST_RAISE = "SELECT max(raised_at) FROM (SELECT raised_at FROM flagsweep_flag ORDER BY id DESC LIMIT ?) AS newest"
_NEWEST = "SELECT id, payload FROM flagsweep_flag WHERE state <> 'dead' ORDER BY id DESC LIMIT ?"


class Server(Dialect):
    """A database server: what a subclass must say is how to write a placeholder, a list, and an insert that may meet a row."""

    among = ""
    """How ``id`` is compared with a list that is one parameter."""
    text = "?"
    """How text is written that a person gave, over a connection of the site's, which may have any character set."""

    def native(self, sql: str) -> str:
        """Return a statement as the driver takes it."""
        return sql.replace("{text}", self.text).replace("?", "%s").replace("{among}", self.among)

    def __init__(self) -> None:
        texts = {name: value for name, value in globals().items() if name.startswith("_") and isinstance(value, str)}
        self.sql = {name: self.native(text) for name, text in texts.items() if not name.startswith("__")}

    def run(self, db: Database, name: str, *parameters: Any) -> Any:
        """Run a statement of this module by its name; return its cursor."""
        return db.execute_sql(self.sql[name], parameters)

    # Connections and transactions.

    def transaction(self, db: Database, only_claims: bool) -> AbstractContextManager[None]:
        """A claim waits for the disk, too: a server that crashes would forget it while this process lives, and have its flag
        run a second time beside the first."""
        return self._transaction(db)

    @contextmanager
    def _transaction(self, db: Database) -> Iterator[None]:
        db.execute_sql("BEGIN")
        try:
            yield
            self.commit(db)
        except BaseException:
            self.roll_back(db)
            raise

    def is_stale(self, connection: Any) -> bool:
        return alive.is_stale(connection)

    def refresh(self, db: Database) -> None:
        alive.refresh(db)

    def commit(self, db: Database) -> None:
        """Commit the open transaction.

        :raises RolledBack: where it had ended before: an error that somebody swallowed has undone it.
        """
        raise NotImplementedError

    def roll_back(self, db: Database) -> None:
        """Undo the open transaction; where that fails, too, the connection is of no use any more."""
        try:
            db.execute_sql("ROLLBACK")
        except DATABASE_ERRORS:
            self.drop(db)

    def drop(self, db: Any) -> None:
        """Forget a connection that is broken: the next statement opens a new one."""
        with suppress(Exception):
            db.connection().close()
        while db.transaction_depth():
            db.pop_transaction()
        db._state.reset()

    # The site's verbs.

    def counts(self, db: Database, now: int) -> list[Any]:
        rows = self.run(db, "_COUNTS", now).fetchall()
        return [(text(kind), state, count, int(due), earliest) for kind, state, count, due, earliest in rows]

    def retry(self, db: Database, ids: Sequence[int], now: int) -> int:
        return self.run(db, "_RETRY", now, now, self.listed(ids)).rowcount

    def drop_dead(self, db: Database, ids: Sequence[int], reason: str, now: int) -> int:
        self.run(db, "_RECORD_DEAD", now, self.encoded(reason), self.listed(ids))
        return self.run(db, "_DROP_DEAD", self.listed(ids)).rowcount

    # The verbs of a sweep.

    def rows(self, found: Sequence[Any]) -> list[Row]:
        """Return claimed rows, the longest due first; one whose text was damaged by hand says so, the others go on."""
        return sorted((_readable(row) for row in found), key=lambda row: (row[0], row[1]))

    def free(self, db: Database, ids: Sequence[int]) -> Sequence[int]:
        return [row[0] for row in self.run(db, "_HOLD", self.listed(ids)).fetchall()]

    def held(self, db: Database, ids: Sequence[int]) -> set[int]:
        others = set(ids) - set(self.free(db, ids))
        return {row[0] for row in self.run(db, "_THERE", self.listed(list(others))).fetchall()} if others else set()

    def encoded(self, text: str) -> Any:
        """Return such a text as the driver takes it."""
        return text

    def listed(self, values: Sequence[int]) -> Any:
        """Return a list as the driver takes it for one parameter."""
        return values

    def lower(self, db: Database, ids: Sequence[int], token: int) -> int:
        return self.run(db, "_LOWER", self.listed(ids), token).rowcount

    def lower_bumped(self, db: Database, ids: Sequence[int], token: int) -> int:
        return self.run(db, "_LOWER_BUMPED", self.listed(ids), token).rowcount

    def release(self, db: Database, ids: Sequence[int], token: int, now: int) -> int:
        return self.run(db, "_RELEASE", now, self.listed(ids), token).rowcount

    def claimed_ids(self, db: Database, consumer: int) -> list[int]:
        return [row[0] for row in self.run(db, "_CLAIMED_BY", consumer).fetchall()]

    def claimers(self, db: Database) -> list[int]:
        return [row[0] for row in self.run(db, "_CLAIMERS").fetchall()]

    def claims_of(self, db: Database, consumer: int) -> list[tuple[str, int]]:
        return [(text(kind), token) for kind, token in self.run(db, "_CLAIMS_OF", consumer).fetchall()]

    def progress(self, db: Database, id: int, token: int, cursor: str) -> bool:
        return self.run(db, "_PROGRESS", cursor, id, token).rowcount == 1

    def settle_arguments(self, named: dict[str, Any]) -> list[Any]:
        """Return the parameters of ``_SETTLE_ONE`` in their order."""
        return [named[name] for name in _SETTLE_ARGUMENTS]

    # Leases: locks with names, which belong to a session.

    def unfit_session(self, db: Database) -> str | None:
        """Return why a session cannot hold a lease, or None."""
        raise NotImplementedError

    def ping(self, db: Database) -> None:
        """Have the server answer.

        :raises DatabaseError: where the session is gone.
        """
        raise NotImplementedError

    def uptime(self, db: Database) -> float:
        """Return for how many seconds the server runs."""
        raise NotImplementedError

    def try_lock(self, db: Database, name: str) -> bool:
        """Take a lock for this session, without waiting; return whether it is ours."""
        raise NotImplementedError

    def unlock(self, db: Database, name: str) -> None:
        """Give a lock back."""
        raise NotImplementedError

    def is_locked(self, db: Database, name: str) -> bool:
        """Return whether any session has a lock."""
        raise NotImplementedError

    # What doctor asks.

    def server_version(self, db: Database) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        """Return the server's name, its version, and the oldest that will do."""
        raise NotImplementedError

    def weak_commits(self, db: Database) -> str | None:
        """Return the setting by which a power cut may take back what was committed, or None."""
        raise NotImplementedError

    def latest_raise(self, db: Database, last: int) -> int | None:
        return self.run(db, "_LATEST_RAISE", last).fetchone()[0]

    def damaged(self, db: Database, last: int) -> list[int]:
        return sorted(id for id, payload in self.run(db, "_NEWEST", last).fetchall() if isinstance(_parsed(payload), Damaged))


def pairs(chunk: str) -> tuple[dict[str, str], Counter[str]]:
    """Return the payload of each key of a chunk, and how often a key comes more than once. The last payload wins."""
    found: dict[str, str] = {}
    again: Counter[str] = Counter()
    for item in json.loads(chunk):
        key, payload = item if isinstance(item, list) else (_to_json(item),) * 2
        if key in found:
            again[key] += 1
        found[key] = payload
    return found, again


def tally(how: Sequence[tuple[str, str]], again: Counter[str]) -> Counter[str]:
    """Count what raises did: (key, what the first one did), and how often the same key came again behind it."""
    counts = Counter(what for _, what in how)
    first = dict(how)
    for key, times in again.items():
        counts["bumped" if first[key] == "bumped" else "coalesced"] += times
    return counts


def text(value: Any) -> str:
    """Return what a database holds as text or as bytes as text that can be read."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _readable(row: Sequence[Any]) -> Row:
    due_at, id, key, payload, attempts, suspect, cursor = row
    try:
        going = json.loads(cursor) if cursor is not None else None
    except (ValueError, RecursionError) as error:
        return due_at, id, text(key), Damaged(f"its cursor cannot be read: {error}"), attempts, suspect, None
    return due_at, id, text(key), _parsed(payload), attempts, suspect, going


def _parsed(payload: str) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        return Damaged(f"its payload is no JSON: {error}")

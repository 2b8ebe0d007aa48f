"""SQLite. Whatever runs once a batch is one statement that hands over or returns one JSON text: Python's sqlite3 gives up the
interpreter lock at every row, and next to a busy handler each row then costs a thread switch of up to 5 ms.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from peewee import Database, Field, Model, Node, Select

from ..dialect import DATABASE_ERRORS, OURS, Damaged, Dialect, Row, driver_error, statements

_TABLES = """
CREATE TABLE IF NOT EXISTS flagsweep_schema (version INTEGER NOT NULL PRIMARY KEY, applied_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS flagsweep_flag (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  payload TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'claimed', 'dead')),
  priority INTEGER NOT NULL DEFAULT 0,
  due_at INTEGER NOT NULL,
  raised_at INTEGER NOT NULL,
  raised_as TEXT NOT NULL DEFAULT 'new',
  generation INTEGER NOT NULL DEFAULT 1,
  attempts INTEGER NOT NULL DEFAULT 0,
  crashes INTEGER NOT NULL DEFAULT 0,
  suspect INTEGER NOT NULL DEFAULT 0,
  cursor TEXT,
  error TEXT,
  died_at INTEGER,
  claim_token INTEGER,
  claimed_by INTEGER,
  claimed_at INTEGER,
  claimed_generation INTEGER,
  settled_at INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS flagsweep_flag_kind_key ON flagsweep_flag (kind, key);
CREATE INDEX IF NOT EXISTS flagsweep_waiting ON flagsweep_flag (kind, priority, due_at, id) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS flagsweep_claimed ON flagsweep_flag (claimed_by, claim_token) WHERE state = 'claimed';
CREATE INDEX IF NOT EXISTS flagsweep_dead ON flagsweep_flag (kind, id) WHERE state = 'dead';
CREATE TABLE IF NOT EXISTS flagsweep_consumer (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  mode TEXT NOT NULL,
  pid INTEGER NOT NULL,
  host TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  comebacks INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS flagsweep_history (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  flag INTEGER NOT NULL,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  event TEXT NOT NULL,
  reason TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS flagsweep_history_at ON flagsweep_history (at);
"""

SHORT_LOG = 4 * 1024 * 1024
"""Bytes of a write-ahead log that are as they should be: SQLite writes it back at a thousand pages."""

# Waiting: the earlier due time wins, unless the flag is backing off. Claimed and not bumped yet, or dead: the new raise decides.
_ON_CONFLICT = """
ON CONFLICT (kind, key) DO UPDATE SET
  payload = excluded.payload, raised_at = excluded.raised_at, generation = flag.generation + 1, died_at = NULL,
  raised_as = CASE flag.state WHEN 'waiting' THEN 'coalesced' WHEN 'claimed' THEN 'bumped' ELSE 'revived' END,
  due_at = CASE WHEN flag.state = 'waiting' AND flag.attempts > 0 THEN flag.due_at
                WHEN flag.state = 'waiting' OR flag.generation > flag.claimed_generation THEN min(flag.due_at, excluded.due_at)
                ELSE excluded.due_at END,
  priority = CASE WHEN flag.state = 'waiting' OR flag.generation > flag.claimed_generation
                  THEN max(flag.priority, excluded.priority) ELSE excluded.priority END,
  attempts = CASE flag.state WHEN 'dead' THEN 0 ELSE flag.attempts END,
  crashes = CASE flag.state WHEN 'dead' THEN 0 ELSE flag.crashes END,
  suspect = CASE flag.state WHEN 'dead' THEN 0 ELSE flag.suspect END,
  state = CASE flag.state WHEN 'dead' THEN 'waiting' ELSE flag.state END
"""

_RAISE = f"""
INSERT INTO flagsweep_flag AS flag (kind, key, payload, priority, due_at, raised_at) VALUES (?, ?, ?, ?, ?, ?)
{_ON_CONFLICT} RETURNING id, raised_as
"""

_KEY_AND_PAYLOAD = """
CASE type WHEN 'object' THEN value ELSE json_extract(value, '$[0]') END,
CASE type WHEN 'object' THEN value ELSE json_extract(value, '$[1]') END"""

_RAISE_MANY = f"""
INSERT INTO flagsweep_flag AS flag (kind, key, payload, priority, due_at, raised_at)
SELECT ?, {_KEY_AND_PAYLOAD}, ?, ?, ? FROM json_each(?) WHERE true
{_ON_CONFLICT} RETURNING raised_as
"""

_COUNTS = """
SELECT kind, 'waiting', count(*), sum(due_at <= ?), min(due_at) FROM flagsweep_flag WHERE state = 'waiting' GROUP BY kind
UNION ALL SELECT kind, 'claimed', count(*), 0, NULL FROM flagsweep_flag WHERE state = 'claimed' GROUP BY kind
UNION ALL SELECT kind, 'dead', count(*), 0, NULL FROM flagsweep_flag WHERE state = 'dead' GROUP BY kind
"""

_DISCOVER = """
INSERT INTO flagsweep_flag (kind, key, payload, priority, due_at, raised_at)
SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[1]'), ?, ?, ? FROM json_each(?) WHERE true
ON CONFLICT (kind, key) DO NOTHING
"""

# One range of the index per (kind, priority): ordering by both in one query would read every future flag of a higher priority.
_AGENDA = """
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

_CLAIM = """
UPDATE flagsweep_flag SET state = 'claimed', claim_token = ?, claimed_by = ?, claimed_at = ?, claimed_generation = generation
WHERE state = 'waiting' AND id IN (
  SELECT id FROM flagsweep_flag WHERE state = 'waiting' AND kind = ? AND priority = ? AND due_at <= ?
  ORDER BY due_at, id LIMIT ?)
"""

_ROW = "json_array(due_at, id, key, json(payload), CAST(attempts AS INTEGER), CAST(suspect AS INTEGER), json(cursor))"

# The index by name: after an ANALYZE beside one large claim SQLite would rather read the whole table, from then on.
_CLAIMED = "FROM flagsweep_flag INDEXED BY flagsweep_claimed WHERE state = 'claimed' AND claimed_by = ? AND claim_token = ?"

_CLAIMED_ROWS = f"SELECT json_group_array({_ROW}) {_CLAIMED}"

_CLAIMED_IDS = f"SELECT id {_CLAIMED}"

_CLAIMED_ROW = "SELECT " + _ROW + " FROM flagsweep_flag WHERE id = ?"

_MINE = "id IN (SELECT value FROM json_each(?)) AND claim_token = ?"

_FREE = "claim_token = NULL, claimed_by = NULL, claimed_at = NULL, claimed_generation = NULL"

_LOWER = f"DELETE FROM flagsweep_flag WHERE {_MINE} AND generation = claimed_generation"

_LOWER_BUMPED = f"""
UPDATE flagsweep_flag SET state = 'waiting', attempts = 0, crashes = 0, suspect = 0, error = NULL, cursor = NULL, {_FREE}
WHERE {_MINE}
"""

_SETTLE_ONE = f"""
UPDATE flagsweep_flag SET
  state = CASE WHEN generation > claimed_generation THEN 'waiting' ELSE :state END,
  attempts = CASE WHEN generation > claimed_generation THEN :bumped_attempts ELSE :attempts END,
  due_at = CASE WHEN generation = claimed_generation THEN :due
                WHEN :earlier THEN min(due_at, :bumped_due) ELSE :bumped_due END,
  died_at = CASE WHEN generation = claimed_generation AND :state = 'dead' THEN :now END,
  crashes = crashes + :crashed, suspect = CASE WHEN :suspect THEN suspect + 1 ELSE 0 END,
  error = coalesce(:error, error), settled_at = :now, {_FREE}
WHERE id = :id AND claim_token = :token
RETURNING state
"""

_RELEASE = f"UPDATE flagsweep_flag SET state = 'waiting', due_at = min(due_at, ?), {_FREE} WHERE {_MINE}"

_CLAIMED_BY = "SELECT id FROM flagsweep_flag INDEXED BY flagsweep_claimed WHERE state = 'claimed' AND claimed_by = ?"

_CLAIMERS = "SELECT DISTINCT claimed_by FROM flagsweep_flag INDEXED BY flagsweep_claimed WHERE state = 'claimed'"

_CLAIMS_OF = """
SELECT DISTINCT kind, claim_token FROM flagsweep_flag INDEXED BY flagsweep_claimed WHERE state = 'claimed' AND claimed_by = ?
"""

_THESE = "id IN (SELECT value FROM json_each(?))"

_RETRY = f"""
UPDATE flagsweep_flag
SET state = 'waiting', attempts = 0, crashes = 0, suspect = 0, died_at = NULL, due_at = ?, settled_at = ?
WHERE {_THESE} AND (state = 'dead' OR (state = 'waiting' AND attempts > 0))
"""

_RECORD_DEAD = f"""
INSERT INTO flagsweep_history (at, flag, kind, key, event, reason)
SELECT ?, id, kind, key, 'discarded', ? FROM flagsweep_flag WHERE {_THESE} AND state = 'dead'
"""

_DROP_DEAD = f"DELETE FROM flagsweep_flag WHERE {_THESE} AND state = 'dead'"

_PROGRESS = "UPDATE flagsweep_flag SET cursor = ? WHERE id = ? AND claim_token = ?"

_KINDS = """
WITH RECURSIVE step (kind) AS (
  SELECT min(kind) FROM flagsweep_flag WHERE state = 'waiting'
  UNION ALL
  SELECT (SELECT min(kind) FROM flagsweep_flag WHERE state = 'waiting' AND kind > step.kind) FROM step WHERE kind IS NOT NULL)
SELECT kind FROM step WHERE kind IS NOT NULL
"""

_LATEST_RAISE = """
SELECT max(raised_at) FROM (SELECT raised_at FROM flagsweep_flag ORDER BY id DESC LIMIT ?) WHERE typeof(raised_at) = 'integer'
"""

_DAMAGED = """
SELECT id FROM (SELECT id, state, due_at, payload FROM flagsweep_flag ORDER BY id DESC LIMIT ?)
WHERE state <> 'dead' AND (typeof(due_at) <> 'integer' OR json_valid(payload) IS NOT 1) ORDER BY id
"""

NO_TABLE = "no table"

_UNREADABLE: tuple[type[Exception], ...] = (*DATABASE_ERRORS, ValueError, RecursionError)


class Sqlite(Dialect):
    """A file beside the site, or a database in memory."""

    name = "SQLite"
    one_writer = True
    shared = False
    begin = ("IMMEDIATE",)
    steps = (statements(_TABLES),)
    opening = ("PRAGMA journal_mode = WAL", "BEGIN IMMEDIATE")
    microseconds = "CAST(round((julianday('now') - 2440587.5) * 86400000000) AS INTEGER)"
    missing: Mapping[Any, str] = {
        NO_TABLE: "run 'flagsweep init' (or call flags.init()) once",
        sqlite3.SQLITE_CANTOPEN: "check the path and the rights of its folder",
        sqlite3.SQLITE_NOTADB: "the file is no SQLite database: check the path",
        sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup",
    }
    passing: Mapping[Any, str] = {
        sqlite3.SQLITE_READONLY: "the database, its folder or its disk is read-only: make it writable",
        sqlite3.SQLITE_PERM: "the database, its folder or its disk is read-only: make it writable",
        sqlite3.SQLITE_FULL: "the disk is full: free some space and do it again",
        sqlite3.SQLITE_IOERR: "the disk is full or failing: free some space, and look into the system's log",
        sqlite3.SQLITE_BUSY: "another program holds the database for too long: look for a long write transaction",
        sqlite3.SQLITE_LOCKED: "another program holds the database for too long: look for a long write transaction",
        sqlite3.SQLITE_PROTOCOL: "another program holds the database for too long: look for a long write transaction",
        sqlite3.SQLITE_NOMEM: "this machine has no memory left",
    }
    busy = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))

    def codes(self, error: BaseException) -> Sequence[Any]:
        """Return the primary result code. What SQLite writes is never translated, and for a missing table it has no code."""
        known = driver_error(error)
        code = getattr(known, "sqlite_errorcode", getattr(known, "extendedresult", None))  # APSW's has another name.
        if code == sqlite3.SQLITE_ERROR and f"no such table: {OURS}" in str(error):
            return (NO_TABLE,)
        return () if code is None else (code & 0xFF,)

    # Connections and transactions.

    @contextmanager
    def transaction(self, db: Database, only_claims: bool) -> Iterator[None]:
        """Claims alone do without an fsync: what loses them, a power cut, ends their handlers, too, and they run again.

        Not Peewee's atomic(): where SQLite has rolled back by itself, that fails at rolling back, and hides why.
        """
        if db.database == ":memory:":
            with db.atomic():
                yield
            return
        self._synchronous(db, "NORMAL" if only_claims else "FULL")
        db.execute_sql("BEGIN IMMEDIATE")
        try:
            yield
            db.execute_sql("COMMIT")
        except BaseException as error:
            self._roll_back(db, sqlite3.SQLITE_FULL in self.codes(error))
            raise

    def _synchronous(self, db: Any, mode: str) -> None:
        if getattr(db._state, "flagsweep_mode", None) != (mode, id(db.connection())):
            db.execute_sql(f"PRAGMA synchronous = {mode}")
            db._state.flagsweep_mode = (mode, id(db.connection()))

    def _roll_back(self, db: Database, full: bool) -> None:
        """Undo the open transaction, if there still is one: SQLite ends it by itself when the disk is full.

        :param full: the disk is full: the log may hold pages that the database has room for already.
        """
        with suppress(*DATABASE_ERRORS):
            if db.connection().in_transaction:
                db.execute_sql("ROLLBACK")
            if full:
                db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def in_transaction(self, db: Database) -> bool:
        return db.connection().in_transaction

    @contextmanager
    def lenient(self, db: Database) -> Iterator[None]:
        """Read text that is not UTF-8, too."""
        connection = db.connection()
        if not hasattr(connection, "text_factory"):  # APSW reads what is UTF-8, and no other text.
            yield
            return
        before, connection.text_factory = connection.text_factory, lambda raw: raw.decode(errors="backslashreplace")
        try:
            yield
        finally:
            connection.text_factory = before

    # The tables.

    def prepare(self, db: Database) -> None:
        """Switch to a write-ahead log. SQLite itself does not wait for others here, such as one who does the same just now."""
        limit = time.monotonic() + 5
        while True:
            try:
                db.execute_sql("PRAGMA journal_mode = WAL").fetchall()
                return
            except DATABASE_ERRORS as error:
                if not self.is_busy(error) or time.monotonic() > limit:
                    raise
            time.sleep(0.005)

    # The site's verbs.

    def raise_(self, db: Database, kind: str, key: str, payload: str, priority: int, due_at: int, now: int) -> tuple[int, str]:
        return db.execute_sql(_RAISE, (kind, key, payload, priority, due_at, now)).fetchall()[0]

    def raise_many(self, db: Database, kind: str, chunk: str, priority: int, due_at: int, now: int) -> Counter[str]:
        return Counter(row[0] for row in db.execute_sql(_RAISE_MANY, (kind, priority, due_at, now, chunk)).fetchall())

    def counts(self, db: Database, now: int) -> list[Any]:
        return db.execute_sql(_COUNTS, (now,)).fetchall()

    def retry(self, db: Database, ids: Sequence[int], now: int) -> int:
        return db.rows_affected(db.execute_sql(_RETRY, (now, now, json.dumps(ids))))

    def drop_dead(self, db: Database, ids: Sequence[int], reason: str, now: int) -> int:
        these = json.dumps(ids)
        db.execute_sql(_RECORD_DEAD, (now, reason, these))
        return db.rows_affected(db.execute_sql(_DROP_DEAD, (these,)))

    # The verbs of a sweep.

    def agenda(self, db: Database, kinds: str) -> list[tuple[str, int, Any]]:
        return db.execute_sql(_AGENDA, (kinds,)).fetchall()

    def waiting_kinds(self, db: Database) -> list[str]:
        return [row[0] for row in db.execute_sql(_KINDS).fetchall()]

    def claim(self, db: Database, kind: str, priority: int, limit: int, consumer: int, token: int, now: int) -> list[Row]:
        db.execute_sql(_CLAIM, (token, consumer, now, kind, priority, now, limit))
        try:
            rows = json.loads(db.execute_sql(_CLAIMED_ROWS, (consumer, token)).fetchone()[0])
        except _UNREADABLE:
            ids = db.execute_sql(_CLAIMED_IDS, (consumer, token)).fetchall()
            return [self._readable_row(db, row[0]) for row in ids]
        rows.sort()
        return rows

    def _readable_row(self, db: Database, id: int) -> Row:
        """Return one row where some row of a batch was damaged by hand: that one says so, the others go on."""
        try:
            return json.loads(db.execute_sql(_CLAIMED_ROW, (id,)).fetchone()[0])
        except _UNREADABLE as error:
            if self.is_away(error):
                raise  # It is the disk that is damaged.
            return [0, id, "?", Damaged(f"its row cannot be read: {error}"), 0, 0, None]

    def lower(self, db: Database, ids: Sequence[int], token: int) -> int:
        return db.rows_affected(db.execute_sql(_LOWER, (json.dumps(ids), token)))

    def lower_bumped(self, db: Database, ids: Sequence[int], token: int) -> int:
        return db.rows_affected(db.execute_sql(_LOWER_BUMPED, (json.dumps(ids), token)))

    def settle_one(self, db: Database, named: dict[str, Any]) -> str | None:
        rows = db.execute_sql(_SETTLE_ONE, named).fetchall()
        return rows[0][0] if rows else None

    def release(self, db: Database, ids: Sequence[int], token: int, now: int) -> int:
        return db.rows_affected(db.execute_sql(_RELEASE, (now, json.dumps(ids), token)))

    def claimed_ids(self, db: Database, consumer: int) -> list[int]:
        return [row[0] for row in db.execute_sql(_CLAIMED_BY, (consumer,)).fetchall()]

    def claimers(self, db: Database) -> list[int]:
        return [row[0] for row in db.execute_sql(_CLAIMERS).fetchall()]

    def claims_of(self, db: Database, consumer: int) -> list[tuple[str, int]]:
        return db.execute_sql(_CLAIMS_OF, (consumer,)).fetchall()

    def progress(self, db: Database, id: int, token: int, cursor: str) -> bool:
        return db.rows_affected(db.execute_sql(_PROGRESS, (cursor, id, token))) == 1

    def discover(self, db: Database, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> int:
        return db.rows_affected(db.execute_sql(_DISCOVER, (kind, priority, now, now, json.dumps(rows))))

    def changes(self, db: Database) -> int:
        return db.execute_sql("PRAGMA data_version").fetchone()[0]

    def trim_log(self, db: Database) -> int:
        """Write a long log back, and cut it off unless somebody reads or writes at this instant: SQLite itself never does."""
        log = Path(f"{db.database}-wal")
        if _size(log) > SHORT_LOG:
            _, frames, written = db.execute_sql("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if frames == written:
                (patience,) = db.execute_sql("PRAGMA busy_timeout").fetchone()
                db.execute_sql("PRAGMA busy_timeout = 0").fetchall()  # It would hold the writer up while it waits for readers.
                try:
                    db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    db.execute_sql(f"PRAGMA busy_timeout = {patience}").fetchall()
        return _size(log)

    def logs(self, file: Path) -> Sequence[Path]:
        return [Path(f"{file}-wal"), Path(f"{file}-shm")]

    def lost_before(self, logs: Sequence[Path]) -> str | None:
        """Look twice: who closes the last connection deletes the one file a little before it closes that."""
        for _ in range(2):
            lost = _deleted_but_open() & {str(log) for log in logs}
            if not lost or str(logs[0]).removesuffix("-wal") in _deleted_but_open():  # The database is gone with its log.
                return None
            time.sleep(0.05)
        return f"{min(lost)} was deleted while this process has the database open: end the process, then start it again"

    def keep_open(self, db: Any) -> None:
        """Keep one connection, and no other of this process writes the log back when it is closed, the site's neither.

        It outlives the interpreter, which closes all else that is open at its end.
        """
        connection = db.connection()
        db._state.reset()
        _kept.append(connection)
        with suppress(ImportError, AttributeError):
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def tells_writes(self, db: Database) -> bool:
        return self.journal_mode(db) == "wal"

    # What doctor asks.

    def journal_mode(self, db: Database) -> str:
        """Return how the database keeps its commits: ``wal``, ``delete`` and so on."""
        return db.execute_sql("PRAGMA journal_mode").fetchone()[0]

    def synchronous(self, db: Database) -> int:
        """Return how a connection waits for the disk: 0 off, 1 normal, 2 full, 3 extra."""
        return db.execute_sql("PRAGMA synchronous").fetchone()[0]

    def latest_raise(self, db: Database, last: int) -> int | None:
        return db.execute_sql(_LATEST_RAISE, (last,)).fetchone()[0]

    def damaged(self, db: Database, last: int) -> list[int]:
        return [row[0] for row in db.execute_sql(_DAMAGED, (last,)).fetchall()]

    def reads_all(self, db: Database, query: Select) -> bool:
        sql, parameters = db.get_sql_context().sql(query).query()
        steps = [row[3] for row in db.execute_sql("EXPLAIN QUERY PLAN " + sql, parameters).fetchall()]
        return any(step.startswith("SCAN") and "USING" not in step for step in steps)

    def index_for(self, db: Database, model: type[Model], condition: Node, fields: Sequence[Field]) -> str:
        """Name a partial index, the smallest there is, but for a condition with parameters: SQLite does not look into those."""
        meta, (_, parameters) = model._meta, db.get_sql_context().sql(condition).query()
        if parameters:
            return super().index_for(db, model, condition, fields)
        name = "_".join([meta.table_name, "owed", *(field.column_name for field in fields)])
        index = model.index(meta.primary_key, name=name, where=condition)
        return db.get_sql_context().sql(index).query()[0].replace(" IF NOT EXISTS", "")


_kept: list[Any] = []


def _deleted_but_open() -> set[str]:
    """Return the paths of files that this process has open although they were deleted, where the system tells."""
    links = []
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with suppress(OSError):  # It was closed meanwhile.
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return {link.removesuffix(" (deleted)") for link in links if link.endswith(" (deleted)")}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

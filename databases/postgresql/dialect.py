"""PostgreSQL 13 and newer, with psycopg 3."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import peewee
from peewee import Database, Entity, Field, Node, Select, fn

from ..dialect import CONNECTION, DATABASE_ERRORS, OURS, RolledBack, Row, driver_error, init_elsewhere, news, statements
from ..server.dialect import RAISED, Server, pairs, tally

CHANNEL = "flagsweep"
"""Where commits that made flags due are told."""

_UPSERT = "ON CONFLICT (kind, key) DO UPDATE SET " + RAISED.format(
    old="flag.",
    due_at="excluded.due_at",
    priority="excluded.priority",
    payload="excluded.payload",
    raised_at="excluded.raised_at",
)
_RAISE = f"""
INSERT INTO flagsweep_flag AS flag (kind, key, payload, priority, due_at, raised_at) VALUES (%s, %s, %s, %s, %s, %s)
{_UPSERT} RETURNING id, raised_as
"""
_RAISE_AND_TELL = f"WITH raised AS ({_RAISE}) SELECT id, raised_as, pg_notify('{CHANNEL}', %s) FROM raised"
_TRIGGER = statements(f"""
CREATE OR REPLACE FUNCTION flagsweep_tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('{CHANNEL}', ''); RETURN NULL; END $$;
CREATE TRIGGER flagsweep_raised AFTER INSERT OR UPDATE OF generation ON flagsweep_flag
FOR EACH STATEMENT EXECUTE FUNCTION flagsweep_tell();
""")
_NO_TRIGGER = ("DROP TRIGGER flagsweep_raised ON flagsweep_flag", "DROP FUNCTION flagsweep_tell()")
_HAS_TRIGGER = "SELECT 1 FROM pg_trigger WHERE tgname = 'flagsweep_raised' AND tgrelid = 'flagsweep_flag'::regclass"
# Ordered by key: two requests that raise the same flags in different orders would wait for each other.
_RAISE_MANY = f"""
INSERT INTO flagsweep_flag AS flag (kind, key, payload, priority, due_at, raised_at)
SELECT %s, key, payload, %s, %s, %s FROM unnest(%s::text[], %s::text[]) AS item (key, payload) ORDER BY key COLLATE "C"
{_UPSERT} RETURNING key, raised_as
"""
_AGENDA = """
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
_KINDS = """
WITH RECURSIVE step (kind) AS (
  SELECT min(kind) FROM flagsweep_flag WHERE state = 'waiting'
  UNION ALL
  SELECT (SELECT min(kind) FROM flagsweep_flag WHERE state = 'waiting' AND kind > step.kind) FROM step WHERE kind IS NOT NULL)
SELECT kind FROM step WHERE kind IS NOT NULL
"""
_CLAIM = """
WITH due AS MATERIALIZED (
  SELECT id FROM flagsweep_flag WHERE state = 'waiting' AND kind = %s AND priority = %s AND due_at >= %s AND due_at <= %s
  ORDER BY due_at, id LIMIT %s FOR UPDATE SKIP LOCKED)
UPDATE flagsweep_flag AS flag
SET state = 'claimed', claim_token = %s, claimed_by = %s, claimed_at = %s, claimed_generation = flag.generation
FROM due WHERE flag.id = due.id
RETURNING flag.due_at, flag.id, flag.key, flag.payload, flag.attempts, flag.suspect, flag.cursor
"""
_DISCOVER = """
INSERT INTO flagsweep_flag (kind, key, payload, priority, due_at, raised_at)
SELECT %s, key, payload, %s, %s, %s FROM unnest(%s::text[], %s::text[]) AS item (key, payload) ORDER BY key COLLATE "C"
ON CONFLICT (kind, key) DO NOTHING
"""
_TABLES = """
CREATE TABLE IF NOT EXISTS flagsweep_schema (version integer NOT NULL PRIMARY KEY, applied_at bigint NOT NULL);
CREATE TABLE IF NOT EXISTS flagsweep_flag (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  payload text NOT NULL,
  state text COLLATE "C" NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'claimed', 'dead')),
  priority smallint NOT NULL DEFAULT 0,
  due_at bigint NOT NULL,
  raised_at bigint NOT NULL,
  raised_as text NOT NULL DEFAULT 'new',
  generation bigint NOT NULL DEFAULT 1,
  attempts integer NOT NULL DEFAULT 0,
  crashes integer NOT NULL DEFAULT 0,
  suspect integer NOT NULL DEFAULT 0,
  cursor text,
  error text,
  died_at bigint,
  claim_token bigint,
  claimed_by bigint,
  claimed_at bigint,
  claimed_generation bigint,
  settled_at bigint
);
CREATE UNIQUE INDEX IF NOT EXISTS flagsweep_flag_kind_key ON flagsweep_flag (kind, key);
CREATE INDEX IF NOT EXISTS flagsweep_waiting ON flagsweep_flag (kind, priority, due_at, id) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS flagsweep_claimed ON flagsweep_flag (claimed_by, claim_token) WHERE state = 'claimed';
CREATE INDEX IF NOT EXISTS flagsweep_dead ON flagsweep_flag (kind, id) WHERE state = 'dead';
CREATE TABLE IF NOT EXISTS flagsweep_consumer (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  mode text NOT NULL,
  pid integer NOT NULL,
  host text NOT NULL,
  started_at bigint NOT NULL,
  comebacks integer NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS flagsweep_history (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at bigint NOT NULL,
  flag bigint NOT NULL,
  kind text NOT NULL,
  key text NOT NULL,
  event text NOT NULL,
  reason text NOT NULL
);
CREATE INDEX IF NOT EXISTS flagsweep_history_at ON flagsweep_history (at);
"""
_EVER = -(2**63)

_DRIVERS = [driver for driver in (getattr(peewee, name, None) for name in ("psycopg", "psycopg2")) if driver is not None]
_OF_THE_CONNECTION = tuple(getattr(driver, name) for driver in _DRIVERS for name in ("OperationalError", "InterfaceError"))

# Advisory locks belong to a database; two schemas of one may both have flags.
_NUMBER = "hashtextextended('flagsweep ' || current_schema() || ' ' || %s, 0)"
_IS_LOCKED = f"""
SELECT 1 FROM pg_locks, (SELECT {_NUMBER} AS number) AS wanted
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid = ((number >> 32) & 4294967295)::oid AND objid = (number & 4294967295)::oid
"""


def _listen(session: Callable[[], Database]) -> Database:
    db = session()
    db.connect()
    db.execute_sql(f"LISTEN {CHANNEL}")
    return db


class Postgresql(Server):
    """PostgreSQL."""

    name = "PostgreSQL"
    among = "= ANY(%s)"
    steps = (statements(_TABLES),)
    microseconds = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
    missing: Mapping[Any, str] = {  # By SQLSTATE, or its class.
        f"{OURS} 42P01": "run 'flagsweep init' (or call flags.init()) once",
        "3D000": "check the names in the database URL",
        "3F000": "check the names in the database URL",
        "28": "check user and password in the database URL",
        f"{OURS} 42501": "give this user rights on the tables of flagsweep",
    }
    unconnected: Mapping[str, str] = {
        "does not exist": "check the names in the database URL",
        "authentication failed": "check user and password in the database URL",
    }
    passing: Mapping[Any, str] = {
        CONNECTION: "the server is away or refused the connection: see whether it runs, and check names and password in the URL",
        "08": "the server is away or cut the connection: see whether it runs",
        "57P03": "the server is starting or stopping: wait a moment",
        "57P": "the server ended the connection",
        "57014": "the server cancelled the statement: a statement_timeout, or a person",
        "25006": "the server takes no writes just now: a standby, or default_transaction_read_only",
        "53100": "the server's disk is full: free some space there",
        "53200": "the server has no memory left",
        "53300": "the server has no connection left: raise max_connections, or close some",
        "53": "the server has run out of something: look into its log",
        "58": "the server's disk is failing: look into its log",
        "XX": "the server found something damaged: look into its log",
        "55P03": "another transaction holds the rows for too long: look for a long transaction",
        "40P01": "two transactions waited for each other: do it again",
        "40001": "another transaction changed the same rows: do it again",
    }
    FULL_LOOK = 20
    """Every so many claims one looks from the beginning."""
    busy = frozenset(("55P03", "40P01", "40001"))

    def __init__(self) -> None:
        super().__init__()
        self.notify = "raise"
        self._low: dict[tuple[str, int], tuple[int, int]] = {}

    def codes(self, error: BaseException) -> Sequence[Any]:
        """Return SQLSTATE, what it begins with, and its class; ``CONNECTION`` where libpq had no answer of the server's."""
        known = driver_error(error)
        state = getattr(known, "sqlstate", None) or getattr(known, "pgcode", None)
        if state is None:
            return (CONNECTION,) if isinstance(known, _OF_THE_CONNECTION) else ()
        diagnosis = getattr(known, "diag", None)
        ours = (f"{OURS} {state}",) if OURS in str(diagnosis and diagnosis.message_primary) else ()
        return (*ours, state, state[:3], state[:2])

    # Connections and transactions.

    def transaction(self, db: Database, only_claims: bool) -> AbstractContextManager[None]:
        """A claim is one statement, which commits by itself: two answers less to wait for."""
        return nullcontext() if only_claims else super().transaction(db, only_claims)

    @contextmanager
    def impatient(self, db: Database) -> Iterator[None]:
        """What fails within is undone by its savepoint, and this setting with it."""
        db.execute_sql("SET LOCAL lock_timeout = '2ms'")
        yield
        db.execute_sql("SET LOCAL lock_timeout TO DEFAULT")

    def commit(self, db: Database) -> None:
        """PostgreSQL answers the COMMIT of a transaction that an error has undone with ROLLBACK, and no error."""
        if db.execute_sql("COMMIT").statusmessage != "COMMIT":
            raise RolledBack("the transaction was undone by an error within it: nothing of it took place")

    def in_transaction(self, db: Any) -> bool:
        connection = db.connection()
        return not connection.closed and db._adapter.txn_status(connection) != db._adapter.txn_idle

    # Seeing commits.

    @property
    def notifies(self) -> bool:
        return self.notify != "off"

    def listener(self, session: Callable[[], Database] | None) -> Callable[[], Database] | None:
        return None if self.notify == "off" or session is None else partial(_listen, session)

    # The tables.

    @contextmanager
    def migrating(self, db: Database) -> Iterator[None]:
        """The lock ends with the transaction, so that a pooler may be in between."""
        db.execute_sql(f"SET LOCAL lock_timeout = '{self.patience}s'")
        try:
            db.execute_sql(f"SELECT pg_advisory_xact_lock({_NUMBER})", ("init",)).fetchall()
        except DATABASE_ERRORS as error:
            if self.is_busy(error):
                raise init_elsewhere() from error
            raise
        db.execute_sql("SET LOCAL lock_timeout TO DEFAULT")
        yield

    def adjust(self, db: Database) -> None:
        """A trigger is left alone where it is as it should be: to make or drop one waits for everybody who raises."""
        for statement in (self.adjustments() or _NO_TRIGGER) if self.misfit(db) else ():
            db.execute_sql(statement)

    def misfit(self, db: Database) -> str:
        is_there = bool(db.execute_sql(_HAS_TRIGGER).fetchall())
        if is_there == (self.notify == "trigger"):
            return ""
        return f"notify is {self.notify!r}, and there is {'a' if is_there else 'no'} trigger that tells of flags"

    def adjustments(self) -> Sequence[str]:
        return _TRIGGER if self.notify == "trigger" else ()

    # The site's verbs.

    def raise_(self, db: Database, kind: str, key: str, payload: str, priority: int, due_at: int, now: int) -> tuple[int, str]:
        parameters: tuple[Any, ...] = (kind, key, payload, priority, due_at, now)
        if due_at > now or self.notify != "raise":
            return db.execute_sql(_RAISE, parameters).fetchall()[0]
        id, how, _ = db.execute_sql(_RAISE_AND_TELL, (*parameters, news(kind, priority))).fetchall()[0]
        return id, how

    def raise_many(self, db: Database, kind: str, chunk: str, priority: int, due_at: int, now: int) -> Counter[str]:
        found, again = pairs(chunk)
        parameters = (kind, priority, due_at, now, list(found), list(found.values()))
        how = db.execute_sql(_RAISE_MANY, parameters).fetchall()
        if self.notify == "raise" and due_at <= now:
            db.execute_sql(f"SELECT pg_notify('{CHANNEL}', %s)", (news(kind, priority),)).fetchall()
        return tally(how, again)

    # The verbs of a sweep.

    def agenda(self, db: Database, kinds: str) -> list[tuple[str, int, Any]]:
        return db.execute_sql(_AGENDA, (json.loads(kinds),)).fetchall()

    def waiting_kinds(self, db: Database) -> list[str]:
        return [row[0] for row in db.execute_sql(_KINDS).fetchall()]

    def claim(self, db: Database, kind: str, priority: int, limit: int, consumer: int, token: int, now: int) -> list[Row]:
        """Begin where the last claim ended: below stand only dead versions of rows, which an old snapshot keeps from being
        cleared away, and what came late. Now and then, and where that brings fewer than it may, look from the beginning.
        """
        low, turn = self._low.get((kind, priority), (_EVER, 0))
        low = _EVER if turn >= self.FULL_LOOK else low
        rows = self._claim(db, kind, priority, low, limit, consumer, token, now)
        if len(rows) < limit and low > _EVER:
            rows += self._claim(db, kind, priority, _EVER, limit - len(rows), consumer, token, now)
        if len(rows) == limit:
            self._low[kind, priority] = (max(row[0] for row in rows), 0 if low == _EVER else turn + 1)
        else:
            self._low.pop((kind, priority), None)
        return self.rows(rows)

    def _claim(
        self, db: Database, kind: str, priority: int, low: int, limit: int, consumer: int, token: int, now: int
    ) -> list[Any]:
        return db.execute_sql(_CLAIM, (kind, priority, low, now, limit, token, consumer, now)).fetchall()

    def settle_one(self, db: Database, named: dict[str, Any]) -> str | None:
        rows = db.execute_sql(self.sql["_SETTLE_ONE"] + " RETURNING state", self.settle_arguments(named)).fetchall()
        return rows[0][0] if rows else None

    def discover(self, db: Database, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> int:
        keys, payloads = [key for key, _ in rows], [payload for _, payload in rows]
        return db.execute_sql(_DISCOVER, (kind, priority, now, now, keys, payloads)).rowcount

    # Columns of the site's.

    def stored(self, field: Field) -> Node:
        """As text: of single precision, JSON, arrays and intervals nothing else comes back as it was."""
        return Entity(field.column_name).cast("TEXT")

    def hex(self, node: Node) -> Node:
        return fn.ENCODE(node, "hex").coerce(False)

    # What doctor asks.

    def server_version(self, db: Database) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        number = int(db.execute_sql("SHOW server_version_num").fetchone()[0])
        return self.name, (number // 10000, number % 10000), (13, 0)

    def weak_commits(self, db: Database) -> str | None:
        for setting in ("fsync", "synchronous_commit"):
            if db.execute_sql(f"SHOW {setting}").fetchone()[0] == "off":
                return f"{setting} = off"
        return None

    def reads_all(self, db: Database, query: Select) -> bool:
        sql, parameters = db.get_sql_context().sql(query).query()
        with db.atomic():
            db.execute_sql("SET LOCAL enable_seqscan = off")  # A small table is read whole, index or not.
            plan = db.execute_sql("EXPLAIN " + sql, parameters).fetchall()
        return any("Seq Scan on" in row[0] and "flagsweep" not in row[0] for row in plan)

    # Leases.

    def unfit_session(self, db: Database) -> str | None:
        backend = db.execute_sql("SELECT pg_backend_pid()").fetchone()[0]
        if backend != db.connection().info.backend_pid:
            return (
                "this connection goes through a pooler (PgBouncer?), which hands sessions from client to client, and with "
                "them the lease of a consumer: give flagsweep a URL that leads to PostgreSQL itself"
            )
        return None

    def ping(self, db: Database) -> None:
        db.execute_sql("SELECT 1").fetchall()

    def uptime(self, db: Database) -> float:
        return float(db.execute_sql("SELECT extract(epoch FROM now() - pg_postmaster_start_time())").fetchone()[0])

    def try_lock(self, db: Database, name: str) -> bool:
        return db.execute_sql(f"SELECT pg_try_advisory_lock({_NUMBER})", (name,)).fetchone()[0]

    def unlock(self, db: Database, name: str) -> None:
        db.execute_sql(f"SELECT pg_advisory_unlock({_NUMBER})", (name,)).fetchall()

    def is_locked(self, db: Database, name: str) -> bool:
        return bool(db.execute_sql(_IS_LOCKED, (name,)).fetchall())

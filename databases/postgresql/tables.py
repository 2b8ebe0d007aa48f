"""PostgreSQL: our tables, and the trigger that tells of flags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from peewee import Database

from ..errors import DATABASE_ERRORS, init_elsewhere
from ..server import Server
from ..statement import statements
from .leases import NUMBER
from .listening import CHANNEL

TABLES = """
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
# From version 1: schedules, gates, counts, and what shapes a raise.
ADDED = """
ALTER TABLE flagsweep_flag ADD COLUMN expires_at bigint;
ALTER TABLE flagsweep_flag ADD COLUMN first_at bigint;
ALTER TABLE flagsweep_flag ADD COLUMN covered bigint NOT NULL DEFAULT 0;
ALTER TABLE flagsweep_flag ADD COLUMN bucket text COLLATE "C";
ALTER TABLE flagsweep_flag ADD COLUMN schedule text COLLATE "C";
ALTER TABLE flagsweep_flag ADD COLUMN zone text;
ALTER TABLE flagsweep_flag ADD COLUMN intended bigint;
ALTER TABLE flagsweep_flag ADD COLUMN missed integer NOT NULL DEFAULT 0;
ALTER TABLE flagsweep_flag ADD COLUMN strikes integer NOT NULL DEFAULT 0;
CREATE INDEX flagsweep_bucket ON flagsweep_flag (kind, priority, bucket, due_at, id)
  WHERE state = 'waiting' AND bucket IS NOT NULL;
ALTER TABLE flagsweep_history ADD COLUMN attempt integer;
ALTER TABLE flagsweep_history ADD COLUMN took bigint;
CREATE INDEX flagsweep_history_event ON flagsweep_history (event, at);
CREATE TABLE flagsweep_schedule (
  name text COLLATE "C" NOT NULL PRIMARY KEY,
  kind text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  payload text NOT NULL,
  sort text NOT NULL,
  spec text NOT NULL,
  zone text NOT NULL,
  missed text NOT NULL,
  grace bigint NOT NULL,
  cap integer NOT NULL,
  next_at bigint,
  last_at bigint,
  fired_at bigint,
  skipped bigint NOT NULL DEFAULT 0,
  outcome text,
  ended_at bigint,
  origin text NOT NULL,
  module text,
  code text,
  changed text,
  changed_by text,
  changed_at bigint,
  paused_at bigint,
  paused_by text,
  paused_until bigint,
  reason text,
  created_at bigint NOT NULL
);
CREATE TABLE flagsweep_gate (
  sort text NOT NULL,
  name text COLLATE "C" NOT NULL,
  bucket text COLLATE "C" NOT NULL DEFAULT '',
  paused_at bigint,
  paused_by text,
  paused_until bigint,
  reason text,
  closed_until bigint,
  closed_why text,
  taken bigint,
  day integer,
  used bigint,
  breaker text,
  threads integer,
  PRIMARY KEY (sort, name, bucket)
);
CREATE TABLE flagsweep_hold (
  kind text COLLATE "C" NOT NULL,
  consumer bigint NOT NULL,
  slots integer NOT NULL,
  PRIMARY KEY (kind, consumer)
);
CREATE TABLE flagsweep_pulse (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL);
CREATE TABLE flagsweep_count (
  kind text COLLATE "C" NOT NULL,
  span integer NOT NULL,
  at bigint NOT NULL,
  consumer bigint NOT NULL,
  succeeded bigint NOT NULL DEFAULT 0,
  failed bigint NOT NULL DEFAULT 0,
  dead bigint NOT NULL DEFAULT 0,
  snoozed bigint NOT NULL DEFAULT 0,
  discarded bigint NOT NULL DEFAULT 0,
  expired bigint NOT NULL DEFAULT 0,
  spent bigint NOT NULL DEFAULT 0,
  waited bigint NOT NULL DEFAULT 0,
  longest bigint NOT NULL DEFAULT 0,
  d0 bigint NOT NULL DEFAULT 0,
  d1 bigint NOT NULL DEFAULT 0,
  d2 bigint NOT NULL DEFAULT 0,
  d3 bigint NOT NULL DEFAULT 0,
  d4 bigint NOT NULL DEFAULT 0,
  d5 bigint NOT NULL DEFAULT 0,
  d6 bigint NOT NULL DEFAULT 0,
  d7 bigint NOT NULL DEFAULT 0,
  d8 bigint NOT NULL DEFAULT 0,
  d9 bigint NOT NULL DEFAULT 0,
  d10 bigint NOT NULL DEFAULT 0,
  d11 bigint NOT NULL DEFAULT 0,
  d12 bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (kind, span, at, consumer)
);
CREATE INDEX flagsweep_count_at ON flagsweep_count (span, at);
"""
# From version 2: what handlers return, and which run of a flag a line of history tells of.
RESULTS = """
ALTER TABLE flagsweep_history ADD COLUMN generation bigint;
ALTER TABLE flagsweep_history ADD COLUMN consumer bigint;
ALTER TABLE flagsweep_history ADD COLUMN result text;
CREATE INDEX flagsweep_history_flag ON flagsweep_history (flag, generation);
"""
# From version 3: what is told to who looks after it: how flags died, who sweeps and when it last did, and small durable notes.
TELLING = """
ALTER TABLE flagsweep_flag ADD COLUMN died_as text;
ALTER TABLE flagsweep_flag ADD COLUMN trace text;
CREATE INDEX flagsweep_dead_group ON flagsweep_flag (kind, died_as, died_at) WHERE state = 'dead';
ALTER TABLE flagsweep_consumer ADD COLUMN app text;
ALTER TABLE flagsweep_consumer ADD COLUMN ticked_at bigint;
ALTER TABLE flagsweep_consumer ADD COLUMN lanes text;
CREATE INDEX flagsweep_history_kind ON flagsweep_history (kind, at);
CREATE TABLE flagsweep_fact (name text COLLATE "C" NOT NULL PRIMARY KEY, value text NOT NULL, at bigint NOT NULL);
"""
TRIGGER = statements(f"""
CREATE OR REPLACE FUNCTION flagsweep_tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('{CHANNEL}', ''); RETURN NULL; END $$;
CREATE TRIGGER flagsweep_raised AFTER INSERT OR UPDATE OF generation ON flagsweep_flag
FOR EACH STATEMENT EXECUTE FUNCTION flagsweep_tell();
""")
NO_TRIGGER = ("DROP TRIGGER flagsweep_raised ON flagsweep_flag", "DROP FUNCTION flagsweep_tell()")
HAS_TRIGGER = "SELECT 1 FROM pg_trigger WHERE tgname = 'flagsweep_raised' AND tgrelid = 'flagsweep_flag'::regclass"


class PostgresqlTables(Server):
    """Make our tables."""

    steps = (statements(TABLES), statements(ADDED), statements(RESULTS), statements(TELLING))
    microseconds = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"

    @contextmanager
    def migrating(self, db: Database) -> Iterator[None]:
        """The lock ends with the transaction, so that a pooler may be in between."""
        db.execute_sql(f"SET LOCAL lock_timeout = '{self.patience}s'")
        try:
            db.execute_sql(f"SELECT pg_advisory_xact_lock({NUMBER})", ("init",)).fetchall()
        except DATABASE_ERRORS as error:
            if self.is_busy(error):
                raise init_elsewhere() from error
            raise
        db.execute_sql("SET LOCAL lock_timeout TO DEFAULT")
        yield

    def adjust(self, db: Database) -> None:
        """A trigger is left alone where it is as it should be: to make or drop one waits for everybody who raises."""
        for statement in (self.adjustments() or NO_TRIGGER) if self.misfit(db) else ():
            db.execute_sql(statement)

    def misfit(self, db: Database) -> str:
        is_there = bool(db.execute_sql(HAS_TRIGGER).fetchall())
        if is_there == (self.notify == "trigger"):
            return ""
        return f"notify is {self.notify!r}, and there is {'a' if is_there else 'no'} trigger that tells of flags"

    def adjustments(self) -> Sequence[str]:
        return TRIGGER if self.notify == "trigger" else ()

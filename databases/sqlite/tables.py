"""SQLite: our tables."""

from __future__ import annotations

import time

from peewee import Database

from ..dialect import Dialect
from ..errors import DATABASE_ERRORS
from ..statement import statements

# Each change of a row works out its CHECK, for an IN by making a list anew; and of each partial index whether the row is in it.
TABLES = """
CREATE TABLE IF NOT EXISTS flagsweep_schema (version INTEGER NOT NULL PRIMARY KEY, applied_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS flagsweep_flag (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  payload TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting' CHECK (state = 'waiting' OR state = 'claimed' OR state = 'dead'),
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

# From version 1: schedules, gates, counts, and what shapes a raise.
ADDED = """
ALTER TABLE flagsweep_flag ADD COLUMN expires_at INTEGER;
ALTER TABLE flagsweep_flag ADD COLUMN first_at INTEGER;
ALTER TABLE flagsweep_flag ADD COLUMN covered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE flagsweep_flag ADD COLUMN bucket TEXT;
ALTER TABLE flagsweep_flag ADD COLUMN schedule TEXT;
ALTER TABLE flagsweep_flag ADD COLUMN zone TEXT;
ALTER TABLE flagsweep_flag ADD COLUMN intended INTEGER;
ALTER TABLE flagsweep_flag ADD COLUMN missed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE flagsweep_flag ADD COLUMN strikes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX flagsweep_bucket ON flagsweep_flag (kind, priority, bucket, due_at, id)
  WHERE bucket IS NOT NULL AND state = 'waiting';
ALTER TABLE flagsweep_history ADD COLUMN attempt INTEGER;
ALTER TABLE flagsweep_history ADD COLUMN took INTEGER;
CREATE INDEX flagsweep_history_event ON flagsweep_history (event, at);
CREATE TABLE flagsweep_schedule (
  name TEXT NOT NULL PRIMARY KEY,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  payload TEXT NOT NULL,
  sort TEXT NOT NULL,
  spec TEXT NOT NULL,
  zone TEXT NOT NULL,
  missed TEXT NOT NULL,
  grace INTEGER NOT NULL,
  cap INTEGER NOT NULL,
  next_at INTEGER,
  last_at INTEGER,
  fired_at INTEGER,
  skipped INTEGER NOT NULL DEFAULT 0,
  outcome TEXT,
  ended_at INTEGER,
  origin TEXT NOT NULL,
  module TEXT,
  code TEXT,
  changed TEXT,
  changed_by TEXT,
  changed_at INTEGER,
  paused_at INTEGER,
  paused_by TEXT,
  paused_until INTEGER,
  reason TEXT,
  created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE flagsweep_gate (
  sort TEXT NOT NULL,
  name TEXT NOT NULL,
  bucket TEXT NOT NULL DEFAULT '',
  paused_at INTEGER,
  paused_by TEXT,
  paused_until INTEGER,
  reason TEXT,
  closed_until INTEGER,
  closed_why TEXT,
  taken INTEGER,
  day INTEGER,
  used INTEGER,
  breaker TEXT,
  threads INTEGER,
  PRIMARY KEY (sort, name, bucket)
) WITHOUT ROWID;
CREATE TABLE flagsweep_hold (
  kind TEXT NOT NULL,
  consumer INTEGER NOT NULL,
  slots INTEGER NOT NULL,
  PRIMARY KEY (kind, consumer)
) WITHOUT ROWID;
CREATE TABLE flagsweep_pulse (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL);
CREATE TABLE flagsweep_count (
  kind TEXT NOT NULL,
  span INTEGER NOT NULL,
  at INTEGER NOT NULL,
  consumer INTEGER NOT NULL,
  succeeded INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  dead INTEGER NOT NULL DEFAULT 0,
  snoozed INTEGER NOT NULL DEFAULT 0,
  discarded INTEGER NOT NULL DEFAULT 0,
  expired INTEGER NOT NULL DEFAULT 0,
  spent INTEGER NOT NULL DEFAULT 0,
  waited INTEGER NOT NULL DEFAULT 0,
  longest INTEGER NOT NULL DEFAULT 0,
  d0 INTEGER NOT NULL DEFAULT 0,
  d1 INTEGER NOT NULL DEFAULT 0,
  d2 INTEGER NOT NULL DEFAULT 0,
  d3 INTEGER NOT NULL DEFAULT 0,
  d4 INTEGER NOT NULL DEFAULT 0,
  d5 INTEGER NOT NULL DEFAULT 0,
  d6 INTEGER NOT NULL DEFAULT 0,
  d7 INTEGER NOT NULL DEFAULT 0,
  d8 INTEGER NOT NULL DEFAULT 0,
  d9 INTEGER NOT NULL DEFAULT 0,
  d10 INTEGER NOT NULL DEFAULT 0,
  d11 INTEGER NOT NULL DEFAULT 0,
  d12 INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (kind, span, at, consumer)
) WITHOUT ROWID;
CREATE INDEX flagsweep_count_at ON flagsweep_count (span, at);
"""

# From version 2: what handlers return, and which run of a flag a line of history tells of.
RESULTS = """
ALTER TABLE flagsweep_history ADD COLUMN generation INTEGER;
ALTER TABLE flagsweep_history ADD COLUMN consumer INTEGER;
ALTER TABLE flagsweep_history ADD COLUMN result TEXT;
CREATE INDEX flagsweep_history_flag ON flagsweep_history (flag, generation);
"""

# From version 3: what is told to who looks after it: how flags died, who sweeps and when it last did, and small durable notes.
TELLING = """
ALTER TABLE flagsweep_flag ADD COLUMN died_as TEXT;
ALTER TABLE flagsweep_flag ADD COLUMN trace TEXT;
CREATE INDEX flagsweep_dead_group ON flagsweep_flag (kind, died_as, died_at) WHERE state = 'dead';
ALTER TABLE flagsweep_consumer ADD COLUMN app TEXT;
ALTER TABLE flagsweep_consumer ADD COLUMN ticked_at INTEGER;
ALTER TABLE flagsweep_consumer ADD COLUMN lanes TEXT;
CREATE INDEX flagsweep_history_kind ON flagsweep_history (kind, at);
CREATE TABLE flagsweep_fact (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
"""


class SqliteTables(Dialect):
    """Make our tables."""

    steps = (statements(TABLES), statements(ADDED), statements(RESULTS), statements(TELLING))
    opening = ("PRAGMA journal_mode = WAL", "BEGIN IMMEDIATE")
    microseconds = "CAST(round((julianday('now') - 2440587.5) * 86400000000) AS INTEGER)"

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

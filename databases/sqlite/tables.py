"""SQLite: our tables."""

from __future__ import annotations

import time

from peewee import Database

from ..dialect import Dialect
from ..errors import DATABASE_ERRORS
from ..statement import statements

TABLES = """
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


class SqliteTables(Dialect):
    """Make our tables."""

    steps = (statements(TABLES),)
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

"""MySQL and MariaDB: our tables. Neither has partial indexes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from peewee import Database

from ..errors import DATABASE_ERRORS, init_elsewhere
from ..server import Server
from .leases import LOCK
from .words import quoted

TABLES = {
    "flagsweep_schema": "version INT NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL",
    "flagsweep_flag": """
id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
kind VARBINARY(400) NOT NULL,
key VARBINARY(800) NOT NULL,
payload MEDIUMTEXT NOT NULL,
state VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'claimed', 'dead')),
priority SMALLINT NOT NULL DEFAULT 0,
due_at BIGINT NOT NULL,
raised_at BIGINT NOT NULL,
raised_as VARCHAR(10) NOT NULL DEFAULT 'new',
generation BIGINT NOT NULL DEFAULT 1,
attempts INT NOT NULL DEFAULT 0,
crashes INT NOT NULL DEFAULT 0,
suspect INT NOT NULL DEFAULT 0,
cursor MEDIUMTEXT,
error MEDIUMTEXT,
died_at BIGINT,
claim_token BIGINT,
claimed_by BIGINT,
claimed_at BIGINT,
claimed_generation BIGINT,
settled_at BIGINT,
UNIQUE flagsweep_flag_kind_key (kind, key),
INDEX flagsweep_waiting (state, kind, priority, due_at, id),
INDEX flagsweep_claimed (state, claimed_by, claim_token)
""",
    "flagsweep_consumer": """
id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, mode VARCHAR(20) NOT NULL, pid INT NOT NULL, host VARCHAR(255) NOT NULL,
started_at BIGINT NOT NULL,
comebacks INTEGER NOT NULL DEFAULT 0
""",
    "flagsweep_history": """
id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, at BIGINT NOT NULL, flag BIGINT NOT NULL, kind VARBINARY(400) NOT NULL,
key VARBINARY(800) NOT NULL, event VARCHAR(40) NOT NULL, reason MEDIUMTEXT NOT NULL, INDEX flagsweep_history_at (at)
""",
}
ADDED_COLUMNS = {
    "flagsweep_flag": """
ADD COLUMN expires_at BIGINT, ADD COLUMN first_at BIGINT, ADD COLUMN covered BIGINT NOT NULL DEFAULT 0,
ADD COLUMN bucket VARBINARY(800), ADD COLUMN schedule VARBINARY(400), ADD COLUMN zone VARCHAR(64), ADD COLUMN intended BIGINT,
ADD COLUMN missed INT NOT NULL DEFAULT 0, ADD COLUMN strikes INT NOT NULL DEFAULT 0, DROP INDEX flagsweep_claimed,
ADD INDEX flagsweep_claimed (state, claimed_by, claim_token, kind, priority, bucket, due_at)
""",
    "flagsweep_history": "ADD COLUMN attempt INT, ADD COLUMN took BIGINT",
}
ADDED_INDEXES = ("CREATE INDEX flagsweep_history_event ON flagsweep_history (event, at)",)
ADDED = {
    "flagsweep_schedule": """
name VARBINARY(400) NOT NULL PRIMARY KEY, kind VARBINARY(400) NOT NULL, key VARBINARY(800) NOT NULL, payload MEDIUMTEXT NOT NULL,
sort VARCHAR(10) NOT NULL, spec VARCHAR(250) NOT NULL, zone VARCHAR(64) NOT NULL, missed VARCHAR(10) NOT NULL,
grace BIGINT NOT NULL, cap INT NOT NULL, next_at BIGINT, last_at BIGINT, fired_at BIGINT, skipped BIGINT NOT NULL DEFAULT 0,
outcome VARCHAR(20), ended_at BIGINT, origin VARCHAR(10) NOT NULL, module MEDIUMTEXT, code MEDIUMTEXT, changed MEDIUMTEXT,
changed_by MEDIUMTEXT, changed_at BIGINT, paused_at BIGINT, paused_by MEDIUMTEXT, paused_until BIGINT, reason MEDIUMTEXT,
created_at BIGINT NOT NULL
""",
    "flagsweep_gate": """
sort VARCHAR(10) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, name VARBINARY(400) NOT NULL,
bucket VARBINARY(800) NOT NULL DEFAULT '', paused_at BIGINT, paused_by MEDIUMTEXT, paused_until BIGINT, reason MEDIUMTEXT,
closed_until BIGINT, closed_why MEDIUMTEXT, taken BIGINT, day INT, used BIGINT, breaker MEDIUMTEXT, threads INT,
PRIMARY KEY (sort, name, bucket)
""",
    "flagsweep_hold": """
kind VARBINARY(400) NOT NULL, consumer BIGINT NOT NULL, slots INT NOT NULL, PRIMARY KEY (kind, consumer)
""",
    "flagsweep_pulse": "id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, what VARCHAR(20) NOT NULL",
    "flagsweep_count": """
kind VARBINARY(400) NOT NULL, span INT NOT NULL, at BIGINT NOT NULL, consumer BIGINT NOT NULL,
succeeded BIGINT NOT NULL DEFAULT 0, failed BIGINT NOT NULL DEFAULT 0, dead BIGINT NOT NULL DEFAULT 0,
snoozed BIGINT NOT NULL DEFAULT 0, discarded BIGINT NOT NULL DEFAULT 0, expired BIGINT NOT NULL DEFAULT 0,
spent BIGINT NOT NULL DEFAULT 0, waited BIGINT NOT NULL DEFAULT 0, longest BIGINT NOT NULL DEFAULT 0,
d0 BIGINT NOT NULL DEFAULT 0, d1 BIGINT NOT NULL DEFAULT 0, d2 BIGINT NOT NULL DEFAULT 0,
d3 BIGINT NOT NULL DEFAULT 0, d4 BIGINT NOT NULL DEFAULT 0, d5 BIGINT NOT NULL DEFAULT 0,
d6 BIGINT NOT NULL DEFAULT 0, d7 BIGINT NOT NULL DEFAULT 0, d8 BIGINT NOT NULL DEFAULT 0,
d9 BIGINT NOT NULL DEFAULT 0, d10 BIGINT NOT NULL DEFAULT 0, d11 BIGINT NOT NULL DEFAULT 0,
d12 BIGINT NOT NULL DEFAULT 0,
PRIMARY KEY (kind, span, at, consumer), INDEX flagsweep_count_at (span, at)
""",
}
SUFFIX = "ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


def _creating(tables: dict[str, str]) -> list[str]:
    return [quoted(f"CREATE TABLE IF NOT EXISTS {name} ({columns}) {SUFFIX}") for name, columns in tables.items()]


CREATE = _creating(TABLES)
# From version 1: schedules, gates, counts, and what shapes a raise. The columns of a table come in one statement: all, or none.
ADD = [
    *(quoted(f"ALTER TABLE {name} {columns}") for name, columns in ADDED_COLUMNS.items()),
    *ADDED_INDEXES,
    *_creating(ADDED),
]

# From version 2: what handlers return, and which run of a flag a line of history tells of.
RESULTS = [
    "ALTER TABLE flagsweep_history ADD COLUMN generation BIGINT, ADD COLUMN consumer BIGINT, ADD COLUMN result MEDIUMTEXT",
    "CREATE INDEX flagsweep_history_flag ON flagsweep_history (flag, generation)",
]


# From version 3: what is told to who looks after it: how flags died, who sweeps and when it last did, and small durable notes.
TOLD_COLUMNS = {
    "flagsweep_flag": """
ADD COLUMN died_as VARCHAR(250), ADD COLUMN trace VARCHAR(120), ADD INDEX flagsweep_dead_group (died_as, kind, died_at)
""",
    "flagsweep_consumer": "ADD COLUMN app MEDIUMTEXT, ADD COLUMN ticked_at BIGINT, ADD COLUMN lanes MEDIUMTEXT",
    "flagsweep_history": "ADD INDEX flagsweep_history_kind (kind, at)",
}
FACTS = {"flagsweep_fact": "name VARBINARY(500) NOT NULL PRIMARY KEY, value MEDIUMTEXT NOT NULL, at BIGINT NOT NULL"}
TELLING = [*(quoted(f"ALTER TABLE {name} {columns}") for name, columns in TOLD_COLUMNS.items()), *_creating(FACTS)]


class MysqlTables(Server):
    """Make our tables."""

    steps = (CREATE, ADD, RESULTS, TELLING)
    changed = frozenset((1060, 1061, 1091))  # Duplicate column name, duplicate key name, cannot drop what is not there.
    opening = closing = ()
    microseconds = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"

    @contextmanager
    def migrating(self, db: Database) -> Iterator[None]:
        """A statement that changes a table ends the transaction, so the lock is one of the session's."""
        if db.execute_sql(f"SELECT GET_LOCK({LOCK}, %s)", ("init", self.patience)).fetchone()[0] != 1:
            raise init_elsewhere()
        try:
            yield
            db.execute_sql("COMMIT")
            db.execute_sql("BEGIN")  # There is one again for its end.
        finally:
            with suppress(*DATABASE_ERRORS):
                db.execute_sql(f"SELECT RELEASE_LOCK({LOCK})", ("init",)).fetchall()

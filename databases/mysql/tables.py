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
SUFFIX = "ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
CREATE = [quoted(f"CREATE TABLE IF NOT EXISTS {name} ({columns}) {SUFFIX}") for name, columns in TABLES.items()]


class MysqlTables(Server):
    """Make our tables."""

    steps = (CREATE,)
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

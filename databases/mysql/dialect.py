"""MySQL 8 and MariaDB 10.6, with PyMySQL. Neither has partial indexes or a RETURNING that an upsert could use."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from peewee import OP, SQL, Database, Entity, Expression, Field, FloatField, Node, NodeList, Select, fn

from ..dialect import DATABASE_ERRORS, OURS, RolledBack, Row, driver_error, init_elsewhere
from ..server.dialect import RAISED, Server, pairs, tally, text

_RESERVED = re.compile(r"\b(key|cursor)\b")

_COLUMNS = "(kind, key, payload, priority, due_at, raised_at)"
_UPSERT = "ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id)," + RAISED.format(
    old="",
    due_at="VALUES(due_at)",
    priority="VALUES(priority)",
    payload="VALUES(payload)",
    raised_at="VALUES(raised_at)",
)
_RAISE = f"INSERT INTO flagsweep_flag {_COLUMNS} VALUES (?, ?, ?, ?, ?, ?) {_UPSERT}"
_RAISED_AS = "SELECT raised_as FROM flagsweep_flag WHERE id = ?"
_RAISE_MANY = f"INSERT INTO flagsweep_flag {_COLUMNS} VALUES {{rows}} {_UPSERT}"
_RAISED_MANY = "SELECT key, raised_as FROM flagsweep_flag WHERE kind = ? AND key IN ?"
_AGENDA = """
SELECT kind, priority, min(due_at) FROM flagsweep_flag
WHERE state = 'waiting' AND kind = ? GROUP BY state, kind, priority
"""
_KINDS = "SELECT DISTINCT kind FROM flagsweep_flag WHERE state = 'waiting'"
_FIND_DUE = """
SELECT due_at, id, key, payload, attempts, suspect, cursor FROM flagsweep_flag
WHERE state = 'waiting' AND kind = ? AND priority = ? AND due_at <= ? ORDER BY due_at, id LIMIT ? FOR UPDATE SKIP LOCKED
"""
_CLAIM = """
UPDATE flagsweep_flag SET state = 'claimed', claim_token = ?, claimed_by = ?, claimed_at = ?, claimed_generation = generation
WHERE id IN ?
"""
_STATE = "SELECT state FROM flagsweep_flag WHERE id = ?"
_IS_OURS = "SELECT 1 FROM flagsweep_flag WHERE id = ? AND claim_token = ?"
_NOBODYS = "SELECT id FROM flagsweep_flag WHERE kind = ? AND key IN ? FOR UPDATE NOWAIT"
_DISCOVER = f"INSERT INTO flagsweep_flag {_COLUMNS} VALUES {{rows}} ON DUPLICATE KEY UPDATE id = id"

MANY = 500
"""Rows of one INSERT: far below any max_allowed_packet."""

_LOCK = "CONCAT('flagsweep ', SHA1(CONCAT(DATABASE(), ' ', %s)))"
"""The name of a lock: one for the whole server, and 64 characters at most."""

_TABLES = {
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
_SUFFIX = "ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_CREATE = [
    _RESERVED.sub(r"`\1`", f"CREATE TABLE IF NOT EXISTS {name} ({columns}) {_SUFFIX}") for name, columns in _TABLES.items()
]


class Mysql(Server):
    """MySQL and MariaDB. Kind and key are bytes: as text ``A`` would be ``a``, and a space at the end nothing."""

    name = "MySQL"
    among = "IN %s"
    text = "CONVERT(? USING utf8mb4)"
    steps = (_CREATE,)
    changed = frozenset((1060, 1061, 1091))  # Duplicate column name, duplicate key name, cannot drop what is not there.
    opening = closing = ()
    microseconds = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"
    text_type = "CHAR"
    missing: Mapping[Any, str] = {  # By error number.
        f"{OURS} 1146": "run 'flagsweep init' (or call flags.init()) once",
        1049: "create the database, or mend its name in the database URL",
        1044: "check user, password and rights in the database URL",
        1045: "check user, password and rights in the database URL",
        1698: "check user, password and rights in the database URL",
        f"{OURS} 1142": "give this user rights on the tables of flagsweep",
    }
    passing: Mapping[Any, str] = {
        **dict.fromkeys((2002, 2003, 2005), "the server is away: see whether it runs"),
        **dict.fromkeys((2006, 2013, 2055, 1158, 1159, 1160, 1161), "the server has cut the connection"),
        **dict.fromkeys((1927, 1184, 1152, 4031), "the server ended the connection"),
        1053: "the server is stopping: wait a moment",
        **dict.fromkeys((1040, 1203, 1226), "the server has no connection left: raise max_connections, or close some"),
        **dict.fromkeys((1205, 3572), "another transaction holds the rows for too long: look for a long transaction"),
        1213: "two transactions waited for each other: do it again",
        1020: "another transaction changed the same rows: do it again",
        1412: "the tables were changed meanwhile: do it again",
        **dict.fromkeys((1317, 1969, 3024), "the server cancelled the statement: a time limit, or a person"),
        **dict.fromkeys((1290, 1792, 1836), "the server takes no writes just now: it is read-only"),
        **dict.fromkeys((1021, 1114), "the server's disk is full: free some space there"),
        **dict.fromkeys((1026, 1030), "the server's disk is full or failing: look into its log"),
        **dict.fromkeys((1037, 1038, 1041), "the server has no memory left"),
        0: "the connection is closed",
    }
    busy = frozenset((1205, 3572, 1213, 1020, 1412))

    def __init__(self) -> None:
        super().__init__()
        self.sql.update(
            {name: self.native(value) for name, value in globals().items() if isinstance(value, str) and name[1:2].isupper()}
        )

    def native(self, sql: str) -> str:
        if " IN ?" in sql or "{among}" in sql:  # A small table would be read whole, and a row that somebody holds waited for.
            sql = sql.replace("DELETE FROM flagsweep_flag", "DELETE flagsweep_flag FROM flagsweep_flag FORCE INDEX (PRIMARY)")
            sql = sql.replace("FROM flagsweep_flag WHERE id", "FROM flagsweep_flag FORCE INDEX (PRIMARY) WHERE id")
            sql = sql.replace("UPDATE flagsweep_flag", "UPDATE flagsweep_flag FORCE INDEX (PRIMARY)")
        return _RESERVED.sub(r"`\1`", super().native(sql))

    def encoded(self, text: str) -> Any:
        return text.encode()

    def listed(self, values: Sequence[int]) -> Any:
        return tuple(values) or (-1,)

    def codes(self, error: BaseException) -> Sequence[Any]:
        """Return the number of an error; the server writes its text in any language."""
        number = next(iter(driver_error(error).args), None)
        if not isinstance(number, int) or not isinstance(error, DATABASE_ERRORS):
            return ()
        return (f"{OURS} {number}", number) if f".{OURS}" in str(error) else (number,)

    # Connections and transactions.

    def commit(self, db: Database) -> None:
        if not self.in_transaction(db):
            raise RolledBack("the transaction ended before its COMMIT: a deadlock undid it, or a statement committed it")
        db.execute_sql("COMMIT")

    def in_transaction(self, db: Any) -> bool:
        connection = db.connection()
        return bool(connection.open and connection.server_status & 1)

    # The tables.

    @contextmanager
    def migrating(self, db: Database) -> Iterator[None]:
        """A statement that changes a table ends the transaction, so the lock is one of the session's."""
        if db.execute_sql(f"SELECT GET_LOCK({_LOCK}, %s)", ("init", self.patience)).fetchone()[0] != 1:
            raise init_elsewhere()
        try:
            yield
            db.execute_sql("COMMIT")
            db.execute_sql("BEGIN")  # There is one again for its end.
        finally:
            with suppress(*DATABASE_ERRORS):
                db.execute_sql(f"SELECT RELEASE_LOCK({_LOCK})", ("init",)).fetchall()

    # The site's verbs.

    def raise_(self, db: Database, kind: str, key: str, payload: str, priority: int, due_at: int, now: int) -> tuple[int, str]:
        with nullcontext() if db.in_transaction() else db.atomic():  # What is read after is then what was written.
            cursor = self.run(db, "_RAISE", kind.encode(), key.encode(), payload, priority, due_at, now)
            if cursor.rowcount == 1:
                return cursor.lastrowid, "new"
            return cursor.lastrowid, self.run(db, "_RAISED_AS", cursor.lastrowid).fetchone()[0]

    def raise_many(self, db: Database, kind: str, chunk: str, priority: int, due_at: int, now: int) -> Counter[str]:
        found, again = pairs(chunk)
        if not found:
            return Counter()
        # Ordered by key: two requests that raise the same flags in different orders would wait for each other.
        rows = sorted((key.encode(), payload) for key, payload in found.items())
        values = [value for key, payload in rows for value in (kind.encode(), key, payload, priority, due_at, now)]
        many = self.sql["_RAISE_MANY"].format(rows=", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(rows)))
        db.execute_sql(many, values)
        how = self.run(db, "_RAISED_MANY", kind.encode(), tuple(key for key, _ in rows)).fetchall()
        return tally([(text(key), what) for key, what in how], again)

    # The verbs of a sweep.

    def agenda(self, db: Database, kinds: str) -> list[tuple[str, int, Any]]:
        # One kind a query: for a list of kinds MySQL reads all their rows instead of the first of each priority.
        return [(kind, *row[1:]) for kind in json.loads(kinds) for row in self.run(db, "_AGENDA", kind.encode()).fetchall()]

    def waiting_kinds(self, db: Database) -> list[str]:
        return [text(row[0]) for row in self.run(db, "_KINDS").fetchall()]

    def claim(self, db: Database, kind: str, priority: int, limit: int, consumer: int, token: int, now: int) -> list[Row]:
        found = self.run(db, "_FIND_DUE", kind.encode(), priority, now, limit).fetchall()
        if found:
            self.run(db, "_CLAIM", token, consumer, now, tuple(row[1] for row in found))
        return self.rows(found)

    def settle_one(self, db: Database, named: dict[str, Any]) -> str | None:
        if not self.run(db, "_SETTLE_ONE", *self.settle_arguments(named)).rowcount:
            return None
        return self.run(db, "_STATE", named["id"]).fetchone()[0]

    def progress(self, db: Database, id: int, token: int, cursor: str) -> bool:
        """MySQL counts the rows that it has changed: one that holds this cursor already is looked for."""
        return super().progress(db, id, token, cursor) or bool(self.run(db, "_IS_OURS", id, token).fetchall())

    def discover(self, db: Database, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> int:
        rows = sorted(rows)
        return sum(self._discover(db, kind, rows[n : n + MANY], priority, now) for n in range(0, len(rows), MANY))

    def _discover(self, db: Database, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> int:
        # An INSERT would wait for a second at least for a flag that somebody is just raising; this fails at once.
        self.run(db, "_NOBODYS", kind.encode(), tuple(key.encode() for key, _ in rows)).fetchall()
        values = [value for key, payload in rows for value in (kind.encode(), key.encode(), payload, priority, now, now)]
        many = self.sql["_DISCOVER"].format(rows=", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(rows)))
        return db.execute_sql(many, values).rowcount

    # Columns of the site's.

    def stored(self, field: Field) -> Node:
        """As bytes: text has no case there. Single precision is shown with six digits unless it is doubled."""
        column = Entity(field.column_name)
        exact = Expression(column, OP.ADD, SQL("0e0")) if type(field) is FloatField else column
        return fn.CAST(NodeList((exact, SQL("AS BINARY")))).coerce(False)

    # What doctor asks.

    def server_version(self, db: Database) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        found = db.execute_sql("SELECT VERSION()").fetchone()[0]
        version = tuple(int(part) for part in re.findall(r"\d+", found)[:3])
        return ("MariaDB", version, (10, 6)) if "maria" in found.lower() else (self.name, version, (8, 0))

    def weak_commits(self, db: Database) -> str | None:
        value = int(db.execute_sql("SELECT @@innodb_flush_log_at_trx_commit").fetchone()[0])
        return None if value == 1 else f"innodb_flush_log_at_trx_commit = {value}"

    def reads_all(self, db: Database, query: Select) -> bool:
        sql, parameters = db.get_sql_context().sql(query).query()
        return any(row[3] == "ALL" and row[5] is None for row in db.execute_sql("EXPLAIN " + sql, parameters).fetchall())

    # Leases.

    def unfit_session(self, db: Database) -> str | None:
        return None

    def ping(self, db: Database) -> None:
        db.execute_sql("SELECT 1").fetchall()

    def uptime(self, db: Database) -> float:
        return float(db.execute_sql("SHOW GLOBAL STATUS LIKE 'Uptime'").fetchone()[1])

    def try_lock(self, db: Database, name: str) -> bool:
        return db.execute_sql(f"SELECT GET_LOCK({_LOCK}, 0)", (name,)).fetchone()[0] == 1

    def unlock(self, db: Database, name: str) -> None:
        db.execute_sql(f"SELECT RELEASE_LOCK({_LOCK})", (name,)).fetchall()

    def is_locked(self, db: Database, name: str) -> bool:
        return db.execute_sql(f"SELECT IS_USED_LOCK({_LOCK})", (name,)).fetchone()[0] is not None

"""MySQL and MariaDB: what doctor asks."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from peewee import Database, Select

from ..errors import DATABASE_ERRORS, driver_error
from ..server import Server
from ..server.sessions import Open, Room, Trouble, short

# InnoDB tells times in the zone of the system, whatever that of the session is.
OPEN = """
SELECT trx_mysql_thread_id, user, host, db, command, time, trx_query, trx_rows_modified, trx_rows_locked,
  timestampdiff(SECOND, trx_started, convert_tz(utc_timestamp(), '+00:00', 'SYSTEM')) AS age
FROM information_schema.innodb_trx LEFT JOIN information_schema.processlist ON id = trx_mysql_thread_id
WHERE trx_mysql_thread_id <> connection_id() AND (db = database() OR trx_mysql_thread_id = 0) HAVING age >= {seconds}
ORDER BY trx_started LIMIT 10
"""
NOT_ALLOWED = (1044, 1045, 1142, 1227)
REPLICA = ("SHOW REPLICA STATUS", "SHOW SLAVE STATUS")
"""What a replica is asked how it does, since MariaDB 10.5 and MySQL 8.0.22, and before."""
FAR_BEHIND = 60
"""Seconds that a replica may be behind."""

HOME = """
SELECT cast(create_time AS char), database() FROM information_schema.tables
WHERE table_schema = database() AND table_name = 'flagsweep_fact'
"""
SERVER = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_uuid', 'server_uid', 'hostname', 'port')"


class MysqlChecks(Server):
    """Answer what people ask."""

    def holder_of(self, db: Database, id: int) -> Open | None:
        """The server does not say whose lock it is: of those who have a transaction open, the one that has for longest."""
        with self.transaction(db, only_claims=False):
            if not self.held(db, [id]):
                return None
        found, unseen = self.open_transactions(db, 0)
        unknown = Open(f"somebody: {unseen}" if unseen else "somebody", 0, None, None, None, "", "SHOW FULL PROCESSLIST;")
        return next(iter(found), unknown)

    def home(self, db: Database) -> tuple[str, ...]:
        made = db.execute_sql(HOME).fetchone() or ("", "")
        return tuple(str(each) for each in (*made, *(value for _, value in sorted(db.execute_sql(SERVER).fetchall()))))

    def is_same_home(self, one: tuple[str, ...], other: tuple[str, ...]) -> bool:
        """A server in a container may get another name and address, and a table be built anew; not both at the same time."""
        return one[:1] == other[:1] or one[1:] == other[1:]

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

    def open_transactions(self, db: Database, seconds: int) -> tuple[list[Open], str]:
        try:
            rows = db.execute_sql(OPEN.format(seconds=seconds)).fetchall()
        except DATABASE_ERRORS as error:
            if next(iter(driver_error(error).args), None) not in NOT_ALLOWED:
                raise
            user = db.execute_sql("SELECT current_user()").fetchone()[0].replace("@", "'@'")
            return [], f"what others have open is not shown to this user: GRANT PROCESS ON *.* TO '{user}';"
        return [_open(*row) for row in rows], ""

    def room(self, db: Database) -> Room:
        most, for_user = db.execute_sql("SELECT @@max_connections, @@max_user_connections").fetchone()
        used = db.execute_sql("SHOW GLOBAL STATUS LIKE 'Threads_connected'").fetchone()[1]
        return Room(min(int(most), int(for_user) or int(most)), int(used))

    def time(self, db: Database) -> int:
        return int(db.execute_sql("SELECT CAST(unix_timestamp(sysdate(6)) * 1000000 AS SIGNED)").fetchone()[0])

    def copies(self, db: Database) -> list[Trouble]:
        found = []
        if str(db.execute_sql("SELECT @@GLOBAL.read_only").fetchone()[0]) not in ("0", "OFF"):
            text = "read_only is on: no flag can be raised or swept, but by users who may write all the same"
            found.append(Trouble("fail", text, "have the URL name the primary; or SET GLOBAL read_only = 0; where this is it"))
        return found + [_replica(state) for state in _replica_states(db)]


def _open(
    id: int, user: str, host: str, name: str, command: str, time: int, query: str, written: int, locked: int, age: int
) -> Open:
    """Return what a row tells."""
    if not id:
        return Open(
            "a transaction that XA has prepared", age, age, None, None, "", "XA RECOVER; (it names it), XA ROLLBACK '...';"
        )
    who = f"session {id} of {user} from {host}"
    doing = short(query) or (f"{written} rows written, {locked} locked" if written or locked else "")
    return Open(who, age, float(time or 0) if command == "Sleep" else None, None, None, doing, f"KILL {id};")


def _replica_states(db: Database) -> list[dict[str, Any]]:
    """Return what a replica says of itself, once for each server that it copies; nothing where this user may not know."""
    for statement in REPLICA:
        with suppress(*DATABASE_ERRORS):
            cursor = db.execute_sql(statement)
            names = [column[0].lower().replace("master", "source").replace("slave", "replica") for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return []


def _replica(state: dict[str, Any]) -> Trouble:
    source, behind = state.get("source_host"), state.get("seconds_behind_source")
    lag = "does not copy it just now" if behind is None else f"is {behind} s behind"
    text = f"this server is a replica of {source}, and {lag}: flags that are raised here are not there"
    far = behind is None or int(behind) > FAR_BEHIND
    fix = f"have the URL name {source}" + ("; see SHOW REPLICA STATUS for what hinders it" if far else "")
    return Trouble("warn", text, fix)

"""MySQL and MariaDB: leases as locks of GET_LOCK."""

from __future__ import annotations

from peewee import Database

from ..server import Server

LOCK = "CONCAT('flagsweep ', SHA1(CONCAT(DATABASE(), ' ', %s)))"
"""The name of a lock: one for the whole server, and 64 characters at most."""


class MysqlLeases(Server):
    """Take and give back locks with names."""

    def unfit_session(self, db: Database) -> str | None:
        return None

    def ping(self, db: Database) -> None:
        db.execute_sql("SELECT 1").fetchall()

    def uptime(self, db: Database) -> float:
        return float(db.execute_sql("SHOW GLOBAL STATUS LIKE 'Uptime'").fetchone()[1])

    def try_lock(self, db: Database, name: str) -> bool:
        return db.execute_sql(f"SELECT GET_LOCK({LOCK}, 0)", (name,)).fetchone()[0] == 1

    def unlock(self, db: Database, name: str) -> None:
        db.execute_sql(f"SELECT RELEASE_LOCK({LOCK})", (name,)).fetchall()

    def is_locked(self, db: Database, name: str) -> bool:
        return db.execute_sql(f"SELECT IS_USED_LOCK({LOCK})", (name,)).fetchone()[0] is not None

"""PostgreSQL: leases as advisory locks."""

from __future__ import annotations

from peewee import Database

from ..server import Server

# Advisory locks belong to a database; two schemas of one may both have flags.
NUMBER = "hashtextextended('flagsweep ' || current_schema() || ' ' || %s, 0)"
IS_LOCKED = f"""
SELECT 1 FROM pg_locks, (SELECT {NUMBER} AS number) AS wanted
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid = ((number >> 32) & 4294967295)::oid AND objid = (number & 4294967295)::oid
"""


class PostgresqlLeases(Server):
    """Take and give back advisory locks."""

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
        return db.execute_sql(f"SELECT pg_try_advisory_lock({NUMBER})", (name,)).fetchone()[0]

    def unlock(self, db: Database, name: str) -> None:
        db.execute_sql(f"SELECT pg_advisory_unlock({NUMBER})", (name,)).fetchall()

    def is_locked(self, db: Database, name: str) -> bool:
        return bool(db.execute_sql(IS_LOCKED, (name,)).fetchall())

"""PostgreSQL: what doctor asks."""

from __future__ import annotations

from peewee import Database, Select

from ..server import Server


class PostgresqlChecks(Server):
    """Answer what people ask."""

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

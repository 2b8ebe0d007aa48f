"""MySQL and MariaDB: what doctor asks."""

from __future__ import annotations

import re

from peewee import Database, Select

from ..server import Server


class MysqlChecks(Server):
    """Answer what people ask."""

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

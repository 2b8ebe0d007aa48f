"""Databases without tables, and what a plain driver sees of them: what the tests of the tables share."""

import os
import re
import sqlite3
from contextlib import closing, suppress
from urllib.parse import urlsplit

import pytest

from flagsweep import FlagSweep


class Place:
    """A database without tables, and what a plain driver sees of it."""

    def __init__(self, kind, url):
        self.kind = kind
        self.url = url

    def flags(self, **settings):
        flags = FlagSweep(self.url, **settings)
        flags.handler("work")(lambda number: None)
        return flags

    def connect(self):
        parts = urlsplit(self.url)
        if self.kind == "sqlite":
            return sqlite3.connect(parts.path[1:])
        if self.kind == "postgresql":
            import psycopg

            return psycopg.connect(self.url, autocommit=True)
        import pymysql

        known = {"host": parts.hostname, "port": parts.port or 3306, "user": parts.username, "password": parts.password or ""}
        return pymysql.connect(**known, database=parts.path[1:], autocommit=True)

    def ask(self, *statements):
        with closing(self.connect()) as db:
            cursor = db.cursor()
            for statement in statements:
                cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
            db.commit()
            return [tuple(row) for row in rows]

    def tables(self):
        if self.kind == "sqlite":
            if not os.path.exists(urlsplit(self.url).path[1:]):
                return []
            return [name for (name,) in self.ask("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'flag%'")]
        mine = "DATABASE()" if self.kind == "mysql" else "current_schema()"
        return [name for (name,) in self.ask(f"SELECT table_name FROM information_schema.tables WHERE table_schema = {mine}")]

    def columns(self, table):
        """Return (name, may be null) of each column, in their order."""
        if self.kind == "sqlite":
            return [(name, not required) for _, name, _, required, *_ in self.ask(f"PRAGMA table_info({table})")]
        mine = "DATABASE()" if self.kind == "mysql" else "current_schema()"
        found = self.ask(
            "SELECT column_name, is_nullable FROM information_schema.columns "
            f"WHERE table_schema = {mine} AND table_name = '{table}' ORDER BY ordinal_position"
        )
        return [(name, nullable == "YES") for name, nullable in found]

    def layout(self):
        """Return all there is to say about the tables but their rows."""
        if self.kind == "sqlite":
            return self.ask("SELECT type, name, sql FROM sqlite_master ORDER BY type, name")
        if self.kind == "mysql":
            made = [self.ask(f"SHOW CREATE TABLE {table}")[0] for table in sorted(self.tables())]
            return [(name, re.sub(r" AUTO_INCREMENT=\d+", "", text)) for name, text in made]
        return [
            *self.ask(
                "SELECT table_name, column_name, ordinal_position, data_type, collation_name, is_nullable, column_default, "
                "is_identity FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 3"
            ),
            *self.ask("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1"),
            *self.ask(
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
                "WHERE connamespace = current_schema()::regnamespace ORDER BY 1"
            ),
        ]

    def versions(self):
        return [version for (version,) in self.ask("SELECT version FROM flagsweep_schema ORDER BY version")]

    def wipe(self):
        if self.kind == "sqlite":
            for ending in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(urlsplit(self.url).path[1:] + ending)
        elif self.tables():
            drop = "DROP TABLE " + ", ".join(f'"{each}"' if self.kind == "postgresql" else each for each in self.tables())
            self.ask(*(["SET foreign_key_checks = 0"] if self.kind == "mysql" else []), drop)


def on(*kinds):
    """Run a test on these databases: it gets a ``place`` on each."""
    return pytest.mark.parametrize("place", kinds, indirect=True)


every_database = on("sqlite", "postgresql", "mysql")

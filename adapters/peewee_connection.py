"""A Peewee database object of the site's other than ``flags.database``."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import ref

from peewee import Database, MySQLDatabase, PostgresqlDatabase, Proxy, SqliteDatabase

from ..databases.places import name_of
from ..errors import ConfigError
from .connection import SiteConnection

DIALECTS: tuple[tuple[type[Database], str, str], ...] = (
    (SqliteDatabase, "SQLite", "?"),
    (PostgresqlDatabase, "PostgreSQL", "%s"),
    (MySQLDatabase, "MySQL", "%s"),
)


class PeeweeConnection(SiteConnection):
    """The connection that a Peewee database object has in this thread; where it has none, one for this raise alone."""

    def __init__(self, db: Any):
        found = next(((dialect, mark) for known, dialect, mark in DIALECTS if isinstance(db, known)), None)
        if found is None:
            raise ConfigError(f"{name_of(db)} is no database that flagsweep knows")
        self.dialect, self.mark = found
        self._db = db

    @property
    def name(self) -> str:
        return f"Peewee's {name_of(self._db)}"

    def known_by(self) -> Hashable | None:
        return ref(self._db), str(self._db.database)

    def execute(self, sql: str, parameters: Any) -> Any:
        return self._db.execute_sql(sql, parameters)

    def lent(self) -> AbstractContextManager[Any]:
        return self._db.connection_context() if self._db.is_closed() else nullcontext()

    def after_commit(self, call: Callable[[], None]) -> None:
        self._db.after_commit(call)

    def in_transaction(self) -> bool:
        return bool(self._db.in_transaction())

    def is_rolled_back(self, call: Callable[[], None]) -> bool:
        return not self.is_waiting(call)

    def is_waiting(self, call: Callable[[], None]) -> bool:
        return call in getattr(self._db._state, "commit_callbacks", ())


def connection_of(given: Any) -> SiteConnection:
    """Return what a database object, or a proxy of one, stands for."""
    db = given.obj if isinstance(given, Proxy) else given
    if db is None or not db.database:
        raise ConfigError("connection is a Peewee database that is none yet: initialize it before a flag is raised over it")
    return PeeweeConnection(db)

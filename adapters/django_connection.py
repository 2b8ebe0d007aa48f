"""Django's connections: each statement goes through its cursor, so that wrappers, logs and ``assertNumQueries`` see it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

from peewee import SqliteDatabase

from ..errors import ConfigError
from .connection import SiteConnection

DIALECTS = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL"}
"""By what Django calls a connection's vendor; MariaDB is ``mysql`` there, too."""


class DjangoConnection(SiteConnection):
    """The connection that Django has in this thread under an alias."""

    mark = "%s"

    def __init__(self, wrapper: Any):
        if wrapper.vendor not in DIALECTS:
            raise ConfigError(f"Django's connection {wrapper.alias!r} goes to {wrapper.vendor}: flagsweep knows none")
        self.dialect = DIALECTS[wrapper.vendor]
        self._wrapper = wrapper

    @property
    def name(self) -> str:
        return f"Django's connection {self._wrapper.alias!r} to {self._wrapper.settings_dict['NAME']}"

    def known_by(self) -> Hashable | None:
        settings = self._wrapper.settings_dict
        return "django", self._wrapper.alias, str(settings["NAME"]), settings.get("HOST"), settings.get("PORT")

    def renew(self) -> None:
        self._wrapper.close_if_unusable_or_obsolete()

    def execute(self, sql: str, parameters: Any) -> Any:
        cursor = self._wrapper.cursor()
        cursor.execute(sql, parameters)
        return cursor

    def after_commit(self, call: Callable[[], None]) -> None:
        from django.db import transaction

        transaction.on_commit(call, using=self._wrapper.alias, robust=True)

    def in_transaction(self) -> bool:
        return bool(self._wrapper.in_atomic_block or not self._wrapper.get_autocommit())

    def is_rolled_back(self, call: Callable[[], None]) -> bool:
        return not any(call is waiting for _, waiting, *_ in self._wrapper.run_on_commit)

    def is_waiting(self, call: Callable[[], None]) -> bool:
        # The latest alone: a long transaction may have a great many, of the site's.
        return any(call is waiting for _, waiting, *_ in self._wrapper.run_on_commit[-8:])


class MemoryDatabase(SqliteDatabase):
    """Go over the connection that Django has to a database in memory, as its tests do: nobody else could see that one.

    :param alias: Django's.
    """

    def __init__(self, alias: str):
        super().__init__(":memory:")
        self._alias = alias

    def _connect(self) -> Any:
        from django.db import connections

        connections[self._alias].ensure_connection()
        return connections[self._alias].connection

    def _close(self, connection: Any) -> None:
        """It is Django's to close."""


@cache
def memory_database(alias: str) -> MemoryDatabase:
    """Return the one for an alias, the same each time: who is told of a database twice must be told the same."""
    return MemoryDatabase(alias)


def connection_of(given: Any) -> SiteConnection:
    """Return what an alias, or a connection of Django's, stands for in this thread."""
    from django.db import connection, connections
    from django.db.utils import ConnectionDoesNotExist

    if not isinstance(given, str):
        return DjangoConnection(given._connections[given._alias] if isinstance(given, type(connection)) else given)
    try:
        return DjangoConnection(connections[given])
    except ConnectionDoesNotExist as error:
        raise ConfigError(f"connection={given!r} must be an alias of Django's DATABASES: {error}") from error


async def awaited(given: Any, do: Callable[[SiteConnection], Any]) -> Any:
    """Do what a raise does in the thread in which Django keeps its connections for this task."""
    from asgiref.sync import sync_to_async

    return await sync_to_async(lambda: do(connection_of(given)))()

"""Our tables over Django's own connection: in the transaction of a migration, each step once, whoever came first."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

from django.apps.registry import Apps
from django.db import connections, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from ...config import Settings
from ...databases.dialect import Dialect
from ...databases.opening import open_connections
from .settings import alias_of_settings, configured


class Step:
    """Make one step of our tables, as a migration's function.

    :param number: the version that it leads to.
    """

    def __init__(self, number: int):
        self.number = number

    def __call__(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        wrapper = schema_editor.connection
        if wrapper.alias != alias_of_settings():
            return
        dialect = _dialect()
        over = _OverDjango(wrapper)
        # Where a statement that changes a table ends the transaction, Django has none open, and our lock wants one.
        with nullcontext() if wrapper.in_atomic_block else transaction.atomic(wrapper.alias), dialect.migrating(over):  # type: ignore[arg-type]
            if self.number <= over.version():
                return
            for statement in dialect.steps[self.number - 1]:
                dialect.change(over, statement)  # type: ignore[arg-type]
            over.execute_sql(
                f"INSERT INTO flagsweep_schema (version, applied_at) VALUES ({self.number}, {time.time_ns() // 1000})"
            )
            if self.number == len(dialect.steps):
                dialect.adjust(over)  # type: ignore[arg-type]


def forget_nothing(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Undo nothing: work that is owed does not vanish with a migration that is taken back."""


def keep_a_log(sender: Any, using: str, **_: Any) -> None:
    """Put a SQLite file that was migrated into WAL mode, as ``init`` does, so that the site reads while a sweep writes."""
    wrapper = connections[using]
    if using == alias_of_settings() and wrapper.vendor == "sqlite" and not wrapper.is_in_memory_db():
        with wrapper.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = WAL")


def _dialect() -> Dialect:
    """Return how our statements are said to the database of the settings, with who tells of a flag there."""
    said = configured()
    known = Settings.load({name: value for name, value in said.items() if name != "connection"})
    return open_connections(said["database"], notify=known.notify).dialect


class _OverDjango:
    """Execute our statements over Django's driver, within the transaction that Django has open."""

    def __init__(self, wrapper: Any):
        self._wrapper = wrapper

    def execute_sql(self, sql: str, parameters: Any = None) -> Any:
        """Execute one statement of ours, as it is written for the driver, and return the driver's cursor."""
        self._wrapper.ensure_connection()
        cursor = self._wrapper.connection.cursor()
        cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
        return cursor

    def version(self) -> int:
        """Return the version of the tables that are there, or 0."""
        with self._wrapper.cursor() as cursor:
            if "flagsweep_schema" not in self._wrapper.introspection.table_names(cursor):
                return 0
            cursor.execute("SELECT max(version) FROM flagsweep_schema")
            return int(cursor.fetchone()[0] or 0)

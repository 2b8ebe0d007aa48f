"""Connections of a driver, as DB-API has them: of ``sqlite3``, ``psycopg``, ``psycopg2``, ``pymysql`` and ``mysqlclient``."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any
from weakref import ref

from ..databases.drivers import Driver
from .connection import SiteConnection


class DriverConnection(SiteConnection):
    """A connection that the site has opened itself.

    :param module: that of the driver.
    """

    def __init__(self, connection: Any, driver: Driver, module: str):
        self.dialect = driver.dialect
        self.mark = driver.mark
        self._connection = connection
        self._driver = driver
        self._module = module

    @property
    def name(self) -> str:
        return f"the {self._module} connection"

    def known_by(self) -> Hashable | None:
        try:
            return ref(self._connection)
        except TypeError:  # Python's own sqlite3 has none: there asking costs less than remembering.
            return None

    def execute(self, sql: str, parameters: Any) -> Any:
        cursor = self._driver.cursor(self._connection)
        cursor.execute(sql, parameters)
        return cursor

    def after_commit(self, call: Callable[[], None]) -> None:
        if self._driver.is_idle is not None and self._driver.is_idle(self._connection):
            call()

    def in_transaction(self) -> bool:
        return self._driver.is_idle is not None and not self._driver.is_idle(self._connection)

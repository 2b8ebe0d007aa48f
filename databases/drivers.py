"""Connections of drivers that the site holds itself: which database each is to, and a cursor that brings plain rows.

A site may have told its connection to bring dicts, or objects of its own: what we ask for comes as tuples all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple


class Driver(NamedTuple):
    """Say how a driver's connections are used.

    :param dialect: the name of the dialect that they speak.
    :param mark: how the driver writes a parameter.
    :param cursor: returns a cursor whose rows are tuples.
    :param is_idle: whether no transaction is open, so that what was executed has committed; None where that cannot be told.
    """

    dialect: str
    mark: str
    cursor: Callable[[Any], Any]
    is_idle: Callable[[Any], bool] | None = None


def _of_sqlite(connection: Any) -> Any:
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor


def _of_psycopg(connection: Any) -> Any:
    return connection.cursor(row_factory=import_module("psycopg.rows").tuple_row)


def _of_psycopg2(connection: Any) -> Any:
    return connection.cursor(cursor_factory=import_module("psycopg2.extensions").cursor)


def _of_pymysql(connection: Any) -> Any:
    return connection.cursor(import_module("pymysql.cursors").Cursor)


def _of_mysqlclient(connection: Any) -> Any:
    return connection.cursor(import_module("MySQLdb.cursors").Cursor)


def _is_idle_in_libpq(connection: Any) -> bool:
    return bool(connection.closed) or int(connection.info.transaction_status) == 0


IN_TRANSACTION = 1
"""What MySQL's status says within a transaction: SERVER_STATUS_IN_TRANS of its protocol."""


def _is_idle_in_pymysql(connection: Any) -> bool:
    return not (connection.open and connection.server_status & IN_TRANSACTION)


DRIVERS = {
    "sqlite3": Driver("SQLite", "?", _of_sqlite, lambda connection: not connection.in_transaction),
    "psycopg": Driver("PostgreSQL", "%s", _of_psycopg, _is_idle_in_libpq),
    "psycopg2": Driver("PostgreSQL", "%s", _of_psycopg2, _is_idle_in_libpq),
    "pymysql": Driver("MySQL", "%s", _of_pymysql, _is_idle_in_pymysql),
    "MySQLdb": Driver("MySQL", "%s", _of_mysqlclient),
}
"""By the module of a connection's class."""

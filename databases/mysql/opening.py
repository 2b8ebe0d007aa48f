"""MySQL and MariaDB: how one is reached."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from typing import Any

import peewee
from peewee import MySQLDatabase

from ..alive import descriptor
from ..server.healing import Healing
from ..server.opening import Kind
from .dialect import Mysql

_FOUND_ROWS = 2
"""The flag of a MySQL client that wants rows counted which a statement found as it would have them."""


class Thrifty(MySQLDatabase):
    """Peewee's, whose connections over PyMySQL are of a class of ours; below ``Healing``, which keeps them from forks."""

    def _connect(self) -> Any:
        if getattr(getattr(peewee, "mysql", None), "__name__", "") == "pymysql":
            return _pymysql_connection()(database=self.database, autocommit=True, **self.connect_params)
        return super()._connect()  # type: ignore[misc]


class MysqlSite(Healing, Thrifty):
    """A MySQL or MariaDB database that gets over a lost connection."""

    def _connect(self) -> Any:
        connection = super()._connect()
        if not self.connect_params.get("unix_socket"):
            _keep_alive(connection)
        return connection


@cache
def _pymysql_connection() -> Any:
    """Return PyMySQL's class of a connection, whose connections share what they need for TLS where nothing is said of it.

    PyMySQL reads the system's certificates for each, which it then does not ask for: nearly all of the time that one takes.
    """
    from pymysql.connections import Connection

    class Sharing(Connection):
        _shared: Any = None

        def _create_ssl_ctx(self, sslp: Any) -> Any:
            if sslp:
                return super()._create_ssl_ctx(sslp)
            if Sharing._shared is None:
                Sharing._shared = super()._create_ssl_ctx(sslp)
            return Sharing._shared

    return Sharing


def _keep_alive(connection: Any) -> None:
    """Have the kernel ask a silent peer, as libpq is told to: a firewall then sees a connection that is in use."""
    with suppress(OSError, AttributeError), socket.socket(fileno=os.dup(descriptor(connection))) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3)):
            end.setsockopt(socket.IPPROTO_TCP, option, value)


class MysqlEngine(MysqlSite):
    """Our own connections: without the gap locks in which claims and raises would deadlock, and without long waits.

    They count the rows that they change, whatever the site's do, and may change many at once.
    """

    def _initialize_connection(self, conn: Any) -> None:
        with conn.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1, sql_safe_updates = 0")

    def init(self, database: str | None, mariadb: bool | None = None, **kwargs: Any) -> None:
        flags = kwargs.get("client_flag", 0) & ~_FOUND_ROWS
        super().init(database, mariadb, **{**kwargs, "charset": "utf8mb4", "use_unicode": True, "client_flag": flags})


KIND = Kind(
    dialect=Mysql,
    made=MysqlSite,
    ours=MysqlEngine,
    driver="mysql",
    extra="mysql",
    port=3306,
    site={"connect_timeout": 5},
)

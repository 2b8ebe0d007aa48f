"""SQLAlchemy's sessions and connections: each statement goes through its own way to the driver, so that its events see it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from typing import Any
from weakref import ref

from ..errors import ConfigError
from .connection import SiteConnection

DIALECTS = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL", "mariadb": "MySQL"}
MARKS = {"qmark": "?", "format": "%s", "pyformat": "%s", "numeric_dollar": "$"}
"""By what SQLAlchemy calls a driver's way to write parameters."""

WAITING = "flagsweep_after_commit"
"""Where a session keeps what is to be called once it has committed."""


class SqlalchemyConnection(SiteConnection):
    """A connection, or the one that a session has in its transaction.

    :param session: the session, where it is one's.
    """

    def __init__(self, connection: Any, session: Any = None):
        dialect = connection.dialect
        if dialect.name not in DIALECTS or dialect.paramstyle not in MARKS:
            raise ConfigError(f"SQLAlchemy's {dialect.name}+{dialect.driver} is none that flagsweep knows")
        self.dialect, self.mark = DIALECTS[dialect.name], MARKS[dialect.paramstyle]
        self._connection = connection
        self._session = session

    @property
    def name(self) -> str:
        return f"SQLAlchemy's connection to {self._connection.engine.url.render_as_string(hide_password=True)}"

    def known_by(self) -> Hashable | None:
        return ref(self._connection.engine)

    def execute(self, sql: str, parameters: Any) -> Any:
        return self._connection.exec_driver_sql(sql, tuple(parameters))

    def after_commit(self, call: Callable[[], None]) -> None:
        """Only a session tells: a connection's event comes before its commit."""
        if self._session is None:
            return
        from sqlalchemy import event

        if WAITING not in self._session.info:
            event.listen(self._session, "after_commit", _call_all)
            event.listen(self._session, "after_soft_rollback", _forget)
        self._session.info.setdefault(WAITING, []).append(call)

    def pending(self) -> Callable[[], bool]:
        transaction = self._connection.get_transaction()
        found: Callable[[], Any] = (lambda: None) if transaction is None else ref(transaction)
        return lambda: getattr(found(), "is_active", False)

    def is_waiting(self, call: Callable[[], None]) -> bool:
        return self._session is not None and call in self._session.info.get(WAITING, ())


def _call_all(session: Any) -> None:
    if session.in_nested_transaction():  # A savepoint was released, and nothing committed.
        return
    calls, session.info[WAITING] = session.info[WAITING], []
    for call in calls:
        call()


def _forget(session: Any, previous: Any) -> None:
    if not previous.nested:  # What was raised before a savepoint may commit still.
        session.info[WAITING] = []


def connection_of(given: Any) -> SiteConnection:
    """Return what a session, a registry of sessions, or a connection stands for.

    :raises ConfigError: where it is none of these, or can only be awaited.
    """
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Session, scoped_session

    if isinstance(given, scoped_session):
        given = given()
    if isinstance(given, Session):
        return SqlalchemyConnection(given.connection(), given)
    if isinstance(given, Connection):
        return SqlalchemyConnection(given)
    if _is_asynchronous(given, "AsyncConnection", "AsyncSession", "async_scoped_session"):
        raise ConfigError(f"over {type(given).__name__} a flag is raised with 'await handler.using(...).araise_flag(...)'")
    raise ConfigError(
        f"connection must be the Session or Connection whose transaction the flag belongs to, a scoped_session, or a function "
        f"that returns one; {type(given).__name__} has no transaction of its own"
    )


def _is_asynchronous(given: Any, *names: str) -> bool:
    """Return whether it is of one of these classes, of SQLAlchemy's asynchronous half: to import that takes ``greenlet``."""
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    return module is not None and isinstance(given, tuple(getattr(module, name) for name in names))


async def awaited(given: Any, do: Callable[[SiteConnection], Any]) -> Any:
    """Do what a raise does on what an asynchronous session or connection has beneath it."""
    if _is_asynchronous(given, "async_scoped_session"):
        given = given()
    if _is_asynchronous(given, "AsyncConnection", "AsyncSession"):
        return await given.run_sync(lambda beneath: do(connection_of(beneath)))
    return do(connection_of(given))

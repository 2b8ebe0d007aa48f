"""SQLAlchemy, in any site: ``init_app(session, flags)``.

* The flags are put where SQLAlchemy's tables are, unless something else says where.
* With a ``scoped_session``, raises go over the session of the moment, and each handler's is removed after it, as after a request.

What is no ``scoped_session`` has no session of the moment: handlers open their own (``with Session() as session:``), and a raise
says which (``handler.using(connection=session)``).
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote

from ..adapters.sqlalchemy_session import refuse_uncommitted, watch
from ..app import FlagSweep
from ..errors import ConfigError

_LIBPQ = ("psycopg", "psycopg2", "psycopg2cffi", "psycopg_async")
"""Drivers whose parameters are those of PostgreSQL's own library, which ours knows, too."""
_MYSQL = ("charset", "unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_cert", "ssl_verify_identity")
"""Parameters of MySQL's drivers that ours knows, too."""


def init_app(session: Any, flags: FlagSweep) -> None:
    """Take flagsweep into a site whose tables are SQLAlchemy's.

    :param session: its ``scoped_session``, ``sessionmaker``, ``Session`` or ``Engine``, or the asynchronous one of these.
    :raises ConfigError: where that has no database, or none that flagsweep can use.
    """
    scoped = hasattr(session, "remove")
    flags.adopt("sqlalchemy", {}, {"database": database_of(session), "connection": session if scoped else None})
    if scoped and not inspect.iscoroutinefunction(session.remove):
        flags.around(_Removed(session))


class _Removed:
    """Remove the session after a handler; one that leaves changes uncommitted has failed.

    Async handlers of a lane share a thread, and with it the session of most registries: it is removed once none of them runs.
    """

    def __init__(self, session: Any):
        self.session = session
        self._here = threading.local()
        watch(session)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Removed) and other.session is self.session

    def __hash__(self) -> int:
        return hash((_Removed, id(self.session)))

    @contextmanager
    def __call__(self) -> Iterator[None]:
        running = self._here.running = getattr(self._here, "running", 0) + 1
        try:
            yield
            if running == 1 == self._here.running and self.session.registry.has():
                refuse_uncommitted(self.session())
        finally:
            self._here.running -= 1
            if not self._here.running:
                self.session.remove()


def database_of(source: Any) -> str:
    """Return the URL of the database, or the path of the file, that SQLAlchemy uses.

    :param source: an ``Engine``, ``Connection``, ``sessionmaker``, ``Session`` or ``scoped_session``, asynchronous or not.
    :raises ConfigError: where it is bound to none, or to one that flagsweep cannot use.
    """
    url = _url_of(source)
    dialect, _, driver = str(url.drivername).partition("+")
    if dialect == "sqlite":
        return _file_of(url, driver)
    if dialect not in ("postgresql", "mysql", "mariadb"):
        raise ConfigError(f"flagsweep keeps flags in SQLite, PostgreSQL, MySQL or MariaDB, got SQLAlchemy's {dialect!r}")
    kept = _kept(dialect, driver, url.query)
    return str(url.set(drivername=dialect, query=kept).render_as_string(hide_password=False))


def _url_of(source: Any) -> Any:
    source = getattr(source, "session_factory", source)  # A scoped_session has one.
    bind = getattr(source, "kw", {}).get("bind") or getattr(source, "bind", None) or source
    engine = getattr(bind, "engine", bind)
    if (url := getattr(engine, "url", None)) is None:
        raise ConfigError(
            f"{type(source).__name__} is bound to no engine: give it bind=engine before, or call flags.configure(database=...)"
        )
    return url


def _file_of(url: Any, driver: str) -> str:
    if driver == "pysqlcipher":
        raise ConfigError("flagsweep cannot read an encrypted file: give it a database of its own")
    name, _, query = str(url.database or "").partition("?")
    if name.startswith("file:"):
        name = unquote(name.removeprefix("file:")).removeprefix("//")
    if name in ("", ":memory:") or "memory" in parse_qs(query).get("mode", []) or url.query.get("mode") == "memory":
        raise ConfigError("SQLAlchemy's database is in memory, which no other connection sees: use a file, in tests, too")
    return name


def _kept(dialect: str, driver: str, query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a URL that are not for SQLAlchemy's driver alone."""
    if dialect != "postgresql":
        return {name: value for name, value in query.items() if name in _MYSQL}
    if driver in ("", *_LIBPQ):
        return dict(query)
    kept = {name: value for name, value in query.items() if name in ("host", "port")}
    return {**kept, "sslmode": query["ssl"]} if isinstance(query.get("ssl"), str) else kept

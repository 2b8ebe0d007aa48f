"""SQLite: how a file is opened, through Python's own library or through APSW."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

from peewee import Database, SqliteDatabase

from ...errors import ConfigError, NotReady
from ..connections import Connections
from ..inherited import inheritance
from ..library import is_apsw
from ..url import MEMORY, path_of
from .dialect import Sqlite

log = logging.getLogger("flagsweep")

FOREIGN = frozenset(f"playhouse.{name}" for name in ("cysqlite_ext", "sqlcipher_ext", "sqliteq"))
"""Peewee databases that bring a SQLite library of their own, whose locks on the file ours would drop, or write in a thread."""
BUSY = 5
"""Seconds that a connection of ours waits for SQLite's writer."""


class _Existing:
    """A SQLite file that is never made by accident: with a wrong path an empty file would be swept for ever."""

    database: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        inheritance.add(self)  # type: ignore[arg-type]

    def _connect(self) -> Any:
        if self.database != MEMORY and not os.path.exists(self.database):
            raise NotReady(
                f"there is no database {self.database}: run 'flagsweep init' (or call flags.init()) once, or mend the path"
            )
        return super()._connect()  # type: ignore[misc]


class SiteDatabase(_Existing, SqliteDatabase):
    """A SQLite file, through Python's own sqlite3."""


@cache
def apsw_database() -> type[SqliteDatabase]:
    """Return the class of a SQLite file through APSW, which brings a SQLite library of its own.

    :raises ConfigError: where APSW is missing.
    """
    try:
        import apsw
        from playhouse.apsw_ext import APSWDatabase
    except ImportError:
        raise ConfigError("driver='apsw' needs it: pip install 'flagsweep[apsw]'") from None

    class ApswSite(_Existing, APSWDatabase):
        """A SQLite file, through APSW."""

        def _connect(self) -> Any:
            connection = super()._connect()
            connection.convert_binding = _as_text
            return connection

    assert apsw
    return ApswSite


def _as_text(cursor: Any, number: Any, value: Any) -> Any:
    """Write what APSW does not take as sqlite3 would: dates and decimals as text."""
    return str(value)


def open_file(database: Any, driver: str = "sqlite3") -> Connections:
    """Return the connections to a file, or to a database in memory. Opens nothing.

    :param database: a URL, a path or the site's own Peewee database.
    :raises ConfigError: where it is none that flagsweep can use.
    """
    made = _file_class(database, driver)
    site = database if isinstance(database, Database) else made(path_of(database), **_options())
    if not isinstance(site, SqliteDatabase):
        raise ConfigError(
            f"the database must be SQLite, PostgreSQL, MySQL or MariaDB through Peewee's own classes, got {type(site).__name__}"
        )
    name = _checked_name(site)
    if name == MEMORY:
        return Connections(site, site, Sqlite(), "the database in memory")
    if isinstance(database, Database) and getattr(site, "_lock_type", None) is None:
        setattr(site, "_lock_type", "IMMEDIATE")  # noqa: B010 (Peewee has no public setter)
        log.info(
            "transactions of %s now begin IMMEDIATE: a deferred one that reads and then writes fails beside a sweep's commits",
            name,
        )
    path = Path(name).absolute()
    engine = made(str(path), **_options())
    for name in ("_functions", "_aggregates", "_collations", "_window_functions", "_attached"):
        setattr(engine, name, getattr(site, name))  # Conditions and triggers of the site's may use them.
    return Connections(site, engine, Sqlite(), str(path), path)


def _file_class(database: Any, driver: str) -> type[SqliteDatabase]:
    """Return the class of our own connections to a file: through the same library as the site's.

    :raises ConfigError: where one process would open a file through two: each drops the other's locks.
    """
    if not isinstance(database, Database):
        return apsw_database() if driver == "apsw" else SiteDatabase
    through_apsw = is_apsw(database)
    if driver == "apsw" and not through_apsw:
        raise ConfigError(
            f"driver='apsw' does not go with a {type(database).__name__}: two SQLite libraries in one process drop each other's "
            "locks on the file; give flagsweep a playhouse.apsw_ext.APSWDatabase, or a URL"
        )
    return apsw_database() if through_apsw else SiteDatabase


def _options() -> dict[str, Any]:
    return {"pragmas": {"synchronous": "FULL"}, "timeout": BUSY, "lock_type": "IMMEDIATE"}


def _checked_name(site: SqliteDatabase) -> str:
    """Return the file name of a site's own database, refusing what would bring in a second SQLite library or another thread."""
    foreign = {base.__module__ for base in type(site).__mro__} & FOREIGN
    if foreign:
        raise ConfigError(f"{type(site).__name__} ({foreign.pop()}) cannot be swept: use SqliteDatabase or PooledSqliteDatabase")
    if hasattr(site, "manual_close") and site.connect_params.get("check_same_thread", True):
        raise ConfigError(f"{type(site).__name__} hands connections from thread to thread: give it check_same_thread=False")
    name = site.database
    if not name:
        raise ConfigError("the Peewee database has no name yet: call its init(...) before flags are used")
    if str(name).startswith("file:"):
        raise ConfigError(f"the Peewee database has the URI {name!r}: give it the plain path of the file")
    return os.fspath(name)

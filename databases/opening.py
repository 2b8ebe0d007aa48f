"""From a URL, a path or the site's own Peewee database to the connections to it."""

from __future__ import annotations

from typing import Any

from peewee import Proxy

from ..errors import ConfigError
from .connections import Connections
from .kinds import kind_of, scheme_of
from .sqlite.opening import open_file


def open_connections(database: Any, driver: str = "sqlite3", notify: str = "raise") -> Connections:
    """Return the connections to a database. Opens nothing.

    :param notify: the setting: who tells of a flag.

    :raises ConfigError: where it is no database that flagsweep can use.
    """
    if isinstance(database, Proxy):
        if database.obj is None:
            raise ConfigError("the DatabaseProxy has no database yet: call its initialize(...) before flags are used")
        database = database.obj
    scheme = scheme_of(database)
    if scheme is not None:
        return kind_of(scheme).open(scheme, database, notify)
    return open_file(database, driver)

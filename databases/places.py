"""Which database it is: whether two objects mean the same one, and what people know it by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peewee import Database, Proxy, SqliteDatabase

from ..errors import ConfigError
from .connections import Connections
from .kinds import kind_of, scheme_of
from .url import MEMORY, host_of


def is_late(database: Any) -> bool:
    """Return whether a database is still to come: none, a proxy without one, or Peewee's own without a name."""
    database = database.obj if isinstance(database, Proxy) else database
    return database is None or (isinstance(database, Database) and not database.database)


def name_of(database: Database) -> str:
    """Return what people know a Peewee database by."""
    return f"{type(database).__name__} {database.database!r}"


def name_if_other(database: Any, connections: Connections) -> str | None:
    """Return what people know a model's database by where it is another than ours, or None; none yet is no other."""
    database = database.obj if isinstance(database, Proxy) else database
    if database is None or not database.database or database in (connections.site, connections.engine):
        return None
    if isinstance(database, SqliteDatabase):
        name = str(database.database)
        same = connections.file is not None and name != MEMORY and Path(name).resolve() == connections.file.resolve()
        return None if same else name
    mine, theirs = _place(connections.site), _place(database)
    return None if mine == theirs else f"{type(database).__name__} {theirs[-1]}"


def refuse_other_database(model: Any, connections: Connections) -> None:
    """Refuse a model whose rows our own connections would never find.

    :raises ConfigError: saying where it lives.
    """
    other = name_if_other(model._meta.database, connections)
    if other is not None:
        raise ConfigError(
            f"{model.__name__} lives in {other}, and the flags in {connections.where}: give flagsweep the database "
            "of the model, or raise a flag where the row is written"
        )


def _place(database: Any) -> tuple[Any, ...]:
    """Return what tells a server's database from another, as far as its parameters say."""
    scheme = scheme_of(database)
    given = dict(getattr(database, "connect_params", {}))
    host = host_of(given)
    local = host in ("localhost", "127.0.0.1", "::1") or host.startswith("/")
    port = str(given.get("port") or (0 if scheme is None else kind_of(scheme).port))
    return scheme, "localhost" if local else host, port, database.database

"""The kinds of servers, and which of them a URL or a Peewee database names."""

from __future__ import annotations

from typing import Any

from peewee import Database

from ..config import without_driver
from .mysql.opening import MYSQL
from .postgresql.opening import POSTGRESQL
from .server.opening import Kind

SERVERS: dict[str, Kind] = {"postgresql": POSTGRESQL, "mysql": MYSQL}
ALIASES = {"postgres": "postgresql", "mariadb": "mysql"}


def scheme_of(database: Any) -> str | None:
    """Return which kind of server a URL or Peewee database names, or None."""
    if isinstance(database, Database):
        foreign = type(database).__module__.startswith("playhouse.cockroachdb")
        return next((name for name, kind in SERVERS.items() if isinstance(database, kind.theirs) and not foreign), None)
    scheme = without_driver(str(database)).partition("://")[0].lower() if "://" in str(database) else ""
    scheme = ALIASES.get(scheme, scheme)
    return scheme if scheme in SERVERS else None

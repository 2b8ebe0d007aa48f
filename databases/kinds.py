"""The kinds of servers, and which of them a URL or a Peewee database names."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from peewee import Database, MySQLDatabase, PostgresqlDatabase

from ..config import without_driver

if TYPE_CHECKING:
    from .server.opening import Kind

SERVERS: dict[str, type[Database]] = {"postgresql": PostgresqlDatabase, "mysql": MySQLDatabase}
"""Peewee's own class of each, of which a site's own database is one."""
ALIASES = {"postgres": "postgresql", "mariadb": "mysql"}


def scheme_of(database: Any) -> str | None:
    """Return which kind of server a URL or Peewee database names, or None."""
    if isinstance(database, Database):
        foreign = type(database).__module__.startswith("playhouse.cockroachdb")
        return next((name for name, theirs in SERVERS.items() if isinstance(database, theirs) and not foreign), None)
    scheme = without_driver(str(database)).partition("://")[0].lower() if "://" in str(database) else ""
    scheme = ALIASES.get(scheme, scheme)
    return scheme if scheme in SERVERS else None


def kind_of(scheme: str) -> Kind:
    """Return how a kind of server is reached. Its room is entered only here: a site with a file starts sooner without them."""
    return import_module(f".{scheme}.opening", __package__).KIND

"""Which data layer an object of the site's belongs to. A layer is entered where the site has it loaded already."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

from peewee import Database, Proxy

from ..databases.drivers import DRIVERS
from ..errors import ConfigError
from . import registries
from .connection import SiteConnection
from .dbapi import DriverConnection

LAYERS = {"django": "django_connection", "sqlalchemy": "sqlalchemy_connection", "peewee": "peewee_connection"}
"""By the first word of the module that a class comes from."""


@lru_cache(maxsize=256)
def _origin(kind: tuple[type, ...]) -> str | None:
    """Return the layer or driver that a class comes from.

    :param kind: the classes that it is made of, itself first.
    """
    if Database in kind or Proxy in kind:
        return "peewee"
    if str in kind:
        return "django"
    roots = (base.__module__.partition(".")[0] for base in kind)
    return next((root for root in roots if root in LAYERS or root in DRIVERS), None)


def _layer(origin: str) -> ModuleType:
    return import_module(f".{LAYERS[origin]}", __package__)


def _found(given: Any) -> tuple[Any, str]:
    """Return a connection and where it comes from; a function is asked for it."""
    origin = _origin(type(given).__mro__)
    if origin is None and callable(given):
        given = given()
        origin = _origin(type(given).__mro__)
    if origin is None:
        raise ConfigError(
            "connection must be a Peewee database, a Django connection or alias, a SQLAlchemy session or connection, one of "
            f"{', '.join(DRIVERS)}, or a function that returns one; got {given!r}"
        )
    if isinstance(given, str) and "django.db" not in sys.modules:
        raise ConfigError(f"connection={given!r} can only be an alias of Django's DATABASES, and nobody has set Django up here")
    return given, origin


def connection_of(given: Any) -> SiteConnection:
    """Return the site's connection that an object, an alias, or a function that returns one stands for.

    :raises ConfigError: where it is none.
    """
    found, origin = _found(given)
    if driver := DRIVERS.get(origin):
        return DriverConnection(found, driver, origin)
    connection: SiteConnection = _layer(origin).connection_of(found)
    return connection


def alias_of(given: Any) -> str | None:
    """Return the alias of Django's that raises go over; None where that is another layer's connection, or nothing.

    :param given: as for ``connection_of``.
    :raises ConfigError: where it is no connection.
    """
    if given is None:
        return None
    found, origin = _found(given)
    if origin != "django":
        return None
    return found if isinstance(found, str) else str(found.alias)


def set_aside(given: Any) -> AbstractContextManager[None]:
    """Hold back, for a sweep in a thread of the site's, the session that the site has there.

    :param given: what raises go over, or None.
    """
    found, origin = (None, None) if given is None else _found(given)
    return registries.set_aside(found) if origin == "sqlalchemy" else nullcontext()


async def awaited(given: Any, do: Callable[[SiteConnection], Any]) -> Any:
    """Do something with the site's connection, where its layer has to be waited for.

    :raises ConfigError: where it is none.
    """
    found, origin = _found(given)
    if origin in LAYERS and hasattr(layer := _layer(origin), "awaited"):
        return await layer.awaited(found, do)
    return do(connection_of(found))

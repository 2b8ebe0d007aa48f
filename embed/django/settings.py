"""Settings: what FLAGSWEEP and DATABASES of Django's settings say, as flagsweep takes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any
from urllib.parse import quote, urlencode

from django.conf import settings
from django.db import connections

from ...adapters.django_connection import memory_database
from ...config import Settings, did_you_mean
from ...databases.library import two_libraries
from ...errors import ConfigError

NAMES = {each.name.upper(): each.name for each in fields(Settings)}
"""What FLAGSWEEP may say, and what flagsweep calls it. DATABASE is an alias of DATABASES."""

OF_DJANGO = frozenset(
    ("assume_role", "client_encoding", "context", "cursor_factory", "isolation_level", "pool", "prepare_threshold")
) | {"server_side_binding"}
"""OPTIONS of PostgreSQL that Django keeps to itself; all others are libpq's, and ours."""

OF_MYSQL = ("connect_timeout", "init_command", "read_default_file", "read_default_group", "unix_socket")
"""OPTIONS of MySQL that our connections take, too."""


def alias_of_settings() -> str:
    """Return the alias of the database that flags are kept in."""
    given = getattr(settings, "FLAGSWEEP", {})
    return str(given.get("DATABASE", "default")) if isinstance(given, Mapping) else "default"


def is_in_transaction(alias: str) -> bool:
    """Return whether Django has a transaction open in this thread."""
    return bool(connections[alias].in_atomic_block)


def configured() -> dict[str, Any]:
    """Return the settings of the site's FlagSweep.

    :raises ConfigError: naming everything that is wrong with them at once.
    """
    given = getattr(settings, "FLAGSWEEP", {})
    problems: list[str] = []
    said = _checked(given, problems)
    try:
        said["database"] = database_of(alias_of_settings())
    except ConfigError as error:
        problems += error.problems
    if not problems and _through_apsw(said):
        problems.append(two_libraries("Django's own connection"))
    if problems:
        raise ConfigError([f"FLAGSWEEP of Django's settings: {problem}" for problem in problems])
    return {**said, "connection": alias_of_settings()}


def _through_apsw(said: Mapping[str, Any]) -> bool:
    """Return whether flagsweep is to open a file of Django's through another library than Django."""
    return connections[alias_of_settings()].vendor == "sqlite" and Settings.load(said).driver == "apsw"


def _checked(given: Any, problems: list[str]) -> dict[str, Any]:
    """Return what FLAGSWEEP says besides DATABASE, in our names; what is wrong with it is added to the problems."""
    if not isinstance(given, Mapping):
        problems.append(f"it must be a dict such as {{'DATABASE': 'default'}}, got {given!r}")
        return {}
    problems += [_unknown(name) for name in given if name not in NAMES]
    said = {NAMES[name]: value for name, value in given.items() if name in NAMES and name != "DATABASE"}
    try:
        Settings.load(said)
    except ConfigError as error:
        problems += error.problems
    return said


def _unknown(name: Any) -> str:
    return f"there is no setting {name!r}; {did_you_mean(str(name).upper(), NAMES, 'there are')}"


def database_of(alias: str) -> Any:
    """Return the path or URL of a database of DATABASES; of one in memory a Peewee database over Django's own connection.

    :raises ConfigError: where there is none of that alias, or flagsweep cannot keep flags in it.
    """
    if alias not in connections:
        raise ConfigError(f"DATABASE must be an alias of DATABASES ({', '.join(connections)}), got {alias!r}")
    wrapper = connections[alias]
    if wrapper.vendor not in MAKERS:
        raise ConfigError(
            f"DATABASES[{alias!r}] is {wrapper.settings_dict['ENGINE']}: flags are kept in SQLite, PostgreSQL, MySQL or MariaDB"
        )
    return MAKERS[wrapper.vendor](wrapper.settings_dict, alias)


def _sqlite(said: Mapping[str, Any], alias: str) -> Any:
    name = os.fspath(said["NAME"])
    if ":memory:" in name or "mode=memory" in name:
        return memory_database(alias)
    if name.startswith("file:"):
        raise ConfigError(f"NAME of DATABASES[{alias!r}] is a URI: give the plain path of the file, got {name!r}")
    return os.path.abspath(name)


def _postgresql(said: Mapping[str, Any], alias: str) -> str:
    if not said["NAME"]:
        raise ConfigError(f"DATABASES[{alias!r}] must have a NAME: a service alone does not tell the database")
    options = {name: value for name, value in said["OPTIONS"].items() if name not in OF_DJANGO}
    if role := said["OPTIONS"].get("assume_role"):
        options["options"] = f"{options.get('options', '')} -c role={role}".strip()
    host = str(said["HOST"] or "")
    if host.startswith("/"):
        options["host"], host = host, ""
    return _url("postgresql", said, host, options)


def _mysql(said: Mapping[str, Any], alias: str) -> str:
    options = {name: value for name, value in said["OPTIONS"].items() if name in OF_MYSQL}
    options.update({f"ssl_{name}": value for name, value in dict(said["OPTIONS"].get("ssl") or {}).items()})
    host = str(said["HOST"] or "")
    if host.startswith("/"):
        options["unix_socket"], host = host, ""
    return _url("mysql", said, host or "localhost", options)


def _url(scheme: str, said: Mapping[str, Any], host: str, options: Mapping[str, Any]) -> str:
    user = quote(str(said["USER"] or ""), safe="")
    password = f":{quote(str(said['PASSWORD']), safe='')}" if said["PASSWORD"] else ""
    port = f":{said['PORT']}" if said["PORT"] and host else ""
    more = {**({"port": said["PORT"]} if said["PORT"] and not host else {}), **options}
    place = f"{user}{password}@{host}{port}" if user or password else f"{host}{port}"
    query = f"?{urlencode(more)}" if more else ""
    return f"{scheme}://{place}/{quote(str(said['NAME']), safe='')}{query}"


MAKERS: Mapping[str, Callable[[Mapping[str, Any], str], Any]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mysql": _mysql,
}
"""By what Django calls a connection's vendor."""

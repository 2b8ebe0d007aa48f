"""What a URL or a path says: the parameters of a connection to a server, or the path of a file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..config import hidden, without_driver
from ..errors import ConfigError

MEMORY = ":memory:"
"""The name of a database that is in memory alone."""


def parameters_of(url: Any) -> dict[str, Any]:
    """Return the parameters of a connection that a URL names. PostgreSQL's may name several hosts, of which one must do."""
    from playhouse.db_url import parse  # With all that Peewee knows of: a path needs none of it.

    text, several = _one_host(without_driver(str(url)))
    try:
        given = parse(text, unquote_password=True, unquote_user=True)
    except ValueError:
        raise ConfigError(
            f"{hidden(str(url))!r} cannot be read as a URL: write 'postgresql://user:password@host/database', "
            "with %-codes for special characters of the password"
        ) from None
    if not given.get("database"):
        raise ConfigError(f"{hidden(str(url))!r} names no database: write 'postgresql://user:password@host/database'")
    if "passwd" in given:
        given["password"] = given.pop("passwd")
    return {**given, **several}


def _one_host(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL with one host, and what stands for all of them where there are several."""
    scheme, mark, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    user, at, hosts = place.rpartition("@")
    if "," not in hosts or not scheme.startswith("postgres"):
        return url, {}
    pairs = [host.rpartition(":") if re.search(r":\d+$", host) else (host, "", "5432") for host in hosts.split(",")]
    names, ports = [host.strip("[]") for host, _, _ in pairs], [port for _, _, port in pairs]
    return f"{scheme}{mark}{user}{at}{names[0]}{slash}{path}", {"host": ",".join(names), "port": ",".join(ports)}


def host_of(given: dict[str, Any]) -> str:
    """Return the host, or the socket, that parameters of a connection name."""
    return given.get("host") or given.get("unix_socket") or "localhost"


def path_of(database: Any) -> str:
    """Return the absolute path that a URL or path names."""
    if database is None or database == "":
        raise ConfigError(
            "no database: pass a URL such as 'sqlite:///site.db', a path or a Peewee Database, "
            "call flags.configure(database=...), or set FLAGSWEEP_DATABASE"
        )
    if not isinstance(database, (str, os.PathLike)):
        raise ConfigError(f"database must be a URL, a path or a Peewee Database, got {database!r}")
    text = os.fspath(database)
    if text == MEMORY:
        return MEMORY
    if "://" in text:
        text = _path_of_url(text)
    if text == MEMORY:
        return MEMORY
    if "\0" in text or not Path(text).name:
        raise ConfigError(f"the database's path {text!r} names no file")
    return str(Path(text).absolute())


def _path_of_url(url: str) -> str:
    try:
        parts = urlsplit(without_driver(url))
    except ValueError:
        raise ConfigError(f"{hidden(url)!r} cannot be read as a URL: write 'sqlite:///site.db', or a plain path") from None
    if parts.scheme != "sqlite":
        raise ConfigError(f"the database URL must begin with 'sqlite://', 'postgresql://' or 'mysql://', got {hidden(url)!r}")
    if parts.netloc:
        raise ConfigError(
            f"{hidden(url)!r} names the host {parts.netloc.rpartition('@')[2]!r}: a file takes three slashes, "
            "'sqlite:///site.db', and an absolute path four"
        )
    if parts.query or parts.fragment:
        raise ConfigError(
            f"{hidden(url)!r} has parameters, and none is known: give the path alone, as in 'sqlite:///site.db'; "
            "flagsweep writes, and sets its own pragmas and time-outs"
        )
    if unquote(parts.path[1:]).startswith("file:"):
        raise ConfigError(f"{hidden(url)!r} has a URI within: give the plain path, as in 'sqlite:///site.db'")
    return unquote(parts.path[1:]) or MEMORY

"""From the URL of a shared queue to the store that it names."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from ..config import hidden
from ..errors import ConfigError
from .storage import Storage


def file_of(url: str) -> Path | None:
    """Return the file that a queue's URL names, None for a server.

    :raises ConfigError: where it cannot be read, or the package that talks to it is not installed.
    """
    if url.startswith("sqlite:"):
        return Path(unquote(url.removeprefix("sqlite:///"))).absolute()
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ConfigError(f"the queue {hidden(url)!r} cannot be read as a URL: write 'redis://host:6379/0'") from None
    package, extra = ("psycopg", "postgres") if url.startswith("postgres") else ("redis", "redis")
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"the queue {hidden(url)} needs the package {package}: pip install 'flagsweep[{extra}]'")
    return None


def opener(url: str, path: Path | None, token: str) -> Callable[[str, float], Storage]:
    """Return a function that opens the store of a URL, given the queue's name and the seconds to wait for an answer.

    :param path: the file that it names, None for a server.
    :param token: names who may be woken.
    """
    # Imported here: each needs a driver that another queue does without.
    if path is not None:
        from .sqlite import SqliteQueue

        return lambda name, patience: SqliteQueue(name, path, patience)
    if url.startswith("postgres"):
        from .postgresql import PostgresQueue

        return lambda name, patience: PostgresQueue(name, url, patience)
    from .redis import RedisQueue

    return lambda name, patience: RedisQueue(name, url, patience, token)


def passwords(url: str) -> list[str]:
    """Return what in a URL may be a password, as written and as meant."""
    parts = urlsplit(url)
    found = [parts.password or "", *(value for name, value in parse_qsl(parts.query) if "pass" in name)]
    return sorted({form for secret in found if secret for form in (secret, unquote(secret))}, key=len, reverse=True)

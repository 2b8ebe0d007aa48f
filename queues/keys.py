"""The keys that sign messages: given as text or in a file, or made beside a SQLite queue."""

from __future__ import annotations

import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from ..config import MAKE_KEY, SHORTEST_KEY
from ..errors import ConfigError
from .private_file import make_private


def read_keys(keys: Sequence[str], path: Path | None) -> list[bytes]:
    """Return the keys themselves.

    :param path: the SQLite queue, beside which a key is made where none is given.
    :raises ConfigError: where a file of keys cannot be read, can be by everybody, or has none.
    """
    if not keys and path is not None:
        file = path.with_name(path.name + "-key")
        if path.parent.is_dir() and path.parent.stat().st_mode & stat.S_IWOTH:
            raise ConfigError(f"everybody can write into {path.parent}: give a queue_key, or the queue a folder of its own")
        try:
            make_private(file, secrets.token_urlsafe(32).encode())
        except OSError as error:
            raise ConfigError(f"{file}, which keeps the queue's key, cannot be made: {error.strerror}") from error
        keys = [f"file:{file}"]
    found = [secret for key in keys for secret in (_read(Path(key[5:])) if key.startswith("file:") else [key.encode()])]
    return found


def _read(file: Path) -> list[bytes]:
    """Return the keys of a file, one on each line."""
    try:
        if file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            raise ConfigError(f"everybody can read the queue's key {file}, or others can change it: chmod 600 {file}")
        found = [line.strip() for line in file.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(f"the queue's key {file} cannot be read: {error.strerror}; {MAKE_KEY}") from error
    if not found or any(len(key) < SHORTEST_KEY for key in found):
        raise ConfigError(f"{file} must have a key of at least {SHORTEST_KEY} characters: {MAKE_KEY}")
    return found

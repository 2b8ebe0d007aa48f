"""Consumers that run older code than there is: a module of handlers was changed after they had started."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..handlers import Handler
from ..models import Consumer

Older = tuple[str, int, Consumer]
"""A module, when its file was changed last, in microseconds UTC, and who has started before that."""


def older_than(handlers: Mapping[str, Handler], consumers: Iterable[Consumer], host: str) -> list[Older]:
    """Return which modules of handlers were changed since which of these consumers started.

    :param handlers: by kind, aliases included.
    :param consumers: those that live. What runs on another host has other files; who does not name a module has none of it.
    """
    here = [row for row in consumers if row.host == host and isinstance(row.started_at, int)]
    changed = {name: at for name in sorted({each.module for each in handlers.values()}) if (at := _changed_at(name))}
    return [(name, at, row) for name, at in changed.items() for row in here if row.started_at < at and name in _modules(row)]


def file_of(module: str) -> str:
    """Return how the file of a module is called, or else the module."""
    path = _path_of(module)
    return module if path is None else path.name


def _path_of(module: str) -> Path | None:
    file: Any = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if isinstance(file, str) and module != "__main__" else None


def _changed_at(module: str) -> int | None:
    path = _path_of(module)
    try:
        return None if path is None else path.stat().st_mtime_ns // 1000
    except OSError:
        return None


def _modules(row: Consumer) -> list[str]:
    """Return the modules of which a consumer has said that its handlers are in them."""
    return row.app.split(", ") if isinstance(row.app, str) else []

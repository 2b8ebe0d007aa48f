"""Which layer's rows ``flags.when`` was given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from peewee import Node

from ..errors import ConfigError
from .layer_rows import LayerRows
from .rows import OwnRows
from .table_rows import TableRows

LAYERS = {"django.db": "django_rows", "sqlalchemy.orm": "sqlalchemy_rows"}
"""By the module that is loaded already where a site uses the layer."""


def own_rows(what: Any, lower: str, table: Any = None, column: Any = None, pk: Any = "id") -> OwnRows:
    """Return the rows that were named.

    :raises ConfigError: where nothing, or two things at once, were named, or what is no condition of any layer.
    """
    if table is not None or column is not None:
        if what is not None:
            raise ConfigError(f"flags.when takes a condition, or a table with its column: got {what!r} and table={table!r}")
        return TableRows(table, column, pk, lower)
    if isinstance(what, Node):
        return OwnRows(what, lower)
    asks = callable(what) and not isinstance(what, type)
    found = what() if asks and any(_layers()) else what
    for layer in _layers():
        if (source := layer.source_of(found, what if asks else lambda: found)) is not None:
            return LayerRows(source, lower)
    return OwnRows(what, lower)


def _layers() -> Iterator[ModuleType]:
    for module, name in LAYERS.items():
        if module in sys.modules:
            yield import_module(f".{name}", __package__)

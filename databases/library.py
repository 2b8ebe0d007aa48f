"""The SQLite library: the one of Python's own, or the one that APSW brings."""

from __future__ import annotations

import sqlite3
from typing import Any

NEWER = "a Python, or a system, with SQLite 3.51.3 or newer"
"""What has no WAL-reset bug, where the site's own connections go through Python's library."""


def is_apsw(db: Any) -> bool:
    """Return whether a database object goes through APSW's library."""
    return any(base.__module__ == "playhouse.apsw_ext" for base in type(db).__mro__)


def version_of(db: Any) -> str:
    """Return the version of the SQLite library that a database object goes through."""
    if is_apsw(db):
        import apsw

        return apsw.sqlite_lib_version()
    return sqlite3.sqlite_version


def two_libraries(what: str) -> str:
    """Return why a file that our connections open through APSW goes with nothing that opens it through ``sqlite3``."""
    return (
        f"APSW (driver='apsw') does not go with {what}: two SQLite libraries in one process drop each other's locks on the file; "
        f"leave it out, and use {NEWER}"
    )

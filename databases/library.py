"""The SQLite library: the one of Python's own, or the one that APSW brings."""

from __future__ import annotations

import sqlite3
from typing import Any


def version_of(db: Any) -> str:
    """Return the version of the SQLite library that a database object goes through."""
    if any(base.__module__ == "playhouse.apsw_ext" for base in type(db).__mro__):
        import apsw

        return apsw.sqlite_lib_version()
    return sqlite3.sqlite_version

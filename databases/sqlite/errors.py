"""SQLite: what its errors mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from ..dialect import Dialect
from ..errors import OURS, driver_error

NO_TABLE = "no table"
"""The code of a missing table, for which SQLite has none."""


class SqliteErrors(Dialect):
    """Know an error by its primary result code."""

    missing: Mapping[Any, str] = {
        NO_TABLE: "run 'flagsweep init' (or call flags.init()) once",
        sqlite3.SQLITE_CANTOPEN: "check the path and the rights of its folder",
        sqlite3.SQLITE_NOTADB: "the file is no SQLite database: check the path",
        sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup",
    }
    passing: Mapping[Any, str] = {
        sqlite3.SQLITE_READONLY: "the database, its folder or its disk is read-only: make it writable",
        sqlite3.SQLITE_PERM: "the database, its folder or its disk is read-only: make it writable",
        sqlite3.SQLITE_FULL: "the disk is full: free some space and do it again",
        sqlite3.SQLITE_IOERR: "the disk is full or failing: free some space, and look into the system's log",
        sqlite3.SQLITE_BUSY: "another program holds the database for too long: look for a long write transaction",
        sqlite3.SQLITE_LOCKED: "another program holds the database for too long: look for a long write transaction",
        sqlite3.SQLITE_PROTOCOL: "another program holds the database for too long: look for a long write transaction",
        sqlite3.SQLITE_NOMEM: "this machine has no memory left",
    }
    busy = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))

    def codes(self, error: BaseException) -> Sequence[Any]:
        """Return the primary result code. What SQLite writes is never translated, and for a missing table it has no code."""
        known = driver_error(error)
        code = getattr(known, "sqlite_errorcode", getattr(known, "extendedresult", None))  # APSW's has another name.
        if code == sqlite3.SQLITE_ERROR and f"no such table: {OURS}" in str(error):
            return (NO_TABLE,)
        return () if code is None else (code & 0xFF,)

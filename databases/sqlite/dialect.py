"""SQLite, of its parts."""

from __future__ import annotations

from typing import Any

from ..identity import identity
from ..statement import Execute
from .buckets import SqliteBuckets
from .bulk import SqliteBulk
from .census import SqliteCensus
from .checks import SqliteChecks
from .counts import SqliteCounts
from .errors import SqliteErrors
from .tables import SqliteTables
from .transactions import SqliteTransactions
from .wal import SqliteLog


class Sqlite(
    SqliteBuckets, SqliteBulk, SqliteCounts, SqliteTransactions, SqliteLog, SqliteErrors, SqliteTables, SqliteCensus, SqliteChecks
):
    """A file beside the site, or a database in memory."""

    name = "SQLite"
    shared = False
    mark = "?"

    def place_of(self, execute: Execute) -> tuple[Any, ...]:
        path = execute("SELECT file FROM pragma_database_list WHERE name = 'main'", ()).fetchall()[0][0]
        if path:
            return path, path
        try:  # Others in memory have tables of another time, or none.
            return "memory", execute("SELECT min(applied_at) FROM flagsweep_schema", ()).fetchall()[0][0]
        except Exception:
            return "memory", None

    def is_same_place(self, theirs: tuple[Any, ...], ours: tuple[Any, ...]) -> bool:
        """Of two paths to one file, both are right; nobody is asked of one that is ours to the letter."""
        if theirs[1:] == ours[1:]:
            return True
        return isinstance(theirs[1], str) and isinstance(ours[1], str) and identity(theirs[1]) == identity(ours[1]) is not None

"""SQLite, of its parts."""

from __future__ import annotations

from .buckets import SqliteBuckets
from .checks import SqliteChecks
from .counts import SqliteCounts
from .errors import SqliteErrors
from .tables import SqliteTables
from .transactions import SqliteTransactions
from .wal import SqliteLog


class Sqlite(SqliteBuckets, SqliteCounts, SqliteTransactions, SqliteLog, SqliteErrors, SqliteTables, SqliteChecks):
    """A file beside the site, or a database in memory."""

    name = "SQLite"
    shared = False

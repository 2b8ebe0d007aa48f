"""SQLite, of its parts."""

from __future__ import annotations

from .checks import SqliteChecks
from .counts import SqliteCounts
from .errors import SqliteErrors
from .flags import SqliteFlags
from .tables import SqliteTables
from .transactions import SqliteTransactions
from .wal import SqliteLog


class Sqlite(SqliteFlags, SqliteCounts, SqliteTransactions, SqliteLog, SqliteErrors, SqliteTables, SqliteChecks):
    """A file beside the site, or a database in memory."""

    name = "SQLite"
    shared = False

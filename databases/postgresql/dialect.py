"""PostgreSQL, of its parts."""

from __future__ import annotations

from .buckets import PostgresqlBuckets
from .checks import PostgresqlChecks
from .columns import PostgresqlColumns
from .counts import PostgresqlCounts
from .errors import PostgresqlErrors
from .leases import PostgresqlLeases
from .listening import PostgresqlListening
from .tables import PostgresqlTables
from .transactions import PostgresqlTransactions


class Postgresql(
    PostgresqlBuckets,
    PostgresqlCounts,
    PostgresqlTransactions,
    PostgresqlListening,
    PostgresqlErrors,
    PostgresqlTables,
    PostgresqlColumns,
    PostgresqlChecks,
    PostgresqlLeases,
):
    """PostgreSQL."""

    name = "PostgreSQL"

"""PostgreSQL, of its parts."""

from __future__ import annotations

from typing import Any

from ..statement import Execute
from .buckets import PostgresqlBuckets
from .bulk import PostgresqlBulk
from .census import PostgresqlCensus
from .checks import PostgresqlChecks
from .columns import PostgresqlColumns
from .counts import PostgresqlCounts
from .errors import PostgresqlErrors
from .leases import PostgresqlLeases
from .listening import PostgresqlListening
from .tables import PostgresqlTables
from .transactions import PostgresqlTransactions

# The server by the time of its start, the schema by the table: another search_path has another one, or none.
PLACE = """
SELECT 'database ' || current_database() || coalesce(', schema ' || current_schema(), ''),
  current_database()::text, pg_postmaster_start_time()::text, to_regclass('flagsweep_flag')::oid::bigint
"""
HOME = """
SELECT quote_ident(nspname) || '.flagsweep_flag' FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass('flagsweep_flag')
"""


class Postgresql(
    PostgresqlBuckets,
    PostgresqlBulk,
    PostgresqlCounts,
    PostgresqlTransactions,
    PostgresqlListening,
    PostgresqlErrors,
    PostgresqlTables,
    PostgresqlColumns,
    PostgresqlCensus,
    PostgresqlChecks,
    PostgresqlLeases,
):
    """PostgreSQL."""

    name = "PostgreSQL"

    def place_of(self, execute: Execute) -> tuple[Any, ...]:
        return tuple(execute(PLACE, ()).fetchall()[0])

    def is_same_place(self, theirs: tuple[Any, ...], ours: tuple[Any, ...]) -> bool:
        """A search_path without our table is no hindrance: a raise names the schema."""
        return theirs[1:3] == ours[1:3] and theirs[3] in (None, ours[3])

    def home_of(self, execute: Execute) -> str:
        return str(execute(HOME, ()).fetchall()[0][0])

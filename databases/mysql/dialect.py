"""MySQL and MariaDB, of their parts."""

from __future__ import annotations

from typing import Any

from ..statement import Execute
from .buckets import MysqlBuckets
from .bulk import MysqlBulk
from .census import MysqlCensus
from .checks import MysqlChecks
from .columns import MysqlColumns
from .counts import MysqlCounts
from .errors import MysqlErrors
from .gates import MysqlGates
from .leases import MysqlLeases
from .tables import MysqlTables
from .transactions import MysqlTransactions


class Mysql(
    MysqlBuckets,
    MysqlBulk,
    MysqlCounts,
    MysqlGates,
    MysqlTransactions,
    MysqlErrors,
    MysqlTables,
    MysqlColumns,
    MysqlCensus,
    MysqlChecks,
    MysqlLeases,
):
    """MySQL and MariaDB."""

    name = "MySQL"

    def place_of(self, execute: Execute) -> tuple[Any, ...]:
        return tuple(execute("SELECT concat('database ', database()), database(), @@hostname, @@port", ()).fetchall()[0])

    def home_of(self, execute: Execute) -> str:
        return f"`{execute('SELECT database()', ()).fetchall()[0][0].replace('`', '``')}`.flagsweep_flag"

    def __init__(self, notify: str = "off") -> None:
        super().__init__("off")  # Nobody can be told.

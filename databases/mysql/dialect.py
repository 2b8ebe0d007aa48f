"""MySQL and MariaDB, of their parts."""

from __future__ import annotations

from .buckets import MysqlBuckets
from .checks import MysqlChecks
from .columns import MysqlColumns
from .counts import MysqlCounts
from .errors import MysqlErrors
from .gates import MysqlGates
from .leases import MysqlLeases
from .tables import MysqlTables
from .transactions import MysqlTransactions


class Mysql(
    MysqlBuckets, MysqlCounts, MysqlGates, MysqlTransactions, MysqlErrors, MysqlTables, MysqlColumns, MysqlChecks, MysqlLeases
):
    """MySQL and MariaDB."""

    name = "MySQL"

    def __init__(self, notify: str = "off") -> None:
        super().__init__("off")  # Nobody can be told.

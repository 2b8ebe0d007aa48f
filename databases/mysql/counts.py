"""MySQL and MariaDB: counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from peewee import Database

from ..counts import COLUMNS, adding
from ..server import Server

COUNT = f"""
INSERT INTO flagsweep_count ({", ".join(COLUMNS)}) VALUES ({", ".join(["%s"] * len(COLUMNS))})
ON DUPLICATE KEY UPDATE {adding("", "VALUES({})".format, "greatest")}
"""


class MysqlCounts(Server):
    """Count; a kind is bytes."""

    counting = COUNT

    def count(self, db: Database, rows: Iterable[Sequence[Any]]) -> None:
        super().count(db, [(kind.encode(), *rest) for kind, *rest in rows])

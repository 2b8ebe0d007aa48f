"""MySQL and MariaDB: gates that somebody else is just making."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewee import Database

from ..server import Server

NOBODYS = "SELECT 1 FROM flagsweep_gate WHERE sort = 'kind' AND name = ? AND bucket = ? FOR UPDATE NOWAIT"


class MysqlGates(Server):
    """Lock what is there for writing at once, and ask before who is to insert would wait."""

    # Not INSERT IGNORE: that locks for reading what is there, and two that have done so wait for each other to write it.
    making = "INSERT INTO flagsweep_gate (sort, name, bucket) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE bucket = bucket"
    noting = """
INSERT INTO flagsweep_fact (name, value, at) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value), at = VALUES(at)
"""

    # What it died of has its index, and only the dead have died: no index of theirs begins with the state.
    dead, outer, inner = "", "died_as", "kind"

    def insert_gate(self, db: Database, which: Sequence[Any]) -> None:
        db.execute_sql(self.own(NOBODYS), which).fetchall()  # An INSERT would wait for a second at least; this fails at once.
        super().insert_gate(db, which)

"""PostgreSQL: who tells of a flag, and who listens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from peewee import Database

from ..server import Server

CHANNEL = "flagsweep"
"""Where commits that made flags due are told."""


class PostgresqlListening(Server):
    """Have the server tell of commits."""

    @property
    def notifies(self) -> bool:
        return self.notify != "off"

    def listener(self, session: Callable[[], Database] | None) -> Callable[[], Database] | None:
        return None if self.notify == "off" or session is None else partial(_listen, session)


def _listen(session: Callable[[], Database]) -> Database:
    db = session()
    db.connect()
    db.execute_sql(f"LISTEN {CHANNEL}")
    return db

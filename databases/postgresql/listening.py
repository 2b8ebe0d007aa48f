"""PostgreSQL: who tells of a flag, and who listens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from peewee import Database

from ..server import Server

CHANNEL = "flagsweep"
"""Where commits that made flags due are told."""
RESULTS = "flagsweep_result"
"""Where commits are told that settled flags whose results are kept."""


class PostgresqlListening(Server):
    """Have the server tell of commits."""

    @property
    def notifies(self) -> bool:
        return self.notify != "off"

    def listener(self, session: Callable[[], Database] | None) -> Callable[[], Database] | None:
        return None if self.notify == "off" or session is None else partial(_listen, session, CHANNEL)

    def result_listener(self, session: Callable[[], Database] | None) -> Callable[[], Database] | None:
        return None if self.notify == "off" or session is None else partial(_listen, session, RESULTS)


def _listen(session: Callable[[], Database], channel: str) -> Database:
    db = session()
    db.connect()
    db.execute_sql(f"LISTEN {channel}")
    return db

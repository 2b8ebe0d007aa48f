"""PostgreSQL, MySQL and MariaDB: what status and doctor ask, as far as they have it in common."""

from __future__ import annotations

from peewee import Database

from ..flags import Damaged
from .flags import parsed
from .native import Native
from .sessions import Open, Room, Trouble

LATEST_RAISE = "SELECT max(raised_at) FROM (SELECT raised_at FROM flagsweep_flag ORDER BY id DESC LIMIT ?) AS newest"
NEWEST = "SELECT id, payload FROM flagsweep_flag WHERE state <> 'dead' ORDER BY id DESC LIMIT ?"


class ServerChecks(Native):
    """Answer what people ask."""

    def server_version(self, db: Database) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        """Return the server's name, its version, and the oldest that will do."""
        raise NotImplementedError

    def weak_commits(self, db: Database) -> str | None:
        """Return the setting by which a power cut may take back what was committed, or None."""
        raise NotImplementedError

    def open_transactions(self, db: Database, seconds: int) -> tuple[list[Open], str]:
        """Return the transactions of others that have been open on this database for so long, the oldest first.

        :return: with a sentence of what this user may not see and the statement that lets it; empty: it sees all.
        """
        raise NotImplementedError

    def room(self, db: Database) -> Room:
        """Return how many connections there may be, and are."""
        raise NotImplementedError

    def time(self, db: Database) -> int:
        """Return what the server's clock says, in microseconds UTC."""
        raise NotImplementedError

    def copies(self, db: Database) -> list[Trouble]:
        """Return what is wrong with the server's being a copy of another, or with copies of it."""
        raise NotImplementedError

    def latest_raise(self, db: Database, last: int) -> int | None:
        return db.execute_sql(self.sql[LATEST_RAISE], (last,)).fetchone()[0]

    def damaged(self, db: Database, last: int) -> list[int]:
        newest = db.execute_sql(self.sql[NEWEST], (last,)).fetchall()
        return sorted(id for id, payload in newest if isinstance(parsed(payload), Damaged))

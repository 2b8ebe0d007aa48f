"""Leases on a server: locks with names, which belong to a session."""

from __future__ import annotations

from peewee import Database

from .native import Native


class Leases(Native):
    """Take and give back locks for the session of ``db``."""

    def unfit_session(self, db: Database) -> str | None:
        """Return why a session cannot hold a lease, or None."""
        raise NotImplementedError

    def ping(self, db: Database) -> None:
        """Have the server answer.

        :raises DatabaseError: where the session is gone.
        """
        raise NotImplementedError

    def uptime(self, db: Database) -> float:
        """Return for how many seconds the server runs."""
        raise NotImplementedError

    def try_lock(self, db: Database, name: str) -> bool:
        """Take a lock for this session, without waiting; return whether it is ours."""
        raise NotImplementedError

    def unlock(self, db: Database, name: str) -> None:
        """Give a lock back."""
        raise NotImplementedError

    def is_locked(self, db: Database, name: str) -> bool:
        """Return whether any session has a lock."""
        raise NotImplementedError

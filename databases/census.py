"""How much is up: what status, kinds, doctor and the list of the dead count."""

from __future__ import annotations

from typing import Any

from peewee import Database

MOST = 20_000
"""Flags that are counted where not all can be within the time that there is; shared by all kinds and states."""


class Census:
    """Count what is up, and name the kinds of it."""

    def counts(self, db: Database, now: int, patience: float | None = None) -> tuple[list[Any], bool]:
        """Return (kind, state, how many, how many due, earliest due time) for what is up, and whether all was counted.

        :param patience: seconds after which a server is to give up; then there are at least so many. None: it takes its time.
        """
        raise NotImplementedError

    def due_counts(self, db: Database, now: int, patience: float | None = None) -> tuple[list[Any], bool]:
        """Return (kind, how many due, earliest due time) of what waits, and whether all was counted, as ``counts`` does."""
        rows, exact = self.counts(db, now, patience)
        return [(kind, due, earliest) for kind, state, _, due, earliest in rows if state == "waiting"], exact

    def kinds_in(self, db: Database, state: str) -> list[str]:
        """Return the kinds of which flags are in a state, without reading those that wait or are dead."""
        raise NotImplementedError

"""Small durable notes: writing one."""

from __future__ import annotations

from peewee import Database

from .gates import Gates


class Facts(Gates):
    """Write notes. ``models.py`` reads them."""

    noting = """
INSERT INTO flagsweep_fact (name, value, at) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at
"""
    """Writes a note, whether there is one of its name or not."""

    def note_fact(self, db: Database, name: str, value: str, now: int) -> None:
        """Keep a note instead of the one of its name.

        :param now: microseconds UTC.
        """
        db.execute_sql(self.own(self.noting), (self.encoded_name(name), value, now))

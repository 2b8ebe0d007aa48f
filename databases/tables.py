"""Our tables: the statements that make them and bring them up to date. ``schema.py`` says which are due, and when."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from peewee import Database

from .errors import DATABASE_ERRORS, Errors


class Tables(Errors):
    """Make our tables."""

    steps: Sequence[Sequence[str]] = ()
    """The statements of each step from one version of the tables to the next. A step that was released is never changed."""
    changed: Collection[Any] = ()
    """Codes of errors which say that a statement was made before, by an ``init`` that was killed, where nothing undid it."""
    opening: Sequence[str] = ("BEGIN",)
    """What a script that makes the tables begins with."""
    closing: Sequence[str] = ("COMMIT",)
    """What it ends with."""
    microseconds = ""
    """The time, as a script writes it."""
    patience = 60
    """Seconds that ``init`` waits for another one."""

    def prepare(self, db: Database) -> None:
        """Do what comes before the tables, outside a transaction."""

    @contextmanager
    def migrating(self, db: Database) -> Iterator[None]:
        """Within a transaction that writes: be the only one that changes the tables, until it ends."""
        yield

    def change(self, db: Database, statement: str) -> None:
        """Execute one statement of a step."""
        try:
            db.execute_sql(statement)
        except DATABASE_ERRORS as error:
            if not any(code in self.changed for code in self.codes(error)):
                raise

    def adjust(self, db: Database) -> None:
        """Make what a setting asks of the tables, and remove what it does not ask for any more."""

    def misfit(self, db: Database) -> str:
        """Return what ``adjust`` would change, or nothing."""
        return ""

    def adjustments(self) -> Sequence[str]:
        """Return the statements of ``adjust`` for new tables."""
        return ()

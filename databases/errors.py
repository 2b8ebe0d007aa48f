"""What a database's errors mean: not set up, away for a while, somebody else in the way, or none of these."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import peewee

from ..errors import DatabaseAway, NotReady

_DRIVERS = (sqlite3, *(getattr(peewee, name, None) for name in ("psycopg", "psycopg2", "mysql")))

DATABASE_ERRORS: tuple[type[Exception], ...] = (
    peewee.PeeweeException,
    *(driver.Error for driver in _DRIVERS if driver is not None),
)
"""What a database may raise: Peewee translates the driver's errors when it executes, not when rows are fetched."""

OURS = "flagsweep_"
"""What the names of our tables begin with: names are not translated."""

CONNECTION = "connection"
"""The code of an error that comes from the connection, and has no other."""


class RolledBack(peewee.OperationalError):
    """A transaction ended before its COMMIT, which the server answered without an error: nothing of it took place."""


def driver_error(error: BaseException) -> BaseException:
    """Return the error as the driver raised it, from within Peewee's, which may wrap it twice."""
    while isinstance(error, peewee.PeeweeException) and hasattr(error, "orig"):
        error = error.orig
    return error


def init_elsewhere() -> DatabaseAway:
    """Return the error of an ``init`` that has waited for another one for too long."""
    return DatabaseAway("another 'flagsweep init' is changing the tables: wait until it is done, and do it again")


class Errors:
    """Say what an error means, by its code and never by its text."""

    missing: Mapping[Any, str] = {}
    """What to do by an error's code, where the database is not set up."""
    passing: Mapping[Any, str] = {}
    """The same, where the database is away for a while, as a whole."""
    busy: Collection[Any] = ()
    """Codes of a wait for somebody else's transaction that took too long."""
    masks: Collection[Any] = ()
    """Codes of errors that say no more than that a transaction had ended before."""
    unconnected: Mapping[str, str] = {}
    """What to do by a sign in the text of an error that has no code: a server writes it in its own language, so it is a hint."""

    def codes(self, error: BaseException) -> Sequence[Any]:
        """Return what an error is by the numbers of the driver, the most telling first: a text may be in any language."""
        raise NotImplementedError

    def is_missing(self, error: BaseException) -> bool:
        """Return whether an error says that the database is not set up: it takes a person to go on."""
        return any(code in self.missing for code in self.codes(error)) or self._connection_hint(error) is not None

    def is_away(self, error: BaseException) -> bool:
        """Return whether an error has to do with the database as a whole, not with one flag, row or table of the site's."""
        if isinstance(error, (NotReady, DatabaseAway)):
            return True
        return any(code in self.passing or code in self.missing for code in self.codes(error))

    def is_busy(self, error: BaseException) -> bool:
        """Return whether an error says that somebody else's transaction was in the way: the same may go well right after."""
        return any(code in self.busy for code in self.codes(error))

    def unmasked(self, error: Exception) -> Exception:
        """Return what ended a transaction, a deadlock perhaps, of the error by which leaving its savepoint then failed."""
        before: BaseException | None = error
        while before is not None and any(code in self.masks for code in self.codes(before)):
            before = before.__context__
        return before if isinstance(before, DATABASE_ERRORS) else error

    def hint(self, error: BaseException) -> str | None:
        """Return what to do about an error, or None where that is not known."""
        hints = {**self.missing, **self.passing}
        return self._connection_hint(error) or next((hints[code] for code in self.codes(error) if code in hints), None)

    def _connection_hint(self, error: BaseException) -> str | None:
        if self.unconnected and CONNECTION in self.codes(error):
            return next((hint for sign, hint in self.unconnected.items() if sign in str(error)), None)
        return None

"""Raising over the site's own connection, whichever data layer it is of: in the transaction that it has open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any

from ..databases import schema
from ..databases.connections import Connections
from ..databases.dialect import Dialect
from ..databases.marks import TABLE, marked
from ..databases.raising import Terms
from ..errors import ConfigError
from ..models import Raised
from ..payloads import Item
from .connection import SiteConnection
from .layers import awaited, connection_of, set_aside

MOST = 1024
"""Connections that are known to be right; a site that makes ever new engines has each checked again."""


class Over:
    """Give the verbs of a raise over any connection of the site's.

    :param connections: those of the database that the consumer sweeps.
    :param usual: what raises go over that say nothing of it; None: the site's Peewee database.
    """

    def __init__(self, connections: Connections, usual: Any = None):
        self.usual = usual
        self.within: Callable[[], AbstractContextManager[Any]] = nullcontext
        """What the site's layer is asked within, where no handler runs."""
        self._connections = connections
        self._dialect = connections.dialect
        self._ours: tuple[Any, ...] | None = None
        self._home = TABLE
        self._right: set[Hashable] = set()

    def verbs(self, given: Any) -> VerbsOver:
        """Return the verbs over a connection, an alias, or what a function returns.

        :raises ConfigError: where it is no connection, or one to another database.
        :raises NotReady: where the tables are missing, or do not fit.
        """
        return self._verbs(connection_of(given))

    async def awaited(self, given: Any, do: Callable[[VerbsOver], Any]) -> Any:
        """Do something with these verbs where the connection's layer has to be waited for."""
        return await awaited(given, lambda connection: do(self._verbs(connection)))

    def set_aside(self) -> AbstractContextManager[None]:
        """Have what raises usually go over hold no session of this thread's meanwhile."""
        return set_aside(self.usual)

    def _verbs(self, connection: SiteConnection) -> VerbsOver:
        known = connection.known_by()
        if known is None or known not in self._right:
            with connection.lent():
                self._check(connection)
            if known is not None:
                self._right = {known} if len(self._right) >= MOST else self._right | {known}
        return VerbsOver(connection, self._dialect, self._home)

    def _check(self, connection: SiteConnection) -> None:
        """Refuse another database than the one that is swept: a flag raised there nobody would ever see."""
        if connection.dialect != self._dialect.name:
            raise self._elsewhere(connection, connection.dialect)
        found = self._dialect.place_of(partial(_execute, connection, self._dialect.mark, TABLE))
        if self._ours is not None and self._dialect.is_same_place(found, self._ours):
            return
        self._ours = self._asked()  # For the first time, or again: a file may have taken the place of another.
        if not self._dialect.is_same_place(found, self._ours):
            raise self._elsewhere(connection, found[0])

    def _asked(self) -> tuple[Any, ...]:
        """Return what tells our database from others, and refuse tables that do not fit."""
        engine = self._connections.engine
        mine = engine.is_closed()
        with self._connections.explained("the flag was not raised"):
            try:
                self._connections.check_file()
                schema.require(self._connections)
                self._home = self._dialect.home_of(engine.execute_sql)
                return self._dialect.place_of(engine.execute_sql)
            finally:
                if mine:
                    self._connections.close_engine()

    def _elsewhere(self, connection: SiteConnection, theirs: Any) -> ConfigError:
        return ConfigError(
            f"the flag was not raised: {connection.name} goes to {theirs}, and {self._connections.where} is what the consumer "
            "sweeps: raise it over a connection to that one, or give FlagSweep the database of this one"
        )


def _execute(connection: SiteConnection, mark: str, table: str, sql: str, parameters: Any) -> Any:
    return connection.execute(marked(sql, mark, connection.mark, table), parameters)


class VerbsOver:
    """Raise over one connection of the site's.

    :param commits: tells of the commit that the raise is a part of.
    """

    def __init__(self, connection: SiteConnection, dialect: Dialect, table: str):
        self.commits = connection
        self.dialect = dialect
        self._execute = partial(_execute, connection, dialect.mark, table)

    def raise_(self, kind: str, item: Item, terms: Terms) -> Raised:
        """Put a flag up. Errors of the connection are its layer's own, with a note of what was not done."""
        with _NO_FLAG, self.commits.lent():
            raised = Raised(*self.dialect.raise_over(self._execute, kind, item, terms))
            raised.is_pending = self.commits.pending()
        return raised

    def raise_many(self, kind: str, chunks: Sequence[str], terms: Terms) -> Counter[str]:
        """Put many flags up; outside a transaction each chunk commits by itself, as the connection does."""
        counts: Counter[str] = Counter()
        with _NOT_ALL, self.commits.lent():
            for chunk in chunks:
                counts.update(self.dialect.raise_many_over(self._execute, kind, chunk, terms))
        return counts


class _Noted:
    """Add to an error what was not done. A class, and no generator: every raise comes by here."""

    __slots__ = ("_what",)

    def __init__(self, what: str):
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            error.add_note(f"flagsweep: {self._what}")


_NO_FLAG = _Noted("the flag was not raised")
_NOT_ALL = _Noted("not all flags were raised")

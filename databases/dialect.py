"""What the databases do in different ways, one module each: every statement about a flag, and what their errors mean.

``Store`` has the verbs and says when they happen; a dialect has the text. Nothing outside this folder asks which database it is:
it asks for what a dialect can do.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import peewee
from peewee import Database, Entity, Field, Model, Node, Select, fn

from ..errors import DatabaseAway, NotReady

Row = Sequence[Any]
"""A claimed flag: due_at, id, key, payload (parsed), attempts, suspect, cursor (parsed)."""


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


def statements(text: str) -> tuple[str, ...]:
    """Return the statements of a text; each ends with a semicolon at the end of a line."""
    return tuple(each.strip().removesuffix(";") for each in text.split(";\n") if each.strip())


def news(kind: str, priority: int) -> str:
    """Return what a server tells who listens of a flag that is due."""
    return f"{priority} {kind}"


def read_news(text: str) -> tuple[int, str] | None:
    """Return priority and kind of what a server told, or None where it says nothing, or anybody else wrote it."""
    priority, _, kind = text.partition(" ")
    with suppress(ValueError):
        return (int(priority), kind) if len(priority) <= 4 and kind else None
    return None


def init_elsewhere() -> DatabaseAway:
    """Return the error of an ``init`` that has waited for another one for too long."""
    return DatabaseAway("another 'flagsweep init' is changing the tables: wait until it is done, and do it again")


class Damaged(str):
    """Stand in for a payload that cannot be read, saying why."""


class Dialect:
    """Do what differs between databases. ``db`` is the connection to do it on: the site's or ours."""

    name = ""
    one_writer = False
    """Whether one transaction at a time may write in the whole database, so that a sweep leaves the site a share."""
    shared = True
    """Whether consumers on several hosts can reach it; their leases are then held by database sessions."""
    begin: tuple[Any, ...] = ()
    """What ``Database.atomic`` takes for a transaction that writes."""
    notify = "off"
    """Who tells of a flag, as the setting says."""
    text_type = "TEXT"
    """What a primary key is cast to for the key of its flag."""

    # Connections and transactions.

    def transaction(self, db: Database, only_claims: bool) -> AbstractContextManager[None]:
        """Hold a write transaction of our own connection.

        :param only_claims: nothing but claims is written.
        """
        raise NotImplementedError

    def is_stale(self, connection: Any) -> bool:
        """Return whether a driver's connection must not be used any more, since a server has ended it."""
        return False

    def refresh(self, db: Database) -> None:
        """Outside a transaction: replace the open connection where a server has ended it while it was idle."""

    def in_transaction(self, db: Database) -> bool:
        """Return whether the driver has a transaction open, whatever Peewee believes."""
        raise NotImplementedError

    def lenient(self, db: Database) -> AbstractContextManager[None]:
        """Read text that is damaged as something readable: one row damaged by hand must not hide the others."""
        return nullcontext()

    @contextmanager
    def undoable(self, db: Database) -> Iterator[None]:
        """Within a transaction: where this part fails, undo it alone, unless the whole transaction has ended by itself."""
        db.execute_sql("SAVEPOINT flagsweep_part")
        try:
            yield
        except BaseException:
            if self.in_transaction(db):
                db.execute_sql("ROLLBACK TO SAVEPOINT flagsweep_part")
                db.execute_sql("RELEASE SAVEPOINT flagsweep_part")
            raise
        db.execute_sql("RELEASE SAVEPOINT flagsweep_part")

    def impatient(self, db: Database) -> AbstractContextManager[None]:
        """Within a transaction: wait for next to nothing for what somebody else is just writing."""
        return nullcontext()

    # Seeing commits.

    @property
    def notifies(self) -> bool:
        """Whether consumers hear of a raise at its commit."""
        return not self.shared

    def changes(self, db: Database) -> Any:
        """Return something that differs once another connection has committed; here where nobody can tell: always."""
        return object()

    def tells_writes(self, db: Database) -> bool:
        """Return whether the file system tells of every commit, as of a write to a log beside the database."""
        return False

    def logs(self, file: Path) -> Sequence[Path]:
        """Return the files beside a database's file in which commits stand that it has not got yet."""
        return ()

    def lost_before(self, logs: Sequence[Path]) -> str | None:
        """Return why this process may not use a database any more, or None: it still has a log open that was deleted."""
        return None

    def keep_open(self, db: Database) -> None:
        """Take the calling thread's connection away, and never close it: that would write its log into the database."""

    def listener(self, session: Callable[[], Database] | None) -> Callable[[], Database] | None:
        """Return what opens a session that hears of commits, or None where none is told."""
        return None

    # What errors mean.

    missing: Mapping[Any, str] = {}
    """What to do by an error's code, where the database is not set up."""
    passing: Mapping[Any, str] = {}
    """The same, where the database is away for a while, as a whole."""
    busy: Collection[Any] = ()
    """Codes of a wait for somebody else's transaction that took too long."""
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

    def hint(self, error: BaseException) -> str | None:
        """Return what to do about an error, or None where that is not known."""
        hints = {**self.missing, **self.passing}
        return self._connection_hint(error) or next((hints[code] for code in self.codes(error) if code in hints), None)

    def _connection_hint(self, error: BaseException) -> str | None:
        if self.unconnected and CONNECTION in self.codes(error):
            return next((hint for sign, hint in self.unconnected.items() if sign in str(error)), None)
        return None

    # The tables.

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

    # The site's verbs.

    def raise_(self, db: Database, kind: str, key: str, payload: str, priority: int, due_at: int, now: int) -> tuple[int, str]:
        """Put a flag up; return its id and what that did."""
        raise NotImplementedError

    def raise_many(self, db: Database, kind: str, chunk: str, priority: int, due_at: int, now: int) -> Counter[str]:
        """Put the flags of one chunk up: a JSON array whose items are a payload that is its own key, or ``[key, payload]``."""
        raise NotImplementedError

    def counts(self, db: Database, now: int) -> list[Any]:
        """Return (kind, state, how many, how many due, earliest due time) for what is up."""
        raise NotImplementedError

    def retry(self, db: Database, ids: Sequence[int], now: int) -> int:
        """Let those of these flags wait from scratch that are dead or back off; return how many."""
        raise NotImplementedError

    def drop_dead(self, db: Database, ids: Sequence[int], reason: str, now: int) -> int:
        """Drop those of these flags that are dead, with a line of history for each; return how many."""
        raise NotImplementedError

    # The verbs of a sweep.

    def agenda(self, db: Database, kinds: str) -> list[tuple[str, int, Any]]:
        """Return (kind, priority, earliest due time) for kinds given as a JSON array."""
        raise NotImplementedError

    def waiting_kinds(self, db: Database) -> list[str]:
        """Return the kinds of which flags wait, without reading the flags."""
        raise NotImplementedError

    def claim(self, db: Database, kind: str, priority: int, limit: int, consumer: int, token: int, now: int) -> list[Row]:
        """Claim due flags, the longest due first."""
        raise NotImplementedError

    def held(self, db: Database, ids: Sequence[int]) -> set[int]:
        """Lock these flags for the open transaction; return those that somebody else's transaction holds just now."""
        return set()

    def free(self, db: Database, ids: Sequence[int]) -> Sequence[int]:
        """Lock these flags for the open transaction; return those that are there and that nobody else holds."""
        return ids

    def lower(self, db: Database, ids: Sequence[int], token: int) -> int:
        """Delete the claimed flags that were not raised meanwhile; return how many."""
        raise NotImplementedError

    def lower_bumped(self, db: Database, ids: Sequence[int], token: int) -> int:
        """Let the claimed flags wait that were raised meanwhile; return how many."""
        raise NotImplementedError

    def settle_one(self, db: Database, named: dict[str, Any]) -> str | None:
        """Let one claimed flag wait again or die; return its new state, or None where the claim was lost."""
        raise NotImplementedError

    def release(self, db: Database, ids: Sequence[int], token: int, now: int) -> int:
        """Give claimed flags back; return how many."""
        raise NotImplementedError

    def claimed_ids(self, db: Database, consumer: int) -> list[int]:
        """Return the ids of the flags that a consumer has claimed."""
        raise NotImplementedError

    def claimers(self, db: Database) -> list[int]:
        """Return the ids of those who have claimed flags."""
        raise NotImplementedError

    def claims_of(self, db: Database, consumer: int) -> list[tuple[str, int]]:
        """Return kind and token of each claim that a consumer has."""
        raise NotImplementedError

    def progress(self, db: Database, id: int, token: int, cursor: str) -> bool:
        """Keep how far a handler has come; return False where the claim was lost."""
        raise NotImplementedError

    def discover(self, db: Database, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> int:
        """Turn (key, payload) pairs into flags where there are none; return how many."""
        raise NotImplementedError

    # Columns of the site's.

    def stored(self, field: Field) -> Node:
        """Return a column as it is stored, such that what is read of it equals it again: no value may be rounded on the way."""
        return Entity(field.column_name)

    def hex(self, node: Node) -> Node:
        """Return bytes as hexadecimal digits, in lower case."""
        return fn.LOWER(fn.HEX(node)).coerce(False)

    # What doctor asks.

    def trim_log(self, db: Database) -> int:
        """Shorten the log that the database keeps beside itself, waiting for nobody; return its bytes, 0 where it has none."""
        return 0

    def latest_raise(self, db: Database, last: int) -> int | None:
        """Return the latest raise time among the ``last`` newest flags."""
        raise NotImplementedError

    def damaged(self, db: Database, last: int) -> list[int]:
        """Return the ids of damaged rows among the ``last`` newest flags that are not dead."""
        raise NotImplementedError

    def reads_all(self, db: Database, query: Select) -> bool:
        """Return whether a query would read a whole table for want of an index."""
        raise NotImplementedError

    def index_for(self, db: Database, model: type[Model], condition: Node, fields: Sequence[Field]) -> str:
        """Return the statement that makes an index for a condition of the site's own."""
        meta = model._meta
        name = "_".join([meta.table_name, "owed", *(field.column_name for field in fields)])
        return db.get_sql_context().sql(model.index(*fields, name=name)).query()[0].replace(" IF NOT EXISTS", "")

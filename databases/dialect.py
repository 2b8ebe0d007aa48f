"""What the databases do in different ways, a folder each: every statement about a flag, and what their errors mean.

``Store`` has the verbs and says when they happen; a dialect has the text. Nothing outside this folder asks which database it is:
it asks for what a dialect can do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from peewee import Database

from .buckets import ByBucket
from .bulk import Bulk
from .census import Census
from .checks import Checks
from .columns import Columns
from .counts import Counts
from .deaths import Deaths
from .facts import Facts
from .flags import Flags
from .marks import TABLE
from .statement import Execute
from .tables import Tables


class _Parts(threading.local):
    """How many parts of a transaction the calling thread is in, one within the other."""

    depth = 0


class Dialect(Flags, ByBucket, Counts, Bulk, Facts, Deaths, Census, Checks, Columns, Tables):
    """Do what differs between databases. ``db`` is the connection to do it on: the site's or ours."""

    name = ""
    one_writer = False
    """Whether one transaction at a time may write in the whole database, so that a sweep leaves the site a share."""
    shared = True
    """Whether consumers on several hosts can reach it; their leases are then held by database sessions."""
    mark = "%s"
    """How our driver writes a parameter."""
    begin: tuple[Any, ...] = ()
    """What ``Database.atomic`` takes for a transaction that writes."""

    def __init__(self, notify: str = "off"):
        self.notify = notify
        """Who tells of a flag, as the setting says."""
        self._parts = _Parts()

    # Connections and transactions.

    def place_of(self, execute: Execute) -> tuple[Any, ...]:
        """Return what a connection's database is called by people, and what tells it from every other."""
        raise NotImplementedError

    def is_same_place(self, theirs: tuple[Any, ...], ours: tuple[Any, ...]) -> bool:
        """Return whether two such answers are of one database."""
        return theirs[1:] == ours[1:]

    def home_of(self, execute: Execute) -> str:
        """Return the flags' table with what tells it from one of the same name that a connection may come to look at."""
        return TABLE

    def transaction(self, db: Database, only_claims: bool, together: bool = True) -> AbstractContextManager[None]:
        """Hold a write transaction of our own connection.

        :param only_claims: nothing but claims is written, and what they take of gates.
        :param together: what is written takes effect together; else each statement may commit by itself.
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
        """Within a transaction: where this part fails, undo it alone, unless the whole transaction has ended by itself.

        A part within a part has another name: MySQL forgets a savepoint when it gets a second one of the same name.
        """
        name = f"flagsweep_part_{self._parts.depth}"
        db.execute_sql(f"SAVEPOINT {name}")
        self._parts.depth += 1
        try:
            yield
        except BaseException:
            if self.in_transaction(db):
                db.execute_sql(f"ROLLBACK TO SAVEPOINT {name}")
                db.execute_sql(f"RELEASE SAVEPOINT {name}")
            raise
        finally:
            self._parts.depth -= 1
        db.execute_sql(f"RELEASE SAVEPOINT {name}")

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

    def result_listener(self, session: Callable[[], Database] | None) -> Callable[[], Database] | None:
        """Return what opens a session that hears of settled flags whose results are kept, or None where none is told."""
        return None

    def trim_log(self, db: Database) -> int:
        """Shorten the log that the database keeps beside itself, waiting for nobody; return its bytes, 0 where it has none."""
        return 0

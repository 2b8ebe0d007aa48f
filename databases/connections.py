"""The connections to one database: the site's own, and ours beside it. They know nothing of flags."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from peewee import Database

from ..errors import DatabaseAway, FlagSweepError, NotReady
from .dialect import Dialect
from .errors import DATABASE_ERRORS
from .identity import OpenFiles
from .spare import Spare


class Connections:
    """Hold the connections to one database: the site's, and our own.

    :param site: the site's database: raises, and what people ask for, go through it and join its transactions.
    :param engine: our own connections to the same database, for claiming and settling; the same object for ``:memory:``.
    :param where: what people know the database by, without a password.
    :param file: the file it is, if it is one.
    :param session: makes a database object with one connection of its own, where it is a server.

    ``name`` is what the site's object called its database when this was made.
    """

    def __init__(
        self,
        site: Database,
        engine: Database,
        dialect: Dialect,
        where: str,
        file: Path | None = None,
        session: Callable[[], Database] | None = None,
    ):
        self.site = site
        self.engine = engine
        self.dialect = dialect
        self.where = where
        self.file = file
        self.session = session
        self.spare = Spare.of(site, dialect.is_stale)
        self.name = site.database
        self.writing = threading.RLock()
        self.files = OpenFiles(where, file, dialect)

    @property
    def in_memory(self) -> bool:
        """Whether no other process, and no other thread, can see this database."""
        return self.engine is self.site

    def is_site_in_transaction(self) -> bool:
        """Return whether the site has a transaction open in this thread, by Peewee's word or the driver's."""
        return self.site.in_transaction() or (not self.site.is_closed() and self.dialect.in_transaction(self.site))

    def attached(self) -> tuple[str, ...]:
        """Return the names of the SQLite databases that the site has attached; connections of ours do when they open."""
        return tuple(getattr(self.site, "_attached", ()))

    def forget_consumers(self) -> None:
        """In a forked child: know of no consumer of the parent's, and of no thread of its that writes."""
        self.writing = threading.RLock()
        self.files.forget()

    def lent(self, failed: str) -> AbstractContextManager[Database]:
        """Lend the site's connection for a verb; say of an error of the database's what failed and what to do."""
        return _Lent(self, failed)

    def borrowed(self) -> AbstractContextManager[Database]:
        """Lend the site's connection: what found it open leaves it open, what opened it closes it."""
        return _Lent(self, None)

    def check_file(self) -> None:
        """Refuse to open a database that is not there: the site's own Peewee object would make an empty file unnoticed."""
        if self.file is not None and not self.file.exists():
            raise NotReady(
                f"there is no database {self.where}: run 'flagsweep init' (or call flags.init()) once, or mend the path"
            )

    def close_thread(self) -> None:
        """Close the calling thread's connections, unless one database serves all."""
        for db in () if self.in_memory else (self.site, self.engine):
            if not db.is_closed():
                db.close()

    def create_file(self) -> None:
        """Make the database's file where there is none. Nothing but ``init`` does."""
        if self.file is None:
            return
        try:
            open(self.file, "ab").close() if not self.file.exists() else None
        except OSError as error:
            raise NotReady(
                f"{self.where} cannot be created: {error.strerror}; check the path and the rights of its folder"
            ) from error

    @contextmanager
    def explained(self, failed: str) -> Iterator[None]:
        """Turn a database's error into one that says what failed and what to do."""
        try:
            yield
        except DATABASE_ERRORS as error:
            raise explain(error, failed, self.where, self.dialect) from error

    @contextmanager
    def write(self, only_claims: bool = False, together: bool = True) -> Iterator[Database]:
        """Hold one write transaction of the engine.

        :param only_claims: nothing but claims is written, and what they take of gates.
        :param together: claims take effect together, as all else does; without it each may commit by itself.
        :raises DatabaseAway: where a file was moved away or deleted since a consumer was entered.
        """
        transaction = self.dialect.transaction(self.engine, only_claims, together or not only_claims)
        with self.writing if self.dialect.one_writer else nullcontext(), transaction:
            self.files.check()
            yield self.engine

    def writing_on(self, db: Database) -> AbstractContextManager[Any]:
        """Hold a write transaction on one of our databases, or join the caller's on the site's."""
        return self.write() if db is self.engine and not self.in_memory else db.atomic(*self.dialect.begin)

    def undoable(self) -> AbstractContextManager[None]:
        """Within a ``write``: where this part fails, undo it alone, unless the whole transaction has ended by itself."""
        return self.dialect.undoable(self.engine)

    def close_engine(self) -> None:
        """Close the calling thread's connection of ours; but never write a log back that is no longer the database's.

        The thread that has entered a consumer keeps its own until that has left: with the last one SQLite deletes the log.
        """
        if self.in_memory or self.engine.is_closed():
            return
        if self.files.is_log_lost():
            self.dialect.keep_open(self.engine)
        elif not self.files.has_this_thread_opened():
            self.engine.close()


class _Lent:
    """Lend the site's connection. A class, and no generator: every raise comes by here.

    :param failed: what an error of the database's says has failed; None leaves the error as it is.
    """

    __slots__ = ("_connections", "_failed", "_opened")

    def __init__(self, connections: Connections, failed: str | None):
        self._connections = connections
        self._failed = failed
        self._opened = False

    def __enter__(self) -> Database:
        connections, site = self._connections, self._connections.site
        try:
            if site.is_closed():
                connections.check_file()
                site.connect()
                self._opened = True
            connections.dialect.refresh(site)  # A pool may have kept one that the server has ended.
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return site

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        connections = self._connections
        try:
            if self._opened:
                try:
                    if error is not None:
                        connections.spare.let_go()
                finally:
                    connections.spare.put_away()  # It may be closed: a leaked transaction has its connection closed early.
        except DATABASE_ERRORS as closing:
            self._explain(closing)
            raise
        self._explain(error)

    def _explain(self, error: BaseException | None) -> None:
        if isinstance(error, DATABASE_ERRORS) and self._failed is not None:
            raise explain(error, self._failed, self._connections.where, self._connections.dialect) from error


def explain(error: Exception, failed: str, where: str, dialect: Dialect) -> FlagSweepError:
    """Turn a database's error into one that says what failed, where, and what to do."""
    error = dialect.unmasked(error)
    kind = NotReady if dialect.is_missing(error) else DatabaseAway
    fix = dialect.hint(error) or "'flagsweep doctor' looks further"
    return kind(f"{failed}: {where}: {' '.join(str(error).split())}; {fix}")

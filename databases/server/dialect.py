"""What PostgreSQL, MySQL and MariaDB have in common, of its parts: many writers, row locks, connections that get lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from peewee import Database

from .. import alive
from ..errors import DATABASE_ERRORS
from .census import ServerCensus
from .checks import ServerChecks
from .flags import ServerFlags
from .gates import ServerGates
from .leases import Leases


class Server(ServerFlags, ServerGates, ServerCensus, ServerChecks, Leases):
    """A database server."""

    def transaction(self, db: Database, only_claims: bool, together: bool = True) -> AbstractContextManager[None]:
        """A claim waits for the disk, too: a server that crashes would forget it while this process lives, and have its flag
        run a second time beside the first."""
        return self._transaction(db)

    @contextmanager
    def _transaction(self, db: Database) -> Iterator[None]:
        db.execute_sql("BEGIN")
        try:
            yield
            self.commit(db)
        except BaseException:
            self.roll_back(db)
            raise

    def is_stale(self, connection: Any) -> bool:
        return alive.is_stale(connection)

    def refresh(self, db: Database) -> None:
        alive.refresh(db)

    def commit(self, db: Database) -> None:
        """Commit the open transaction.

        :raises RolledBack: where it had ended before: an error that somebody swallowed has undone it.
        """
        raise NotImplementedError

    def roll_back(self, db: Database) -> None:
        """Undo the open transaction; where that fails, too, the connection is of no use any more."""
        try:
            db.execute_sql("ROLLBACK")
        except DATABASE_ERRORS:
            self.drop(db)

    def drop(self, db: Any) -> None:
        """Forget a connection that is broken: the next statement opens a new one."""
        with suppress(Exception):
            db.connection().close()
        while db.transaction_depth():
            db.pop_transaction()
        db._state.reset()

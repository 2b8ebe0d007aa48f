"""Peewee databases that get over a connection which their server has ended."""

from __future__ import annotations

import time
from typing import Any

from peewee import InterfaceError, OperationalError

from ..alive import discard, is_cut, refresh
from ..inherited import inheritance


class Healing:
    """Get over a connection that the server has ended: Peewee would go on using it, and fail with every statement.

    One that was idle is looked at before it is used. A session is not: what belonged to it is gone, and its owner must hear that.
    """

    RESTED = 0.5
    """Seconds without use after which a connection is looked at."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        inheritance.add(self)  # type: ignore[arg-type]

    def _connect(self) -> Any:
        with inheritance.connecting():
            connection = super()._connect()  # type: ignore[misc]
            inheritance.connected(connection)
        return connection

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Connect; who is within a ``connection_context()`` stays in it, whichever connection that then is."""
        state: Any = self._state  # type: ignore[attr-defined]
        within = state.ctx
        try:
            return super().connect(reuse_if_open)  # type: ignore[misc]
        finally:
            state.ctx, state.used = within, time.monotonic()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        db: Any = self
        state, now = db._state, time.monotonic()
        if not state.closed and db.autoconnect and now - state.used >= self.RESTED:
            refresh(db, now - state.used)
        state.used = now
        return super().cursor(*args, **kwargs)  # type: ignore[misc]

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        try:
            return super().execute_sql(sql, params)  # type: ignore[misc]
        except (OperationalError, InterfaceError):
            self._forget_if_cut()
            raise

    def begin(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().begin(*args, **kwargs)  # type: ignore[misc]
        except (OperationalError, InterfaceError):
            self._forget_if_cut()
            raise

    def _forget_if_cut(self) -> None:
        db: Any = self
        if not db.is_closed() and not db.transaction_depth() and is_cut(db.connection()):
            discard(db)

"""Discovery: the rows of the site's own tables that became work, and are turned into flags."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress

from ..adapters.rows import OwnRows
from ..config import Clock
from ..databases.errors import DATABASE_ERRORS
from ..databases.pacer import Pacer
from ..handlers import Handler
from ..logs import describe, headline
from .claims import Claimed, Store
from .parts import Parts

log = logging.getLogger("flagsweep")

Found = tuple[Handler, list[tuple[str, str]]]
"""A handler, and key and payload of the rows that its condition found."""


class Discovery:
    """Look for own rows of one lane.

    :param thorough: look every time, as ``sweep()`` does; a consumer gives that at most a tenth of the time.
    """

    BLIND = 60.0
    """Seconds until a kind whose table is missing or broken is asked again."""

    def __init__(
        self, handlers: Mapping[str, Handler], store: Store, clock: Clock, pacer: Pacer, parts: Parts, thorough: bool = True
    ):
        self.wake_at: float | None = None
        """When to look again, in seconds of the monotonic clock, where a look came too early."""
        self._handlers = handlers
        self._own = [h for h in dict.fromkeys(handlers.values()) if h.rows is not None]
        self._store = store
        self._connections = store.connections
        self._clock = clock
        self._pacer = pacer
        self._parts = parts
        self._thorough = thorough
        self._not_before: dict[str, float] = {}
        self._attached = store.connections.attached()

    @property
    def has_rows(self) -> bool:
        """Whether work may also stand in the site's own tables."""
        return bool(self._own)

    def early(self, kind: str) -> OwnRows | None:
        """Return the rows of a kind whose column comes down before its handler runs, or None."""
        rows = self._handlers[kind].rows
        return rows if rows is not None and rows.early else None

    def find(self, in_hand: Callable[[], bool]) -> list[Found]:
        """Return the rows of the site that became work. A kind whose table is missing waits alone, with one line in the log.

        :param in_hand: whether the lane has flags to do meanwhile.
        """
        found = []
        self.wake_at = None
        if (attached := self._connections.attached()) != self._attached:  # Over a new connection, and at once.
            self._attached = attached
            self._not_before.clear()
            self._connections.close_engine()
        for handler in self._own:
            ready = self._not_before.get(handler.kind, 0.0)
            began = self._clock.monotonic()
            if began < ready and (not self._thorough or in_hand()):
                self.wake_at = min(ready, self.wake_at or ready)
                continue
            rows = self._find(handler, began)
            if rows:
                found.append((handler, rows))
        return found

    def turn_into_flags(self, handler: Handler, rows: list[tuple[str, str]], now: int) -> int:
        """Raise flags for rows that were found, within the open transaction; return how many."""
        discovered = 0
        with self._parts.part(f"{handler.kind} gets no flags") as part:
            if handler.rows is not None and handler.rows.early:
                # Asked again where nobody else writes: a column that is down does not tell that its row was done.
                rows = self._find(handler, self._clock.monotonic(), lock=self._connections.dialect.shared)
            discovered = self._insert(handler, rows, now)
        if part.failed:
            self._not_before[handler.kind] = self._clock.monotonic() + self.BLIND
        return discovered

    def held(self, flags: list[tuple[Claimed, str]]) -> set[int]:
        """Lock own rows that are to be lowered; return the flags of those that somebody else's open transaction holds.

        :param flags: each with the key of its row.
        """
        by_kind: dict[str, dict[str, int]] = defaultdict(dict)
        for claimed, key in flags:
            by_kind[claimed.kind][key] = claimed.id
        held: set[int] = set()
        for kind, ids in by_kind.items():
            rows = self._handlers[kind].rows
            # What is wrong with a table, lowering its row says.
            with suppress(*DATABASE_ERRORS), self._connections.undoable():
                found = rows.held(self._connections.engine, self._connections.dialect, list(ids))  # type: ignore[union-attr]
                held.update(ids[key] for key in found if key in ids)
        return held

    def _insert(self, handler: Handler, rows: list[tuple[str, str]], now: int) -> int:
        """Raise flags for these rows, without those that somebody's open transaction has raised just now; return how many."""
        priority = handler.options.priority
        if self._connections.dialect.one_writer or not rows:
            return self._store.discover(handler.kind, rows, priority, now)
        try:
            with self._connections.undoable(), self._connections.dialect.impatient(self._connections.engine):
                return self._store.discover(handler.kind, rows, priority, now)
        except DATABASE_ERRORS as error:
            if not self._connections.dialect.is_busy(error) or not self._connections.dialect.in_transaction(
                self._connections.engine
            ):
                raise
        half = len(rows) // 2
        return self._insert(handler, rows[:half], now) + self._insert(handler, rows[half:], now) if half else 0

    def _find(self, handler: Handler, began: float, lock: bool = False) -> list[tuple[str, str]]:
        where = (self._connections.engine, self._connections.dialect)
        try:
            with self._connections.undoable() if lock else nullcontext():
                rows = handler.rows.find(  # type: ignore[union-attr]
                    *where, handler.kind, self._pacer.batch, handler.options.aliases, lock
                )
        except Exception as error:
            self._parts.raise_if_away(error)
            if handler.kind not in self._not_before or not self._thorough:
                why = headline(describe(error))
                log.warning("%s finds no rows: %s; it is asked again in a minute, other kinds go on", handler.kind, why)
            self._not_before[handler.kind] = self._clock.monotonic() + self.BLIND
            return []
        took = self._clock.monotonic() - began
        self._not_before[handler.kind] = 0.0 if rows else self._clock.monotonic() + 9 * took
        return rows

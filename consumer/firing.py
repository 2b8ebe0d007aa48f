"""Firing: schedules whose time has come raise their flags, and whoever waits is told when the next one is due."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from ..config import SECOND, Clock, utc
from ..gates.shut import Shut
from ..handlers import Handler
from ..logs import AS_EVENT, Seldom, printable, tell_event
from ..models import Schedule, gates
from ..payloads import Item
from ..schedules.book import Book, is_paused, occurrence_of, plan_of
from ..schedules.catching import due_of
from ..schedules.declared import Declarations
from ..sweep.claimer import Due
from ..sweep.claims import Store
from ..sweep.parts import Parts

log = logging.getLogger("flagsweep")

DAMAGED = (TypeError, OverflowError, ArithmeticError)
"""What arithmetic says to values that a hand has put into a row."""

LATER = 2 * SECOND
"""Microseconds after which a schedule that could not fire is tried again."""


class Firing:
    """Fire the schedules of a consumer's kinds. Any number of consumers may: each occurrence is fired by one of them.

    :param handlers: by kind, aliases included.
    """

    def __init__(self, store: Store, handlers: Mapping[str, Handler], clock: Clock):
        self._book = Book(store.connections)
        self._store = store
        self._handlers = handlers
        self._clock = clock
        self.shut = Shut()
        """What hands have paused, as it was last read."""
        self._lock = threading.Lock()
        self._pulse: Any = None
        self._stale = False
        """Whether another consumer has fired one of the rows."""
        self.pulse: Any = None
        """What counts the changes of schedules and gates, as it was last read."""
        self._rows: list[Schedule] = []
        self._not_before: dict[str, int] = {}
        """When a schedule that could not fire is tried again, by its name: microseconds UTC."""
        self._told: dict[str, Seldom] = {}

    def declare(self, declarations: Declarations, zone: str) -> None:
        """Write what code declares.

        :param zone: that of the settings.
        """
        # Consumers that start at the same time have the same to write: who comes second waits, and looks again.
        parts = Parts(self._store.connections)
        for line in parts.take(lambda: self._book.write_declared(declarations, zone, self._clock.now())):
            log.info("%s", printable(line))

    def fire(self) -> set[Due]:
        """Fire what is due; return priority and kind of the flags that were raised."""
        raised = set()
        with self._lock:
            self._refresh()
            for row in list(self._rows):
                if (due := self._fire_if_due(row)) is not None:
                    raised.add(due)
        return raised

    def _fire_if_due(self, row: Schedule) -> Due | None:
        now = self._clock.now()
        try:
            return self._fire(row, row.next_at or 0, now) if self._is_due(row, now) else None
        except Exception as error:
            self._put_off(row, error, now)
            return None

    def _put_off(self, row: Schedule, error: Exception, now: int) -> None:
        """Have a schedule tried again later whose row is damaged, or whose flag somebody else's transaction holds.

        It hinders no other, and nobody waits for its time, which has passed.
        """
        dialect = self._store.connections.dialect
        held = dialect.is_busy(error) and not dialect.one_writer
        if dialect.is_away(error) and not held:
            raise error
        self._not_before[row.name] = now + LATER
        why = "another transaction holds its row or its flag" if held else error
        self._tell(row.name, f"the schedule {row.name} cannot be fired just now: {why}")

    def next_at(self, now: int) -> int | None:
        """Return when the next schedule is due, in microseconds UTC, or None."""
        with self._lock:
            times = [time for row in self._rows if (time := self._time_of(row, now)) is not None]
        return min(times, default=None)

    def _time_of(self, row: Schedule, now: int) -> int | None:
        if not isinstance(row.next_at, int) or row.kind not in self._handlers or not self._is_open(row.kind, now):
            return None
        time = max(row.next_at, self._not_before.get(row.name, row.next_at))
        try:
            if not is_paused(row, now):
                return time
            return None if row.paused_until is None else max(time, row.paused_until)
        except DAMAGED:
            return None

    def _is_open(self, kind: str, now: int) -> bool:
        """Return whether nobody has paused a kind: what is paused owes nothing meanwhile, and the policy decides later."""
        handler = self._handlers.get(kind)
        return handler is None or self.shut.paused((kind, handler.kind), handler.lane, now) is None

    def _refresh(self) -> None:
        """Read the schedules again where any was changed."""
        pulse = self.pulse = self._store.pulse()
        if pulse != self._pulse:
            self._not_before.clear()
        elif not self._stale:
            return
        self._rows = self._book.rows(self._store.connections.engine)
        self.shut = Shut(gates(self._store.connections.engine))
        self._pulse, self._stale = pulse, False
        for row in self._rows:
            self._mend(row)

    def _mend(self, row: Schedule) -> None:
        now = self._clock.now()
        try:
            if line := self._book.mend(row, now):
                log.warning("%s", printable(line))
        except Exception as error:
            self._put_off(row, error, now)

    def mend(self) -> None:
        """Set right what a wrong clock has written."""
        with self._lock:
            self._pulse = None
            self._refresh()

    def _is_due(self, row: Schedule, now: int) -> bool:
        if not isinstance(row.next_at, int) or max(row.next_at, self._not_before.get(row.name, row.next_at)) > now:
            return False
        if is_paused(row, now) or not self._is_open(row.kind, now):
            return False
        if row.kind in self._handlers:
            return True
        self._tell(row.name, f"the schedule {row.name} is due and does not fire: no handler here has the kind {row.kind}")
        return False

    def _fire(self, row: Schedule, next_at: int, now: int) -> Due | None:
        plan, handler = plan_of(row), self._handlers[row.kind]
        due = due_of(plan, next_at, now)
        runs = []
        for intended, missed in due.runs:
            item = Item(row.key or f"@{row.name}/{_shown(intended, row.zone)}", row.payload, handler.bucket_of(row.payload))
            runs.append((item, handler.terms(occurrence_of(row, intended, missed))))
        if not self._book.fire(row, due, runs, now):
            self._stale = True  # Another consumer was first.
            self._not_before[row.name] = now + SECOND // 2  # Where none was, the row is damaged.
            return None
        if not runs:
            return None
        latest = _shown(due.runs[-1][0], row.zone)
        log.info("fired %s for %s", printable(row.name), latest, extra=AS_EVENT)
        tell_event("fired", schedule=row.name, kind=row.kind, intended=latest)
        return (runs[0][1].priority, row.kind)

    def _tell(self, name: str, line: str) -> None:
        if self._told.setdefault(name, Seldom()).may_tell():
            log.warning("%s", printable(line))


def _shown(moment: int, zone: str) -> str:
    """Return a moment in a zone as text."""
    return utc(moment).astimezone(ZoneInfo(zone)).isoformat(timespec="seconds")

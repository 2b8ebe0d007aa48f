"""Firing: schedules whose time has come raise their flags, and whoever waits is told when the next one is due."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from ..config import Clock
from ..errors import ConfigError
from ..gates.shut import Shut
from ..handlers import Handler
from ..logs import Seldom, printable
from ..models import Gate, Schedule
from ..payloads import Item
from ..schedules.book import Book, is_paused, occurrence_of, plan_of
from ..schedules.catching import due_of
from ..schedules.declared import Declarations
from ..sweep.claimer import Due
from ..sweep.claims import Store

log = logging.getLogger("flagsweep")

DAMAGED = (TypeError, OverflowError, ArithmeticError)
"""What arithmetic says to values that a hand has put into a row."""

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class Firing:
    """Fire the schedules of a consumer's kinds. Any number of consumers may: each occurrence is fired by one of them.

    :param handlers: by kind, aliases included.
    """

    def __init__(
        self,
        store: Store,
        handlers: Mapping[str, Handler],
        clock: Clock,
    ):
        self._book = Book(store.connections)
        self._store = store
        self._handlers = handlers
        self._clock = clock
        self._shut = Shut()
        self._lock = threading.Lock()
        self._pulse: int | None = None
        self.pulse: int | None = None
        """What counts the changes of schedules and gates, as it was last read."""
        self._rows: list[Schedule] = []
        self._told: dict[str, Seldom] = {}

    def declare(self, declarations: Declarations, zone: str) -> None:
        """Write what code declares.

        :param zone: that of the settings.
        """
        for line in self._book.write_declared(declarations, zone, self._clock.now()):
            log.info("%s", printable(line))

    def fire(self) -> set[Due]:
        """Fire what is due; return priority and kind of the flags that were raised."""
        raised = set()
        with self._lock:
            self._refresh()
            for row in list(self._rows):
                now = self._clock.now()
                try:
                    if self._is_due(row, now) and (due := self._fire(row, row.next_at or 0, now)) is not None:
                        raised.add(due)
                except (ConfigError, *DAMAGED) as error:
                    self._tell(row.name, f"the schedule {row.name} cannot be fired: {error}")
        return raised

    def next_at(self, now: int) -> int | None:
        """Return when the next schedule is due, in microseconds UTC, or None."""
        with self._lock:
            times = [time for row in self._rows if (time := self._time_of(row, now)) is not None]
        return min(times, default=None)

    def _time_of(self, row: Schedule, now: int) -> int | None:
        if not isinstance(row.next_at, int) or row.kind not in self._handlers or not self._is_open(row.kind, now):
            return None
        if not is_paused(row, now):
            return row.next_at
        return None if row.paused_until is None else max(row.next_at, row.paused_until)

    def _is_open(self, kind: str, now: int) -> bool:
        """Return whether nobody has paused a kind: what is paused owes nothing meanwhile, and the policy decides later."""
        handler = self._handlers.get(kind)
        return handler is None or self._shut.paused(handler.kind, handler.lane, now) is None

    def _refresh(self) -> None:
        """Read the schedules again where any was changed."""
        pulse = self.pulse = self._store.pulse()
        if pulse != self._pulse:
            self._rows = self._book.rows(self._store.connections.engine)
            self._shut = Shut(Gate.select().where(Gate.bucket == "").execute(self._store.connections.engine))
            self._pulse = pulse
            for row in self._rows:
                self._mend(row)

    def _mend(self, row: Schedule) -> None:
        try:
            if line := self._book.mend(row, self._clock.now()):
                log.warning("%s", printable(line))
        except ConfigError as error:
            self._tell(row.name, f"the schedule {row.name} cannot be read: {error}")

    def mend(self) -> None:
        """Set right what a wrong clock has written."""
        with self._lock:
            self._pulse = None
            self._refresh()

    def _is_due(self, row: Schedule, now: int) -> bool:
        if not isinstance(row.next_at, int) or row.next_at > now or is_paused(row, now) or not self._is_open(row.kind, now):
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
            self._pulse = None  # Another consumer was first.
            return None
        if row.sort == "at" and due.next_at is None:
            self._rows = [other for other in self._rows if other is not row]
        if not runs:
            return None
        log.info("fired %s for %s", printable(row.name), _shown(due.runs[-1][0], row.zone))
        return (runs[0][1].priority, row.kind)

    def _tell(self, name: str, line: str) -> None:
        if self._told.setdefault(name, Seldom()).may_tell():
            log.warning("%s", printable(line))


def _shown(moment: int, zone: str) -> str:
    """Return a moment in a zone as text."""
    return (EPOCH + timedelta(microseconds=moment)).astimezone(ZoneInfo(zone)).isoformat(timespec="seconds")

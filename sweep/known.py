"""What is known of a lane's gates: their rows as they were last read, and what claims have met since.

It says what is worth asking for, and nothing more: what a claim may take, it learns from rows that it has locked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from ..config import SECOND
from ..databases.connections import Connections
from ..gates.breaker import Breaker
from ..gates.closings import outage, quiet_hours
from ..gates.limits import Limits, changed
from ..gates.shut import FOREVER, Closing, Shut
from ..handlers import Handler
from ..models import gates
from .buckets import Buckets
from .notes import Gate

BRIEFLY = SECOND // 20
"""Microseconds after which a gate is asked again that somebody else held, or whose flags somebody held."""

FRESH = Breaker()

STALE = "stale"
"""A pulse that no database has: what was read is read again."""


class Known:
    """Know which kinds of one lane may be claimed.

    :param handlers: by kind, aliases included; these share the gate of their handler's kind.
    :param zone: that of quiet hours which name none.
    :param limits: rate and budget of kinds as a whole, by the handler's kind.
    :param buckets: those of kinds whose flags take turns, likewise.
    :param breakers: whether outages count.
    :param force: whether what is paused is swept all the same.
    """

    def __init__(
        self,
        lane: str,
        handlers: Mapping[str, Handler],
        connections: Connections,
        zone: ZoneInfo,
        limits: Mapping[str, Limits],
        buckets: Mapping[str, Buckets],
        breakers: bool,
        force: bool,
    ):
        self.breakers: dict[str, Breaker] = {}
        """By the handler's kind, as they were last read or written."""
        self.shut: set[Gate] = set()
        """Gates that were shut since the last turn: what waits behind them and has not started is given back."""
        self._lane = lane
        self._handlers = handlers
        self._engine = connections.engine
        self._dialect = connections.dialect
        self._zone = zone
        self._limits = limits
        self._buckets = buckets
        self._breakers_on = breakers
        self._force = force
        self._has_quiet = any(each.options.quiet is not None for each in handlers.values())
        self._pulse: Any = None
        """What the rows were read at; None: never."""
        self._rows = Shut()
        self._not_before: dict[str, tuple[int, int]] = {}
        """Until when a kind need not be asked for, and from when on: a clock that is set back makes nobody wait."""
        self._quiet: dict[str, tuple[int, Closing | None]] = {}
        self._lock = threading.Lock()

    # What the rows say.

    def refresh(self, now: int, pulse: Any = None) -> None:
        """Read the gates again where any was changed.

        :param pulse: what says so, where the caller has just read it.
        """
        pulse = pulse or self._dialect.pulse(self._engine)
        if pulse == self._pulse:
            return
        rows = gates(self._engine)
        with self._lock:
            first, before = self._pulse is None, self._closed_by_rows(now)
            self._pulse, self._rows = pulse, Shut(rows)
            self._not_before.clear()
            for buckets in self._buckets.values():
                buckets.reopen()
            for row in rows:
                if row.sort == "kind" and not row.bucket:
                    self._read(row.name, row.__data__, now, first)
            if not first:  # Of what was shut before nothing is in hand.
                closed = self._closed_by_rows(now).items()
                self.shut.update((kind, "") for kind, closings in closed if any(closings) and closings != before[kind])

    def forget(self) -> None:
        """Take note that what was read may have been undone: it is read again."""
        self._pulse = self._pulse and STALE

    def _read(self, name: str, row: Mapping[str, Any], now: int, first: bool) -> None:
        """Take note of a kind's breaker, and of limits that are used up.

        What a wrong clock has written of limits, a claim must ask for: it sets them right.

        :param first: nothing was read before, and nothing claimed.
        """
        if row["breaker"] or name in self.breakers:
            self.learn(name, Breaker.parse(row["breaker"]), first)
        if limits := self._limits.get(name):
            opens = limits.opens_at(row, now)
            if opens is not None and not changed(limits.taking(row, now, 0), row):
                self.wait(name, now, opens)

    def learn(self, name: str, state: Breaker, first: bool = False) -> None:
        """Take note of a kind's breaker as its row has it, wherever that was read.

        Where another consumer has just opened it, what has not started waits, too.
        """
        if not first and self._breakers_on and state.outage is not None and not self.has_outage(name):
            self.shut.add((name, ""))
        self.breakers[name] = state

    def _closed_by_rows(self, now: int) -> dict[str, tuple[Closing | None, Closing | None]]:
        """Return what hands and handlers have shut, by kind, as it was last read."""
        return {
            kind: (self._paused(kind, now), self._rows.asked_to_wait(each.kind, now)) for kind, each in self._handlers.items()
        }

    def _paused(self, kind: str, now: int) -> Closing | None:
        return None if self._force else self._rows.paused((kind, self._handlers[kind].kind), self._lane, now)

    @property
    def threads(self) -> int | None:
        """How many threads a hand has given this lane; None: as many as the settings say."""
        row = self._rows.row("lane", self._lane)
        return None if row is None else row.threads

    def has_outage(self, name: str) -> bool:
        """Return whether the provider of a handler's kind is away, and it heeds that."""
        return self._breakers_on and name in self.breakers and self.breakers[name].outage is not None

    def take_shut(self) -> set[Gate]:
        """Return the gates that were shut since the last call."""
        with self._lock:
            shut, self.shut = self.shut, set()
        return shut

    # What is open.

    def closing(self, kind: str, now: int) -> Closing | None:
        """Return until when a kind may not be claimed, and why; None: it may."""
        if not (self._rows or self._not_before or self.breakers or self._has_quiet):
            return None
        name = self._handlers[kind].kind
        found = [
            self._paused(kind, now),
            self._rows.asked_to_wait(name, now),
            self._quiet_of(name, now),
            self._broken(name, now),
        ]
        asked, wait = self._not_before.get(name, (0, 0))
        if asked <= now < wait:
            found.append(Closing(wait, "its limit is reached"))
        return max((each for each in found if each is not None), default=None)

    def open(self, kinds: Iterable[str], now: int) -> list[str]:
        """Return the kinds that may be claimed just now."""
        return [kind for kind in kinds if self.closing(kind, now) is None]

    def opens_at(self, now: int) -> int | None:
        """Return when the next gate opens by itself, in microseconds UTC; None: none does."""
        closings = (self.closing(kind, now) for kind in self._handlers)
        return min((each.until for each in closings if each is not None and each.until < FOREVER), default=None)

    def wait(self, name: str, now: int, until: int) -> None:
        """Take note that a handler's kind is not worth asking for until some time, and never that it is worth it at once."""
        self._not_before[name] = (now, max(until, now + BRIEFLY))

    def ask_again(self, name: str) -> None:
        """Take note that a handler's kind is worth asking for."""
        self._not_before.pop(name, None)

    def stir(self, now: int) -> None:
        """Take note that something was committed: a flag of a bucket that is open may have come."""
        for name, buckets in self._buckets.items():
            if buckets.may_look(now):
                self.ask_again(name)

    def _quiet_of(self, name: str, now: int) -> Closing | None:
        asked, closing = self._quiet.get(name, (0, None))
        if not asked <= now < (asked + SECOND if closing is None else closing.until):
            closing = quiet_hours(self._handlers[name].options.quiet, now, self._zone)
            self._quiet[name] = (now, closing)
        return closing

    def _broken(self, name: str, now: int) -> Closing | None:
        if not self._breakers_on or (state := self.breakers.get(name)) is None:
            return None
        closing = outage(state, now)
        return None if closing is None or closing.until <= now else closing

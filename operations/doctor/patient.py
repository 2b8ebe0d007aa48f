"""What several checks look at, asked once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from ...config import SECOND
from ...consumer.keeper import OVERDUE
from ...gates.shut import ALL
from ...models import Consumer, Counts, Schedule, gates
from ...sweep.records import totals
from ..gate_info import GateInfo
from ..promises import closed_gates
from ..schedule_info import ScheduleInfo, rows_of
from ..site import Site
from ..status import consumers
from .finding import Finding


class Patient:
    """Hold what several checks look at, asked once."""

    def __init__(self, site: Site):
        self.site = site
        self.store = site.store
        self.dialect: Any = site.connections.dialect
        self.path = site.path or Path(site.connections.where)
        self.now = site.clock.now()
        self.reached = False
        """Whether the database answers, and has our tables."""

    @cached_property
    def entered(self) -> list[dict[str, Any]]:
        """Who is entered as a consumer, as status says it: with whether it lives, where this user may see that."""
        return consumers(self.store)

    @cached_property
    def consumers(self) -> list[Consumer]:
        """Who is entered, alive or not."""
        return self.store.consumers()

    @cached_property
    def living(self) -> set[int]:
        """The ids of consumers that live, as far as that can be seen."""
        return {each["id"] for each in self.entered if each["alive"]}

    def threads(self) -> dict[str, int]:
        """Return how many of the site's connections each lane may use at the same time: its event loop has one, too."""
        settings, loops = self.site.settings, {handler.lane for handler in self.site.handlers.values() if handler.is_async}
        return {name: settings.lanes.get(name, settings.threads) + (name in loops) for name in self.site.lane_names()}

    @cached_property
    def counts(self) -> Counts:
        return self.site.verbs.counts(self.now)

    @cached_property
    def today(self) -> dict[str, dict[str, int]]:
        """What was counted within the last day, by kind."""
        return totals(self.store.connections.engine, self.now - 86_400 * SECOND)

    @cached_property
    def schedule_rows(self) -> list[Schedule]:
        return rows_of(self.site.connections)

    @cached_property
    def schedules(self) -> list[ScheduleInfo]:
        known = bool(self.site.handlers)
        return [ScheduleInfo.of(row, self.now, self.known(row.kind) if known else None) for row in self.schedule_rows]

    @cached_property
    def closed(self) -> dict[tuple[str, str], GateInfo]:
        """The gates that are closed just now, by sort and name; those of buckets and schedules are left out."""
        site = self.site
        with site.connections.lent("gates could not be read") as db, self.dialect.lenient(db):
            rows = gates(db)
        return closed_gates(rows, {kind: site.handler_of(kind) for kind in site.handled}, site.settings, self.now)

    def gate_before(self, kind: str) -> GateInfo | None:
        """Return the closed gate behind which flags of a kind wait; None: there is none."""
        names = [("kind", kind), (ALL, "")]
        if kind in self.site.handled:
            handler = self.site.handler_of(kind)
            names[1:1] = [("kind", handler.kind), ("lane", handler.lane)]
        return next((self.closed[name] for name in names if name in self.closed), None)

    def total(self, state: str, kinds: Callable[[str], bool] = lambda kind: True) -> int:
        """Return how many flags of these kinds are in a state."""
        return sum(count for kind, its_state, count, _, _ in self.counts if its_state == state and kinds(kind))

    def overdue(self, kinds: Callable[[str], bool]) -> list[str]:
        """Return those of these kinds that have flags which somebody who serves them would have begun."""
        late = self.now - OVERDUE * SECOND
        return sorted({str(kind) for kind, _, _, due, earliest in self.counts if due and (earliest or 0) <= late and kinds(kind)})

    def known(self, kind: str) -> bool:
        """Return whether a handler takes flags of this kind. Without any handler, nothing is known."""
        handlers = self.site.handlers
        return not handlers or kind in handlers or any(kind in h.options.aliases for h in handlers.values())


Check = Callable[[Patient], "Finding | list[Finding]"]

"""A case: what several reasons look at, asked once, and never more than a part of an index."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from functools import cached_property
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from ...config import SECOND
from ...databases.counts import DURATIONS
from ...databases.errors import DATABASE_ERRORS
from ...databases.sqlite.holders import holders
from ...durations import span
from ...gates.shut import Shut
from ...handlers import Handler
from ...models import WAITING, Flag, Schedule, fact
from ...models import gates as gate_rows
from ...sweep.records import totals
from ..info import headline_of
from ..kinds import reached_by
from ..running import InHand, in_hand
from ..site import Site
from .people import People, noted
from .words import is_time

MOST = 10_000
"""Flags that are counted."""

LATELY = 300
"""Seconds of which the present pace is told, and ``DAY``, of which it is told how long a run usually takes."""
DAY = 86_400

LOOKS = 3
"""Looks at who holds SQLite's writer, ``EVERY`` seconds one after the other: who holds it for moments only is gone by then."""
EVERY = 0.03


class Due(NamedTuple):
    """Say since when the oldest flag of a kind and a priority is due, or from when on it will be."""

    kind: str
    priority: Any
    at: Any


class Case:
    """Hold what several reasons look at.

    :param db: the connection that the question has.
    """

    def __init__(self, site: Site, db: Any):
        self.site = site
        self.db = db
        self.connections = site.connections
        self.dialect: Any = site.connections.dialect
        self.settings = site.settings
        self.now = site.clock.now()
        self.handlers = {kind: site.handler_of(kind) for kind in site.handled}
        """By kind, aliases included; empty where nobody knows them here."""
        self.zone = ZoneInfo(site.settings.timezone)

    @cached_property
    def people(self) -> People:
        return People(self.connections, self.db, self.now)

    @cached_property
    def shut(self) -> Shut:
        return Shut(gate_rows(self.db))

    @cached_property
    def in_hand(self) -> InHand:
        return in_hand(self.site.store, self.handlers, self.settings.state_dir, self.now)

    @cached_property
    def writers(self) -> frozenset[int]:
        """The processes that hold SQLite's writer at each of a few looks, between which nothing is committed."""
        file = self.connections.file
        if file is None or (found := holders(file)) is None:
            return frozenset()
        pids, commit = found.writers, self._commit()
        for _ in range(LOOKS if pids else 0):
            time.sleep(EVERY)
            found = holders(file)
            pids &= frozenset() if found is None else found.writers
        return pids if pids and commit == self._commit() else frozenset()

    def _commit(self) -> object:
        with suppress(*DATABASE_ERRORS):
            return self.dialect.changes(self.db)
        return None

    @cached_property
    def agenda(self) -> list[Due]:
        """What waits of each kind and priority: when the first of it is due."""
        kinds = [str(kind) for kind in self.dialect.waiting_kinds(self.db)]
        return [Due(*row) for row in self.dialect.agenda(self.db, json.dumps(kinds))] if kinds else []

    def due(self) -> list[Due]:
        """Return what is due, the longest due first."""
        return sorted((each for each in self.agenda if is_time(each.at) and each.at <= self.now), key=lambda each: each.at)

    @cached_property
    def schedules(self) -> list[Schedule]:
        return list(Schedule.select().order_by(Schedule.name).execute(self.db))

    # Names.

    def handler(self, kind: str) -> Handler | None:
        return self.handlers.get(kind)

    def lane_of(self, kind: str) -> str | None:
        """Return the lane of a kind: by its handler here, by those who sweep it, or as it was noted when somebody last did."""
        if kind in self.handlers:
            return self.handlers[kind].lane
        return next((lane for lane, kinds in self.people.lanes().items() if kind in kinds), self.served(kind).get("lane"))

    def served(self, kind: str) -> dict[str, Any]:
        """Return who served a kind last: ``app``, ``host``, ``lane``, and ``at``; nothing where that was never noted."""
        note = fact(self.db, f"kind:{kind}")
        return {} if note is None else {**noted(note), "at": note.at}

    @cached_property
    def lanes(self) -> set[str]:
        """The lanes that settings, handlers, those who sweep, or gates name."""
        shut = {name for sort, name in self.shut.all_pauses(self.now) if sort == "lane"}
        return {*self.site.lane_names(), *self.people.lanes(), *shut}

    def kinds_in(self, lane: str) -> list[str]:
        """Return the kinds that are swept in a lane."""
        here = [kind for kind, handler in self.handlers.items() if handler.lane == lane]
        return sorted({*here, *self.people.lanes().get(lane, ())})

    # Flags.

    def flags(self, *where: Any, limit: int = 1, order: Any = None) -> list[Flag]:
        """Return a few flags."""
        query = Flag.select().where(*where)
        return list((query if order is None else query.order_by(*order)).limit(limit).execute(self.db))

    def first(self, due: Due) -> Flag | None:
        """Return the flag that comes first of a kind and a priority."""
        where = (WAITING, Flag.kind == due.kind, Flag.priority == due.priority)
        return next(iter(self.flags(*where, order=(Flag.due_at, Flag.id))), None)

    def before(self, flag: Flag, lane: str | None) -> int:
        """Return how many flags of its lane are due and come before one, counting a little further than ``MOST``."""
        before = 0
        for each in self.agenda:
            if before <= MOST and is_time(each.at) and each.at <= self.now and self._is_before(each, flag, lane):
                before += self._count(each, flag, MOST + 1)
        return before

    def _is_before(self, due: Due, flag: Flag, lane: str | None) -> bool:
        if due.kind == flag.kind:
            return _number(due.priority) >= _number(flag.priority)
        return _number(due.priority) > _number(flag.priority) and lane is not None and self.lane_of(due.kind) == lane

    def _count(self, due: Due, flag: Flag, most: int) -> int:
        if due.kind != flag.kind or due.priority != flag.priority:
            return self.dialect.due_behind(self.db, due.kind, due.priority, self.now, most)
        earlier = self.dialect.due_behind(self.db, due.kind, due.priority, flag.due_at - 1, most)
        same = (WAITING, Flag.kind == flag.kind, Flag.priority == flag.priority, Flag.due_at == flag.due_at, Flag.id < flag.id)
        return earlier + Flag.select(Flag.id).where(*same).limit(most).count(self.db)

    def newest_id(self) -> int:
        """Return the highest id that a flag was ever given; where this user may not know that, of those that are up."""
        dialect, db = self.dialect, self.db
        with suppress(*DATABASE_ERRORS), dialect.undoable(db) if dialect.in_transaction(db) else nullcontext():
            return int(dialect.highest_id(db, Flag._meta.table_name))
        return next((flag.id for flag in self.flags(Flag.id > 0, order=(Flag.id.desc(),))), 0)

    # Paces.

    def pace(self, kinds: Iterable[str]) -> float:
        """Return how many runs a minute these kinds had within the last minutes."""
        found = totals(self.db, self.now - LATELY * SECOND)
        return sum(counts.get(slot, 0) for kind in kinds for slot in DURATIONS if (counts := found.get(kind))) * 60 / LATELY

    @cached_property
    def _today(self) -> dict[str, dict[str, int]]:
        return totals(self.db, self.now - DAY * SECOND)

    def usual(self, kind: str) -> str:
        """Return how long a run of a kind usually takes, as far as is known."""
        half, most = (reached_by(self._today.get(kind, {}), share) for share in (0.5, 0.95))
        if half is None or most is None:
            return "none has ended within a day, so that nobody knows how long that takes"
        return f"usually it takes less than {_length(half)}, 19 times of 20 less than {_length(most)}"

    def ran(self, kind: str) -> dict[str, int]:
        """Return what became of runs of a kind within a day."""
        return self._today.get(kind, {})


def last_failure(flag: Flag) -> str:
    """Return how a flag failed last; empty where it has not."""
    return headline_of(flag.error)


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0


def _length(seconds: float) -> str:
    return span(seconds) if seconds >= 2 else f"{1000 * seconds:.0f} ms"

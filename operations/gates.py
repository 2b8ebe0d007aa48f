"""Gates, as people look after them: pause, resume, and see what is closed or limited, and why."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..config import Clock, Problems, Settings, check_name
from ..databases.connections import Connections
from ..errors import ConfigError, UnknownKind, UnknownSchedule
from ..gates.shut import ALL, pause_why
from ..handlers import Handler
from ..logs import clean, printable
from ..models import Count, Flag, Gate, Schedule, bump, gates
from ..schedules.book import Book, is_paused
from .gate_info import MOST_BUCKETS, MOST_WAITING, GateInfo
from .gate_views import Views
from .info import moment
from .pauses import by_whom, end_of, meant

log = logging.getLogger("flagsweep")

OPEN = {"paused_at": None, "paused_by": None, "paused_until": None, "reason": None}

UNHEARD = (
    "kind %s is paused, but no flag and no schedule has it, and none of it ran of late: is that its name? "
    "Kinds and their aliases are known where their handlers are; 'flagsweep kinds' shows those with flags"
)


class Gates:
    """Do what people ask of gates, as ``FlagSweep`` says, on the site's connection and in its transaction.

    :param handlers: by kind, aliases included; empty where nobody knows them.
    :param lanes: the lanes that settings or handlers name.
    """

    def __init__(
        self, connections: Connections, settings: Settings, handlers: Mapping[str, Handler], lanes: list[str], clock: Clock
    ):
        self._connections = connections
        self._dialect = connections.dialect
        self._settings = settings
        self._handlers = handlers
        self._lanes = lanes
        self._clock = clock
        self._book = Book(connections)

    def pause(self, kind: str | None, lane: str | None, schedule: str | None, reason: str, until: object, by: str | None) -> None:
        """Close the gate of a kind, of a lane, or of all; or have a schedule not fire."""
        now, who = self._clock.now(), by_whom(by)
        text = clean(str(reason)) or None
        values = {"paused_at": now, "paused_by": who, "paused_until": end_of(until, now), "reason": text}
        sort, name = self._which(*_named(kind, lane, schedule))
        with self._connections.lent("nothing was paused") as db, db.atomic():
            self._set(db, sort, name, values)
            heard_of = sort != "kind" or bool(self._handlers) or self._is_heard_of(db, name)
        log.info("%s: paused by %s%s", _called(sort, name), printable(who), f": {printable(text)}" if text else "")
        if not heard_of:
            log.warning(UNHEARD, printable(name))

    def _is_heard_of(self, db: Any, kind: str) -> bool:
        """Return whether a flag or a schedule has a kind, or whether any of it ran within the time for which counts are kept."""
        found = (model.select(model.kind).where(model.kind == kind).limit(1) for model in (Flag, Schedule, Count))
        return any(list(each.tuples().execute(db)) for each in found)

    def resume(self, kind: str | None, lane: str | None, schedule: str | None, by: str | None) -> bool:
        """Have that go on; return whether it was paused."""
        with self._connections.lent("nothing was resumed") as db, db.atomic():
            sort, name = self._which_by_hand(db, "paused_at", *_named(kind, lane, schedule))
            row = self._row(db, sort, name)
            if row is None or row.paused_at is None:
                return False
            self._set(db, sort, name, OPEN)
        log.info("%s: goes on, by %s", _called(sort, name), printable(by_whom(by)))
        return row is not None and is_paused(row, self._clock.now())

    def set_threads(self, lane: str, threads: int | None) -> None:
        """Say how many threads a lane has, from now on; None: as many as the settings say."""
        problems = Problems()
        if threads is not None:
            problems.number(threads, f"threads of lane {lane!r}", 1, 1000, whole=True)
        problems.raise_any()
        with self._connections.lent("the lane's threads were not changed") as db, db.atomic():
            sort, name = self._which("lane", lane) if threads else self._which_by_hand(db, "threads", "lane", lane)
            self._set(db, sort, name, {"threads": threads})

    def infos(self) -> list[GateInfo]:
        """Return what is closed or limited: all first, then lanes, kinds and schedules."""
        with self._connections.lent("gates could not be read") as db, self._dialect.lenient(db):
            rows = self._rows(db)
            schedules = [row for row in self._book.rows(db) if is_paused(row, self._clock.now())]
            due = self._due(db)
            in_hand = {name: self._dialect.in_hand(db, name) for name, each in self._handlers.items() if each.options.limit}
        views = Views(rows, self._handlers, self._settings, due, in_hand, self._clock.now())
        return [*views.infos(), *(_of_schedule(row) for row in schedules)]

    def _rows(self, db: Any) -> list[Gate]:
        """Return the gates that are shown: of the buckets, which may be many, those that are shut, and no more than so many."""
        shut = Gate.select().where(Gate.bucket != "", Gate.closed_until > self._clock.now())
        buckets = shut.order_by(Gate.sort, Gate.name, Gate.bucket).limit(MOST_BUCKETS).execute(db)
        return [*sorted(gates(db), key=lambda row: (str(row.sort), str(row.name))), *buckets]

    def _due(self, db: Any) -> Counter[str]:
        """Return how many flags of each kind are due, without reading more than so many of each priority."""
        dialect, now = self._dialect, self._clock.now()
        kinds = [str(kind) for kind in dialect.waiting_kinds(db)]
        due: Counter[str] = Counter()
        for kind, priority, earliest in dialect.agenda(db, json.dumps(kinds)) if kinds else ():
            if isinstance(earliest, int) and earliest <= now:
                due[kind] += dialect.due_behind(db, kind, priority, now, MOST_WAITING)
        return due

    def _which(self, sort: str, name: str) -> tuple[str, str]:
        """Return sort and name of what is meant.

        :raises UnknownKind, ConfigError: naming the nearest name there is, where handlers are known.
        """
        return sort, self._kind(name) if sort == "kind" else self._lane(name) if sort == "lane" else name

    def _which_by_hand(self, db: Any, column: str, sort: str, name: str) -> tuple[str, str]:
        """Return sort and name of what is meant. What a hand has changed is known by that, though no code has it any more."""
        row = self._row(db, sort, name) if sort in ("kind", "lane") else None
        return (sort, name) if row is not None and getattr(row, column) is not None else self._which(sort, name)

    def _kind(self, kind: str) -> str:
        if kind in self._handlers:
            return self._handlers[kind].kind
        if self._handlers:
            raise UnknownKind(f"no handler is registered for the kind {kind!r}; {meant(kind, self._handlers)}")
        return check_name(kind, "a kind")

    def _lane(self, lane: str) -> str:
        check_name(lane, "a lane's name")
        if self._handlers and lane not in self._lanes:
            raise ConfigError(f"no handler is in lane {lane!r}; {meant(lane, self._lanes)}")
        return lane

    def _row(self, db: Any, sort: str, name: str) -> Any:
        """Return the row of what is meant; None: there is none yet.

        :raises UnknownSchedule: naming the nearest there are.
        """
        if sort == "schedule":
            if (row := self._book.row(db, name)) is None:
                raise UnknownSchedule(f"there is no schedule {name!r}; {meant(name, (row.name for row in self._book.rows(db)))}")
            return row
        rows = Gate.select().where(Gate.sort == sort, Gate.bucket == "").execute(db)
        return next((row for row in rows if row.name == name), None)

    def _set(self, db: Any, sort: str, name: str, values: Mapping[str, Any]) -> None:
        if sort == "schedule":
            self._row(db, sort, name)
            self._book.set(db, name, **values)
        else:
            self._dialect.set_by_hand(db, sort, name, values)
            bump(db)


def _named(kind: str | None, lane: str | None, schedule: str | None) -> tuple[str, str]:
    """Return sort and name of the one thing that is named, and all where nothing is.

    :raises ConfigError: where more than one is.
    """
    given = {name: value for name, value in (("kind", kind), ("lane", lane), ("schedule", schedule)) if value is not None}
    if len(given) > 1:
        raise ConfigError(f"name one thing, got {' and '.join(f'{name}={value!r}' for name, value in given.items())}")
    return next(iter(given.items()), (ALL, ""))


def _called(sort: str, name: str) -> str:
    return "all" if sort == ALL else f"{sort} {printable(name)}"


def _of_schedule(row: Schedule) -> GateInfo:
    why, since, until = pause_why(row, "schedule"), moment(row.paused_at), moment(row.paused_until)
    return GateInfo("schedule", row.name, closed=True, why=why, by=row.paused_by, since=since, until=until, waiting=None)

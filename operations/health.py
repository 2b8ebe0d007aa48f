"""Health: whether somebody sweeps, whether what is due waits for too long, and what died lately.

Every question is bounded: it goes by an index, and counts no further than somebody wants to know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from ..config import SECOND, Clock, Settings, seconds
from ..consumer.keeper import OVERDUE
from ..consumer.stamping import HELD, Held
from ..consumer.terms import STAYING
from ..databases.connections import Connections
from ..durations import span
from ..errors import DatabaseAway, NotReady
from ..gates.shut import ALL, Shut
from ..handlers import Handler
from ..logs import printable
from ..models import Consumer, Fact, Gate, fact
from ..models import gates as gate_rows
from .point import CRITICAL, OK, UNKNOWN, WARNING, Point, names, since
from .promises import UNSAID, Wait, waits
from .site import Site
from .status import alive_of
from .troubles import of_failures, of_schedules, of_the_disk, resuming

CODES = {OK: 0, WARNING: 1, CRITICAL: 2, UNKNOWN: 3}
"""Exit codes, as Nagios and whoever learned from it expects them."""

TICK = 150.0
"""Seconds since a consumer's last tick, which comes each minute, after which it seems to hang."""

SWEPT = 180.0
"""Seconds before its consumer's last tick in which a lane should have been swept: that is done each minute."""

MOST_DEAD = 100
"""Flags of a group that are counted of those that died since a time."""

MOST_GROUPS = 100
"""Groups of the dead that are looked through."""


@dataclass(frozen=True)
class Health:
    """Tell how a site is.

    :ivar waits: how long the oldest due flag of each kind waits, what breaks a promise first.
    :ivar dead: how many died within ``dead_since_s`` seconds, by kind and what they died of; ``more``: not all were counted.
    """

    level: str
    points: Sequence[Point]
    waits: Sequence[Wait] = ()
    dead: Sequence[Mapping[str, Any]] = ()
    dead_since_s: float = 0.0

    @property
    def code(self) -> int:
        """The exit code: 0 fine, 1 warning, 2 critical, 3 unknown."""
        return CODES[self.level]

    @property
    def line(self) -> str:
        """All of it in one line, the worst first."""
        order = sorted(self.points, key=lambda point: -CODES[point.level])
        parts = [f"{point.text} ({point.fix})" if point.level != OK and point.fix else point.text for point in order]
        return printable(f"FLAGSWEEP {self.level.upper()} - {'; '.join(parts)}")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            **{"level": self.level, "code": self.code, "line": self.line},
            "points": [asdict(point) for point in self.points],
            "waits": [wait.to_dict() for wait in self.waits],
            **{"dead": list(self.dead), "dead_since_s": self.dead_since_s},
        }


def unknown(why: str) -> Health:
    """Return the health of a site that could not be asked."""
    return Health(UNKNOWN, [Point("check", UNKNOWN, why)])


def away(why: str, besides: Iterable[Point] = ()) -> Health:
    """Return the health of a site whose database does not answer: nothing is swept either."""
    return Health(CRITICAL, [*besides, Point("database", CRITICAL, why, "'flagsweep doctor'")])


def checked(site: Site, dead_since: Any, needs_consumer: bool) -> Health:
    """Return how a site is, asked over its own connection."""
    back = seconds(dead_since, "dead_since")
    handlers = {kind: site.handler_of(kind) for kind in site.handled}
    examiner = Examiner(site.connections, site.settings, handlers, site.clock)
    return examiner.answered(back, needs_consumer, site.connections.lent("the site could not be checked"))


class Examiner:
    """Ask for the health of a site.

    :param handlers: by kind, aliases included.
    :param remembers: seconds for which it is good what was found of the dead, of whom there may be many sorts.
    """

    def __init__(
        self,
        connections: Connections,
        settings: Settings,
        handlers: Mapping[str, Handler],
        clock: Clock,
        remembers: float = 0.0,
    ):
        self._remembers = remembers
        self._remembered: tuple[float, list[dict[str, Any]]] = (-math.inf, [])
        self._connections = connections
        self._dialect = connections.dialect
        self._settings = settings
        self._handlers = handlers
        self._clock = clock

    def answered(self, dead_since: float, needs_consumer: bool, lent: AbstractContextManager[Any]) -> Health:
        """Return how the site is; where its database does not answer, that."""
        try:
            return self.check(dead_since, needs_consumer, lent)
        except (DatabaseAway, NotReady) as error:
            return away(str(error), of_the_disk(self._connections.file))

    def check(self, dead_since: float, needs_consumer: bool, lent: AbstractContextManager[Any]) -> Health:
        """Return how the site is, as ``FlagSweep.check`` says.

        :param lent: the connection to ask.
        """
        with lent as db, self._dialect.lenient(db):
            now = self._clock.now()
            consumers = _Consumers(self._connections, db, now)
            found = waits(db, self._dialect, self._settings, self._handlers, now, consumers.served())
            dead = self._dead(db, now - int(dead_since * SECOND)) if dead_since else []
            rows = gate_rows(db)
            pauses = Shut(rows).all_pauses(now)
            troubles = list(self._troubles(db, rows, consumers, now))
            held = fact(db, HELD) if (ALL, "") in pauses else None
        needs_consumer = needs_consumer and self._settings.mode != "inline"
        points = [
            *((consumers.point(),) if needs_consumer else ()),
            *(() if held is None else (_of_the_stamp(held),)),
            *_swept(consumers, found),
            *_due(found, now),
            *_paused(found, pauses),
            *troubles,
            *of_the_disk(self._connections.file),
            *((_of_the_dead(dead, dead_since),) if dead_since else ()),
        ]
        worst = max(points, key=lambda point: CODES[point.level]).level if points else OK
        return Health(worst, points, found, dead, dead_since)

    def _troubles(self, db: Any, rows: list[Gate], consumers: _Consumers, now: int) -> Iterator[Point]:
        kinds = [str(kind) for kind in self._dialect.waiting_kinds(db)]
        yield from of_failures(db, rows, kinds, self._handlers, now)
        yield from of_schedules(db, Shut(rows), self._handlers, consumers.served(), bool(consumers.living), now)

    def _dead(self, db: Any, since: int) -> list[dict[str, Any]]:
        """Return how many flags of which group died since a time; as long as that is good, what was found before."""
        now = self._clock.monotonic()
        if now - self._remembered[0] >= self._remembers:
            self._remembered = now, self._found_dead(db, since)
        return self._remembered[1]

    def _found_dead(self, db: Any, since: int) -> list[dict[str, Any]]:
        found = []
        for seen, (kind, died_as) in enumerate(self._dialect.dead_groups(db)):
            count = self._dialect.died_since(db, (kind, died_as), since, MOST_DEAD)
            if count:
                found.append({"kind": kind, "died_as": died_as, "count": count, "more": count == MOST_DEAD})
            if seen + 1 >= MOST_GROUPS:
                break
        return sorted(found, key=lambda group: -group["count"])


class _Consumers:
    """Know who is entered, and what they last said of themselves."""

    def __init__(self, connections: Connections, db: Any, now: int):
        rows = [row for row in Consumer.select().order_by(Consumer.id).execute(db) if row.mode in STAYING]
        lives = alive_of(connections, [row.id for row in rows])
        self.all = rows
        self.living = [row for row in rows if lives.get(row.id) or (lives.get(row.id) is None and _ticked(row, now) <= TICK)]
        self._left, self._swept = (fact(db, name) for name in ("left", "swept"))
        self._now = now

    def point(self) -> Point:
        """Say whether somebody sweeps, and says so."""
        if not self.living:
            return self._nobody()
        latest = min(self.living, key=lambda row: _ticked(row, self._now))
        who = f"consumer {latest.id} (pid {latest.pid} on {latest.host})"
        if (age := _ticked(latest, self._now)) > TICK:
            hangs = f"{who} lives, and has not ticked for {span(age)}: it hangs, or cannot write"
            return Point("consumer", CRITICAL, hangs, "'flagsweep doctor'")
        return Point("consumer", OK, f"{who} ticked {span(age)} ago")

    def _nobody(self) -> Point:
        if self._swept is not None and (age := _age(self._swept.at, self._now)) <= UNSAID:
            return Point("consumer", OK, f"swept {span(age)} ago by 'flagsweep sweep'")
        return Point("consumer", CRITICAL, f"no consumer runs{_since(self._left, self._now)}", "start 'flagsweep run'")

    def lanes(self) -> dict[str, list[tuple[Consumer, Mapping[str, Any]]]]:
        """Return what living consumers last said of each lane."""
        found: dict[str, list[tuple[Consumer, Mapping[str, Any]]]] = {}
        for row in self.living:
            for name, said in _said(row).items():
                found.setdefault(name, []).append((row, said))
        return found

    def served(self) -> dict[str, str]:
        """Return the lane of each kind that a living consumer serves."""
        return {str(kind): name for name, told in self.lanes().items() for _, said in told for kind in _kinds(said)}

    def serve(self, kind: str) -> bool:
        """Return whether a living consumer serves a kind; one that has not said what it serves may."""
        said = [_said(row) for row in self.living]
        return not all(said) or any(kind in _kinds(lane) for lanes in said for lane in lanes.values())


def _swept(consumers: _Consumers, found: Sequence[Wait]) -> Iterator[Point]:
    """Yield what is wrong with the lanes' sweeps: nobody sweeps one, or serves a kind whose flags are due."""
    for name, told in sorted(consumers.lanes().items()):
        if not any(_sweeps(row, said) for row, said in told):
            yield Point("swept", CRITICAL, f"lane {name} is not swept, though its consumer lives", "'flagsweep doctor'")
    late = [wait for wait in found if consumers.living and wait.waited_s > OVERDUE and not consumers.serve(wait.kind)]
    if late:
        level = CRITICAL if any(wait.broken and wait.said for wait in late) else WARNING
        text = f"no consumer has a handler for {names([wait.kind for wait in late])}, whose flags are due"
        yield Point("swept", level, text, "'flagsweep doctor'")


def _due(found: Sequence[Wait], now: int) -> Iterator[Point]:
    """Yield what breaks a promise, lane by lane, or how long the oldest due flag waits."""
    broken: dict[str, Wait] = {}
    for wait in found:
        if wait.broken:
            broken.setdefault(wait.lane, wait)
    for lane, wait in broken.items():
        promised = f"promised are {span(wait.promised_s)}" if wait.said else "nothing is promised"
        held = f": {wait.held}{since(wait.shut_at, now)}" if wait.held else ""
        level = CRITICAL if wait.said and wait.by is None else WARNING
        yield Point("due", level, f"lane {lane}: {wait.kind} waits for {span(wait.waited_s)}, {promised}{held}", _fix(wait))
    if not broken:
        oldest = max((wait.waited_s for wait in found), default=None)
        yield Point("due", OK, "nothing is due" if oldest is None else f"oldest due {span(oldest)}")


def _fix(wait: Wait) -> str:
    """Return the command that ends a pause, or that says why."""
    if wait.by is None or wait.gate is None:
        return f"'flagsweep why {wait.kind}'"
    return resuming(*wait.gate, by=wait.by)


def _paused(found: Sequence[Wait], pauses: Mapping[tuple[str, str], Any]) -> Iterator[Point]:
    """Yield what a person has shut; where flags wait behind it for too long, that is told of them."""
    if pauses:
        yield Point("paused", OK, f"paused: {names([f'{sort} {name}'.strip() for sort, name in sorted(pauses)])}")


def _of_the_stamp(held: Fact) -> Point:
    """Say that all waits for a person, since the database seems to be a backup or a copy."""
    return Point("stamp", CRITICAL, f"all is paused: {Held.parse(held.value).why}", "'flagsweep confirm'")


def _of_the_dead(dead: Sequence[Mapping[str, Any]], since: float) -> Point:
    if not dead:
        return Point("dead", OK, f"none died for {span(since)}")
    count = sum(group["count"] for group in dead)
    more = " or more" if any(group["more"] for group in dead) else ""
    kinds = names(list(dict.fromkeys(group["kind"] for group in dead)))
    return Point("dead", WARNING, f"{count}{more} died within {span(since)}: {kinds}", "'flagsweep dead'")


def _sweeps(row: Consumer, said: Mapping[str, Any]) -> bool:
    """Return whether a lane was swept lately, by the word of its consumer, or has just begun to be."""
    swept, ticked = said.get("swept_at"), row.ticked_at
    if said.get("running") or not isinstance(ticked, int):
        return True
    if not isinstance(swept, int):
        swept = row.started_at if isinstance(row.started_at, int) else ticked
    return ticked - swept <= SWEPT * SECOND


def _said(row: Consumer) -> dict[str, Mapping[str, Any]]:
    """Return what a consumer said of its lanes; of a row that a hand has damaged nothing."""
    try:
        said = json.loads(row.lanes or "{}")
    except (TypeError, ValueError, RecursionError):
        return {}
    return {name: lane for name, lane in said.items() if isinstance(lane, dict)} if isinstance(said, dict) else {}


def _kinds(lane: Mapping[str, Any]) -> Sequence[Any]:
    return kinds if isinstance(kinds := lane.get("kinds"), list) else ()


def _ticked(row: Consumer, now: int) -> float:
    """Return for how many seconds a consumer has not ticked."""
    return _age(row.ticked_at if isinstance(row.ticked_at, int) else row.started_at, now)


def _age(at: Any, now: int) -> float:
    return max(0.0, (now - at) / SECOND) if isinstance(at, (int, float)) else float("inf")


def _since(left: Fact | None, now: int) -> str:
    """Return since when nobody sweeps, and how the last one ended, as far as that is noted."""
    if left is None:
        return ""
    try:
        how = {"died": " (it died)", "stopped": " (it was stopped)"}.get(json.loads(left.value)["how"], "")
    except (TypeError, ValueError, KeyError, RecursionError):
        how = ""
    return f", for {span(_age(left.at, now))}{how}"

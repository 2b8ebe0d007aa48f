"""Watch: the site at a glance, again and again. What is cheap is asked each time, the rest as seldom as its cost wants it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..config import SECOND
from ..databases.counts import DURATIONS
from ..gates.shut import ALL
from ..handlers import Handler
from ..logs import clean
from ..models import gates as gate_rows
from ..sweep.records import totals
from .flags import NOBODY, lane_of
from .gate_info import GateInfo
from .gate_views import Views
from .health import Health, Point, checked
from .kinds import RECENT
from .promises import Wait, waits
from .running import InHand, Running, in_hand
from .site import Site

MINUTE = 60 * SECOND

SHARE = 0.0015
"""Of the time that a question that may be long takes at the most: one that takes 0.3 s is asked every 200 s."""


@dataclass
class Line:
    """Show a lane, or a kind below it.

    :ivar kind: None for the lane as a whole.
    :ivar due: as of when flags were counted last, as are ``waiting`` and ``dead``; ``oldest_due_s`` is of just now.
    :ivar per_minute: runs a minute, and ``failed`` attempts, of the last five minutes.
    :ivar shut: why its gate is closed just now; ``by`` whom, where a hand has closed it.
    :ivar own: whether that is a pause of this very lane or kind.
    """

    lane: str
    kind: str | None
    waiting: int = 0
    due: int = 0
    dead: int = 0
    oldest_due_s: float | None = None
    running: int = 0
    per_minute: float = 0.0
    failed: int = 0
    shut: str = ""
    own: bool = False
    late: bool = False

    @property
    def name(self) -> str:
        """The kind, or the lane."""
        return self.kind or self.lane


@dataclass
class Picture:
    """Show a site as it is just now.

    :ivar at: microseconds UTC.
    :ivar counted_s: for how many seconds what was counted last has been so.
    """

    at: int
    lines: list[Line] = field(default_factory=list)
    hand: InHand = field(default_factory=lambda: InHand([], 0, 0, []))
    gates: list[GateInfo] = field(default_factory=list)
    health: Health | None = None
    counted_s: float = 0.0

    @property
    def running(self) -> list[Running]:
        """What runs, the longest first."""
        return self.hand.running

    @property
    def wrong(self) -> list[Point]:
        """What is wrong, the worst first."""
        points = [] if self.health is None else self.health.points
        return sorted((each for each in points if each.level != "ok"), key=lambda each: each.level != "critical")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "lines": [asdict(line) for line in self.lines],
            "running": [each.to_dict() for each in self.running],
            "claimed": self.hand.claimed,
            "consumers": self.hand.consumers,
            "gates": [gate.to_dict() for gate in self.gates if gate.closed],
            "wrong": [asdict(point) for point in self.wrong],
            "counted_s": self.counted_s,
        }


class _Sized:
    """Ask again once that takes no more than its share of the time."""

    def __init__(self, ask: Callable[[], Any]):
        self._ask = ask
        self._again = 0.0
        self._cost = 0.0
        self.asked = 0.0
        self.value: Any = None

    def get(self) -> Any:
        """Return the answer, or the last one."""
        begin = time.monotonic()
        if begin >= self._again:
            self.value = self._ask()
            self.asked = time.monotonic()
            before, self._cost = self._cost, self.asked - begin
            # The smaller of two: the first has had everything to open, and others had the processor meanwhile now and then.
            self._again = self.asked + min(before, self._cost) / SHARE
        return self.value

    def forget(self) -> None:
        """Have it asked again the next time: somebody has changed something."""
        self._again = 0.0


class Watch:
    """Look at a site again and again, from one thread, whose connection stays open between two looks."""

    def __init__(self, site: Site):
        self._site = site
        self._handlers: dict[str, Handler] = {kind: site.handler_of(kind) for kind in site.handled}
        self._counts = _Sized(self._count)
        self._health = _Sized(lambda: checked(site, "24h", True))
        self._totals = _Sized(self._total)

    def look(self) -> Picture:
        """Return the site as it is just now.

        :raises FlagSweepError: where it cannot be asked. The next look takes a new connection.
        """
        site, connections = self._site, self._site.connections
        try:
            connections.check_file()
            connections.site.connect(reuse_if_open=True)
            now = site.clock.now()
            with connections.lent("the site could not be watched") as db, connections.dialect.lenient(db):
                gates = Views(gate_rows(db), self._handlers, site.settings, {}, {}, now).infos()
                due = waits(db, connections.dialect, site.settings, self._handlers, now)
            hand = in_hand(site.store, self._handlers, site.settings.state_dir, now)
            counts, health, totals_ = self._counts.get(), self._health.get(), self._totals.get()
        except BaseException:
            self.close()
            raise
        lines = self._lines(counts, due, hand, totals_, gates)
        return Picture(now, lines, hand, gates, health, round(time.monotonic() - self._counts.asked, 1))

    def forget(self) -> None:
        """Have the next look ask all anew."""
        for each in (self._counts, self._health, self._totals):
            each.forget()

    def close(self) -> None:
        """Close this thread's connection."""
        self._site.connections.close_thread()

    def _count(self) -> list[Any]:
        return self._site.verbs.counts(self._site.clock.now())

    def _total(self) -> Mapping[str, Mapping[str, int]]:
        begin = (self._site.clock.now() // MINUTE - RECENT + 1) * MINUTE
        with self._site.connections.lent("counts could not be read") as db, self._site.connections.dialect.lenient(db):
            return totals(db, begin)

    def _lines(
        self, counts: list[Any], due: list[Wait], hand: InHand, done: Mapping[str, Any], gates: list[GateInfo]
    ) -> list[Line]:
        """Return lanes by name, each with its kinds below it."""
        kinds = {kind: Line(lane_of(self._handlers, kind), kind) for kind in self._kinds(counts, due, hand)}
        for kind, state, many, due_now, _ in counts:
            line = kinds[clean(str(kind))]
            line.due += due_now
            line.waiting += many if state == "waiting" else 0
            line.dead += many if state == "dead" else 0
        for wait in due:
            line = kinds[clean(wait.kind)]
            line.oldest_due_s, line.late = wait.waited_s, wait.broken
            line.due = max(line.due, 1)
        for kind, many in Counter(each.kind for each in hand.running).items():
            kinds[kind].running = many
        minutes = (self._site.clock.now() % MINUTE + (RECENT - 1) * MINUTE) / MINUTE
        for kind, sums in done.items():
            if line_ := kinds.get(clean(str(kind))):
                line_.per_minute = sum(sums.get(name, 0) for name in DURATIONS) / minutes
                line_.failed = sums.get("failed", 0) + sums.get("dead", 0)
        for line in kinds.values():
            _close(line, gates)
        return [each for lane in self._lanes(kinds) for each in (_whole(lane, kinds, gates), *_below(lane, kinds))]

    def _kinds(self, counts: list[Any], due: list[Wait], hand: InHand) -> list[str]:
        own = {handler.kind for handler in self._handlers.values() if not handler.spare}
        found = {clean(str(kind)) for kind in ({each[0] for each in counts} | {wait.kind for wait in due})}
        return sorted(own | found | {each.kind for each in hand.running})

    def _lanes(self, kinds: Mapping[str, Line]) -> list[str]:
        return sorted(
            {*self._site.lane_names(), *(line.lane for line in kinds.values())}, key=lambda lane: (lane == NOBODY, lane)
        )


def _below(lane: str, kinds: Mapping[str, Line]) -> list[Line]:
    return [line for line in kinds.values() if line.lane == lane]


def _whole(lane: str, kinds: Mapping[str, Line], gates: list[GateInfo]) -> Line:
    """Return the line of a lane: its kinds added up."""
    below = _below(lane, kinds)
    whole = Line(lane, None)
    for name in ("waiting", "due", "dead", "running", "per_minute", "failed"):
        setattr(whole, name, sum(getattr(line, name) for line in below))
    whole.oldest_due_s = max((line.oldest_due_s for line in below if line.oldest_due_s is not None), default=None)
    whole.late = any(line.late for line in below)
    _close(whole, gates)
    return whole


def _close(line: Line, gates: list[GateInfo]) -> None:
    """Note which closed gate a lane, or a kind, is behind: its own first."""
    own = ("lane", line.lane) if line.kind is None else ("kind", line.kind)
    for name in dict.fromkeys((own, ("lane", line.lane), (ALL, ""))):
        gate = next((gate for gate in gates if gate.closed and not gate.bucket and (gate.sort, gate.name) == name), None)
        if gate is not None:
            line.shut, line.own = gate.why, name == own and gate.by is not None
            return

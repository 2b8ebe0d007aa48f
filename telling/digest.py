"""The digest: how the site is, and what happened since the last one, on one page for a person who was not there."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from ..config import SECOND, hidden, microseconds, seconds
from ..databases.connections import Connections
from ..durations import span, utc
from ..logs import printable
from ..models import Fact, History, fact
from ..operations.dead import DeadGroup
from ..operations.health import Health
from ..operations.kinds import KindInfo
from ..operations.schedule_info import ScheduleInfo
from ..operations.site import Site
from .discreet import digest_of

WIDTH = 72
"""Columns of a line."""

SHOWN = 10
"""Lines of a part; how many more there are is said."""

LOOKED_AT = 5000
"""Lines of history that are looked through for the errors that came most often."""

DAY = 86_400.0
FAR = 366
"""Days to a schedule's next time from which on it has a line."""
LONGEST = 8 * DAY
"""Seconds that a digest looks back at the most."""

NEVER_RAN_WELL = ("failed", "dead")


class Digested(Site, Protocol):
    """Be a FlagSweep, as far as a digest asks it."""

    def check(self, dead_since: Any = ..., needs_consumer: bool = ...) -> Health: ...
    def kinds(self) -> list[KindInfo]: ...
    def dead(self, kind: str | None = ..., *, sort: str = ..., limit: int | None = ...) -> list[DeadGroup]: ...
    @property
    def schedules(self) -> Any: ...


@dataclass(frozen=True)
class Part:
    """Be one part of a digest.

    :ivar brief: what the subject says of it; empty where all is well.
    :ivar fixes: the commands that mend it, or show more.
    """

    title: str
    lines: Sequence[str]
    brief: str = ""
    fixes: Sequence[str] = ()

    def text(self) -> str:
        """Return it as lines of at most 72 columns."""
        more = [f"... and {len(self.lines) - SHOWN} more"] if len(self.lines) > SHOWN else []
        lines = [_folded(line, "  ") for line in [*self.lines[:SHOWN], *more]]
        fixes = (fix if "'" in fix else f"'{fix}'" for fix in map(printable, self.fixes))
        return "\n".join([printable(self.title), *lines, *(f"  > {fix}" for fix in fixes)])


@dataclass(frozen=True)
class Digest:
    """Tell how a site is, and what happened there.

    :ivar since: from when on it tells.
    """

    site: str
    at: datetime
    since: datetime
    parts: Sequence[Part]

    @property
    def subject(self) -> str:
        """All of it at a glance, on one line."""
        briefs = [part.brief for part in self.parts if part.brief]
        return printable(f"flagsweep: {', '.join(briefs) or 'all well'} on {self.site}")[:150]

    def text(self) -> str:
        """Return it as plain text of 72 columns."""
        head = f"{self.site}, {self.since:%Y-%m-%d %H:%M} to {self.at:%Y-%m-%d %H:%M} UTC"
        return "\n\n".join([_folded(head, ""), *(part.text() for part in self.parts)]) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            **{"site": self.site, "subject": self.subject, "well": not any(part.brief for part in self.parts)},
            **{"at": self.at.isoformat(), "since": self.since.isoformat()},
            "parts": [asdict(part) for part in self.parts],
        }


def digest(site: Digested, since: Any = None, to: str = "") -> Digest:
    """Return the digest of a site.

    :param since: how far it looks back, a duration; None: to the last one that this recipient was sent, or a day.
    """
    now = site.clock.now()
    back = _since_the_last(site, to, now) if since is None else min(seconds(since, "since"), LONGEST)
    health = site.check(back or 1.0)
    parts = [
        _consumers(health),
        _dead(site, health, back),
        _late(health),
        _failing(health),
        _disk(health),
        _errors(site, now - int(back * SECOND)),
        _closed(site),
        _schedules(site, health, now),
        _healthy(site, health),
    ]
    return Digest(name_of(site.connections), utc(now), utc(now - int(back * SECOND)), [part for part in parts if part.lines])


def note_sent(site: Digested, to: str, now: int) -> None:
    """Note that somebody was sent a digest of all up to now."""
    with site.connections.lent("that a digest was sent is not noted") as db:
        site.connections.dialect.note_fact(db, _fact_of(to), "", now)


def name_of(connections: Connections) -> str:
    """Return what people call a site: its database, without its place."""
    where = hidden(str(connections.where))
    name = connections.file.stem if connections.file is not None else where.rstrip("/").rpartition("/")[2].partition("?")[0]
    return printable(name or where)[:60]


def _fact_of(to: str) -> str:
    return f"digest:{digest_of(to)}"


def _since_the_last(site: Site, to: str, now: int) -> float:
    with site.connections.lent("the last digest could not be looked up") as db:
        last: Fact | None = fact(db, _fact_of(to)) if to else None
    if last is None or not isinstance(last.at, int) or not 0 < now - last.at <= LONGEST * SECOND:
        return DAY
    return (now - last.at) / SECOND


def _consumers(health: Health) -> Part:
    points = [point for point in health.points if point.name in ("consumer", "swept", "database")]
    wrong = [point for point in points if point.level != "ok"]
    brief = "nobody sweeps" if any(point.level == "critical" for point in wrong) else "not swept" if wrong else ""
    return Part("Who sweeps", [point.text for point in points], brief, _unique(point.fix for point in wrong))


def _failing(health: Health) -> Part:
    """Tell of providers that are away, which the closed gates count, and of kinds that fail without such a gate."""
    points = [point for point in health.points if point.name in ("provider", "failing")]
    only = sum(point.name == "failing" for point in points)
    brief = f"{only} kind{'s' if only > 1 else ''} only {'fail' if only > 1 else 'fails'}" if only else ""
    return Part("Failing", [point.text for point in points], brief, _unique(point.fix for point in points))


def _disk(health: Health) -> Part:
    points = [point for point in health.points if point.name == "disk"]
    return Part("Disk", [point.text for point in points], "disk full" if points else "", _unique(point.fix for point in points))


def _dead(site: Digested, health: Health, back: float) -> Part:
    count = sum(group["count"] for group in health.dead)
    if not count:
        return Part(f"Dead since {span(back)}", ["none"])
    more = "+" if any(group["more"] for group in health.dead) else ""
    known = {(group.kind, group.died_as): group for group in site.dead(limit=None)}
    lines, fixes = [], []
    for group in health.dead:
        shown = known.get((group["kind"], group["died_as"] or ""))
        error = shown.error if shown else group["died_as"] or "of an error that is not grouped"
        lines.append(f"{group['count']:>5}  {group['kind']}: {error[:300]}")
        fixes += [f"flagsweep dead retry {shown.id}"] if shown else []
    return Part(f"Dead since {span(back)}", lines, f"{count}{more} dead", ["flagsweep dead", *fixes[:SHOWN]])


def _late(health: Health) -> Part:
    broken = [wait for wait in health.waits if wait.broken]
    lines = [
        f"lane {wait.lane}: {wait.kind} waits for {span(wait.waited_s)}"
        + (f", promised are {span(wait.promised_s)}" if wait.said else "")
        + (f" ({wait.held})" if wait.held else "")
        for wait in broken
    ]
    lanes = len({wait.lane for wait in broken})
    oldest = max(health.waits, key=lambda wait: wait.waited_s, default=None)
    if not broken:
        lines = [f"the oldest due flag waits for {span(oldest.waited_s)}: {oldest.kind}" if oldest else "nothing is due"]
    brief = f"{lanes} lane{'s' if lanes > 1 else ''} late" if broken else ""
    return Part("Due", lines, brief, ["flagsweep check", "flagsweep gates", "flagsweep doctor"] if broken else [])


def _errors(site: Site, since: int) -> Part:
    """Tell the errors that came most often, of the latest lines of history; numbers in them make no difference."""
    failed = History.event.in_(NEVER_RAN_WELL)
    latest = History.select(History.kind, History.reason).where(History.at >= since, failed).order_by(History.at.desc())
    with site.connections.lent("history could not be read") as db, site.connections.dialect.lenient(db):
        rows = list(latest.limit(LOOKED_AT).tuples().execute(db))
    alike = {(str(kind), re.sub(r"\d+", "0", str(reason))): str(reason)[:200] for kind, reason in rows}
    found = Counter((str(kind), re.sub(r"\d+", "0", str(reason))) for kind, reason in rows)
    lines = [f"{many:>5}  {cause[0]}: {alike[cause]}" for cause, many in found.most_common(5)]
    return Part("Errors that came most often", lines, "", ["flagsweep dead --sort count"] if lines else [])


def _closed(site: Site) -> Part:
    closed = [gate for gate in site.gates() if gate.closed and not gate.bucket]
    lines = [f"{' '.join(filter(None, (gate.sort, gate.name)))}: {gate.why}" for gate in closed]
    away, paused = sum(gate.breaker is not None for gate in closed), [gate for gate in closed if gate.by is not None]
    briefs = [f"{len(paused)} paused"] if paused else []
    briefs += [f"{away} provider{'s' if away > 1 else ''} away"] if away else []
    fixes = [f"flagsweep resume {_option(gate.sort)}{gate.name}".rstrip() for gate in paused[:SHOWN]]
    return Part("Closed", lines, ", ".join(briefs), [*fixes, "flagsweep gates"] if lines else [])


def _option(sort: str) -> str:
    return {"lane": "--lane ", "schedule": "--schedule "}.get(sort, "")


def _schedules(site: Digested, health: Health, now: int) -> Part:
    still = [point for point in health.points if point.name == "schedules"]
    infos = site.schedules.list()
    far = {info.name: line for info in infos if (line := _far_off(info, now))}
    lines, bad = [*(point.text for point in still), *far.values()], []
    for info in infos:
        why = _why_bad(info)
        if why:
            bad.append(info.name)
            lines.append(f"{info.name}: {why}")
    briefs = ["a schedule does not fire"] if still else []
    briefs += [f"{len(bad)} schedule{'s' if len(bad) > 1 else ''} failed"] if bad else []
    fixes = [*_unique(point.fix for point in still), *(f"flagsweep schedule show {name}" for name in [*bad, *far][:SHOWN])]
    return Part("Schedules", lines, ", ".join(briefs), fixes)


def _far_off(info: ScheduleInfo, now: int) -> str:
    """Return how far away the next time of a schedule is, where somebody may have meant another."""
    if not info.next or (days := (microseconds(info.next[0]) - now) / SECOND / DAY) <= FAR:
        return ""
    return f"{info.name}: its next time is {info.next[0].astimezone(UTC):%Y-%m-%d %H:%M} UTC, in {days:,.0f} days"


def _why_bad(info: ScheduleInfo) -> str:
    if info.problem:
        return info.problem
    if info.outcome in NEVER_RAN_WELL:
        return f"its last run has {'died' if info.outcome == 'dead' else 'failed'}"
    return "no handler here has its kind, and it is due" if info.due and info.handled is False else ""


def _healthy(site: Digested, health: Health) -> Part:
    ill = {group["kind"] for group in health.dead} | {wait.kind for wait in health.waits if wait.broken}
    return Part("Healthy", [_of_kind(info) for info in site.kinds() if info.kind not in ill])


def _of_kind(info: KindInfo) -> str:
    success = "" if info.success is None else f", {info.success:.0%} of the day's attempts succeeded"
    took = "" if info.p95_s is None else f", 95 of 100 within {info.p95_s:.3g} s"
    return f"{info.kind}: {info.due} due{success}{took}"


def _folded(line: str, indent: str) -> str:
    wrap = textwrap.TextWrapper(WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", drop_whitespace=True)
    wrap.break_on_hyphens = False
    return "\n".join(wrap.wrap(printable(line))) or indent.rstrip()


def _unique(texts: Iterator[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]

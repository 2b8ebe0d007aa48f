"""Kinds: what is due of each, how much of it is done, how well, and how long that takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..config import SECOND, Clock
from ..databases.connections import Connections
from ..databases.counts import DURATIONS
from ..handlers import Handler
from ..models import SiteVerbs
from ..sweep.records import totals
from ..sweep.tally import MINUTE, most_of
from .flags import lane_of

RECENT = 5
"""Minutes, the one that goes on just now included, of which the present pace is told."""

DAY = 86_400 * SECOND


@dataclass(frozen=True)
class KindInfo:
    """Show how one kind does.

    :ivar lane: that of its handler; ``-`` without one here.
    :ivar due: flags whose time has come, and ``oldest_due_s``, for how many seconds that of the oldest has; None: there is none.
    :ivar per_minute: runs a minute, within the last five minutes.
    :ivar success: the share of the last day's attempts that succeeded, of those that succeeded or failed; None: there were none.
    :ivar p50_s: seconds that half of the last day's runs did not reach, and ``p95_s``, 95 of 100: the bound of the slot in which
        they are counted, up to four times what they took.
    :ivar busy_s: seconds that its handler ran within the last day, in all threads.
    :ivar exact: whether ``due`` is all there are; where a server would have taken too long to count, there are at least so many.
    """

    kind: str
    lane: str
    due: int
    oldest_due_s: float | None
    per_minute: float
    success: float | None
    p50_s: float | None
    p95_s: float | None
    busy_s: float
    exact: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it; ``exact`` only where it is False."""
        return {name: value for name, value in asdict(self).items() if name != "exact" or not value}


def kinds(connections: Connections, verbs: SiteVerbs, handlers: Mapping[str, Handler], clock: Clock) -> list[KindInfo]:
    """Return how each kind does, as ``FlagSweep.kinds`` says.

    :param handlers: by kind, aliases included.
    """
    now = clock.now()
    counts = verbs.due_counts(now)
    due = {**dict.fromkeys(verbs.dead_kinds(), (0, None)), **_due(counts)}
    begin = (now // (MINUTE * SECOND) - RECENT + 1) * MINUTE * SECOND
    with connections.lent("counts could not be read") as db, connections.dialect.lenient(db):
        lately, today = totals(db, begin), totals(db, now - DAY)
    own = {handler.kind for handler in handlers.values() if not handler.spare}
    minutes = (now - begin) / (MINUTE * SECOND)
    return [
        KindInfo(
            kind,
            lane_of(handlers, kind),
            **_what_is_due(due.get(kind, (0, None)), now),
            per_minute=round(_ran(lately.get(kind, {})) / minutes, 3),
            **_of_the_day(today.get(kind, {})),
            exact=counts.exact,
        )
        for kind in sorted({*own, *due, *today})
    ]


def _due(counts: Iterable[tuple[str, int, int | None]]) -> dict[str, tuple[int, int | None]]:
    """Return how many flags of each kind are due, and since when the oldest is."""
    found: dict[str, tuple[int, int | None]] = {}
    for kind, due, earliest in counts:
        many, oldest = found.get(kind, (0, None))
        found[kind] = (many + due, earliest if due else oldest)
    return found


def _what_is_due(due: tuple[int, int | None], now: int) -> dict[str, Any]:
    many, oldest = due
    return {"due": many, "oldest_due_s": round((now - (oldest or now)) / SECOND, 3) if many else None}


def _ran(counts: Mapping[str, int]) -> int:
    return sum(counts.get(name, 0) for name in DURATIONS)


def _of_the_day(counts: Mapping[str, int]) -> dict[str, Any]:
    ended = sum(counts.get(name, 0) for name in ("succeeded", "failed", "dead"))
    return {
        "success": round(counts["succeeded"] / ended, 4) if ended else None,
        "p50_s": reached_by(counts, 0.5),
        "p95_s": reached_by(counts, 0.95),
        "busy_s": counts.get("spent", 0) / SECOND,
    }


def reached_by(counts: Mapping[str, int], share: float) -> float | None:
    """Return the seconds that this share of runs did not reach; None where there were no runs.

    :param counts: how many runs are in each slot of durations, and ``longest``, microseconds of the longest: the last slot has no
        bound of its own.
    """
    left = share * _ran(counts)
    if not left:
        return None
    for slot, name in enumerate(DURATIONS[:-1]):
        left -= counts[name]
        if left <= 0:
            return most_of(slot)
    return counts["longest"] / SECOND

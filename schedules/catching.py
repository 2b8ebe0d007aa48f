"""Which occurrences are fired now, and which were missed: arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..config import SECOND
from .declared import Plan

COUNTED = 1000
"""Occurrences that are counted at the most: whoever was away for a year has missed enough."""

AHEAD = 2 * 86400 * SECOND
"""How far ahead of the clock the last occurrence may lie, in microseconds. What was fired by a clock that was a day ahead is not
fired again when that is mended; of a clock that was years ahead nothing is believed."""


@dataclass(frozen=True)
class Due:
    """Say what one firing does.

    :param runs: (intended, how many occurrences it stands for besides), the oldest first.
    :param skipped: how many occurrences nobody runs.
    :param next_at: when it fires next; None: never again.
    """

    runs: list[tuple[int, int]] = field(default_factory=list)
    skipped: int = 0
    next_at: int | None = None


def due_of(plan: Plan, next_at: int, now: int) -> Due:
    """Return what a schedule does that was to fire at ``next_at``, which has come. Times are microseconds UTC."""
    spec, before = plan.spec, next_at - 1
    latest = spec.latest(now, before, next_at)
    following = spec.next(now, next_at)
    if latest is None:  # Its row was changed by hand: that time is none of its own.
        return Due(next_at=following)
    if plan.missed == "all":
        runs = _the_last(plan, next_at, now)
        skipped = spec.count(before, runs[0] - 1, COUNTED, next_at)
        return Due([(moment, 0) for moment in runs], skipped, following)
    count = spec.count(before, now, COUNTED, next_at)
    if plan.missed == "skip":
        late = now - latest > plan.grace
        return Due([] if late else [(latest, 0)], count if late else count - 1, following)
    return Due([(latest, count - 1)], 0, following)


def _the_last(plan: Plan, next_at: int, now: int) -> list[int]:
    """Return the latest occurrences, no more than are caught up, the oldest first."""
    found: list[int] = []
    moment = plan.spec.latest(now, next_at - 1, next_at)
    while moment is not None and len(found) < plan.cap:
        found.append(moment)
        moment = plan.spec.latest(moment - 1, next_at - 1, next_at)
    return found[::-1]


def first(plan: Plan, now: int, last_at: int | None = None) -> int | None:
    """Return when a schedule fires first that is new, or was changed just now: it owes no past.

    :param last_at: its last occurrence, which the clock may not have reached again.
    """
    last = believed(last_at, now)
    return plan.spec.next(now if last is None else max(now, last), now)


def believed(last_at: int | None, now: int) -> int | None:
    """Return the last occurrence, unless a clock that was far ahead has fired it."""
    return None if last_at is None or last_at > now + AHEAD else last_at


def mended(plan: Plan, next_at: int | None, last_at: int | None, now: int) -> int | None:
    """Return when a schedule is to fire whose next time a wrong clock may have written: never later than its spec says."""
    last = believed(last_at, now)
    right = plan.spec.next(max(now, last) if last is not None else now, now if next_at is None else next_at)
    if next_at is None or right is None:
        return next_at
    return min(next_at, right)

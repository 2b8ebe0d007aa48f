"""Times as people say them: those of the clock on their wall, and how long ago, or how long from now."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ...config import SECOND
from ...durations import LATEST, span

UNREADABLE = "at a time that cannot be read"


def clock_time(at: Any, now: int) -> str | None:
    """Return a time of the database as the viewer's clock shows it, with its day where that is another; None: it is none.

    :param now: microseconds UTC.
    """
    if not is_time(at):
        return None
    try:
        then, today = (datetime.fromtimestamp(each / SECOND).astimezone() for each in (at, now))
    except (OverflowError, ValueError, OSError):
        return None
    if then.date() == today.date():
        return f"{then:%H:%M}"
    return f"{then:%a} {then.day} {then:%b %H:%M}" if then.year == today.year else f"{then.day} {then:%b %Y %H:%M}"


def is_time(at: Any) -> bool:
    """Return whether a column holds a time, and not what a hand has left there."""
    return isinstance(at, int) and not isinstance(at, bool) and 0 <= at <= LATEST


def at(at: Any, now: int) -> str:
    """Return when something was: ``at 14:03, 12 min ago``."""
    shown = clock_time(at, now)
    return UNREADABLE if shown is None else f"at {shown}, {span((now - at) / SECOND)} ago"


def since(at: Any, now: int) -> str:
    """Return since when something is so: ``since 14:03, 12 min ago``."""
    return "since a time that cannot be read" if clock_time(at, now) is None else f"since{_at(at, now)}"


def until(at: Any, now: int) -> str:
    """Return when something comes: ``14:15, in 12 min``."""
    shown = clock_time(at, now)
    return "a time that cannot be read" if shown is None else f"{shown}, in {span(max(0, at - now) / SECOND)}"


def _at(when: int, now: int) -> str:
    return at(when, now).removeprefix("at")


def many(count: int, most: int, noun: str) -> str:
    """Return a count with its noun; of what was not counted any further, that it is more."""
    if count > most:
        return f"more than {most:,} {noun}s"
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def times(count: Any) -> str:
    """Return how often something was so."""
    return "once" if count == 1 else f"{count} times"


def listed(names: list[str], most: int = 3) -> str:
    """Return names in a row, no more than so many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"

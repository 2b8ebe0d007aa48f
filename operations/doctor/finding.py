"""What a finding is, and how names and times are written in one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from ...config import LATEST, SECOND


@dataclass(frozen=True)
class Finding:
    """Tell what one check found.

    :param level: ``ok``, ``warn`` (works, with a risk or something to look at) or ``fail`` (does not work, or loses flags).
    :param fix: what to do; empty where all is well.
    """

    level: str
    what: str
    text: str
    fix: str = ""


def names(names: Iterable[str], most: int = 10) -> str:
    """Return names with commas, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def as_date(moment: int) -> str:
    """Return a time as text, in UTC; one beyond the calendar, which a hand has written, as its last.

    :param moment: microseconds.
    """
    return f"{datetime.fromtimestamp(min(max(moment, 0), LATEST) // SECOND, UTC):%Y-%m-%d %H:%M:%S} UTC"


def as_time(moment: int, now: int) -> str:
    """Return a time as text, in UTC; one of today without the date.

    :param now: microseconds, as ``moment`` is.
    """
    text = as_date(moment)
    return text[11:] if text[:10] == as_date(now)[:10] else text


def as_span(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.3g} s"

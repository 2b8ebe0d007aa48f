"""What is said of the health of a site, one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..config import utc

OK, WARNING, CRITICAL, UNKNOWN = "ok", "warning", "critical", "unknown"

SHOWN = 3
"""Names of a sort that the line has."""


@dataclass(frozen=True)
class Point:
    """Say one thing of the health of a site.

    :ivar name: ``consumer``, ``swept``, ``stamp``, ``due``, ``paused``, ``provider``, ``failing``, ``schedules``, ``disk``,
        ``dead`` or ``database``.
    :ivar level: ``ok``, ``warning`` or ``critical``.
    :ivar fix: the command that mends it, or shows more; empty where nothing is wrong.
    """

    name: str
    level: str
    text: str
    fix: str = ""


def names(names: list[str]) -> str:
    """Return a few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(map(str, names[:SHOWN]))}{more}"


def since(at: Any, now: int) -> str:
    """Return since when, in UTC, as a part of a sentence; nothing where a hand has left no time.

    :param at: microseconds, as ``now`` is.
    """
    try:
        then = utc(at)
    except (TypeError, OverflowError):
        return ""
    return f" since {then:%H:%M} UTC" if then.date() == utc(now).date() else f" since {then:%Y-%m-%d %H:%M} UTC"

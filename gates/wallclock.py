"""The wall clock of a zone: what it shows, and when it first shows something, across hours that are left out or come twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, tzinfo

from ..config import SECOND, utc

DAY = 86_400 * SECOND
"""Microseconds of a day without a clock change."""


def shown(now: int, zone: tzinfo) -> datetime:
    """Return what the clock shows.

    :param now: microseconds UTC.
    """
    return utc(now).astimezone(zone)


def time_of_day(wall: datetime) -> int:
    """Return the microseconds from the midnight that a clock shows to the time that it shows."""
    return ((wall.hour * 60 + wall.minute) * 60 + wall.second) * SECOND + wall.microsecond


def first_shown(now: int, zone: tzinfo, holds: Callable[[datetime], bool], left: Callable[[int], int]) -> int:
    """Return the first time after ``now`` at which what the clock shows holds, in microseconds UTC.

    :param left: from a time of day, the microseconds to the next one at which that may change; at least 1 and at most a day.
    """
    while True:
        end = now + left(time_of_day(shown(now, zone)))
        now = _first_moved(now, end, zone)
        if holds(shown(now, zone)):
            return now


def _first_moved(now: int, end: int, zone: tzinfo) -> int:
    """Return the first time after ``now`` at which the clock has been put on or back, and ``end`` where it has not by then.

    That no two changes within a day cancel each other was seen of all 599 zones of tzdata 2025b: three days lie between any two.
    """
    offset = shown(now, zone).utcoffset()
    if shown(end, zone).utcoffset() == offset:
        return end
    while end - now > 1:
        middle = (now + end) // 2
        if shown(middle, zone).utcoffset() == offset:
            now = middle
        else:
            end = middle
    return end

"""How the wall times of a cron expression become moments: two rules, which are Debian's.

Either rule asks cronsim for naive wall times alone and puts them on the time line itself: asked with a zone, cronsim goes wrong
within a repeated hour and around changes of half an hour, at midnight and by a day (docs/schedules.md has the list).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from cronsim import CronSim

from ..config import SECOND
from .zones import DAY, EPOCH, Zone

FAR = 50 * 366 * DAY
"""How far is looked for an occurrence, in microseconds: as far as cronsim looks. A calendar repeats itself within 40 years."""


class WallTimes:
    """Know the wall times that five fields name."""

    def __init__(self, text: str):
        self.text = text
        fields = CronSim(text, EPOCH)
        self.minutes = fields.minutes
        self.hours = fields.hours

    def after(self, wall: datetime) -> Iterator[datetime]:
        """Yield the wall times later than this one, none of them more than 50 years after the one before."""
        return CronSim(self.text, wall)

    def until(self, wall: datetime) -> Iterator[datetime]:
        """Yield the wall times not later than this one, the latest first."""
        return CronSim(self.text, wall + timedelta(seconds=1), reverse=True)


class Fixed:
    """Fire at each wall time once: at the first, where it comes twice; where it is skipped, when the clock has jumped past it.

    So several that are skipped together fire once.
    """

    def __init__(self, walls: WallTimes, zone: Zone):
        self.walls = walls
        self.zone = zone

    def next(self, after: int) -> int | None:
        """Return the first occurrence later than ``after``; None: there is none in 50 years."""
        moments = map(self.zone.moment, self.walls.after(self.zone.wall(after)))
        return next((moment for moment in moments if moment > after), None)

    def latest(self, not_after: int, after: int) -> int | None:
        """Return the last occurrence later than ``after`` and not later than ``not_after``, or None."""
        begin = self.zone.wall(not_after) + self.zone.repeats(not_after)
        moments = map(self.zone.moment, self.walls.until(begin))
        found = next((moment for moment in moments if moment <= not_after), None)
        return found if found is not None and found > after else None


class Running:
    """Fire whenever the wall clock shows one of the times: twice, where it comes twice, and never where it is skipped."""

    def __init__(self, walls: WallTimes, zone: Zone):
        self.walls = walls
        self.zone = zone

    def next(self, after: int) -> int | None:
        """Return the first occurrence later than ``after``; None: there is none in 50 years."""
        seen, begin, limit = after, after, after + FAR
        while seen < limit:
            offset = self.zone.offset(seen)
            wall = next(self.walls.after(wall_at(begin + offset)), None)
            if wall is None:
                return None
            moment = _moment(wall) - offset
            change = self.zone.change(seen, moment)
            if change is None:
                return moment
            seen, begin = change, change - SECOND
        return None

    def latest(self, not_after: int, after: int) -> int | None:
        """Return the last occurrence later than ``after`` and not later than ``not_after``, or None."""
        seen = not_after
        while seen > after:
            offset = self.zone.offset(seen)
            wall = next(self.walls.until(wall_at(seen + offset)), None)
            moment = after if wall is None else max(after, _moment(wall) - offset)
            change = self.zone.last_change(moment, seen)
            if change is None:
                return moment if moment > after else None
            seen = change - 1
        return None


def wall_at(moment: int) -> datetime:
    """Return what a clock shows that is at UTC."""
    return EPOCH + timedelta(seconds=moment // SECOND)


def _moment(wall: datetime) -> int:
    return (wall - EPOCH) // timedelta(seconds=1) * SECOND

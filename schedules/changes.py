"""What the next clock changes do to the occurrences of a cron expression, in sentences."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import groupby, takewhile

from ..config import SECOND
from .english import listed
from .firing import WallTimes, wall_at
from .zones import DAY, Zone


class Changes:
    """Tell what a zone's clock changes do to wall times.

    :param runs_on: whether these fire whenever the clock shows them, or each once.
    """

    def __init__(self, walls: WallTimes, zone: Zone, runs_on: bool):
        self.walls = walls
        self.zone = zone
        self.runs_on = runs_on

    def told(self, now: int, days: int) -> list[str]:
        """Return what the changes within ``days`` days from ``now`` skip or repeat; nothing is said of what goes on as ever."""
        sentences: list[str] = []
        until = now + days * DAY
        while (change := self.zone.change(now, until)) is not None:
            sentences += self._of(change)
            now = change
        return sentences

    def _of(self, change: int) -> list[str]:
        before, behind = self.zone.offset(change - SECOND), self.zone.offset(change)
        if self.runs_on and self._goes_on(behind - before):
            return []
        low, high = (wall_at(change + offset) for offset in sorted((before, behind)))
        hit = takewhile(lambda wall: wall < high, self.walls.after(low - timedelta(seconds=1)))
        say = self._skipped if before < behind else self._repeated
        return [say(day, list(walls), change) for day, walls in groupby(hit, datetime.date)]

    def _goes_on(self, jump: int) -> bool:
        """Return whether what fires in every hour fires after a jump of the clock as if it had not jumped."""
        minutes, hours = self.walls.minutes, self.walls.hours
        shifted = {(minute + jump // (60 * SECOND)) % 60 for minute in minutes}
        return len(hours) == 24 and shifted == minutes and abs(jump) < DAY

    def _skipped(self, day: date, walls: list[datetime], change: int) -> str:
        times = _times(walls, "or")
        if not self.runs_on:
            once = "once, " if len(walls) > 1 else ""
            return f"on {day} there is no {times} in {self.zone.name}: it fires {once}{self.zone.clock(change, day)}"
        if self._all_of_it(day, walls):
            return f"does not fire on {day}, which has no {times} in {self.zone.name}"
        return f"on {day} there is no {times} in {self.zone.name}: it does not fire then"

    def _all_of_it(self, day: date, walls: list[datetime]) -> bool:
        midnight = datetime(day.year, day.month, day.day)
        on_this_day = takewhile(lambda wall: wall.date() == day, self.walls.after(midnight - timedelta(seconds=1)))
        return all(wall in walls for wall in on_this_day)

    def _repeated(self, day: date, walls: list[datetime], change: int) -> str:
        come = "comes" if len(walls) == 1 else "come"
        fires = "both times" if self.runs_on else "the first time"
        return f"on {day} {_times(walls, 'and')} {come} twice in {self.zone.name}: it fires {fires}"


def _times(walls: list[datetime], conjunction: str) -> str:
    shown = [f"{wall:%H:%M}" for wall in walls]
    return listed(shown, conjunction) if len(shown) <= 4 else f"{shown[0]}, {shown[1]} ... {shown[-1]}"

"""What the tests of schedules compare with: every clock change of 2015 to 2035, found without our own code, and a slow oracle."""

import zoneinfo
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import takewhile

from cronsim import CronSim
from hypothesis import strategies as st

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND

NOTABLE = (
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Europe/Dublin",  # summer time is the standard, winter one hour less
    "Africa/Casablanca",  # an hour less in Ramadan
    "Africa/El_Aaiun",
    "Antarctica/Troll",  # two hours
    "Antarctica/Casey",  # three hours, once at a minute past midnight
    "Australia/Lord_Howe",  # half an hour
    "Pacific/Chatham",  # at a quarter to
    "Asia/Pyongyang",  # half an hour, at midnight and to midnight
    "America/Caracas",
    "America/Havana",  # at midnight, or to it
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Asia/Gaza",
    "Africa/Cairo",
    "America/Nuuk",  # from 22:00 or 23:00
    "Pacific/Apia",
)


def at(text, zone="UTC"):
    """Return a wall time with its offset, or in a zone, in microseconds UTC."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=zoneinfo.ZoneInfo(zone))
    return int(moment.timestamp()) * SECOND


def shown(moment, zone="UTC"):
    return datetime.fromtimestamp(moment // SECOND, zoneinfo.ZoneInfo(zone)).isoformat(" ", "minutes")


@dataclass(frozen=True)
class Change:
    """One clock change; `jump` is by how much the clock is put forward."""

    zone: str
    moment: int
    before: int
    jump: int

    @property
    def wall(self):
        """What the clock would show had it not been changed."""
        return datetime.fromtimestamp((self.moment + self.before) // SECOND, UTC).replace(tzinfo=None)

    def covers(self, moment):
        """Return whether a moment lies in one of the two passes of a repeated time."""
        return self.moment + self.jump <= moment < self.moment - self.jump


@cache
def changes(zone):
    rules, found = zoneinfo.ZoneInfo(zone), []
    low, end = at("2015-01-01") // SECOND, at("2036-01-01") // SECOND
    while low < end:
        high = low + 6 * 86_400
        if (before := _offset(low, rules)) != _offset(high, rules):
            edge = _bisect(low, high, rules)
            found.append(Change(zone, edge * SECOND, before * SECOND, (_offset(edge, rules) - before) * SECOND))
        low = high
    return tuple(found)


def _offset(second, rules):
    return round(datetime.fromtimestamp(second, rules).utcoffset().total_seconds())


def _bisect(low, high, rules):
    before = _offset(low, rules)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(middle, rules) == before else (low, middle)
    return high


def every_zone():
    """Return one zone for each list of changes, so that every zone there is behaves like one of these."""
    names = sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})
    return {tuple((c.moment, c.before, c.jump) for c in changes(name)): name for name in names}


def specs_about(change):
    """Return cron expressions that have to do with a change: at its hours, of both sorts, on any day and on that day."""
    wall = change.wall
    day, month, weekday = wall.day, wall.month, wall.isoweekday() % 7
    hours = sorted({(wall.hour + by) % 24 for by in (-3, -2, -1, 0, 1, 2)})
    timed = [f"{minute} {hour}" for hour in hours for minute in ("0", "30", "*/20", "7-47/10")]
    timed += ["* *", "0 *", "45 *", "*/30 *", "15 */2", "30 0-23", "0,30 0-23/3", "0 0", "*/15 0", "*/15 23", "59 23"]
    return [f"{time} {days}" for time in timed for days in ("* * *", f"* * {weekday}", f"{day} {month} *")]


@cache
def every_change():
    """Return each change of each zone, with an expression that has to do with it: all kinds of these come round."""
    every = [change for zone in every_zone().values() for change in changes(zone)]
    return [(change, specs_about(change)[number * 11 % 105]) for number, change in enumerate(every)]


def oracle(spec, low, high):
    """Return the occurrences in (low, high] by a look at the wall clock in each minute: the two rules, said another way."""
    zone = zoneinfo.ZoneInfo(spec.zone)
    minutes = range(low // MINUTE * MINUTE - 12 * HOUR, high + 1, MINUTE)
    walls = [datetime.fromtimestamp(moment // SECOND, zone).replace(tzinfo=None, fold=0) for moment in minutes]
    last = max(walls)
    named = sorted(takewhile(lambda wall: wall <= last, CronSim(spec.text, min(walls) - timedelta(days=1))))
    if any(field.startswith("*") for field in spec.text.split()[:2]):
        shown_then = set(named)
        return [moment for moment, wall in zip(minutes, walls, strict=True) if wall in shown_then and moment > low]
    return [moment for moment in _first_reached(minutes, walls, named) if moment > low]


def _first_reached(minutes, walls, named):
    """Yield the minutes at which the clock reaches or passes a named time that it had never reached before."""
    reached = walls[0]
    for moment, wall in zip(minutes, walls, strict=True):
        if wall > reached:
            if bisect_right(named, wall) > bisect_right(named, reached):
                yield moment
            reached = wall


@st.composite
def changed(draw):
    """Draw a change of a notable zone, and an expression that has to do with it."""
    change = draw(st.sampled_from(changes(draw(st.sampled_from([zone for zone in NOTABLE if zone != "UTC"])))))
    return change, draw(st.sampled_from(specs_about(change)))


class Endless(Exception):
    """Say that cronsim takes steps without end."""


class Watched(CronSim):
    """cronsim asked with a zone, which gives up after 20,000 steps: a year of hours is half of that."""

    steps = 0

    def tick(self, seconds=1):
        self.steps += 1
        if self.steps > 20_000:
            raise Endless
        super().tick(seconds)

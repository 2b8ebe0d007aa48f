"""Time zones: which names there are, what a wall clock shows at a moment, and when it is put forward or back."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache

from ..config import SECOND
from ..payloads import short
from .spec import SpecError

DAY = 86_400 * SECOND

EPOCH = datetime(1970, 1, 1)

_NO_PLACES = {"localtime", "Factory", "posixrules"}
"""Files beside the zones: this host's own zone, a host's that has none yet, and rules for texts such as EST5EDT."""

_SEASONS = (datetime(2025, 1, 15, tzinfo=UTC), datetime(2025, 7, 15, tzinfo=UTC))
"""When abbreviations are looked up: in both halves of a year, for the sake of summer time."""


class Zone:
    """Tell a zone's wall clock. Get one by :func:`zone_of`, which checks the name."""

    def __init__(self, name: str, rules: tzinfo):
        self.name = name
        self._rules = rules

    def offset(self, moment: int) -> int:
        """Return how far the wall clock is ahead of UTC at a moment, in microseconds."""
        ahead = datetime.fromtimestamp(moment // SECOND, self._rules).utcoffset() or timedelta()
        return (ahead.days * 86_400 + ahead.seconds) * SECOND

    def wall(self, moment: int) -> datetime:
        """Return what the wall clock shows at a moment: naive, whole seconds."""
        return datetime.fromtimestamp(moment // SECOND, self._rules).replace(tzinfo=None, fold=0)

    def readings(self, wall: datetime) -> tuple[int, int]:
        """Return the two moments that a wall time can mean: the same, unless the clock shows it twice (the later is second) or,
        put forward, never (the later is first)."""
        first, second = (self._read(wall.replace(fold=fold)) for fold in (0, 1))
        return first, second

    def moment(self, wall: datetime) -> int:
        """Return when the clock shows a time: the first time, if it does twice; if it never does, when it has jumped past it."""
        first, second = self.readings(wall)
        return first if first <= second else self._edge(second, first)

    def clock(self, moment: int, day: date) -> str:
        """Return when a moment is by the wall clock: ``at 03:00``, with its date where that is not ``day``."""
        wall = self.wall(moment)
        return f"at {wall:%H:%M}" if wall.date() == day else f"on {wall:%Y-%m-%d} at {wall:%H:%M}"

    def repeats(self, moment: int) -> timedelta:
        """Return by how much the clock was put back, if its wall time at this moment is the second of two; else nothing."""
        wall = self.wall(moment)
        return timedelta(microseconds=max(0, moment // SECOND * SECOND - self._read(wall)))

    def change(self, after: int, until: int) -> int | None:
        """Return the first moment later than ``after`` and not later than ``until`` at which the clock is put forward or back.

        Two changes within a day are not told apart; since 1970 no zone has had two within six.
        """
        offset = self.offset(after)
        while after < until:
            ahead = min(after + DAY, until)
            if self.offset(ahead) != offset:
                return self._edge(after, ahead)
            after = ahead
        return None

    def last_change(self, after: int, until: int) -> int | None:
        """Return the last moment later than ``after`` and not later than ``until`` at which the clock is put forward or back."""
        offset = self.offset(until)
        while until > after:
            before = max(until - DAY, after)
            if self.offset(before) != offset:
                return self._edge(before, until)
            until = before
        return None

    def _read(self, wall: datetime) -> int:
        since = wall.replace(tzinfo=self._rules).astimezone(UTC).replace(tzinfo=None) - EPOCH
        return since // timedelta(microseconds=1)

    def _edge(self, low: int, high: int) -> int:
        """Return the first whole second between two moments at which the offset is that of the later."""
        low, high = low // SECOND, high // SECOND
        offset = self.offset(high * SECOND)
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle * SECOND) == offset:
                high = middle
            else:
                low = middle
        return high * SECOND


@cache
def zone_of(name: str) -> Zone:
    """Return the zone of an IANA name.

    :raises SpecError: naming the nearest names there are.
    """
    if name == "UTC":
        return Zone(name, UTC)
    if name in _names():
        return Zone(name, zoneinfo.ZoneInfo(name))
    if not _names():
        raise SpecError(f"zone {short(name)}: this system has no zone database; install the package tzdata, or use 'UTC'")
    raise SpecError(f"zone {short(name)} is not known: {_instead(name)}")


def check_zone(name: object) -> str:
    """Return the name of a zone, if it is one.

    :raises SpecError: saying which names there are.
    """
    if not isinstance(name, str):
        raise SpecError(f"zone must be an IANA name such as 'Europe/Berlin', got {short(name)}")
    return zone_of(name).name


@cache
def _names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _NO_PLACES


def _instead(name: str) -> str:
    if name in _NO_PLACES:
        return "it would mean another time on every host; name a place such as 'Europe/Berlin', or 'UTC'"
    near = _nearest(name)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    users = [zone for zone in sorted(_names()) if len(name) <= 5 and name.upper() in _abbreviations(zone)]
    if users:
        more = f" and {len(users) - 3} others" if len(users) > 3 else ""
        return f"an abbreviation names no zone; this one is used in {', '.join(users[:3])}{more}"
    return "use an IANA name such as 'Europe/Berlin', 'America/New_York' or 'UTC'"


def _nearest(name: str) -> list[str]:
    """Return up to three names that a slip of the keyboard, other capitals or a city alone could mean."""
    from difflib import get_close_matches

    wanted = name.strip().replace(" ", "_").casefold()
    by_place = {zone.casefold(): zone for zone in sorted(_names())}
    by_city = {zone.rpartition("/")[2]: zone for zone in by_place}
    if wanted in by_place:
        return [by_place[wanted]]
    if len(name) <= 4 or len(name) > 40:
        return []
    if "/" not in wanted:
        return [by_place[by_city[city]] for city in get_close_matches(wanted, by_city, 3, 0.8)]
    return [by_place[zone] for zone in get_close_matches(wanted, by_place, 3, 0.75)]


def _abbreviations(zone: str) -> set[str | None]:
    return {season.astimezone(zoneinfo.ZoneInfo(zone)).tzname() for season in _SEASONS}

"""Quiet hours, as ``"22:00-07:00"``: closed while the wall clock of a zone shows a time within a window.

What the clock shows decides, and nothing else: the first minute of a window is within it, the last is not. So a window is as
long as the clock makes it: where an hour is left out, a window that lies within it does not come, and one whose beginning
lies there begins with the first time behind it. Where an hour comes twice, a window within it comes twice: a gate that opened
at the first 02:30 closes when the clock is put back into the window, and opens at the second. Never is it open while the
clock shows a time of the window.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cached_property

from ..config import SECOND
from ..errors import ConfigError
from ..payloads import short
from .wallclock import DAY, first_shown, shown

MINUTES = 24 * 60

_WINDOW = re.compile(r"([0-9]{1,2}):([0-9]{2}) *- *([0-9]{1,2}):([0-9]{2})")
_FORMS = "such as '22:00-07:00' or '22:00-07:00, 12:00-13:00'"


@dataclass(frozen=True)
class Quiet:
    """Keep closed within windows of the day.

    :param windows: beginning and end of each in minutes from midnight; one whose end is not later goes across midnight.
    :raises ConfigError: where there is none, one is empty or no window of a day, or together they leave no minute of it.
    """

    windows: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for start, end in self.windows:
            if not (0 <= start < MINUTES and 0 <= end <= MINUTES) or start == end:
                raise ConfigError(f"the window {_written(start, end)} is empty or no part of a day: write it {_FORMS}")
        if not self.windows or all(self._closed):
            raise ConfigError("quiet hours must leave a minute of the day open, and close one: pause a kind that is never to run")

    @classmethod
    def parse(cls, value: object, what: str = "quiet") -> Quiet:
        """Return the quiet hours that a text spells.

        :param value: windows ``"HH:MM-HH:MM"`` with commas between, or quiet hours.
        :param what: the argument's name, for the error.
        :raises ConfigError: for anything else.
        """
        if isinstance(value, cls):
            return value
        parts = value.split(",") if isinstance(value, str) and len(value) <= 1000 else [""]
        found = [_WINDOW.fullmatch(part.strip()) for part in parts]
        if not all(found):
            raise ConfigError(f"{what} must be windows of the day, {_FORMS}, got {short(value)}")
        try:
            return cls(tuple((_minute(match[1], match[2]), _minute(match[3], match[4])) for match in found if match))
        except ConfigError as error:
            raise ConfigError(f"{what} cannot be {short(value)}: {error}") from None

    def __str__(self) -> str:
        """Return the normal form, which parses to the same windows."""
        return ", ".join(_written(*window) for window in self.windows)

    def closed_until(self, now: int, zone: tzinfo) -> int | None:
        """Return when it opens, in microseconds UTC; None: it is open.

        :param now: microseconds UTC.
        """
        return self.next_change(now, zone) if self._closes(shown(now, zone)) else None

    def next_change(self, now: int, zone: tzinfo) -> int:
        """Return when it opens next, or closes where it is open, in microseconds UTC."""
        closed = self._closes(shown(now, zone))
        return first_shown(now, zone, lambda wall: self._closes(wall) != closed, self._left)

    def _closes(self, wall: datetime) -> bool:
        return self._closed[wall.hour * 60 + wall.minute]

    def _left(self, time: int) -> int:
        """Return the microseconds from a time of day to the next at which it opens or closes."""
        return min((edge - time - 1) % DAY + 1 for edge in self._edges)

    @cached_property
    def _closed(self) -> tuple[bool, ...]:
        """Say of each minute of the day whether it lies within a window."""
        within = {minute % MINUTES for start, end in self.windows for minute in _minutes(start, end)}
        return tuple(minute in within for minute in range(MINUTES))

    @cached_property
    def _edges(self) -> tuple[int, ...]:
        """Return the times of day at which it opens or closes."""
        return tuple(m * 60 * SECOND for m in range(MINUTES) if self._closed[m] != self._closed[m - 1])


def _minutes(start: int, end: int) -> range:
    return range(start, end if start < end else end + MINUTES)


def _minute(hour: str, minute: str) -> int:
    """Return the minute of the day, and one that no day has where the minute is none of an hour."""
    return int(hour) * 60 + int(minute) if int(minute) < 60 else MINUTES + 1


def _written(start: int, end: int) -> str:
    return f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"

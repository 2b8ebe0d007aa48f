"""Budgets, as ``"500/d"``: so many a calendar day, as the wall clock of a zone has it.

The state is two integers: the day, as ``date.toordinal`` counts them, and what was used of it. A day may have 23 or 25 hours,
and one whose midnight is left out begins with the first time that it has.

A day's count is kept while the stored day is today or tomorrow: so the clock of another host, a zone to the west, or one that
is put back over midnight (St. John's until 2011: from 00:01 to 23:01) brings no second budget. A day further ahead was a
wrong clock's and is forgotten.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import tzinfo

from ..errors import ConfigError
from ..payloads import short
from .wallclock import DAY, first_shown, shown

MOST = 1_000_000_000
"""The largest budget."""

_BUDGET = re.compile(r"([0-9]{1,20}) */ *(?:d|day)")


def day(now: int, zone: tzinfo) -> int:
    """Return the day that a zone has, as ``date.toordinal`` counts them.

    :param now: microseconds UTC.
    """
    return shown(now, zone).toordinal()


def next_day(now: int, zone: tzinfo) -> int:
    """Return when the next day of a zone begins, in microseconds UTC."""
    return _after(day(now, zone), now, zone)


def _after(ordinal: int, now: int, zone: tzinfo) -> int:
    """Return the first time after ``now`` on a day later than this one."""
    return first_shown(now, zone, lambda wall: wall.toordinal() > ordinal, lambda time: DAY - time)


@dataclass(frozen=True)
class Budget:
    """Let so many through in a calendar day.

    :raises ConfigError: where the count is no whole number from 1 to a thousand million.
    """

    count: int

    def __post_init__(self) -> None:
        if type(self.count) is not int or not 1 <= self.count <= MOST:
            raise ConfigError(f"a budget's count must be a whole number from 1 to {MOST:,}, got {short(self.count)}")

    @classmethod
    def parse(cls, value: object, what: str = "budget") -> Budget:
        """Return the budget that a text spells.

        :param value: ``"COUNT/d"``, or a budget.
        :param what: the argument's name, for the error.
        :raises ConfigError: for anything else.
        """
        if isinstance(value, cls):
            return value
        found = _BUDGET.fullmatch(value.strip().lower()) if isinstance(value, str) else None
        if found is None or not 1 <= int(found[1]) <= MOST:
            raise ConfigError(
                f"{what} must be a count from 1 to {MOST:,} for a calendar day, such as '500/d', got {short(value)}; "
                "for another period use a rate, such as rate='10/m'"
            )
        return cls(int(found[1]))

    def __str__(self) -> str:
        """Return the normal form, which parses to the same budget."""
        return f"{self.count}/d"

    def take(self, day: int | None, used: int, now: int, zone: tzinfo, wanted: int) -> tuple[int, int, int]:
        """Return how many of those wanted are granted, and the new state: the day, and what is used of it.

        :param day: of the state; None: nothing was ever used.
        :param now: microseconds UTC.
        """
        day, used = _counted(day, used, now, zone)
        granted = max(0, min(wanted, self.count - used))
        return granted, day, used + granted

    def opens_at(self, day: int | None, used: int, now: int, zone: tzinfo) -> int | None:
        """Return when there is something again, in microseconds UTC; None: there is now."""
        day, used = _counted(day, used, now, zone)
        return None if used < self.count else _after(day, now, zone)

    def give_back(self, day: int, used: int, count: int, taken_on: int) -> tuple[int, int]:
        """Return the state without so many that were granted.

        :param taken_on: the day that ``take`` returned with them: what is given back past midnight is not today's.
        """
        return day, max(0, used - count) if taken_on == day else used


def _counted(stored: int | None, used: int, now: int, zone: tzinfo) -> tuple[int, int]:
    """Return the day that counts, and what is used of it."""
    today = day(now, zone)
    return (stored, used) if stored is not None and today <= stored <= today + 1 else (today, 0)

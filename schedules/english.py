"""Cron expressions in plain English. Where there is no short way to say one, its numbers are listed: long, but never wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cronsim import CronSim

from .zones import EPOCH

_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays"]
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MOST_TIMES = 6
"""Times of day that are listed one by one; more are told as minutes of hours."""


def listed(items: Iterable[str], conjunction: str = "and") -> str:
    """Return items as in ``a, b and c``."""
    *head, last = items
    return f"{', '.join(head)} {conjunction} {last}" if head else last


def ordinal(number: int) -> str:
    """Return a number as in ``1st``, ``22nd``, ``13th``."""
    ending = "th" if 10 < number < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def plain(text: str) -> str:
    """Return five fields in plain English.

    :param text: a cron expression in its normal form.
    """
    fields = CronSim(text, EPOCH)
    times, days = Times(fields, text.split()[1].startswith("*")), Days(fields)
    if (points := times.points()) is not None:
        return f"{days.told()} at {listed(points)}"
    return times.rhythm() if days.every else f"{times.rhythm()}{days.told_behind()}"


class Times:
    """Tell the minutes and hours.

    :param every_hour: whether the hour is ``*`` or begins with it.
    """

    def __init__(self, fields: CronSim, every_hour: bool):
        self.minutes = sorted(fields.minutes)
        self.hours = sorted(fields.hours)
        self.starred = every_hour
        self.every_hour = every_hour and len(self.hours) == 24

    def points(self) -> list[str] | None:
        """Return the times of day, where they are few and no rhythm tells them better."""
        if len(self.minutes) * len(self.hours) > _MOST_TIMES or self.every_hour or self._hour_step():
            return None
        return [f"{hour:02}:{minute:02}" for hour in self.hours for minute in self.minutes]

    def rhythm(self) -> str:
        """Return how it goes on within a day."""
        step = _step(self.minutes, 60)
        if self._hour_step():
            return f"every {self._hour_step()} hours from 00:{self.minutes[0]:02}"
        if self.every_hour and self.minutes == [0]:
            return "every hour"
        often = None if step is None else "every minute" if step == 1 else f"every {step} minutes"
        if not self.every_hour and len(self.minutes) == 1 and self._is_one_range():
            return f"every hour from {self.hours[0]:02}:{self.minutes[0]:02} to {self.hours[-1]:02}:{self.minutes[0]:02}"
        if self.every_hour:
            return often or f"at minute{_s(self.minutes)} {_ranges(self.minutes)} of every hour"
        if often and self._is_one_range():
            return f"{often} from {self.hours[0]:02}:00 to {self.hours[-1]:02}:{self.minutes[-1]:02}"
        return (
            f"{often or f'at minute{_s(self.minutes)} {_ranges(self.minutes)}'} of the hour{_s(self.hours)} {_ranges(self.hours)}"
        )

    def _hour_step(self) -> int | None:
        step = _step(self.hours, 24)
        return step if self.starred and len(self.minutes) == 1 and step in (2, 3, 4, 6) else None

    def _is_one_range(self) -> bool:
        return self.hours[-1] - self.hours[0] + 1 == len(self.hours)


class Days:
    """Tell the days and months."""

    def __init__(self, fields: CronSim):
        self.months = sorted(fields.months)
        self.numbers = sorted(day for day in fields.days if day > 0)
        self.ends = [
            name for mark, name in ((CronSim.LAST, "last day"), (CronSim.LAST_WEEKDAY, "last weekday")) if mark in fields.days
        ]
        weekdays = [(day, 0) if isinstance(day, int) else day for day in fields.weekdays]
        self.weekdays = sorted({(day % 7, nth) for day, nth in weekdays}, key=lambda pair: (pair[1] % 7, (pair[0] - 1) % 7))
        any_number, any_weekday = len(self.numbers) == 31, len([nth for _, nth in self.weekdays if nth == 0]) == 7
        self.both = fields.day_and
        self.by_number = not any_number and (self.both or not any_weekday)
        self.by_weekday = not any_weekday and (self.both or not any_number)
        self.every = not self.by_number and not self.by_weekday and len(self.months) == 12

    def told(self) -> str:
        """Return the days as in ``Mondays in July``."""
        if self.by_number and self.by_weekday:
            told = [self._numbers(), self._weekdays()]
            return f"days that are both {listed(told)}" if self.both else listed(told)
        if self.by_number:
            return self._numbers()
        if self.by_weekday:
            return self._weekdays()
        return "every day" if len(self.months) == 12 else f"every day in {_names(self.months, _MONTHS, 1)}"

    def told_behind(self) -> str:
        """Return the days as they stand behind a rhythm: ``on Mondays in July``."""
        if self.by_number or self.by_weekday:
            return f" on {self.told()}"
        return f" in {_names(self.months, _MONTHS, 1)}"

    def _numbers(self) -> str:
        days = [*_spans(self.numbers, ordinal), *self.ends]
        longest = [_LONGEST_MONTHS[month - 1] for month in self.months]
        shortest = min(28 if days == 29 else days for days in longest)
        where = " where there is one" if self.numbers and self.numbers[-1] > shortest else ""
        return f"the {listed(days)} of {self._of_months()}{where}"

    def _weekdays(self) -> str:
        plain_days = [day for day, nth in self.weekdays if nth == 0]
        within = "" if len(self.months) == 12 else f" in {self._of_months()}"
        told = [f"{_weekday_names(plain_days)}{within}"] if plain_days else []
        counted = [f"the {_nth(nth)} {_DAYS[day][:-1]}" for day, nth in self.weekdays if nth]
        if counted:
            where = " where there is one" if any(nth == 5 for _, nth in self.weekdays) else ""
            told.append(f"{listed(counted)} of {self._of_months()}{where}")
        return listed(told)

    def _of_months(self) -> str:
        return "every month" if len(self.months) == 12 else _names(self.months, _MONTHS, 1)


def _nth(nth: int) -> str:
    return "last" if nth == CronSim.LAST else ordinal(nth)


def _step(numbers: list[int], size: int) -> int | None:
    """Return the step of numbers that go through the whole of an hour or a day evenly, from 0."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else size
    return step if len(numbers) > 1 and size % step == 0 and numbers == list(range(0, size, step)) else None


def _s(numbers: list[int]) -> str:
    return "s" if len(numbers) > 1 else ""


def _ranges(numbers: list[int]) -> str:
    return listed(_spans(numbers, str))


def _names(numbers: list[int], names: list[str], first: int) -> str:
    return listed(_spans(numbers, lambda number: names[number - first]))


def _weekday_names(days: list[int]) -> str:
    """Return days of the week from Monday on."""
    return listed(_spans([(day - 1) % 7 for day in days], lambda day: _DAYS[(day + 1) % 7]))


def _spans(numbers: list[int], name: Callable[[int], str]) -> list[str]:
    """Return numbers by name, three and more in a row as a span."""
    told: list[str] = []
    while numbers:
        length = next((at for at, number in enumerate(numbers) if number != numbers[0] + at), len(numbers))
        length = length if length > 2 else 1
        told.append(name(numbers[0]) if length == 1 else f"{name(numbers[0])} to {name(numbers[length - 1])}")
        numbers = numbers[length:]
    return told

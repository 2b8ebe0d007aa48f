"""What time is made of, the clock and durations, and how everything is told at once that is wrong with what was given."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from .errors import ConfigError

SECOND = 1_000_000
"""Microseconds in a second: times in the database are integer microseconds UTC."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LATEST = 253_402_300_799_999_999
"""The last microsecond of the calendar, that of the year 9999: no time comes after it."""

LONGEST = 10 * 365 * 86400.0
"""Seconds in ten years: a longer delay is a slip of the keyboard, not a plan."""

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")


class Clock:
    """Tell the time. The only thing in flagsweep that asks the system for it; ``testing.FakeClock`` takes its place."""

    def now(self) -> int:
        """Return the wall-clock time in microseconds UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps."""
        return time.monotonic()


def utc(moment: int) -> datetime:
    """Return a time of the database as a ``datetime`` in UTC.

    :raises OverflowError, TypeError: where it is none.
    """
    return EPOCH + timedelta(microseconds=moment)


def microseconds(at: datetime) -> int:
    """Return a moment, which has a time zone, as the database keeps it: in microseconds UTC."""
    elapsed = at - EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * SECOND + elapsed.microseconds


def seconds(value: object, what: str = "duration") -> float:
    """Return a duration in seconds.

    :param value: a number of seconds, a ``timedelta``, or text such as ``"90"``, ``"5m"`` or ``"1h30m"``.
    :param what: the argument's name, for the error.
    :raises ConfigError: when it is no duration, negative, not finite or longer than ten years.
    """
    amount = _amount(value)
    if amount is None:
        raise ConfigError(f"{what} must be seconds, a timedelta or text such as '30s', '5m' or '1h30m', got {value!r}")
    if not 0 <= amount <= LONGEST:
        raise ConfigError(f"{what} must lie between 0 seconds and ten years, got {value!r}")
    return float(amount)


def _amount(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return None
    text = value.strip().replace(" ", "").lower()
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        return None


def span(seconds: float) -> str:
    """Return a length of time in the unit that suits it."""
    if not math.isfinite(seconds):
        return "ever"
    for unit, size in (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


class Backoff:
    """Say how long to wait before the next attempt.

    :param first: the wait after the first failed attempt: a duration.
    :param factor: what each further failure multiplies it with; at least 1.
    :param cap: the longest wait.
    :param jitter: the share, 0 to 1, by which a wait is randomly longer at the most, so that failures do not return in step.
    :raises ConfigError: naming every bad argument at once.
    """

    def __init__(self, first: object = 10, factor: float = 2, cap: object = "1h", jitter: float = 0.1):
        problems = Problems()
        self.first = problems.take(seconds, first, "backoff first") or 0.0
        self.cap = problems.take(seconds, cap, "backoff cap") or 0.0
        self.factor = problems.number(factor, "backoff factor", 1, 1000)
        self.jitter = problems.number(jitter, "backoff jitter", 0, 1)
        problems.raise_any()

    @classmethod
    def of(cls, value: object) -> Backoff:
        """Return ``value`` if it is a backoff, else one that always waits for that duration."""
        return value if isinstance(value, cls) else cls(first=value, factor=1, cap=value, jitter=0)

    def delay(self, attempt: int, chance: Callable[[], float] = random.random) -> float:
        """Return the seconds to wait after the ``attempt``-th attempt (the first is 1) has failed."""
        try:
            wait = self.first * float(self.factor) ** min(attempt - 1, 2**53)
        except OverflowError:
            wait = self.cap if self.first else 0.0
        return min(wait, self.cap) * (1 + self.jitter * chance())

    def longest(self) -> float:
        """Return the longest wait in seconds, jitter included."""
        return (min(self.first, self.cap) if self.factor == 1 else self.cap) * (1 + self.jitter)

    def __repr__(self) -> str:
        return f"Backoff(first={self.first:g}, factor={self.factor:g}, cap={self.cap:g}, jitter={self.jitter:g})"


class Problems:
    """Collect what is wrong, so that one error tells it all."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def take(self, check: Callable[..., Any], *arguments: Any) -> Any:
        """Return what ``check`` returns, or note its ``ConfigError`` and return None."""
        try:
            return check(*arguments)
        except ConfigError as error:
            self.found += error.problems
            return None

    def number(self, value: Any, what: str, low: float, high: float, whole: bool = False) -> Any:
        """Return ``value`` where it is a number from ``low`` to ``high``, else note the problem and return ``low``."""
        kinds = (int,) if whole else (int, float)
        if isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high:
            return value
        noun = "a whole number" if whole else "a number"
        self.found.append(f"{what} must be {noun} from {low:g} to {high:g}, got {value!r}")
        return low

    def raise_any(self) -> None:
        """Raise one ``ConfigError`` with all that was found, if anything was."""
        if self.found:
            raise ConfigError(self.found)

"""Specs that fire again and again after the same time: ``every``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import ClassVar

from ..config import LONGEST, SECOND, seconds
from ..errors import ConfigError
from ..payloads import short
from .spec import LAST, Spec, SpecError, check_text

_EXAMPLE = "write '30s', '10m', '1h30m' or '1d', or a number of seconds"
_UNITS = {
    "d": 86_400 * SECOND,
    "h": 3600 * SECOND,
    "m": 60 * SECOND,
    "s": SECOND,
    "ms": 1000,
    "us": 1,
}
_NAMES = {"d": "day", "h": "hour", "m": "minute", "s": "second", "ms": "millisecond", "us": "microsecond"}
_LONG = (("mi", "m"), ("s", "s"), ("h", "h"), ("d", "d"), ("w", "w"))
"""How units begin that are spelled out, and what they are here."""

_PART = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)(?P<space>\s*)(?P<unit>[A-Za-z]*)")


@dataclass(frozen=True)
class Every(Spec):
    """Fire at the anchor and every whole number of periods away from it, in UTC: no clock change matters, nothing drifts."""

    sort: ClassVar[str] = "every"

    @classmethod
    def parse(cls, value: object, zone: str) -> Every:
        """Return the spec of a duration from one second to ten years, to the whole microsecond.

        :raises SpecError: when it is none.
        """
        period = round(_seconds(value) * SECOND)
        if period < SECOND:
            raise SpecError(f"every: the shortest period is 1 second, got {short(value)}; {_EXAMPLE}", _begin(value))
        return cls(_written(period), zone)

    @cached_property
    def period(self) -> int:
        """Return the time between two occurrences, in microseconds."""
        return round(seconds(self.text) * SECOND)

    def next(self, after: int, anchor: int = 0) -> int | None:
        moment = after + self.period - (after - anchor) % self.period
        return moment if moment < LAST else None

    def latest(self, not_after: int, after: int, anchor: int = 0) -> int | None:
        moment = not_after - (not_after - anchor) % self.period
        return moment if moment > after else None

    def count(self, after: int, until: int, most: int = 1000, anchor: int = 0) -> int:
        passed = (until - anchor) // self.period - (after - anchor) // self.period
        return max(0, min(most, passed))

    def plain(self) -> str:
        parts = [(int(number), _NAMES[unit]) for number, unit in re.findall(r"(\d+)([a-z]+)", self.text)]
        if parts[0][0] == 1 and len(parts) == 1:
            return f"every {parts[0][1]}"
        return "every " + " ".join(f"{number} {name}{'s' * (number > 1)}" for number, name in parts)


def _written(period: int) -> str:
    text = ""
    for unit, size in _UNITS.items():
        number, period = divmod(period, size)
        text += f"{number}{unit}" if number else ""
    return text


def _seconds(value: object) -> float:
    if isinstance(value, str):
        check_text(value, "10m")
    elif isinstance(value, bool) or not isinstance(value, (int, float, timedelta)):
        raise SpecError(f"every: the period must be text, a number or a timedelta, got {short(value)}; {_EXAMPLE}")
    try:
        return seconds(value, "every: the period")
    except ConfigError as error:
        raise _explained(value, str(error)) from None


def _explained(value: object, problem: str) -> SpecError:
    if "between" in problem:
        limit = f"the period must be from 1 second to ten years ({LONGEST / 86_400:.0f} days)"
        return SpecError(f"every: {limit}, got {short(value)}; {_EXAMPLE}", _begin(value))
    text, at = str(value), 0
    while found := _PART.match(text, at):
        if not found["unit"] or found["unit"].lower() not in {*_UNITS, "w"}:
            return _bad_unit(text, found)
        at = found.end()
    at += len(text[at:]) - len(text[at:].lstrip())
    return SpecError(f"every: {text[at:]!r} in {text!r} is no number with a unit; {_EXAMPLE}", at)


def _bad_unit(text: str, found: re.Match[str]) -> SpecError:
    unit, at = found["unit"], found.start("unit")
    if not unit:
        return SpecError(f"every: the number {found['number']!r} in {text!r} has no unit behind it; {_EXAMPLE}", at)
    short_form = next((short_unit for begin, short_unit in _LONG if unit.lower().startswith(begin)), None)
    hint = f"write {found['number'] + short_form!r}" if short_form else _EXAMPLE
    return SpecError(f"every: {unit!r} in {text!r} is no unit (w, d, h, m, s, ms and us are); {hint}", at)


def _begin(value: object) -> int | None:
    return len(value) - len(value.lstrip()) if isinstance(value, str) else None

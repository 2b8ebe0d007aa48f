"""Specs that fire once: ``at``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import ClassVar

from .spec import Spec, SpecError, check_text
from .zones import DAY, EPOCH, zone_of

_EXAMPLE = "write '2026-12-24 18:00' for the wall clock of the schedule's zone, or '2026-12-24 18:00+09:00'"

_PARTS = (
    ("year", re.compile(r"\s*(\d{4})(?=-)")),
    ("month", re.compile(r"-(\d\d)(?=-)")),
    ("day", re.compile(r"-(\d\d)(?!\d)")),
    ("hour", re.compile(r"(?:[Tt]|\s+)(\d\d)(?=:)")),
    ("minute", re.compile(r":(\d\d)(?!\d)")),
    ("second", re.compile(r":(\d\d)(?!\d)|")),
    ("fraction", re.compile(r"\.(\d{1,6})(?!\d)|")),
    ("offset", re.compile(r"\s*([Zz]|[+-]\d\d:?\d\d|[+-]\d\d(?![\d:]))|")),
)
"""What stands in the text, in this order; the last three need not."""

_BOUNDS = {"year": (1970, 8999), "month": (1, 12), "day": (1, 31), "hour": (0, 23), "minute": (0, 59), "second": (0, 59)}


@dataclass(frozen=True)
class At(Spec):
    """Fire at one moment. With an offset the text is that moment whatever the zone, without it means the zone's wall clock.

    A wall time that comes twice is the first of the two, and one that is skipped the moment at which the clock has jumped past
    it, as for ``cron``.
    """

    sort: ClassVar[str] = "at"

    @classmethod
    def parse(cls, value: object, zone: str) -> At:
        """Return the spec of a moment: a ``datetime``, or text in the form of ISO 8601 with date and time.

        :raises SpecError: when it is none.
        """
        text = value.isoformat(" ") if isinstance(value, datetime) else check_text(value, "2026-12-24 18:00")
        return cls(_written(*_read(text)), zone)

    @cached_property
    def moment(self) -> int:
        """Return when it fires, in microseconds UTC."""
        wall, offset = _read(self.text)
        if offset is None:
            return zone_of(self.zone).moment(wall)
        return (wall - offset - EPOCH) // timedelta(microseconds=1)

    def next(self, after: int, anchor: int = 0) -> int | None:
        return self.moment if self.moment > after else None

    def latest(self, not_after: int, after: int, anchor: int = 0) -> int | None:
        return self.moment if after < self.moment <= not_after else None

    def plain(self) -> str:
        date, _, clock = self.text.partition(" ")
        local = _read(self.text)[1] is None and self.zone != "UTC"
        return f"once, on {date} at {clock}{f' in {self.zone}' if local else ''}"

    def lost(self, now: int, days: int = 60) -> list[str]:
        wall, offset = _read(self.text)
        if offset is not None or not now < self.moment <= now + days * DAY:
            return []
        zone = zone_of(self.zone)
        first, second = zone.readings(wall)
        if first < second:
            return [f"on {wall:%Y-%m-%d} {wall:%H:%M} comes twice in {self.zone}: it fires the first time"]
        if first > second:
            return [
                f"on {wall:%Y-%m-%d} there is no {wall:%H:%M} in {self.zone}: it fires {zone.clock(self.moment, wall.date())}"
            ]
        return []


def _read(text: str) -> tuple[datetime, timedelta | None]:
    """Return the wall time that a text names, and its offset from UTC where it has one."""
    found, at = {}, 0
    for name, pattern in _PARTS:
        part = pattern.match(text, at)
        if part is None:
            raise SpecError(f"at: there is no {name} of {_DIGITS[name]} where {text[at:]!r} stands in {text!r}; {_EXAMPLE}", at)
        found[name] = (part[1] or "", part.start(1))
        at = part.end()
    if text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        raise SpecError(f"at: {text[at:]!r} in {text!r} is not understood: a zone's name goes into the zone; {_EXAMPLE}", at)
    return _wall(text, found), _offset(text, *found["offset"])


_DIGITS = {"year": "four digits", "month": "two digits", "day": "two digits", "hour": "two digits", "minute": "two digits"}


def _wall(text: str, found: dict[str, tuple[str, int]]) -> datetime:
    numbers = {name: _number(text, name, *found[name]) for name in _BOUNDS}
    fraction = int(found["fraction"][0].ljust(6, "0"))
    try:
        return datetime(**numbers, microsecond=fraction)  # type: ignore[arg-type]
    except ValueError:
        raise SpecError(f"at: that month has no day {numbers['day']} in {text!r}; {_EXAMPLE}", found["day"][1]) from None


def _number(text: str, name: str, digits: str, at: int) -> int:
    low, high = _BOUNDS[name]
    number = int(digits or 0)
    if not low <= number <= high:
        raise SpecError(f"at: the {name} {digits!r} in {text!r} is not from {low} to {high}; {_EXAMPLE}", at)
    return number


def _offset(text: str, given: str, at: int) -> timedelta | None:
    if not given:
        return None
    digits = given[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 14 or minutes > 59:
        raise SpecError(f"at: the offset {given!r} in {text!r} is not from -14:00 to +14:00; {_EXAMPLE}", at)
    return timedelta(hours=hours, minutes=minutes) * (-1 if given[0] == "-" else 1)


def _written(wall: datetime, offset: timedelta | None) -> str:
    text = wall.isoformat(" ", "microseconds" if wall.microsecond else "seconds" if wall.second else "minutes")
    if offset is None:
        return text
    hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
    return f"{text}{'-' if offset < timedelta() else '+'}{hours:02}:{minutes:02}"

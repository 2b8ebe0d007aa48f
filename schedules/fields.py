"""The five fields of a cron expression: what may stand in each, and where a mistake is.

cronsim decides what an expression means; here is said what is wrong with one that it refuses, and is refused what it would read
in a way that nobody means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .spec import SpecError


@dataclass(frozen=True)
class Field:
    """Know one field: its bounds, the names it takes beside numbers (the first stands for ``low``), and what else it takes."""

    name: str
    low: int
    high: int
    allowed: str
    example: str
    names: tuple[str, ...] = ()

    def check(self, text: str, at: int) -> None:
        """Refuse a field's text that begins at column ``at``.

        :raises SpecError: with the position of the mistake.
        """
        for term, begin in _split(text, at):
            self._check_term(term, begin)

    def _check_term(self, term: str, at: int) -> None:
        if not term:
            raise self._error("there is nothing beside a comma", at)
        if self._is_special(term, at):
            return
        base, slash, step = term.partition("/")
        if slash:
            self._check_step(base, step, at + len(base) + 1)
        if base != "*":
            self._check_range(base, at, bool(slash))

    def _is_special(self, term: str, at: int) -> bool:
        """Return whether a term is ``L``, ``LW``, ``5L`` or ``1#2``, where the field has those."""
        if self.name == "day of month":
            return term in ("L", "LW")
        if self.name != "day of week":
            return False
        day, mark, nth = term.partition("#")
        if mark:
            self._number(day, at)
            if not re.fullmatch("0*[1-5]", nth):
                raise self._error(f"{nth!r} behind '#' is not from 1 to 5", at + len(day) + 1)
        elif term.endswith("L") and term[:-1].isdigit():
            self._number(term[:-1], at)
            return True
        return bool(mark)

    def _check_step(self, base: str, step: str, at: int) -> None:
        if not step.isdigit() or not int(step):
            raise self._error(f"the step {step!r} is no number from 1", at)
        low, dash, high = base.partition("-")
        if dash and low == high:
            # cronsim reads 5-5/2 as 5/2, which is 5, 7, 9 ...; Debian reads it as 5.
            raise self._error(f"{base!r} is a range of one, which has no steps; write {low!r} alone", at - len(base) - 1)

    def _check_range(self, text: str, at: int, stepped: bool) -> None:
        first, dash, last = text.partition("-")
        low = self._number(first, at, text)
        if not dash:
            return
        high = self._number(last, at + len(first) + 1, text)
        if high < low:
            raise self._error(f"the range {text!r} runs backwards; {self._unwrapped(first, low, high, stepped)}", at)

    def _unwrapped(self, first: str, low: int, high: int, stepped: bool) -> str:
        if stepped:
            return "write the numbers one by one"
        if self.name == "day of week" and high == 0:
            return f"write '{first}-7' (7 is Sunday, too)"
        top = 6 if self.name == "day of week" else self.high
        head = f"{low}-{top}" if low < top else f"{low}"
        return f"write '{head},{self.low}-{high}'" if self.low < high else f"write '{head},{high}'"

    def _number(self, text: str, at: int, whole: str = "") -> int:
        if text in self.names:
            return self.low + self.names.index(text)
        if not text.isdigit():
            raise self._error(f"{text or whole!r} is no number{self._meant(text)}", at)
        number = int(text)
        if not self.low <= number <= self.high:
            raise self._error(f"{text!r} is not from {self.low} to {self.high}", at)
        return number

    def _meant(self, text: str) -> str:
        name = next((name for name in self.names if len(text) > 1 and (text.startswith(name) or name.startswith(text))), None)
        if name:
            return f" or name; write {name!r}"
        if text == "?":
            return "; write '*'"
        if text.endswith("W") and text[:-1].isdigit():
            return "; the weekday nearest to a day is not known here"
        return " or name" if self.names else ""

    def _error(self, problem: str, at: int) -> SpecError:
        return SpecError(f"{self.name}: {problem}; {self.allowed}, such as {self.example!r}", at)


def _split(text: str, at: int) -> Iterator[tuple[str, int]]:
    for term in text.split(","):
        yield term, at
        at += len(term) + 1


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

FIELDS = (
    Field("minute", 0, 59, "0 to 59, lists, ranges and steps are allowed", "*/10"),
    Field("hour", 0, 23, "0 to 23, lists, ranges and steps are allowed", "9-17"),
    Field("day of month", 1, 31, "1 to 31, lists, ranges, steps, L (the last day) and LW are allowed", "1,15"),
    Field("month", 1, 12, "1 to 12, JAN to DEC, lists, ranges and steps are allowed", "1-6", _MONTHS),
    Field(
        "day of week",
        0,
        7,
        "0 to 7 (0 and 7 are Sunday), SUN to SAT, lists, ranges, steps, 5L and 1#2 are allowed",
        "MON-FRI",
        _DAYS,
    ),
)

SHORTCUTS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""What stands for five fields in crontab(5)."""

_FIVE = "write five fields (minute, hour, day of month, month, day of week) such as '0 4 * * 1', or @daily"


def normal(text: str) -> str:
    """Return a cron expression as five fields in capitals with one blank between them.

    :raises SpecError: with the position of the mistake.
    """
    given = text.strip()
    if given.lower() in SHORTCUTS:
        return SHORTCUTS[given.lower()]
    begin = len(text) - len(text.lstrip())
    if given[0] == "@" or given[0].isalpha():
        raise SpecError(f"cron: {given!r} is no cron expression; {_instead_of_words(given)}", begin)
    parts = [(found[0].upper(), found.start()) for found in re.finditer(r"\S+", text)]
    if len(parts) != 5:
        raise _wrong_number(given, parts, begin + len(given))
    try:
        for field, (part, at) in zip(FIELDS, parts, strict=True):
            field.check(part, at)
    except SpecError as error:
        raise SpecError(f"cron {given!r}: {error}", error.position) from None
    return " ".join(part for part, _ in parts)


def _wrong_number(given: str, parts: list[tuple[str, int]], end: int) -> SpecError:
    if len(parts) < 5:
        missing = " and ".join(field.name for field in FIELDS[len(parts) :])
        return SpecError(f"cron {given!r} has {len(parts)} of five fields, without {missing}; {_FIVE}", end)
    hint = "leave the seconds out, or the year; for seconds there is every '30s'" if len(parts) < 8 else "leave the command out"
    return SpecError(f"cron {given!r} has {len(parts)} fields, where five are read: {hint}", parts[5][1])


def _instead_of_words(given: str) -> str:
    period = re.fullmatch(r"@?every\s+(\d+)?\s*([a-z]*)", given.lower())
    if period:
        return f"for a period there is every '{period[1] or 1}{(period[2] or 'm')[0]}'"
    if given.lower() == "@reboot":
        return "nothing fires at a start; raise the flag where the program starts"
    if "=" in given:
        return "give the zone as the schedule's zone, not in the text"
    return f"{_FIVE}, {', '.join(list(SHORTCUTS)[:-1])} or {list(SHORTCUTS)[-1]}" if given[0] == "@" else _FIVE

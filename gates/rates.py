"""Rates, as ``"10/m"`` or ``"100/h burst 20"``: how many tokens there are just now, and when the next one is.

It is GCRA (ITU-T I.371, annex A, virtual scheduling). All that is remembered is the *theoretical arrival time*: when the
bucket is full again. A bucket that was full for long counts from now; each token granted moves that time on by one interval,
which is period / count; a token is there while the time lies less than ``burst`` intervals ahead.

The state is that time in 1/1024 µs since 1970, rounded up: in a signed 64-bit column it is good until the year 2255, and it
means the same for every rate, so that a limit may be changed while both the old and the new code run. Reading it snaps it
down to a whole number of *steps*, of which an interval has 512 for each of its microseconds: a step is longer than what
rounding added, so the time is exactly what was written, and 7 a minute are 7 in every minute for ever.

A state too far ahead to be true (the clock was set back) counts as an empty bucket: the next token comes after one interval.
So write what ``take`` returns whenever it differs, whether or not anything was granted. Clocks of several hosts may differ by
``SKEW``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..config import LONGEST, SECOND, seconds
from ..errors import ConfigError
from ..payloads import short

MOST = 1_000_000_000
"""Tokens in one period or burst, at the most."""

SKEW = SECOND
"""Microseconds by which two hosts' clocks may differ: a state so much too far ahead is another's, and is waited for."""

FINE = 1024
"""Units of the state in a microsecond."""

_STEPS = 512
_RATE = re.compile(r"([0-9]+) */ *([0-9a-z.][0-9a-z. ]*?)(?: +burst +([0-9]+))?")
_UNITS = {
    "w": 604_800 * SECOND,
    "d": 86_400 * SECOND,
    "h": 3600 * SECOND,
    "m": 60 * SECOND,
    "s": SECOND,
    "ms": 1000,
    "us": 1,
}
_WORDS = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d", "week": "w"}
_FORMS = "such as '10/m', '5/s', '1000/d', '10/30s' or '100/h burst 20'"


@dataclass(frozen=True)
class Rate:
    """Let so many through in a period.

    :param count: tokens that come in each period.
    :param period: microseconds.
    :param burst: tokens that a full bucket holds.
    :raises ConfigError: where these are no rate, more than a million a second, or ten years would not fill the bucket.
    """

    count: int
    period: int
    burst: int

    def __post_init__(self) -> None:
        for name, most in (("count", MOST), ("period", int(LONGEST * SECOND)), ("burst", MOST)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ConfigError(f"its {name} must be a whole number from 1 to {most:,}, got {short(value)}: write it {_FORMS}")
        if self.count > self.period:
            raise ConfigError(f"it must be at most a million a second, got {self._said()}")
        if self.burst * self.period > self.count * LONGEST * SECOND:
            raise ConfigError(f"its burst must come together within ten years, got {self}")

    @classmethod
    def parse(cls, value: object, what: str = "rate") -> Rate:
        """Return the rate that a text spells.

        :param value: ``"COUNT/DURATION"``, where a bare unit means one of it (``"10/m"``, ``"300/min"``, ``"10/30s"``), with
            ``" burst N"`` behind it or not; or a rate. Without a burst it is what a second brings, and at least 1.
        :param what: the argument's name, for the error.
        :raises ConfigError: for anything else.
        """
        if isinstance(value, cls):
            return value
        found = _RATE.fullmatch(value.strip().lower()) if isinstance(value, str) and len(value) <= 100 else None
        period = _period(found[2]) if found else None
        if found is None or not period:
            raise ConfigError(f"{what} must be a count, a slash and a duration, {_FORMS}, got {short(value)}")
        count = int(found[1])
        burst = _default_burst(count, period) if found[3] is None else int(found[3])
        try:
            return cls(count, period, burst)
        except ConfigError as error:
            raise ConfigError(f"{what} cannot be {short(value)}: {error}") from None

    def __str__(self) -> str:
        """Return the normal form, which parses to the same rate."""
        burst = "" if self.burst == _default_burst(self.count, self.period) else f" burst {self.burst}"
        return self._said() + burst

    def _said(self) -> str:
        unit = next(unit for unit, length in _UNITS.items() if self.period % length == 0)
        many = self.period // _UNITS[unit]
        return f"{self.count}/{unit}" if many == 1 else f"{self.count}/{many}{unit}"

    def take(self, taken: int | None, now: int, wanted: int) -> tuple[int, int]:
        """Return how many tokens of those wanted are granted, and the new state.

        No window of W µs, the first counted and the last not, ever gets more than ``burst`` and the whole tokens that W brings.

        :param taken: the state, None for a full bucket.
        :param now: microseconds UTC.
        """
        full = self._full(taken, now)
        granted = max(0, min(wanted, (self._furthest(now) - full) // self._interval()))
        return granted, self._written(full + granted * self._interval())

    def opens_at(self, taken: int | None, now: int) -> int | None:
        """Return the time of the next token in microseconds UTC; None: there is one now."""
        at = (self._full(taken, now) - (self.burst - 1) * self._interval()) * self.period // (self.count * self._interval())
        return at if at > now else None

    def give_back(self, taken: int, count: int) -> int:
        """Return the state without so many of the tokens that were granted."""
        return self._written(self._read(taken) - count * self._interval())

    def _interval(self) -> int:
        """Return the steps from one token to the next: at least ``_STEPS`` a microsecond, so a step is shorter than that."""
        return _STEPS * self.period // self.count

    def _steps(self, time: int) -> int:
        """Return a time in steps, rounded up."""
        return -(-time * self.count * self._interval() // self.period)

    def _read(self, taken: int) -> int:
        return taken * self.count * self._interval() // (FINE * self.period)

    def _written(self, steps: int) -> int:
        return -(-steps * FINE * self.period // (self.count * self._interval()))

    def _furthest(self, now: int) -> int:
        """Return the step to which the state may go: to the end of the microsecond ``now``, else an interval that is not whole
        would lose a part of one with every token."""
        return self._steps(now + 1) - 1 + self.burst * self._interval()

    def _full(self, taken: int | None, now: int) -> int:
        """Return the step at which the bucket is full again."""
        if taken is None:
            return self._steps(now)
        full = self._read(taken)
        if full > self._furthest(now + SKEW):
            full = self._furthest(now)
        return max(full, self._steps(now))


def state_of(now: int) -> int:
    """Return the state of a bucket that has become full just now, whatever its rate; one that is less was full before."""
    return now * FINE


def _period(text: str) -> int | None:
    """Return the microseconds of what stands behind the slash, None where it is no duration."""
    unit = _WORDS.get(text, text)
    if unit in _UNITS:
        return _UNITS[unit]
    try:
        return round(seconds(text) * SECOND)
    except ConfigError:
        return None


def _default_burst(count: int, period: int) -> int:
    return max(1, count * SECOND // period)

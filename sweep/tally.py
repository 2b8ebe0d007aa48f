"""The tally of a turn: what became of the flags of each kind, how long they waited and ran."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from ..config import SECOND
from ..databases.counts import DURATIONS, SUMS
from .claims import Claimed

MINUTE = 60
"""Seconds that one row counts."""

HOWS = {name: number for number, name in enumerate(SUMS[:-1])}
SPENT, WAITED, LONGEST, FIRST = len(HOWS), len(HOWS) + 1, len(HOWS) + 2, len(HOWS) + 3


def slot_of(microseconds: int) -> int:
    """Return where a duration is counted: 13 slots, the first up to half a millisecond, each four times the one before."""
    return min(max(0, (microseconds.bit_length() - 8) // 2), len(DURATIONS) - 1)


def most_of(slot: int) -> float:
    """Return the seconds that durations of a slot do not reach."""
    return 2 ** (9 + 2 * slot) / SECOND


class Tally:
    """Add up what became of flags; a row for each kind."""

    def __init__(self) -> None:
        self._rows: dict[str, list[int]] = defaultdict(lambda: [0] * (FIRST + len(DURATIONS)))

    def add(self, kind: str, how: str, count: int = 1) -> None:
        """Count flags that ended in this way: one of ``HOWS``."""
        self._rows[kind][HOWS[how]] += count

    def ran(self, claimed: Claimed, seconds: float, ago: float, now: int) -> None:
        """Take note of how long a flag ran, and how long it had been due when it began.

        :param ago: seconds since it began.
        :param now: microseconds UTC.
        """
        row, took = self._rows[claimed.kind], int(seconds * SECOND)
        row[SPENT] += took
        row[FIRST + slot_of(took)] += 1
        if took > row[LONGEST]:
            row[LONGEST] = took
        waited = now - int(ago * SECOND) - claimed.due_at
        if waited > row[WAITED]:
            row[WAITED] = waited

    def rows(self, consumer: int, now: int) -> Iterator[tuple]:
        """Yield rows as they are kept, by kind."""
        minute = now // (MINUTE * SECOND) * MINUTE * SECOND
        for kind in sorted(self._rows):
            yield (kind, MINUTE, minute, consumer, *self._rows[kind])

    def paces(self) -> Iterable[tuple[str, int, float]]:
        """Return (kind, how many ran, their seconds) of each kind of which any ran."""
        for kind, row in self._rows.items():
            if ran := sum(row[FIRST:]):
                yield kind, ran, row[SPENT] / SECOND

"""The tally of a turn: what became of the flags of each kind, how long they waited and ran."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..config import SECOND
from ..databases.counts import DURATIONS, SUMS
from .claims import Claimed

MINUTE = 60
"""Seconds that one row counts."""

HOWS = {name: number for number, name in enumerate(SUMS[:-1])}
SPENT, WAITED, LONGEST, FIRST = len(HOWS), len(HOWS) + 1, len(HOWS) + 2, len(HOWS) + 3


_SLOTS = [min(max(0, (bits - 8) // 2), len(DURATIONS) - 1) for bits in range(128)]
"""Where a duration is counted, by the bits of its microseconds."""


def slot_of(microseconds: int) -> int:
    """Return where a duration is counted: 13 slots, the first up to half a millisecond, each four times the one before."""
    return _SLOTS[microseconds.bit_length()]


def most_of(slot: int) -> float:
    """Return the seconds that durations of a slot do not reach."""
    return 2 ** (9 + 2 * slot) / SECOND


Ran = tuple[Claimed, Any, float]
"""A flag, what became of it, and the seconds that it took."""


class Tally:
    """Add up what became of flags; a row for each kind."""

    def __init__(self) -> None:
        self._rows: dict[str, list[int]] = defaultdict(lambda: [0] * (FIRST + len(DURATIONS)))

    def add(self, kind: str, how: str, count: int = 1) -> None:
        """Count flags that ended in this way: one of ``HOWS``."""
        self._rows[kind][HOWS[how]] += count

    def ran(self, done: Sequence[Ran], now: int, clock: float) -> None:
        """Take note of how long flags ran, and how long they had been due when they began.

        :param done: each with the seconds that it ran, behind what became of it.
        :param now: microseconds UTC; ``clock``: the same moment, in seconds of the system's monotonic clock.
        """
        for kind, runs in _by_kind(done).items():
            row, times = self._rows[kind], [int(seconds * SECOND) for _, _, seconds in runs]
            for bits, count in Counter(map(int.bit_length, times)).items():
                row[FIRST + _SLOTS[bits]] += count
            row[SPENT] += sum(times)
            row[LONGEST] = max(row[LONGEST], max(times))
            latest = max([claimed.began * SECOND - claimed.due_at for claimed, _, _ in runs])
            row[WAITED] = max(row[WAITED], int(now - clock * SECOND + latest))

    def by_kind(self) -> Iterable[tuple[str, Sequence[int]]]:
        """Return the numbers of each kind: those of ``HOWS``, what it ``SPENT`` and so on, and from ``FIRST`` on the slots."""
        return self._rows.items()

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


def _by_kind(done: Sequence[Ran]) -> dict[str, Sequence[Ran]]:
    """Return flags by their kinds; in most turns there is one, and nothing to part."""
    kinds = {claimed.kind for claimed, _, _ in done}
    if len(kinds) < 2:
        return dict.fromkeys(kinds, done)
    parted: dict[str, list[Ran]] = {kind: [] for kind in kinds}
    for each in done:
        parted[each[0].kind].append(each)
    return dict(parted)

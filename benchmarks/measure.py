"""Samples, bounds and rows: how a figure is taken, judged and printed."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar


class Skipped(Exception):
    """A benchmark, or a peer in it, that cannot run here; the text says why."""


@dataclass(frozen=True)
class Plan:
    """Where a benchmark keeps its files, whether it takes the small sizes, and the commit that it measures beside this one."""

    folder: Path
    quick: bool = False
    before: str = ""

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def new_file(self, name: str) -> Path:
        """Return the path of a file that does not exist yet, in a folder of its own."""
        number = sum(1 for _ in self.folder.iterdir())
        folder = self.folder / f"{number:03d}-{name}"
        folder.mkdir()
        return folder / f"{name}.db"


@dataclass(frozen=True)
class Samples:
    """What each side of a paired run gave, one value a round."""

    values: Mapping[str, Sequence[float]]

    def median(self, side: str) -> float:
        return statistics.median(self.values[side])

    def ratio(self, side: str, other: str) -> float:
        """Return the median of the rounds' own ratios: a slow minute of the machine hits both sides of a round."""
        return statistics.median(a / b for a, b in zip(self.values[side], self.values[other], strict=True))


Taken = TypeVar("Taken")


def alternate(sides: Mapping[str, Callable[[], Taken]], times: int) -> dict[str, list[Taken]]:
    """Run every side once a round, in turn (A B A B ...), for `times` rounds; return what each gave."""
    taken: dict[str, list[Taken]] = {side: [] for side in sides}
    for _ in range(times):
        for side, run in sides.items():
            gc.collect()
            taken[side].append(run())
    return taken


def paired(sides: Mapping[str, Callable[[], float]], times: int) -> Samples:
    """Alternate sides that each return their own figure."""
    return Samples(alternate(sides, times))


def seconds_of(action: Callable[[], object]) -> float:
    """Return how many seconds the action took."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def quantile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that `share` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Bound:
    """What a figure (or its ratio to the one beside it) must reach, and what it aims for."""

    must: float | None
    aim: float | None = None
    of: str = "measured"
    at_least: bool = True

    def verdict(self, value: float) -> str:
        if self.aim is not None and self._meets(value, self.aim):
            return "aim"
        if self.must is None:
            return "below aim"
        return "ok" if self._meets(value, self.must) else "MISS"

    def _meets(self, value: float, limit: float) -> bool:
        return value >= limit if self.at_least else value <= limit


def ratio_at_least(must: float | None, aim: float | None = None) -> Bound:
    """Bound measured / beside from below."""
    return Bound(must, aim, of="ratio")


def ratio_at_most(must: float, aim: float | None = None) -> Bound:
    """Bound measured / beside from above."""
    return Bound(must, aim, of="ratio", at_least=False)


def at_most(must: float | None, aim: float | None = None) -> Bound:
    """Bound the measured figure from above."""
    return Bound(must, aim, at_least=False)


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure in `unit`, the figure beside it in the same unit, and the verdict."""

    what: str
    unit: str = ""
    measured: float | None = None
    beside: str = ""
    peer: float | None = None
    ratio: float | None = None
    bound: Bound | None = None
    note: str = ""
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    failed: bool = False

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "FAILED" if self.failed else "skipped"
        value = self.ratio if self.bound and self.bound.of == "ratio" else self.measured
        return self.bound.verdict(value) if self.bound and value is not None else ""

    def to_dict(self) -> dict[str, object]:
        bound = self.bound
        return {
            "what": self.what, "unit": self.unit, "measured": self.measured, "beside": self.beside, "peer": self.peer,
            "ratio": self.ratio, "must": bound and bound.must, "aim": bound and bound.aim,
            "bound_of": bound and bound.of, "bound_is": bound and ("at least" if bound.at_least else "at most"),
            "verdict": self.verdict, "note": self.note,
            "samples": {side: list(values) for side, values in self.samples.items()},
        }  # fmt: skip


def row_of(what: str, unit: str, samples: Samples, side: str, other: str, bound: Bound | None = None) -> Row:
    """Return the row that sets the median of one side beside the median of another."""
    return Row(
        what, unit, samples.median(side), other, samples.median(other), samples.ratio(side, other), bound,
        samples={side: samples.values[side], other: samples.values[other]},
    )  # fmt: skip


HEADINGS = ("what", "measured", "beside it", "gives", "ratio", "must", "aim", "verdict")


def table(rows: Iterable[Row]) -> str:
    """Return the rows as aligned text, notes below the rows they belong to."""
    lines = [(HEADINGS, "")] + [(_cells(row), row.note) for row in rows]
    widths = [max(len(cells[column]) for cells, _ in lines) for column in range(len(HEADINGS))]
    text = []
    for cells, note in lines:
        text.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
        text.extend([f"    {note}"] if note else [])
    return "\n".join(text)


def _cells(row: Row) -> tuple[str, ...]:
    figures = (quantity(row.measured, row.unit), row.beside, quantity(row.peer, row.unit), quantity(row.ratio))
    return (row.what, *figures, *_limits(row), row.verdict)


def _limits(row: Row) -> tuple[str, str]:
    """Return what the row must reach and aims for, as text."""
    if row.bound is None:
        return "", ""
    sign = ">=" if row.bound.at_least else "<="
    unit = row.unit if row.bound.of == "measured" else ""
    must, aim = ("" if limit is None else f"{sign} {quantity(limit, unit)}" for limit in (row.bound.must, row.bound.aim))
    return must, aim


def quantity(value: float | None, unit: str = "") -> str:
    """Return a number with its unit, in as many digits as mean something."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 20 else 2
    return f"{value:,.{digits}f}{'' if unit.startswith('/') or not unit else ' '}{unit}"

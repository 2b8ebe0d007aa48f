"""Totals: what this process has done of each kind since it began. Whoever asks sees numbers that only grow."""

from __future__ import annotations

import threading

from .tally import Tally


class Totals:
    """Add up the tallies of all lanes, once they are committed: the same numbers as in the table of counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, list[int]] = {}

    def add(self, tally: Tally) -> None:
        """Add a tally."""
        with self._lock:
            for kind, row in tally.by_kind():
                before = self._rows.get(kind)
                self._rows[kind] = list(row) if before is None else [old + new for old, new in zip(before, row, strict=True)]

    def by_kind(self) -> dict[str, list[int]]:
        """Return the numbers of each kind, in the order of the tally's."""
        with self._lock:
            return {kind: list(row) for kind, row in self._rows.items()}

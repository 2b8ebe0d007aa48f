"""Copy rows from one database into another, and compare both: page by page, by their primary keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...databases.bulk import Record, Shape
from ...databases.errors import DATABASE_ERRORS
from ...models import AWAY
from .side import Side
from .tables import fitted, goes, keyed, landed, put, shapes

PAGE = 2000
"""Rows that are read and written together."""
PAGE_BYTES = 8_000_000
"""Characters of a page from which on the next ones are smaller."""
FEW = 20_000
"""Flags that are compared whole in a moment, while nobody can raise any."""
LONG = ("flag", "history")
"""The tables that may be large, whose rows have ids."""
TRIES = 10
"""How often a page is written that somebody else was in the way of."""

_UNSUMMED: tuple[type[Exception], ...] = (*DATABASE_ERRORS, ArithmeticError, ValueError, TypeError)

Told = Callable[[str, int], Any]
"""What is told how many more rows are done, and what is done with them; what it raises ends the work there."""


class Copying:
    """Have one database hold what another one does.

    :param told: called after each page.
    """

    def __init__(self, here: Side, there: Side, told: Told):
        self.parked = 0
        """Rows that had to be changed so that the other database can hold them."""
        self.counts: dict[str, int] = {}
        """How many rows of each table both have."""
        self.mended = 0
        """Rows that had changed here since they were copied."""
        self._here = here
        self._there = there
        self._told = told
        self._limit = PAGE

    def copy(self, name: str, after: int, done: Callable[[int], None]) -> None:
        """Copy the rows behind an id.

        :param done: called within the transaction that writes them with the last id of a page.
        """
        shape = shapes()[name]
        while rows := self._page(self._here, shape, (after,) if after else None):
            (after,) = shape.key_of(rows[-1])

            def write(rows: Sequence[Record] = rows, last: int = after) -> None:
                self._insert(name, landed(name, rows))
                done(last)

            self._within(write)
            self._told(f"copying {name}", len(rows))

    def compare(self, name: str) -> tuple[int, str]:
        """Read all rows of both databases, and mend what differs there.

        :return: how many differed, and the checksum of what both hold by now.
        """
        shape = shapes()[name]
        differed, count, checksum = 0, 0, hashlib.sha256()
        after: Record | None = None
        more = True
        while more:
            rows = self._page(self._here, shape, after)
            last = shape.key_of(rows[-1]) if rows else None
            found = self._there.dialect.page(self._there.db, shape, after, 2 * PAGE, last)
            more = bool(rows or found)
            if len(found) == 2 * PAGE:  # Perhaps there are more up to the last of these.
                last = shape.key_of(found[-1])
                rows = [row for row in rows if shape.key_of(row) <= last]
            agreed, wrong = self._agreed(name, landed(name, rows), found)
            differed += wrong
            count += len(agreed)
            checksum.update(repr(agreed).encode(errors="surrogatepass"))
            after = last or after
            self._told(f"comparing {name}", len(rows))
        self.mended += differed
        self.counts[name] = count
        return differed, checksum.hexdigest()

    def compare_short(self, name: str) -> tuple[int, str]:
        """Do the same with a table that has no ids, whole."""
        shape = shapes()[name]
        rows, found = (
            sorted(
                (row for page in side.dialect.all_of(side.db, shape) for row in page if self._is_carried(name, row)),
                key=lambda row: repr(shape.key_of(row)),
            )
            for side in (self._here, self._there)
        )
        agreed, wrong = self._agreed(name, rows, found)
        self.counts[name] = len(agreed)
        return wrong, hashlib.sha256(repr(agreed).encode(errors="surrogatepass")).hexdigest()

    def last_look(self, since: int) -> dict[str, str] | None:
        """While nobody else can write here: mend what has changed there since it was compared.

        :param since: when the comparison began, in microseconds UTC, by the slowest clock that there may be.
        :return: the checksums of what was read whole once more; None where nothing had changed, and nothing was.
        """
        few = self._here.dialect.count_of(self._here.db, shapes()["flag"].table) <= FEW
        if not few and self._sums(self._here) == self._sums(self._there):
            return None
        if not few and self._mend_recent(since) and self._sums(self._here) == self._sums(self._there):
            return {}
        return {name: self.compare(name)[1] for name in LONG}

    def _mend_recent(self, since: int) -> bool:
        """Mend what somebody may have changed since a time; return whether that was not too much to be read."""
        for name in LONG:
            shape, here, there = shapes()[name], self._here, self._there
            last = there.dialect.highest_of(there.db, shape.table)
            if name == "flag":
                rows = here.dialect.recent(here.db, shape, last, since, FEW)
            else:
                rows = here.dialect.page(here.db, shape, (last,), FEW)
            if len(rows) == FEW:
                return False
            for start in range(0, len(rows), PAGE):
                some = rows[start : start + PAGE]
                found = there.dialect.these(there.db, shape, shape.key, [shape.key_of(row) for row in some])
                self.mended += self._agreed(name, landed(name, some), found)[1]
            self.counts[name] = there.dialect.count_of(there.db, shape.table)
        return True

    def _sums(self, side: Side) -> Any:
        """Return what no change of a row by the site leaves as it was."""
        try:
            return [*side.dialect.sums_of_flags(side.db), *side.dialect.sums_of_history(side.db)]
        except _UNSUMMED:  # Numbers that a hand has put there.
            return object()

    def _is_carried(self, name: str, row: Record) -> bool:
        """The gate of all holds the pause of the move meanwhile."""
        return goes(name, row) and not (name == "gate" and row[shapes()[name].columns.index("sort")] == "all")

    def _agreed(self, name: str, wanted: Sequence[Record], found: Sequence[Record]) -> tuple[Sequence[Record], int]:
        """Return the rows that both hold by now, and how many had to be mended there."""
        if wanted == found:
            return wanted, 0
        shape, there = shapes()[name], self._there
        by_key = keyed(shape, found)
        known = keyed(shape, wanted)
        fit = [row if by_key.get(key) == row else fitted(there.db, there.dialect, name, row) for key, row in known.items()]
        wrong = [row for row in fit if by_key.get(shape.key_of(row)) != row]
        gone = [key for key in by_key if key not in known]
        if wrong or gone:

            def mend() -> None:
                there.dialect.erase(
                    there.db, shape, [*gone, *(shape.key_of(row) for row in wrong if shape.key_of(row) in by_key)]
                )
                self._insert(name, wrong)

            self._within(mend)
        return fit, len(wrong) + len(gone)

    def _insert(self, name: str, rows: Sequence[Record]) -> None:
        """Write rows there, instead of those that an earlier call has written since it last noted how far it was.

        Where a flag has come down here and was raised anew since it was copied, it has another id by now.
        """
        there, shape = self._there, shapes()[name]
        try:
            with there.dialect.undoable(there.db):
                self.parked += put(there.db, there.dialect, name, rows)
            return
        except AWAY as error:
            if there.dialect.is_away(error) or not there.dialect.in_transaction(there.db):
                raise
        former = [shape.key_of(row) for row in rows]
        if name == "flag":
            fit = [fitted(there.db, there.dialect, name, row) for row in rows]
            columns = [shape.columns.index(column) for column in ("kind", "key")]
            among = [tuple(row[place] for place in columns) for row in fit]
            former += [shape.key_of(row) for row in there.dialect.these(there.db, shape, ("kind", "key"), among)]
        there.dialect.erase(there.db, shape, former)
        self.parked += put(there.db, there.dialect, name, rows)

    def _page(self, side: Side, shape: Shape, after: Record | None) -> list[Record]:
        """Return the next rows, fewer where they are large."""
        rows = side.dialect.page(side.db, shape, after, self._limit)
        size = sum(_size(row) for row in rows[:: max(1, len(rows) // 50)]) * max(1, len(rows) // 50)
        if size > PAGE_BYTES:
            self._limit = max(20, self._limit // 2)
        elif size < PAGE_BYTES // 4:
            self._limit = min(PAGE, self._limit * 2)
        return rows

    def _within(self, write: Callable[[], None]) -> None:
        """Write there in one transaction, again where another one was in its way."""
        for left in reversed(range(TRIES)):
            try:
                with self._there.connections.write():
                    write()
                return
            except DATABASE_ERRORS as error:
                if not left or not self._there.dialect.is_busy(error):
                    raise


def _size(row: Iterable[Any]) -> int:
    return sum(len(value) for value in row if isinstance(value, (str, bytes)))

"""Import: read the lines of an export into a database that may have flags of its own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, Any

from ...config import Clock
from ...databases import schema
from ...databases.bulk import Record
from ...databases.connections import Connections
from ...databases.errors import DATABASE_ERRORS
from ...models import bump
from .lines import rows_in, verify
from .tables import fitted, keyed, landed, put, shapes

PAGE = 500
"""Rows of one transaction: the site writes beside it."""
TRIES = 10
NAMED = 10
"""So many of the flags that are up already, with other contents, are named."""


@dataclass
class Imported:
    """Tell what an import has done, or with ``dry_run`` would do."""

    dry_run: bool = False
    new: Counter[str] = field(default_factory=Counter)
    """Rows that were written, by table."""
    same: Counter[str] = field(default_factory=Counter)
    """Rows that were there already, to the letter: an import that was cut off goes on."""
    replaced: Counter[str] = field(default_factory=Counter)
    """Rows that were there with other contents, and have the export's now."""
    kept: Counter[str] = field(default_factory=Counter)
    """Rows that were there with other contents, and stayed as they are."""
    named: list[str] = field(default_factory=list)
    """The first of these."""
    renumbered: int = 0
    """Flags whose id another one had here: they have a new one, and so has their history."""
    parked: int = 0
    """Rows that a hand had damaged so that this database cannot hold them as they are: such a flag is dead, with the reason."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}


class Import:
    """Read an export.

    An id is kept where it is free. Else its flag gets a new one, and the lines of history that tell of it with it.

    :param replace: what is up here by the same kind and key is replaced by what the export has.
    """

    def __init__(self, connections: Connections, clock: Clock, replace: bool, dry_run: bool):
        self._connections = connections
        self._dialect = connections.dialect
        self._db = connections.engine
        self._clock = clock
        self._replace = replace
        self._told = Imported(dry_run)
        self._moved: dict[int, int] = {}
        """New ids of flags, by those that the export has."""

    def read(self, file: IO[bytes], progress: Callable[[int], Any] | None = None) -> Imported:
        """Verify all lines, then import them.

        :param file: read twice, so it must have a beginning to which it can go back.
        :param progress: called with how many lines are done.
        :raises Damaged: naming the line that is not as it was written; nothing is imported then.
        """
        first, last = verify(file)
        file.seek(0)
        schema.require(self._connections)
        done = 0
        try:
            with self._connections.explained("not all was imported; the same import goes on"):
                self._keep_ids_free(last)
                for name, rows in _pages(rows_in(file, first["schema"])):
                    self._within(name, rows)
                    done += len(rows)
                    if progress is not None:
                        progress(done)
        finally:
            self._connections.close_engine()
        return self._told

    def _keep_ids_free(self, last: dict[str, Any]) -> None:
        """Have no new flag get an id that a line of the export is about to have, or that its history tells of."""
        for name, highest in () if self._told.dry_run else last.get("ids", {}).items():
            if name in shapes() and shapes()[name].has_id and isinstance(highest, int):
                self._dialect.begin_ids_after(self._db, shapes()[name].table, highest)

    def _within(self, name: str, rows: Sequence[Record]) -> None:
        """Import some rows in one transaction, again where another one was in its way."""
        before = deepcopy(self._told), dict(self._moved)
        for left in reversed(range(TRIES)):
            try:
                with self._connections.write():
                    self._import(name, landed(name, rows))
                return
            except DATABASE_ERRORS as error:
                if not left or not self._dialect.is_busy(error):
                    raise
                self._told, self._moved = deepcopy(before[0]), dict(before[1])

    def _import(self, name: str, rows: Sequence[Record]) -> None:
        fit = [fitted(self._db, self._dialect, name, row) for row in rows]
        self._told.parked += sum(one is not other for one, other in zip(fit, rows, strict=True))
        if name == "flag":
            self._import_flags(fit)
        elif name == "history":
            self._import_history(fit)
        else:
            self._import_short(name, fit)

    def _import_flags(self, rows: Sequence[Record]) -> None:
        shape = shapes()["flag"]
        kind, key = shape.columns.index("kind"), shape.columns.index("key")
        up = {
            (row[kind], row[key]): row
            for row in self._dialect.these(self._db, shape, ("kind", "key"), [(row[kind], row[key]) for row in rows])
        }
        taken = keyed(shape, self._dialect.these(self._db, shape, shape.key, [shape.key_of(row) for row in rows]))
        fresh: list[Record] = []
        for row in rows:
            there = up.get((row[kind], row[key]))
            if there is not None:
                self._meet(row, there, f"flag {there[0]} ({row[kind]} {row[key]})")
            elif shape.key_of(row) in taken:
                self._renumber(row)
            else:
                fresh.append(row)
        self._write("flag", fresh)

    def _meet(self, row: Record, there: Record, called: str) -> None:
        """Have a flag of the export meet one that is up here by the same kind and key."""
        if there[0] != row[0]:
            self._moved[row[0]] = there[0]
        if there[1:] == row[1:]:
            self._told.same["flag"] += 1
            return
        state = shapes()["flag"].columns.index("state")
        if not self._differ("flag", called, self._replace and there[state] != "claimed"):  # What runs goes on.
            return
        if not self._told.dry_run:
            self._dialect.erase(self._db, shapes()["flag"], [(there[0],)])
            put(self._db, self._dialect, "flag", [(there[0], *row[1:])])

    def _renumber(self, row: Record) -> None:
        """Give a flag a new id: another one has its own."""
        self._told.renumbered += 1
        self._told.new["flag"] += 1
        if not self._told.dry_run:
            self._moved[row[0]] = self._dialect.insert_anew(self._db, shapes()["flag"], row)

    def _import_history(self, rows: Sequence[Record]) -> None:
        """A line that is there already, by whatever id, is not written twice."""
        shape = shapes()["history"]
        place = shape.columns.index("flag")
        rows = [(*row[:place], self._moved.get(row[place], row[place]), *row[place + 1 :]) for row in rows]
        taken = keyed(shape, self._dialect.these(self._db, shape, shape.key, [shape.key_of(row) for row in rows]))
        times = {(row[shape.columns.index("at")],) for row in rows if shape.key_of(row) in taken}
        known = {row[1:] for row in self._dialect.these(self._db, shape, ("at",), sorted(times))}
        fresh: list[Record] = []
        for row in rows:
            there = taken.get(shape.key_of(row))
            if there is None:
                fresh.append(row)
            elif there == row or row[1:] in known:
                self._told.same["history"] += 1
            else:
                self._told.new["history"] += 1
                if not self._told.dry_run:
                    self._dialect.insert_anew(self._db, shape, row)
        self._write("history", fresh)

    def _import_short(self, name: str, rows: Sequence[Record]) -> None:
        shape = shapes()[name]
        there = keyed(shape, self._dialect.these(self._db, shape, shape.key, [shape.key_of(row) for row in rows]))
        fresh: list[Record] = []
        for row in rows:
            found = there.get(shape.key_of(row))
            if found is None:
                fresh.append(row)
            elif found == row:
                self._told.same[name] += 1
            else:
                called = f"{name} {' '.join(str(part) for part in shape.key_of(row) if part != '')}"
                if self._differ(name, called, self._replace) and not self._told.dry_run:
                    self._dialect.erase(self._db, shape, [shape.key_of(row)])
                    put(self._db, self._dialect, name, [row])
        self._write(name, fresh)
        if name in ("gate", "schedule") and not self._told.dry_run:
            bump(self._db, name)

    def _differ(self, name: str, called: str, replaced: bool) -> bool:
        """Count a row that is there with other contents; return whether it is to be replaced."""
        counter = self._told.replaced if replaced else self._told.kept
        counter[name] += 1
        if len(self._told.named) < NAMED:
            self._told.named.append(called)
        return replaced

    def _write(self, name: str, rows: Sequence[Record]) -> None:
        self._told.new[name] += len(rows)
        if not self._told.dry_run:
            put(self._db, self._dialect, name, rows)


def _pages(rows: Iterator[tuple[str, Record]]) -> Iterator[tuple[str, list[Record]]]:
    """Yield rows some at a time, each time of one table."""
    name, page = "", list[Record]()
    for its_name, row in chain(rows, [("", ())]):
        if page and (its_name != name or len(page) == PAGE):
            yield name, page
            page = []
        name = its_name
        page.append(row)


def import_from(act: Import, file: str | os.PathLike[str] | IO[bytes], progress: Callable[[int], Any] | None = None) -> Imported:
    """Read an export from a path, or from a file that is open."""
    if not isinstance(file, (str, os.PathLike)):
        return act.read(file, progress)
    with open(file, "rb") as opened:
        return act.read(opened, progress)

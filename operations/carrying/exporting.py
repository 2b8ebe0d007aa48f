"""Export: write all that flagsweep knows as lines of JSON, of one moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ...config import Clock
from ...databases import schema
from ...databases.bulk import Record, Shape
from ...databases.connections import Connections
from ...errors import ConfigError
from ..flags import STATES
from .lines import Writing, header
from .side import NOTE, Side
from .tables import goes, shapes

PAGE = 2000
FLAGS, SCHEDULES = ("flag",), ("schedule",)


@dataclass(frozen=True)
class Exported:
    """Tell what an export holds."""

    counts: dict[str, int]
    """How many rows of each table."""
    sha256: str
    """The checksum of its lines, which the last one says."""


class Export:
    """Write an export.

    All is read in one transaction, so that it is of one moment; it holds no lock and no writer, but on SQLite the log is not
    shortened meanwhile, and on a server old versions of rows are kept. So it goes where nobody is waited for: into a file.

    :param kind: only flags and history of this kind, and its schedules and gate.
    :param state: only flags in this state, and nothing else.
    :param history: with the lines of history, which may be many.
    """

    def __init__(self, connections: Connections, clock: Clock, kind: str | None, state: str | None, history: bool):
        if state is not None and state not in STATES:
            raise ConfigError(f"state must be one of {', '.join(STATES)}, got {state!r}")
        self._connections = connections
        self._dialect = connections.dialect
        self._db = connections.engine
        self._clock = clock
        self._only = {name: value for name, value in (("kind", kind), ("state", state)) if value is not None}
        self._tables = [name for name in shapes() if (name != "history" or history) and (state is None or name == "flag")]

    def count(self) -> int:
        """Return how many rows are read."""
        return sum(self._dialect.count_of(self._db, shapes()[name].table) for name in self._tables)

    def write(self, out: IO[bytes], progress: Callable[[int], Any] | None = None) -> Exported:
        """Write it.

        :param progress: called with how many rows were read.
        """
        done = 0
        schema.require(self._connections)
        writing = Writing(out)
        try:
            with self._connections.explained("nothing was exported"), self._dialect.snapshot(self._db):
                writing.begin(header(self._dialect.name, self._clock.now(), self._tables, self._only))
                paused = self._before_a_move()
                for name in self._tables:
                    for rows in self._dialect.all_of(self._db, shapes()[name], PAGE):
                        writing.add(name, [paused(name, row) for row in rows if self._is_wanted(name, row)])
                        done += len(rows)
                        if progress is not None:
                            progress(done)
                ids = {name: self._dialect.highest_id(self._db, shape.table) for name, shape in shapes().items() if shape.has_id}
        finally:
            self._connections.close_engine()
        said = writing.end(ids)
        return Exported(said["counts"], said["sha256"])

    def _before_a_move(self) -> Callable[[str, Record], Record]:
        """Return what gives back to the gate of all the pause that it had before a move paused it: that is true here alone."""
        here = Side(self._connections, self._clock, "", NOTE)
        noted, shape = here.noted(), shapes()["gate"]
        if noted is None or noted.get("reason") != here.pause()["reason"]:
            return lambda name, row: row
        before = {shape.columns.index(column): value for column, value in noted["before"].items()}

        def given_back(name: str, row: Record) -> Record:
            if name != "gate" or _value(shape, row, "sort") != "all":
                return row
            return tuple(before.get(place, value) for place, value in enumerate(row))

        return given_back

    def _is_wanted(self, name: str, row: Record) -> bool:
        shape = shapes()[name]
        if not goes(name, row):
            return False
        if "state" in self._only and _value(shape, row, "state") != self._only["state"]:
            return False
        return "kind" not in self._only or self._is_of_kind(name, shape, row)

    def _is_of_kind(self, name: str, shape: Shape, row: Record) -> bool:
        if name == "gate":
            return (_value(shape, row, "sort"), _value(shape, row, "name")) == ("kind", self._only["kind"])
        return "kind" in shape.columns and _value(shape, row, "kind") == self._only["kind"]


def _value(shape: Shape, row: Record, column: str) -> Any:
    return row[shape.columns.index(column)]


def export_to(export: Export, to: str | os.PathLike[str] | IO[bytes], progress: Callable[[int], Any] | None = None) -> Exported:
    """Write an export into a file that is open, or at a path: there it stands once it is whole, and nobody sees a part of it."""
    if not isinstance(to, (str, os.PathLike)):
        return export.write(to, progress)
    path = Path(to)
    part = path.with_name(f"{path.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # Payloads are not for everybody's eyes.
        with open(descriptor, "wb") as out:
            told = export.write(out, progress)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    return told

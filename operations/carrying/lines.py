"""The lines of an export: a first one that says what it is, one for each row, and a last one with counts and checksum."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import IO, Any

from ...config import utc
from ...databases.bulk import Record
from ...databases.schema import SCHEMA
from ...errors import FlagSweepError
from .tables import default_of, shapes

FORMAT = 1
READABLE = {"flag": "due_at", "history": "at", "schedule": "next_at"}
"""The time of a row that is written as people read it, besides."""
WHEN = "when"

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Damaged(FlagSweepError):
    """Say which line of an export cannot be read, and why: nothing was imported."""


def header(name: str, now: int, tables: list[str], only: dict[str, str]) -> dict[str, Any]:
    """Return what the first line says."""
    try:
        ours = version("flagsweep")
    except PackageNotFoundError:
        ours = "unknown"
    made = {"format": FORMAT, "schema": SCHEMA, "version": ours, "from": name, "at": now, WHEN: utc(now).isoformat()}
    return {"flagsweep": {**made, "tables": tables, **({"only": only} if only else {})}}


def line_of(name: str, row: Record) -> str:
    """Return a row as a line. What is null is left out; a value that JSON has no word for is said in another way."""
    shape = shapes()[name]
    values = {column: _said(value) for column, value in zip(shape.columns, row, strict=True) if value is not None}
    if (time := READABLE.get(name)) is not None and type(at := values.get(time)) is int:
        with suppress(OverflowError, ValueError):
            values[WHEN] = utc(at).isoformat()
    return _encode({name: values})


def _said(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"real": repr(value)}
    return value


def row_of(name: str, values: dict[str, Any], older: bool) -> Record:
    """Return the row that a line holds.

    :param older: the line is of a version that knew fewer columns.
    :raises ValueError: naming the column that is unknown, or is missing.
    """
    shape = shapes()[name]
    unknown = sorted(values.keys() - set(shape.columns) - {WHEN})
    if unknown:
        raise ValueError(f"a {name} has no column {', '.join(map(repr, unknown))}")
    return tuple(_meant(name, column, values, older) for column in shape.columns)


def _meant(name: str, column: str, values: dict[str, Any], older: bool) -> Any:
    if column in values:
        value = values[column]
        if isinstance(value, dict):
            return base64.b64decode(value["base64"], validate=True) if "base64" in value else float(value["real"])
        if isinstance(value, (list, bool)):
            raise ValueError(f"{column} must be text or a number, got {value!r:.50}")
        return value
    if column in shapes()[name].nullable:
        return None
    if older:
        with suppress(KeyError):
            return default_of(name, column)
    raise ValueError(f"{column!r} is missing")


class Writing:
    """Write the lines of an export, counting them."""

    def __init__(self, out: IO[bytes]):
        self.counts: Counter[str] = Counter()
        self._out = out
        self._checksum = hashlib.sha256()

    def begin(self, first: dict[str, Any]) -> None:
        """Write the first line."""
        self._write([_encode(first)])

    def add(self, name: str, rows: list[Record]) -> None:
        """Write rows."""
        self._write([line_of(name, row) for row in rows])
        self.counts[name] += len(rows)

    def end(self, ids: dict[str, int]) -> dict[str, Any]:
        """Write the last line, and return what it says.

        :param ids: the highest id that each table ever gave.
        """
        said = {"counts": dict(+self.counts), "ids": ids, "sha256": self._checksum.hexdigest()}
        self._out.write(_encode({"end": said}).encode() + b"\n")
        return said

    def _write(self, lines: list[str]) -> None:
        if lines:
            data = "\n".join(lines).encode() + b"\n"
            self._checksum.update(data)
            self._out.write(data)


def parsed(number: int, raw: bytes) -> tuple[str, dict[str, Any]]:
    """Return what a line is, and what it holds.

    :raises Damaged: where it is none.
    """
    with suppress(ValueError, AttributeError, RecursionError):
        ((name, values),) = json.loads(raw).items()
        if isinstance(values, dict):
            return name, values
    raise Damaged(f"line {number} is no line of an export: {raw[:80]!r}")


def verify(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read all lines; return what the first and the last one say.

    :raises Damaged: naming the line that is not as it was written.
    """
    counts: Counter[str] = Counter()
    checksum = hashlib.sha256()
    first: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    number = 0
    for number, raw in enumerate(file, 1):
        name, values = parsed(number, raw)
        if last is not None:
            raise Damaged(f"line {number} stands behind the end of the export")
        if first is None:
            first = _checked_first(name, values)
        elif name == "end":
            last = values
            continue
        else:
            _check_row(number, name, values, first)
            counts[name] += 1
        checksum.update(raw)
    if first is None:
        raise Damaged("this is no export of flagsweep: it is empty")
    if last is None:
        raise Damaged(f"line {number} is the last one, and no end: the export was cut off; export again")
    if last.get("counts") != dict(counts) or last.get("sha256") != checksum.hexdigest():
        raise Damaged(
            f"line {number}: what it says of the lines before it does not hold (it counted {last.get('counts')}, there are "
            f"{dict(counts)}): a line was changed, added or lost; export again"
        )
    return first, last


def _checked_first(name: str, values: dict[str, Any]) -> dict[str, Any]:
    if name != "flagsweep" or not isinstance(values.get("format"), int) or not isinstance(values.get("schema"), int):
        raise Damaged("line 1 is not that of an export of flagsweep: 'flagsweep export' writes one")
    if values["format"] > FORMAT or values["schema"] > SCHEMA:
        raise Damaged(
            f"line 1: the export is of format {values['format']} and version {values['schema']} of the tables, this flagsweep "
            f"knows {FORMAT} and {SCHEMA}: install a newer flagsweep"
        )
    return values


def _check_row(number: int, name: str, values: dict[str, Any], first: dict[str, Any]) -> None:
    if name not in shapes():
        raise Damaged(f"line {number} holds a {name!r}, and an export holds {', '.join(shapes())}")
    try:
        row_of(name, values, first["schema"] < SCHEMA)
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"line {number}: {error}") from None


def rows_in(file: IO[bytes], schema: int) -> Iterator[tuple[str, Record]]:
    """Yield the rows of an export that was verified."""
    for number, raw in enumerate(file, 1):
        name, values = parsed(number, raw)
        if name in shapes():
            yield name, row_of(name, values, schema < SCHEMA)

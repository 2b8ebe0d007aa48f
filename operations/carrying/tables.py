"""Which tables are carried, and what becomes of a row on its way. All follows from the models: a later column goes, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from ... import models
from ...databases.bulk import Record, Shape, default_in, shape_of
from ...databases.dialect import Dialect
from ...logs import clean

LEFT_BEHIND = {
    "consumer": "who claims here is nobody there",
    "hold": "what a consumer here may run at once",
    "pulse": "what tells consumers here to read gates and schedules again",
}
"""The tables that are not carried, and why."""

REFUSED: tuple[type[Exception], ...] = (*models.AWAY, ValueError, TypeError, OverflowError)
"""What a driver may say of values that its database cannot hold."""

BOUND = ("stamp", "left", "move:")
"""What the names of facts begin with that are true of their own database alone."""

FREE = dict.fromkeys(("claim_token", "claimed_by", "claimed_at", "claimed_generation"))
"""What a flag holds that nobody has claimed."""


@cache
def _models() -> dict[str, Any]:
    """Return the models of the tables that are carried, by the name that people know them by."""
    classes: list[Any] = [each for each in vars(models).values() if isinstance(each, type) and hasattr(each, "_meta")]
    found = {each._meta.table_name: each for each in classes if each._meta.fields}
    named = {table.removeprefix("flagsweep_"): model for table, model in found.items()}
    return {name: model for name, model in named.items() if name not in LEFT_BEHIND}


@cache
def shapes() -> dict[str, Shape]:
    """Return the tables that are carried, by that name; first those whose rows have ids."""
    found = {name: shape_of(model) for name, model in _models().items()}
    return dict(sorted(found.items(), key=lambda each: (not each[1].has_id, each[0])))


def default_of(table: str, column: str) -> Any:
    """Return what a column holds of which nothing is said.

    :raises KeyError: where it must be said.
    """
    return default_in(_models()[table], column)


def goes(name: str, row: Record) -> bool:
    """Return whether a row is carried: a fact of this database alone is not."""
    return name != "fact" or not str(row[shapes()[name].columns.index("name")]).startswith(BOUND)


def landed(name: str, rows: Sequence[Record]) -> Sequence[Record]:
    """Return rows as they arrive: nobody runs there what was claimed here, so it waits."""
    if name != "flag":
        return rows
    columns = shapes()[name].columns
    state, free = columns.index("state"), {columns.index(column) for column in FREE}

    def freed(row: Record) -> Record:
        return tuple("waiting" if place == state else None if place in free else value for place, value in enumerate(row))

    return [freed(row) if row[state] == "claimed" else row for row in rows]


def fitted(db: Any, dialect: Dialect, name: str, row: Record) -> Record:
    """Return a row as a database can hold it: what another one has let a hand write there is named in text, and nothing is lost.

    A flag of which anything had to be changed is dead there, with that as its error, so that a person decides.
    """
    shape = shapes()[name]
    values = dict(zip(shape.columns, row, strict=True))
    bad = [column for column, value in values.items() if not dialect.can_hold(db, shape, column, value)]
    if not bad:
        return row
    for column in bad:
        values[column] = _nearest(db, dialect, shape, column, values[column])
    said = clean("; ".join(f"{column} was {f'{row[shape.columns.index(column)]!r}':.200}" for column in bad))
    if name == "history":
        values["reason"] = f"{values['reason']} (as it was carried here: {said})"
    if name == "flag":
        values["error"] = f"parked as it was carried here: {said}" + ("" if values["error"] is None else f"\n{values['error']}")
        values |= {"state": "dead", "died_at": _whole_number(values["died_at"], values["raised_at"]), **FREE}
        values |= {"died_as": values.get("died_as") or "parked"} if "died_as" in values else {}
    return tuple(values[column] for column in shape.columns)


def _whole_number(*values: Any) -> int:
    return next((value for value in values if type(value) is int and value > 0), 1)


def _nearest(db: Any, dialect: Dialect, shape: Shape, column: str, value: Any) -> Any:
    """Return what a column can hold instead of a value."""
    if column == "state":
        return "dead"
    if column not in shape.texts:
        return None if column in shape.nullable else 0
    if value is None:
        return ""
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    text = text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
    while text and not dialect.can_hold(db, shape, column, text):
        text = text[: len(text) * 3 // 4]
    return text


def put(db: Any, dialect: Dialect, name: str, rows: Sequence[Record]) -> int:
    """Write new rows, within a transaction; return how many had to be changed so that this database can hold them."""
    shape = shapes()[name]
    if not rows:
        return 0
    try:
        with dialect.undoable(db):
            dialect.insert_rows(db, shape, rows)
        return 0
    except REFUSED as error:
        fit = [fitted(db, dialect, name, row) for row in rows]
        changed = sum(one is not other for one, other in zip(fit, rows, strict=True))
        if not changed or dialect.is_away(error) or not dialect.in_transaction(db):
            raise
    dialect.insert_rows(db, shape, fit)
    return changed


def keyed(shape: Shape, rows: Iterable[Record]) -> dict[Record, Record]:
    """Return rows by their primary key."""
    return {shape.key_of(row): row for row in rows}

"""Whole rows, many at a time, of any table of ours: what a move, an export and an import read and write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from peewee import SQL, BigAutoField, BigIntegerField, CompositeKey, Database, SmallIntegerField, TextField

from .errors import DATABASE_ERRORS
from .gates import Gates

Record = tuple[Any, ...]
"""The values of a row, in the order of its shape's columns."""


class Shape(NamedTuple):
    """Say which columns of a table are read and written, in which order.

    :param key: the columns of its primary key.
    :param texts: which columns hold text.
    :param bits: how large the numbers of the others may be.
    :param nullable: which may be null.
    """

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    texts: frozenset[str]
    bits: dict[str, int]
    nullable: frozenset[str]

    @property
    def listed(self) -> str:
        """The columns, as a statement lists them."""
        return ", ".join(self.columns)

    @property
    def has_id(self) -> bool:
        """Whether its rows have ids, which go upwards."""
        return self.key == ("id",)

    def key_of(self, row: Record) -> Record:
        """Return the primary key of a row."""
        return tuple(row[self.columns.index(name)] for name in self.key)


def shape_of(model: Any) -> Shape:
    """Return the shape of a model's table."""
    meta = model._meta
    fields, key = meta.sorted_fields, meta.primary_key
    names = key.field_names if isinstance(key, CompositeKey) else (key.name,)
    return Shape(
        meta.table_name,
        tuple(field.column_name for field in fields),
        tuple(meta.fields[name].column_name for name in names),
        frozenset(field.column_name for field in fields if isinstance(field, TextField)),
        {field.column_name: _bits(field) for field in fields},
        frozenset(field.column_name for field in fields if field.null),
    )


def _bits(field: Any) -> int:
    if isinstance(field, (BigAutoField, BigIntegerField)):
        return 64
    return 16 if isinstance(field, SmallIntegerField) else 32


def default_in(model: Any, column: str) -> Any:
    """Return what a column holds of which nothing is said.

    :raises KeyError: where it must be said.
    """
    field = model._meta.columns[column]
    for each in field.constraints or ():
        if isinstance(each, SQL) and each.sql.startswith("DEFAULT "):
            text = each.sql.removeprefix("DEFAULT ")
            return text.strip("'") if text.startswith("'") else int(text)
    if field.null:
        return None
    raise KeyError(column)


MANY = 200
"""Keys that are looked up with one statement."""

STATES = ("waiting", "claimed", "dead")
"""What a flag's state may be: each database checks it."""

# Of flags that somebody may have changed since a time, for a last look at a table that nobody can write just now.
RECENT = "SELECT {columns} FROM flagsweep_flag WHERE id > ? OR raised_at >= ? OR settled_at >= ? ORDER BY id LIMIT ?"
# A raise counts the generation up, a retry takes back attempts or a death, and what comes down is missing.
FLAG_SUMS = """
SELECT count(*), coalesce(sum(id), 0), coalesce(sum(generation), 0), coalesce(sum(attempts), 0),
  coalesce(sum(CASE WHEN state = 'dead' THEN 1 ELSE 0 END), 0)
FROM flagsweep_flag
"""
HISTORY_SUMS = "SELECT count(*), coalesce(sum(id), 0), coalesce(sum(flag), 0) FROM flagsweep_history"


class Bulk(Gates):
    """Read and write whole rows. Each database adds how it inserts many, and how ids go on."""

    def page(self, db: Database, shape: Shape, after: Record | None, limit: int, last: Record | None = None) -> list[Record]:
        """Return the rows that come next by their primary key.

        :param after: the key behind which they begin; None: from the beginning.
        :param last: the key with which they end at the latest.
        """
        one = len(shape.key) == 1
        key, marks = (shape.key[0], "?") if one else (f"({', '.join(shape.key)})", f"({', '.join('?' * len(shape.key))})")
        where = [f"{key} {sign} {marks}" for sign, given in ((">", after), ("<=", last)) if given is not None]
        given = [self._as_key(value) for values in (after, last) if values is not None for value in values]
        text = f"SELECT {shape.listed} FROM {shape.table}{' WHERE ' if where else ''}{' AND '.join(where)}"
        return self.fetched(db, shape, f"{text} ORDER BY {', '.join(shape.key)} LIMIT ?", (*given, limit))

    def all_of(self, db: Database, shape: Shape, limit: int = 2000) -> Iterator[list[Record]]:
        """Yield all rows, page by page."""
        after: Record | None = None
        while rows := self.page(db, shape, after, limit):
            yield rows
            after = shape.key_of(rows[-1])

    def these(self, db: Database, shape: Shape, columns: Sequence[str], among: Sequence[Record]) -> list[Record]:
        """Return the rows whose columns have one of these values."""
        if len(among) > MANY:
            return [*self.these(db, shape, columns, among[:MANY]), *self.these(db, shape, columns, among[MANY:])]
        if not among:
            return []
        one = f"({', '.join('?' * len(columns))})"
        names = columns[0] if len(columns) == 1 else f"({', '.join(columns)})"
        marks = ", ".join(["?" if len(columns) == 1 else one] * len(among))
        marks = f"VALUES {marks}" if len(columns) > 1 and self.lists_values else marks
        given = [self._as_key(value) for values in among for value in values]
        return self.fetched(db, shape, f"SELECT {shape.listed} FROM {shape.table} WHERE {names} IN ({marks})", given)

    lists_values = False
    """Whether pairs are compared with a list that needs the word VALUES."""

    def recent(self, db: Database, shape: Shape, after: int, since: int, limit: int) -> list[Record]:
        """Return the flags that came behind an id, or were raised or settled since a time."""
        return self.fetched(db, shape, RECENT.replace("{columns}", shape.listed), (after, since, since, limit))

    def sums_of_flags(self, db: Database) -> list[int]:
        """Return how many flags there are, and sums that no verb leaves as they were."""
        return [int(value) for value in db.execute_sql(self.own(FLAG_SUMS)).fetchone()]

    def sums_of_history(self, db: Database) -> list[int]:
        """Return the same of history."""
        return [int(value) for value in db.execute_sql(self.own(HISTORY_SUMS)).fetchone()]

    def count_of(self, db: Database, table: str) -> int:
        """Return how many rows a table has."""
        return int(db.execute_sql(self.own(f"SELECT count(*) FROM {table}")).fetchone()[0])

    def highest_of(self, db: Database, table: str) -> int:
        """Return the highest id of a row that is there, or 0."""
        return int(db.execute_sql(self.own(f"SELECT coalesce(max(id), 0) FROM {table}")).fetchone()[0])

    def erase(self, db: Database, shape: Shape, keys: Sequence[Record]) -> None:
        """Delete the rows with these primary keys."""
        where = " AND ".join(f"{name} = ?" for name in shape.key)
        for key in keys:
            db.execute_sql(self.own(f"DELETE FROM {shape.table} WHERE {where}"), tuple(map(self._as_key, key)))

    def empty(self, db: Database, table: str) -> None:
        """Delete all rows of a small table."""
        db.execute_sql(self.own(f"DELETE FROM {table}"))

    def _as_key(self, value: Any) -> Any:
        return self.encoded_name(value) if isinstance(value, str) else value

    def fetched(self, db: Database, shape: Shape, sql: str, parameters: Sequence[Any]) -> list[Record]:
        """Return rows as they are: text as text, and what is none as bytes."""
        return [tuple(row) for row in db.execute_sql(self.own(sql), tuple(parameters)).fetchall()]

    def insert_rows(self, db: Database, shape: Shape, rows: Sequence[Record]) -> None:
        """Write new rows with the ids that they have, within a transaction."""
        raise NotImplementedError

    def insert_anew(self, db: Database, shape: Shape, row: Record) -> int:
        """Write one row under a new id, and return that."""
        columns = shape.columns[1:]
        marks = ", ".join("?" * len(columns))
        sql = f"INSERT INTO {shape.table} ({', '.join(columns)}) VALUES ({marks}){self.returns_id}"
        cursor = db.execute_sql(self.own(sql), row[1:])
        return int(cursor.fetchone()[0] if self.returns_id else db.last_insert_id(cursor))

    returns_id = ""
    """What an INSERT ends with that returns its id; nothing: the cursor knows it."""

    def can_hold(self, db: Database, shape: Shape, column: str, value: Any) -> bool:
        """Return whether a column of this database takes a value, whatever another one has let a hand write there."""
        if value is None:
            return column in shape.nullable
        if column == "state":
            return value in STATES
        if column in shape.texts:
            return isinstance(value, str) and is_unicode(value)
        return type(value) is int and -(2 ** (shape.bits[column] - 1)) <= value < 2 ** (shape.bits[column] - 1)

    def highest_id(self, db: Database, table: str) -> int:
        """Return the highest id that was ever given, that of a row that is gone included."""
        raise NotImplementedError

    def begin_ids_after(self, db: Database, table: str, id: int) -> None:
        """Have no id be given up to this one, outside a transaction: none must name two flags."""
        raise NotImplementedError

    def snapshot(self, db: Database) -> AbstractContextManager[None]:
        """Have all that is read be of one moment, and write nothing."""
        raise NotImplementedError

    def still(self, db: Database, tables: Sequence[str]) -> AbstractContextManager[None]:
        """Hold a transaction beside which nobody else writes these tables; what had begun has ended by then."""
        raise NotImplementedError


def is_unicode(text: str) -> bool:
    """Return whether text can be written as UTF-8: a hand may have put bytes that are none into SQLite."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def ended(db: Database, end: str) -> Iterator[None]:
    """End the open transaction in this way, and undo it where something fails."""
    try:
        yield
        db.execute_sql(end)
    except BaseException:
        try:
            db.execute_sql("ROLLBACK")
        except DATABASE_ERRORS:
            db.close()
        raise

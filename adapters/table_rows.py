"""Own rows of any table, by names: what nobody has mapped in Python. The handler gets the row as a dict."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from peewee import OP, SQL, BooleanField, Database, Expression, Field, Model, Node, TextField, Value

from ..databases.connections import Connections
from ..databases.dialect import Dialect
from ..errors import ConfigError
from .keys import Key
from .rows import OwnRows, Row, is_early

if TYPE_CHECKING:
    from .over import Over

BOOLEAN = ("bool", "boolean", "tinyint(1)", "bit(1)")
"""What databases call a column of truth values."""


class _AsText(Key):
    """A primary key whose type the database knows alone: as text it compares it with any."""

    def text(self, value: Any) -> str | None:
        return None if value is None or isinstance(value, (bool, float, bytes)) else str(value)


class TableRows(OwnRows):
    """The rows of a table whose column says that work is owed. Which sort of column it is, the table is asked at the first use.

    :raises ConfigError: where table, column or primary key are no names.
    """

    layer = "the table"

    def __init__(self, table: Any, column: Any, pk: Any, lower: str):
        for what, name in (("table", table), ("column", column), ("pk", pk)):
            if not isinstance(name, str) or not name or not name.isprintable():
                raise ConfigError(f"flags.when(table=..., column=..., pk=...) takes names, got {what}={name!r}")
        self.early = is_early(lower, True)
        self._table, self._column, self._pk = table, column, pk
        self._connections: Connections | None = None

    def enter(self, connections: Connections, over: Over) -> None:
        self._connections = connections

    @cached_property
    def model(self) -> type[Model]:  # type: ignore[override]
        """The table as Peewee has it, with these two columns."""
        schema, _, table = self._table.rpartition(".")
        fields = {"shadow_pk": TextField(primary_key=True, column_name=self._pk), "shadow_column": self._reflected()}
        meta = type("Meta", (), {"table_name": table, "schema": schema or None})
        return type(f"Shadow_{table}", (Model,), {**fields, "Meta": meta, "__module__": __name__})

    @property
    def column(self) -> Field | None:  # type: ignore[override]
        return self.model.shadow_column  # type: ignore[attr-defined]

    @property
    def _what(self) -> Any:
        return self.column

    @cached_property
    def _key(self) -> Key:  # type: ignore[override]
        return _AsText(self.pk)

    def condition(self) -> Node:
        if isinstance(self.column, _Truth):
            return Expression(self.column, OP.EQ, Value(1, converter=False))
        return super().condition()

    @property
    def down(self) -> Any:
        return 0 if isinstance(self.column, _Truth) else super().down

    def load(self, db: Database, dialect: Dialect, key: str) -> Row | None:
        it = self._it(key)
        raw = self._raw(db, dialect, it)
        query = self.model.select(SQL("*")).where(it if self.early else it & self.condition()).limit(1)
        found = db.execute(query)
        names = [each[0] for each in found.description]
        row = found.fetchone()
        return None if row is None else Row(dict(zip(names, row, strict=True)), key, raw)

    def pk_of(self, row: Any) -> Any:
        return row.get(self._pk) if isinstance(row, dict) else row

    def _reflected(self) -> Field:
        """Return what sort of column it is: of truth values, nullable, or of the numbers 0 and 1."""
        if self._connections is None:
            raise ConfigError(f"the table {self._table} cannot be asked before the database is known")
        schema, _, table = self._table.rpartition(".")
        with self._connections.borrowed() as db:
            if not db.table_exists(table, schema or None):
                raise ConfigError(f"there is no table {self._table}")
            columns = {each.name: each for each in db.get_columns(table, schema or None)}
        if self._column not in columns or self._pk not in columns:
            raise ConfigError(f"{self._table} has no {self._column} or no {self._pk}; it has {', '.join(columns) or 'none'}")
        found = columns[self._column]
        if found.data_type.lower() in BOOLEAN:
            return BooleanField(column_name=self._column)
        return TextField(column_name=self._column, null=True) if found.null else _Truth(column_name=self._column)


class _Truth(BooleanField):
    """A column of numbers in which 1 says that work is owed, and 0 that it is not."""

"""Own rows of other layers: found and loaded in the layer's own words, lowered as Peewee's are, by table and column."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from uuid import UUID

from peewee import BooleanField, CharField, Database, Field, IntegerField, Model, Node, TextField, UUIDField

from ..databases.connections import Connections
from ..databases.dialect import Dialect
from ..databases.errors import DATABASE_ERRORS
from ..databases.marks import marked
from ..errors import ConfigError
from .connection import SiteConnection
from .keys import key_for
from .rows import OwnRows, Row, is_early

if TYPE_CHECKING:
    from .over import Over

PK_FIELDS: dict[type, type[Field]] = {int: IntegerField, str: CharField, UUID: UUIDField}
"""What a primary key of another layer's may be, by its type in Python."""


class Column:
    """Say what is known of a column that lowers: whether it is Boolean, and its name in the table."""

    def __init__(self, name: str, boolean: bool):
        self.name = name
        self.boolean = boolean

    def field(self) -> Field:
        """Return it as Peewee has it."""
        return BooleanField(column_name=self.name) if self.boolean else TextField(column_name=self.name, null=True)


def shadow(table: str, schema: str | None, pk: str, kind: type, column: Column | None) -> type[Model]:
    """Return a Peewee model of a table of another layer's, with the columns that we name ourselves.

    :param pk: the name of its primary key's column.
    :param kind: the type of that key in Python.
    :raises ConfigError: where no text names such a key for certain.
    """
    if kind not in PK_FIELDS:
        allowed = ", ".join(each.__name__ for each in PK_FIELDS)
        raise ConfigError(f"{table} has a primary key of type {kind.__name__}, and a flag names rows by {allowed}")
    fields: dict[str, Any] = {"shadow_pk": PK_FIELDS[kind](primary_key=True, column_name=pk)}
    if column is not None:
        fields["shadow_column"] = column.field()
    meta = type("Meta", (), {"table_name": table, "schema": schema})
    return type(f"Shadow_{table}", (Model,), {**fields, "Meta": meta, "__module__": __name__})


class Unknown:
    """Ask which of the rows that were found have no flag yet. Asked in the database: behind a thousand dead flags, whose rows
    are found each time, no other would ever be seen.

    :param kinds: the kind and its former names.
    """

    def __init__(self, dialect: Dialect, kinds: Sequence[str], limit: int, is_uuid: bool):
        self.dialect = dialect
        text = f"CAST(found.pk AS {dialect.text_type})"
        self.key = f"REPLACE({text}, '-', '')" if is_uuid else text
        self.parameters = tuple(dialect.encoded_name(kind) for kind in kinds)
        self.limit = limit

    def sql(self, found: str, mark: str) -> str:
        """Return the question for the keys of rows.

        :param found: the layer's own question for their primary keys, its parameters as ``mark`` says.
        """
        kinds = ", ".join(["?"] * len(self.parameters))
        ours = self.dialect.own(
            f"SELECT {self.key} AS found_key FROM found WHERE NOT EXISTS "
            f"(SELECT 1 FROM flagsweep_flag WHERE kind IN ({kinds}) AND key = {self.key}) LIMIT {self.limit}"
        )
        return f"WITH found (pk) AS ({found}) {marked(ours, self.dialect.mark, mark)}"


class Source(ABC):
    """What another layer says of rows that are work."""

    layer: str
    """What people call it."""
    model: type[Model]
    """The table's shadow."""
    column: Field | None
    """That of the shadow which lowers, or None where a condition says what is owed."""

    def enter(self, over: Over) -> None:
        """Take note of the connections that raises go over."""
        return None

    @abstractmethod
    def find(self, unknown: Unknown) -> list[str]:
        """Return keys of rows for which work is owed and no flag exists."""

    @abstractmethod
    def load(self, key: str, owed: bool) -> Any:
        """Return the layer's own instance, or None.

        :param owed: only where work is still owed for it.
        """

    @abstractmethod
    def pk_of(self, row: Any) -> Any:
        """Return the primary key of an instance; anything else is one."""

    def performing(self) -> AbstractContextManager[Any]:
        """Hold what ``load`` opens for a handler, until that has returned."""
        return nullcontext()

    def connection(self) -> SiteConnection | None:
        """Return the connection of this thread's over which rows are found; None where each question has its own."""
        return None


class LayerRows(OwnRows):
    """The rows of another layer."""

    is_threads_own = True

    def __init__(self, source: Source, lower: str):
        self.early = is_early(lower, source.column is not None)
        self.layer = source.layer
        self._source = source
        self._within: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.column = self._what = source.column
        self.model = source.model
        self._key = key_for(self.model)

    def enter(self, connections: Connections, over: Over) -> None:
        self._source.enter(over)
        self._within = over.within

    def pk_of(self, row: Any) -> Any:
        return self._source.pk_of(row)

    def find(
        self, db: Database, dialect: Dialect, kind: str, limit: int, aliases: tuple[str, ...] = (), lock: bool = False
    ) -> list[tuple[str, str]]:
        unknown = Unknown(dialect, (kind, *aliases), limit, isinstance(self.pk, UUIDField))
        with _errors_of_drivers(), self._within():
            keys = self._source.find(unknown)
        if lock and keys:  # Those that nobody else holds, and for which work is owed still.
            free = self.query(dialect, kind, limit, aliases).where(self.pk.in_([self._key.value(key) for key in keys]))
            keys = [str(row[0]) for row in free.for_update(skip_locked=True).tuples().execute(db)]
        return [(key, self.payload_of(key)) for key in keys]

    def load(self, db: Database, dialect: Dialect, key: str) -> Row | None:
        raw = self._raw(db, dialect, self._it(key))  # First: what is set in between is then seen by the handler, and not lowered.
        instance = self._source.load(key, not self.early)
        return None if instance is None else Row(instance, key, raw)

    def still_owed(self, db: Database, key: str) -> bool:
        return self.column is None and self._source.load(key, True) is not None

    def performing(self) -> AbstractContextManager[Any]:
        return self._source.performing()

    def condition(self) -> Node:
        if self.column is None:
            raise ConfigError(f"what is owed in {self.model._meta.table_name} {self.layer} says alone")
        return super().condition()


@contextmanager
def _errors_of_drivers() -> Iterator[None]:
    """Let an error say that the database is away in the driver's own words, whatever the layer has made of it."""
    try:
        yield
    except Exception as error:
        cause = getattr(error, "orig", None) or error.__cause__
        if isinstance(cause, DATABASE_ERRORS):
            raise cause from error
        raise

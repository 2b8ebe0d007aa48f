"""Own rows of another layer that are not beside the flags: in tests, where a transaction of the layer's holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewee import BooleanField, Database, IntegerField, UUIDField

from ..databases.dialect import Dialect
from ..errors import ConfigError
from ..models import Flag
from .connection import SiteConnection
from .layer_rows import LayerRows
from .rows import OwnRows, Row


class _All:
    """Ask for all rows that are work, whether they have flags or not."""

    parameters = ()

    def sql(self, found: str, mark: str) -> str:
        """Return the layer's own question."""
        return found


class ApartRows(LayerRows):
    """The rows of a layer, asked for and lowered over the connection that the layer has in this thread, and over no other.

    :raises ConfigError: where it has none, but takes one for each question.
    """

    def __init__(self, rows: LayerRows):
        super().__init__(rows._source, "before" if rows.early else "after")
        if self._source.connection() is None:
            raise ConfigError(
                f"{self.model._meta.table_name} is work for rows of {self.layer}, which are looked for beside the flags: keep "
                "these in the site's own test database, as the fixture flagsweep_database returns it"
            )

    @classmethod
    def of(cls, rows: OwnRows | None) -> OwnRows | None:
        """Return these for rows of another layer, and any others as they are."""
        return cls(rows) if isinstance(rows, LayerRows) else rows

    def find(
        self, db: Database, dialect: Dialect, kind: str, limit: int, aliases: tuple[str, ...] = (), lock: bool = False
    ) -> list[tuple[str, str]]:
        texts = self._source.find(_All())  # type: ignore[arg-type]
        keys = [text.replace("-", "") for text in texts] if isinstance(self.pk, UUIDField) else texts
        known = {str(key) for (key,) in Flag.select(Flag.key).where(Flag.kind.in_((kind, *aliases))).tuples().execute(db)}
        return [(key, self.payload_of(key)) for key in keys if key not in known][:limit]

    def held(self, db: Database, dialect: Dialect, keys: Sequence[str]) -> set[str]:
        return set()

    def load(self, db: Database, dialect: Dialect, key: str) -> Row | None:
        raw = None  # First: what is set in between is then seen by the handler, and not lowered.
        if self.column is not None:
            found = self._execute("SELECT {column} FROM {table} WHERE {pk} = {mark}", self._plain(key)).fetchone()
            raw = found and found[0]
        instance = self._source.load(key, not self.early)
        return None if instance is None else Row(instance, key, raw)

    def lower(self, db: Database, dialect: Dialect, key: str, raw: Any = None) -> int:
        if self.column is None:
            return 0
        text, values = "UPDATE {table} SET {column} = {mark} WHERE {pk} = {mark}", [self.down, self._plain(key)]
        if raw is not None and not isinstance(self.column, BooleanField):
            text, values = f"{text} AND {{column}} = {{mark}}", [*values, raw]
        return int(self._execute(text, *values).rowcount)

    def lower_done(self, db: Database, dialect: Dialect, row: Row) -> None:
        self.lower(db, dialect, row.key, row.raw)

    def _plain(self, key: str) -> int | str:
        """Return a key as a driver takes it."""
        return int(key) if isinstance(self.pk, IntegerField) else key

    def _execute(self, text: str, *values: Any) -> Any:
        """Execute a statement over the layer's connection."""
        connection = self._source.connection()
        assert isinstance(connection, SiteConnection)
        quote = "`" if connection.dialect == "MySQL" else '"'
        names = {"table": self.model._meta.table_name, "pk": self.pk.column_name}
        if self.column is not None:
            names["column"] = self.column.column_name
        quoted = {name: f"{quote}{value}{quote}" for name, value in names.items()}
        return connection.execute(text.format(mark=connection.mark, **quoted), values)

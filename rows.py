"""Own rows: work that is whatever a condition on the site's own model finds (``flags.when``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from peewee import OP, BooleanField, CompositeKey, Database, Entity, Expression, Field, Model, Node, UUIDField, Value, fn

from .errors import ConfigError, SignatureError
from .models import Flag

LOWER = ("after", "before")


@dataclass(frozen=True)
class Row:
    """One row as its handler gets it, and the raw value of its column, for lowering that very value."""

    instance: Model
    key: str
    raw: Any


class OwnRows:
    """Find, load and lower the rows of one condition.

    :param what: a Boolean column (true: work is owed), a nullable column (not null: work is owed), a condition on one model,
        or a function that returns a condition and is asked anew each time, for conditions that need the present time.
    :param lower: ``after`` success (false means done), or ``before`` the handler runs (then setting it meanwhile is new work).
    :raises ConfigError: where it is none of these, or names no model, or more than one.
    """

    def __init__(self, what: Any, lower: str = "after"):
        if lower not in LOWER:
            raise ConfigError(f"lower must be 'after' or 'before', got {lower!r}")
        self._what = what
        self.column = what if isinstance(what, Field) else None
        self.early = lower == "before"
        self.model = _only_model(self.condition())
        if self.early and self.column is None:
            raise ConfigError(
                "lower='before' needs a column that can be lowered: pass a Boolean or nullable column instead of a condition"
            )
        if isinstance(self.model._meta.primary_key, CompositeKey) or not self.model._meta.primary_key:
            raise ConfigError(f"{self.model.__name__} needs a primary key of one column, so that a flag can name its row")

    @property
    def pk(self) -> Any:
        """The primary key of the model."""
        return self.model._meta.primary_key

    def condition(self) -> Node:
        """Return what must hold for work to be owed."""
        what = self._what
        if isinstance(what, BooleanField):
            return what == True  # noqa: E712
        if isinstance(what, Field):
            if not what.null:
                raise ConfigError(f"{what.model.__name__}.{what.name} is neither Boolean nor nullable: pass a condition on it")
            return what.is_null(False)
        if not isinstance(what, Node) and callable(what):
            what = what()
        if not isinstance(what, Node):
            raise ConfigError(f"flags.when takes a column, a condition or a function that returns one, got {what!r}")
        return what

    def payload(self, bound: dict[str, Any]) -> tuple[str, str]:
        """Return payload and key of the flag for one row, given as an instance or as its primary key."""
        row, *others = bound.values()
        if others:
            raise SignatureError(f"a flag of an own row carries its row alone, got {', '.join(bound)}")
        pk = row.get_id() if isinstance(row, self.model) else row
        try:
            if isinstance(pk, bool) or not isinstance(pk, (str, int, UUID)):
                raise ValueError("no primary key")
            key = str(self.pk.db_value(pk))
        except ValueError:
            raise SignatureError(f"raise it for a saved {self.model.__name__} or for its primary key, got {row!r}") from None
        return json.dumps({"row": key}), key

    def find(
        self, db: Database, kind: str, limit: int, aliases: tuple[str, ...] = (), text: str = "TEXT", lock: bool = False
    ) -> list[tuple[str, str]]:
        """Return (key, payload) of rows for which work is owed and no flag exists, dead ones included.

        :param text: what the database casts to, to make text of a primary key.
        :param lock: whether nobody may change these rows before the open transaction ends.
        """
        query = self.query(kind, limit, aliases, text)
        query = query.for_update() if lock else query  # Of this table alone: rows within the NOT EXISTS are not locked.
        return [(str(row[0]), json.dumps({"row": str(row[0])})) for row in query.tuples().execute(db)]

    def query(self, kind: str, limit: int, aliases: tuple[str, ...] = (), text: str = "TEXT") -> Any:
        """Return the question that ``find`` asks."""
        key = self.pk.cast(text)
        if isinstance(self.pk, UUIDField):
            key = fn.REPLACE(key, "-", "").coerce(False)  # As Peewee writes it where the database has no such type.
        known = Flag.select(Value(1)).where(Flag.kind.in_((kind, *aliases)), Flag.key == key)
        return self.model.select(key).where(self.condition(), ~fn.EXISTS(known)).limit(limit)

    def fields(self) -> list[Field]:
        """Return the columns that the condition names."""
        return list(dict.fromkeys(_fields(self.condition(), set())))

    def load(self, db: Database, key: str) -> Row | None:
        """Return the row if work is still owed for it. With ``lower='before'`` the column is down by now: the row is enough."""
        query = self.model.select().where(self.pk == key)
        if not self.early:
            query = query.where(self.condition())
        raw = self._raw(db, key)  # First: what is set in between is then seen by the handler, and not lowered.
        instance = next(iter(query.limit(1).execute(db)), None)
        return None if instance is None else Row(instance, key, raw)

    def _raw(self, db: Database, key: str) -> Any:
        """Read the column as it is stored: Peewee's round trip through Python does not reproduce every stored timestamp."""
        if self.column is None:
            return None
        stored = self.model.select(Entity(self.column.column_name)).where(self.pk == key)
        found = db.execute(stored).fetchone()  # Peewee's own cursor would convert whatever has the column's name.
        return found[0] if found else None

    def still_owed(self, db: Database, key: str) -> bool:
        """Return whether a condition without a column of its own holds although its handler has succeeded."""
        if self.column is not None:
            return False
        return bool(self.model.select(Value(1)).where(self.pk == key, self.condition()).limit(1).tuples().execute(db))

    def lower(self, db: Database, key: str, raw: Any = None) -> None:
        """Lower the column of one row.

        :param raw: only where it still holds this stored value; None for any.
        """
        if self.column is None:
            return
        down = False if isinstance(self.column, BooleanField) else None
        query = self.model.update({self.column: down}).where(self.pk == key, self.condition())
        if raw is not None and down is None:
            query = query.where(Expression(Entity(self.column.column_name), OP.EQ, Value(raw, converter=False)))
        query.execute(db)


def _only_model(condition: Node) -> type[Model]:
    models = {f.model for f in _fields(condition, set())}
    if len(models) != 1:
        names = ", ".join(sorted(m.__name__ for m in models)) or "none"
        raise ConfigError(f"flags.when needs a condition on one model, this one names {names}")
    return models.pop()


def _fields(node: Any, seen: set[int]) -> Iterator[Field]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, Field):
        yield node
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from _fields(item, seen)
    elif isinstance(node, Node):
        for item in vars(node).values():
            yield from _fields(item, seen)

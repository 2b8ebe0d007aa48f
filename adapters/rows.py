"""Own rows: work that is whatever a condition on the site's own model finds (``flags.when``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peewee import OP, BooleanField, CompositeKey, Database, Expression, Field, Model, Node, Value, fn

from ..databases.connections import Connections
from ..databases.dialect import Dialect
from ..databases.places import refuse_other_database
from ..errors import ConfigError, SignatureError
from ..models import Flag, SiteVerbs
from ..payloads import Item
from .keys import Key, key_for

if TYPE_CHECKING:
    from .over import Over

LOWER = ("after", "before")


class StillOwed(Exception):
    """A handler has succeeded, and its row is work as before: it would be found again, and again."""


@dataclass(frozen=True)
class Row:
    """One row as its handler gets it, and the raw value of its column, for lowering that very value."""

    instance: Any
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
        self.early = is_early(lower, isinstance(what, Field))
        self._what = what
        self.column: Field | None = what if isinstance(what, Field) else None
        self.model: type[Model] = _only_model(self.condition())
        if isinstance(self.model._meta.primary_key, CompositeKey) or not self.model._meta.primary_key:
            raise ConfigError(f"{self.model.__name__} needs a primary key of one column, so that a flag can name its row")
        self._key: Key = key_for(self.model)

    layer = "Peewee"
    """The data layer that is asked for rows, as people call it."""
    is_threads_own = False
    """Whether rows come in a session, or over a connection, of the layer's own that belongs to a thread."""

    def enter(self, connections: Connections, over: Over) -> None:
        """Take note of the database, once it is known.

        :param over: the connections that raises go over.
        :raises ConfigError: where rows of another one are meant, which would never be found.
        """
        refuse_other_database(self.model, connections)

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

    def item(self, bound: dict[str, Any], verbs: SiteVerbs) -> Item:
        """Return key and payload of the flag for one row, given as an instance or as its primary key.

        :param verbs: asked for the key as discovery has it, where Python writes such a value otherwise than the database.
        """
        row, *others = bound.values()
        if others:
            raise SignatureError(f"a flag of an own row carries its row alone, got {', '.join(bound)}")
        value = self.pk_of(row)
        try:
            key = None if value is None or isinstance(value, Model) else self._key.text(value)
            if key is None and self._key.asks and value is not None:
                key = verbs.row_key(self.model.select(self._key.sql(verbs.dialect)).where(self.pk == value))
        except (ValueError, TypeError, AttributeError, ArithmeticError, OSError):
            key = None
        if key is None:
            raise SignatureError(f"raise it for a saved {self.model.__name__} or for its primary key, got {row!r}")
        return Item(key, self.payload_of(key))

    def payload_of(self, key: str) -> str:
        """Return the payload of the flag of a row."""
        return json.dumps({"row": key})

    def pk_of(self, row: Any) -> Any:
        """Return the primary key of an instance; anything else is one."""
        return row.get_id() if isinstance(row, self.model) else row

    def find(
        self, db: Database, dialect: Dialect, kind: str, limit: int, aliases: tuple[str, ...] = (), lock: bool = False
    ) -> list[tuple[str, str]]:
        """Return (key, payload) of rows for which work is owed and no flag exists, dead ones included.

        :param lock: whether nobody may change these rows before the open transaction ends; what somebody holds is left out.
        """
        query = self.query(dialect, kind, limit, aliases)
        query = query.for_update(skip_locked=True) if lock else query  # Of this table: rows within the NOT EXISTS are not locked.
        return [(str(row[0]), self.payload_of(str(row[0]))) for row in query.tuples().execute(db)]

    def query(self, dialect: Dialect, kind: str, limit: int, aliases: tuple[str, ...] = ()) -> Any:
        """Return the question that ``find`` asks."""
        key = self._key.sql(dialect)
        known = Flag.select(Value(1)).where(Flag.kind.in_((kind, *aliases)), Flag.key == key)
        return self.model.select(key).where(self.condition(), ~fn.EXISTS(known)).limit(limit)

    def held(self, db: Database, dialect: Dialect, keys: Sequence[str]) -> set[str]:
        """Lock these rows for the open transaction, on a server; return the keys of those that somebody else holds just now."""
        values = [value for key in keys if (value := self._key.value(key)) is not None]
        among = self.model.select(self._key.sql(dialect)).where(self.pk.in_(values)).tuples()
        ours = {str(row[0]) for row in among.for_update(skip_locked=True).execute(db)}
        return {str(row[0]) for row in among.execute(db)} - ours if len(ours) < len(set(keys)) else set()

    def there(self, db: Database, dialect: Dialect, keys: Sequence[str]) -> set[str]:
        """Return those of these keys that name a row, whether work is owed for it or not."""
        values = [value for key in keys if (value := self._key.value(key)) is not None]
        return {str(row[0]) for row in self.model.select(self._key.sql(dialect)).where(self.pk.in_(values)).tuples().execute(db)}

    def fields(self) -> list[Field]:
        """Return the columns that the condition names."""
        return list(dict.fromkeys(_fields(self.condition(), set())))

    def load(self, db: Database, dialect: Dialect, key: str) -> Row | None:
        """Return the row if work is still owed for it. With ``lower='before'`` the column is down by now: the row is enough."""
        it = self._it(key)
        query = self.model.select().where(it)
        if not self.early:
            query = query.where(self.condition())
        raw = self._raw(db, dialect, it)  # First: what is set in between is then seen by the handler, and not lowered.
        instance = next(iter(query.limit(1).execute(db)), None)
        return None if instance is None else Row(instance, key, raw)

    def performing(self) -> AbstractContextManager[Any]:
        """Hold what ``load`` opens for a handler, until that has returned."""
        return nullcontext()

    def _it(self, key: str) -> Expression:
        """Return the condition that a row is the one with this key."""
        return Expression(self.pk, OP.EQ, self._key.value(key))

    def _raw(self, db: Database, dialect: Dialect, it: Expression) -> Any:
        """Read the column as it is stored: Peewee's round trip through Python does not reproduce every value."""
        if self.column is None:
            return None
        # Peewee's own cursor would convert whatever has the column's name.
        found = db.execute(self.model.select(dialect.stored(self.column)).where(it)).fetchone()
        return found[0] if found else None

    def still_owed(self, db: Database, key: str) -> bool:
        """Return whether a condition without a column of its own holds although its handler has succeeded."""
        if self.column is not None:
            return False
        return bool(self.model.select(Value(1)).where(self._it(key), self.condition()).limit(1).tuples().execute(db))

    def lower(self, db: Database, dialect: Dialect, key: str, raw: Any = None) -> int:
        """Lower the column of one row; return how many rows that touched.

        :param raw: only where it still holds this stored value; None for any.
        """
        if self.column is None:
            return 0
        query = self.model.update({self.column: Value(self.down, converter=False)}).where(self._it(key), self.condition())
        if raw is not None and not isinstance(self.column, BooleanField):
            query = query.where(Expression(dialect.stored(self.column), OP.EQ, Value(raw, converter=False)))
        return query.execute(db)

    @property
    def down(self) -> Any:
        """What the column holds once no work is owed."""
        return False if isinstance(self.column, BooleanField) else None

    def lower_done(self, db: Database, dialect: Dialect, row: Row) -> None:
        """Lower the column of a row whose handler has succeeded, unless it was set anew meanwhile.

        :raises StillOwed: where it cannot be lowered, and is work as before.
        """
        if self.column is None or self.lower(db, dialect, row.key, row.raw):
            return
        it = self._it(row.key)
        owed = self.model.select(Value(1)).where(it, self.condition()).limit(1).tuples().execute(db)
        if list(owed) and self._raw(db, dialect, it) == row.raw:
            raise StillOwed(
                f"{self.column.model.__name__}.{self.column.name} of row {row.key} cannot be lowered: it still holds what its "
                "handler saw, after an update that touched no row; look for a trigger, or pass a condition instead of the column"
            )


def is_early(lower: str, has_column: bool) -> bool:
    """Return whether the column comes down before its handler runs.

    :raises ConfigError: where there is no such time, or no column.
    """
    if lower not in LOWER:
        raise ConfigError(f"lower must be 'after' or 'before', got {lower!r}")
    if lower == "before" and not has_column:
        raise ConfigError(
            "lower='before' needs a column that can be lowered: pass a Boolean or nullable column instead of a condition"
        )
    return lower == "before"


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

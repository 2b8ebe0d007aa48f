"""Own rows of SQLAlchemy's: a mapped attribute, a criterion, a ``select`` of one class, or a function that returns one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .layer_rows import Column, Source, Unknown, shadow
from .sqlalchemy_session import refuse_uncommitted, watch

if TYPE_CHECKING:
    from .over import Over

NO_SESSION = (
    "flags.when of a class of SQLAlchemy's needs sessions: FlagSweep(..., connection=...) with a scoped_session, or a function "
    "that returns the session in use"
)


def source_of(what: Any, ask: Callable[[], Any]) -> Source | None:
    """Return the source that an attribute, a criterion or a ``select`` stands for; None for anything else.

    :param ask: returns the criterion or ``select`` anew.
    """
    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import InstrumentedAttribute

    if isinstance(what, InstrumentedAttribute):
        return SqlalchemySource(what.parent, what, None)
    if isinstance(what, (ColumnElement, Select)):
        return SqlalchemySource(_mapper_of(what), None, ask)
    return None


class SqlalchemySource(Source):
    """The rows of one mapped class.

    :param attribute: the one that lowers.
    :param condition: returns what finds the rows, where there is none.
    :raises ConfigError: where a flag could not name the rows, or the attribute not be lowered.
    """

    layer = "SQLAlchemy"

    def __init__(self, mapper: Any, attribute: Any, condition: Any):
        self._class = mapper.class_
        self._attribute = attribute
        self._condition = condition
        self._over: Over | None = None
        column = None if attribute is None else _column_of(attribute)
        if len(mapper.primary_key) != 1:
            raise ConfigError(f"{self._class.__name__} has a composite primary key, and a flag names a row by one column")
        self._pk = mapper.primary_key[0]
        self._name = mapper.get_property_by_column(self._pk).key
        self._type = _type_of(self._pk)
        table = self._pk.table
        self.model = shadow(table.name, table.schema, self._pk.name, self._type, column)
        self.column = None if column is None else self.model.shadow_column  # type: ignore[attr-defined]

    def enter(self, over: Over) -> None:
        self._over = over

    def find(self, unknown: Unknown) -> list[str]:
        from sqlalchemy import bindparam, literal_column, select, text

        dialect = unknown.dialect
        found = self._owed().with_only_columns(self._pk.label("pk")).order_by(None).cte("found")
        without = f"NOT EXISTS (SELECT 1 FROM flagsweep_flag WHERE kind IN :kinds AND {dialect.own('key')} = {unknown.key})"
        kinds = bindparam("kinds", unknown.parameters, expanding=True)
        keys = select(literal_column(unknown.key)).select_from(found).where(text(without).bindparams(kinds))
        with self._session() as session, session.get_bind(mapper=self._class).connect() as connection:
            return [str(row[0]) for row in connection.execute(keys.limit(unknown.limit))]

    def load(self, key: str, owed: bool) -> Any:
        from sqlalchemy import select

        with self._session() as session:
            rows = (self._owed() if owed else select(self._class)).where(self._pk == self._type(key))
            return session.scalars(rows.limit(1).execution_options(populate_existing=True)).first()

    def pk_of(self, row: Any) -> Any:
        return getattr(row, self._name) if isinstance(row, self._class) else row

    @contextmanager
    def performing(self) -> Iterator[None]:
        """Leave a session to the handler that is the site's own, and see that nothing is left in it."""
        with self._session() as session:
            watch(session)
            yield
            refuse_uncommitted(session)

    def _session(self) -> AbstractContextManager[Any]:
        """Return the session that the site has for this thread; one of a registry is removed once it is done with."""
        from sqlalchemy.orm import Session, scoped_session

        usual = None if self._over is None else self._over.usual
        if isinstance(usual, scoped_session):
            return _removing(usual)
        given = usual() if callable(usual) and not isinstance(usual, Session) else usual
        if isinstance(given, scoped_session):
            return _removing(given)
        if not isinstance(given, Session):
            raise ConfigError(f"{NO_SESSION}; got {usual!r}")
        return nullcontext(given)

    def _owed(self) -> Any:
        from sqlalchemy import Select, select

        if self._attribute is not None:
            owed = self._attribute.is_(True) if _is_boolean(self._attribute) else self._attribute.is_not(None)
            return select(self._class).where(owed)
        condition = self._condition()
        return condition if isinstance(condition, Select) else select(self._class).where(condition)


@contextmanager
def _removing(registry: Any) -> Iterator[Any]:
    had = registry.registry.has()
    try:
        yield registry()
    finally:
        if not had:
            registry.remove()


def _mapper_of(what: Any) -> Any:
    """Return the mapper of the one class that a condition is about."""
    from sqlalchemy import Select
    from sqlalchemy.sql.visitors import iterate

    if isinstance(what, Select):
        entities = {each["entity"] for each in what.column_descriptions if each.get("entity") is not None}
        if len(entities) == 1:
            return next(iter(entities)).__mapper__
    mappers = {mapper for each in iterate(what) if (mapper := getattr(each, "_annotations", {}).get("parentmapper")) is not None}
    if len(mappers) != 1:
        names = ", ".join(sorted(mapper.class_.__name__ for mapper in mappers)) or "none"
        raise ConfigError(f"flags.when needs a condition on one mapped class, this one names {names}")
    return mappers.pop()


def _is_boolean(attribute: Any) -> bool:
    from sqlalchemy import Boolean

    return isinstance(attribute.type, Boolean)


def _column_of(attribute: Any) -> Column:
    columns = getattr(attribute.property, "columns", [])
    where = f"{attribute.class_.__name__}.{attribute.key}"
    if len(columns) != 1:
        raise ConfigError(f"{where} is no column of one table: pass a condition on it")
    if not _is_boolean(attribute) and not columns[0].nullable:
        raise ConfigError(f"{where} is neither Boolean nor nullable: pass a condition on it")
    return Column(columns[0].name, _is_boolean(attribute))


def _type_of(pk: Any) -> type:
    try:
        kind: type = pk.type.python_type
    except NotImplementedError:
        return object
    return kind

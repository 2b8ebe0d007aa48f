"""Own rows of Django's: a field, a queryset, or a function that returns one. The default manager decides what is found."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..errors import ConfigError
from .connection import SiteConnection
from .django_connection import connection_of
from .layer_rows import Column, Source, Unknown, shadow
from .layers import alias_of

if TYPE_CHECKING:
    from .over import Over


def source_of(what: Any, ask: Callable[[], Any]) -> Source | None:
    """Return the source that a field of a model, or a queryset, stands for; None for anything else.

    :param ask: returns the queryset anew.
    """
    from django.db.models import Field, QuerySet

    field = getattr(what, "field", None) if not isinstance(what, QuerySet) else None
    if isinstance(field, Field):
        return DjangoSource(field.model, field, None)
    if isinstance(what, QuerySet):
        return DjangoSource(what.model, None, ask)
    return None


class DjangoSource(Source):
    """The rows of one model.

    :param field: the one that lowers.
    :param queryset: returns what finds the rows, where there is none.
    :raises ConfigError: where a flag could not name the rows, or the field not be lowered.
    """

    layer = "Django"

    def __init__(self, model: Any, field: Any, queryset: Any):
        self._model = model
        self._field = field
        self._queryset = queryset
        self._over: Over | None = None
        column = None if field is None else _column_of(field)
        pk = model._meta.pk
        if pk is None or len(getattr(pk, "columns", [0])) > 1:
            raise ConfigError(f"{model.__name__} has a composite primary key, and a flag names a row by one column")
        self.model = shadow(model._meta.db_table, None, pk.column, _type_of(pk), column)
        self.column = None if column is None else self.model.shadow_column  # type: ignore[attr-defined]
        self._owed()

    def enter(self, over: Over) -> None:
        self._over = over

    def find(self, unknown: Unknown) -> list[str]:
        from django.db.models.sql.compiler import EmptyResultSet

        owed = self._owed().order_by().values_list("pk")
        connection = connection_of(owed.db)
        connection.renew()
        try:
            sql, parameters = owed.query.get_compiler(owed.db).as_sql()
        except EmptyResultSet:
            return []
        rows = connection.execute(unknown.sql(sql, connection.mark), (*parameters, *unknown.parameters)).fetchall()
        return [str(row[0]) for row in rows]

    def connection(self) -> SiteConnection:
        return connection_of(self._owed().db)

    def load(self, key: str, owed: bool) -> Any:
        rows = self._owed() if owed else self._placed(self._model._default_manager.all())
        return rows.filter(pk=self._model._meta.pk.to_python(key)).first()

    def pk_of(self, row: Any) -> Any:
        return row.pk if isinstance(row, self._model) else row

    def _owed(self) -> Any:
        if self._field is not None:
            owed = {self._field.name: True} if _is_boolean(self._field) else {f"{self._field.name}__isnull": False}
            return self._placed(self._model._default_manager.filter(**owed))
        queryset = self._queryset()
        if getattr(queryset, "model", None) is not self._model:
            raise ConfigError(f"flags.when was given a function for {self._model.__name__}, and it returned {queryset!r}")
        if queryset.query.is_sliced or queryset.query.combinator:
            raise ConfigError("flags.when takes a queryset that can be filtered further: without a slice, union or the like")
        return self._placed(queryset.all())

    def _placed(self, queryset: Any) -> Any:
        """Ask where flags are raised, unless the queryset names a database: a router's replica lags behind what is lowered."""
        alias = None if self._over is None or queryset._db is not None else alias_of(self._over.usual)
        return queryset if alias is None else queryset.using(alias)


def _is_boolean(field: Any) -> bool:
    from django.db.models import BooleanField

    return isinstance(field, BooleanField)


def _column_of(field: Any) -> Column:
    if not _is_boolean(field) and not field.null:
        raise ConfigError(f"{field.model.__name__}.{field.name} is neither Boolean nor nullable: pass a queryset")
    return Column(field.column, _is_boolean(field))


def _type_of(pk: Any) -> type:
    """Return the type in Python of a primary key; that of the row it points to, where it is a relation."""
    from django.db.models import CharField, IntegerField, TextField, UUIDField

    field = getattr(pk, "target_field", pk)
    known = ((IntegerField, int), (UUIDField, UUID), ((CharField, TextField), str))
    return next((kind for fields, kind in known if isinstance(field, fields)), datetime.datetime)

"""How the primary key of a row is written as the key of its flag, in SQL and in Python, and compared with it again."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from peewee import (
    BinaryUUIDField,
    BlobField,
    CharField,
    DateField,
    DateTimeField,
    DecimalField,
    Field,
    ForeignKeyField,
    IntegerField,
    Model,
    Node,
    TextField,
    TimeField,
    UUIDField,
    Value,
    fn,
)

from ..databases.dialect import Dialect
from ..errors import ConfigError


class Key:
    """Say how a primary key becomes the text of a flag's key, in SQL and in Python, and that text a value again."""

    asks = False
    """Whether the database has to be asked what the text of a value is."""

    def __init__(self, field: Field):
        self.field = field

    def sql(self, dialect: Dialect) -> Node:
        """Return the text, as the database makes it."""
        return self.field.cast(dialect.text_type)

    def text(self, value: Any) -> str | None:
        """Return the text of a value, or None where it is no such key.

        :raises ValueError, TypeError, AttributeError: where it is no such key, either.
        """
        return None

    def value(self, key: str) -> Any:
        """Return what a column is compared with; a text that was never the key of a row is compared with NULL."""
        try:
            return self.native(key)
        except (ValueError, TypeError, ArithmeticError):
            return Value(None, converter=False)

    def native(self, key: str) -> Any:
        """Return the value that a text stands for."""
        return Value(key, converter=False)


class _Whole(Key):
    """Whole numbers, also where Python has an address or a time for them."""

    def text(self, value: Any) -> str | None:
        if isinstance(value, (bool, float, bytes)):
            return None
        if isinstance(value, int) or (isinstance(value, str) and value.lstrip("-").isdigit()):
            return str(int(value))
        return str(int(self.field.db_value(value)))

    def native(self, key: str) -> Any:
        return Value(int(key), converter=False)


class _Text(Key):
    """Text of any length."""

    def text(self, value: Any) -> str | None:
        return None if isinstance(value, (bool, bytes, float)) else str(self.field.db_value(value))


class _Uuid(Key):
    """UUIDs, as Peewee writes them where the database has no such type."""

    def sql(self, dialect: Dialect) -> Node:
        return fn.REPLACE(super().sql(dialect), "-", "").coerce(False)

    def text(self, value: Any) -> str | None:
        return (value if isinstance(value, UUID) else UUID(value)).hex

    def native(self, key: str) -> Any:
        return UUID(key)


class _Bytes(Key):
    """Bytes, as hexadecimal digits."""

    def sql(self, dialect: Dialect) -> Node:
        return dialect.hex(self.field)

    def text(self, value: Any) -> str | None:
        if isinstance(value, UUID):
            return value.hex
        return bytes(value).hex() if isinstance(value, (bytes, bytearray, memoryview)) else None

    def native(self, key: str) -> Any:
        return UUID(key) if isinstance(self.field, BinaryUUIDField) else bytes.fromhex(key)


class _Asked(Key):
    """Dates, times and decimals, which the database writes otherwise than Python."""

    asks = True

    def native(self, key: str) -> Any:
        return self.field.db_value(key)


_KEYS: tuple[tuple[type[Field], type[Key]], ...] = (
    (IntegerField, _Whole),
    (UUIDField, _Uuid),
    (BinaryUUIDField, _Bytes),
    (CharField, _Text),
    (TextField, _Text),
    (DateTimeField, _Asked),
    (DateField, _Asked),
    (TimeField, _Asked),
    (DecimalField, _Asked),
)


def key_for(model: type[Model]) -> Key:
    """Return how the primary key of a model becomes the key of a flag.

    :raises ConfigError: where no text names its rows for certain, such as a float.
    """
    field: Any = model._meta.primary_key
    kind = field
    while isinstance(kind, ForeignKeyField):
        kind = kind.rel_field
    if isinstance(kind, BlobField) and type(kind).db_value is BlobField.db_value:  # What is packed has no text of its own.
        return _Bytes(field)
    found = next((key for known, key in _KEYS if isinstance(kind, known)), None)
    if found is None:
        raise ConfigError(
            f"{model.__name__} has a primary key of type {type(kind).__name__}, by which no flag can name a row for certain: "
            "use a whole number, text, a UUID, bytes, a date, a time or a Decimal"
        )
    return found(field)

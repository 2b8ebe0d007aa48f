"""Columns of the site's own tables, as a database stores and compares them."""

from __future__ import annotations

from peewee import Entity, Field, Node, fn


class Columns:
    """Say what stands in a column, exactly."""

    text_type = "TEXT"
    """What a primary key is cast to for the key of its flag."""

    def stored(self, field: Field) -> Node:
        """Return a column as it is stored, such that what is read of it equals it again: no value may be rounded on the way."""
        return Entity(field.column_name)

    def hex(self, node: Node) -> Node:
        """Return bytes as hexadecimal digits, in lower case."""
        return fn.LOWER(fn.HEX(node)).coerce(False)

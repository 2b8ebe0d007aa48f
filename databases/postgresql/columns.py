"""PostgreSQL: columns of the site's own tables."""

from __future__ import annotations

from peewee import Entity, Field, Node, fn

from ..server import Server


class PostgresqlColumns(Server):
    """Say what stands in a column, exactly."""

    def stored(self, field: Field) -> Node:
        """As text: of single precision, JSON, arrays and intervals nothing else comes back as it was."""
        return Entity(field.column_name).cast("TEXT")

    def hex(self, node: Node) -> Node:
        return fn.ENCODE(node, "hex").coerce(False)

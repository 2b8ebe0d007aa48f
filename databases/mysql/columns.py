"""MySQL and MariaDB: columns of the site's own tables."""

from __future__ import annotations

from peewee import OP, SQL, Entity, Expression, Field, FloatField, Node, NodeList, fn

from ..server import Server


class MysqlColumns(Server):
    """Say what stands in a column, exactly."""

    text_type = "CHAR"

    def stored(self, field: Field) -> Node:
        """As bytes: text has no case there. Single precision is shown with six digits unless it is doubled."""
        column = Entity(field.column_name)
        exact = Expression(column, OP.ADD, SQL("0e0")) if type(field) is FloatField else column
        return fn.CAST(NodeList((exact, SQL("AS BINARY")))).coerce(False)

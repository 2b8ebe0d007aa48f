"""What status and doctor ask a database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewee import Database, Field, Model, Node, Select


class Checks:
    """Answer what people ask."""

    def home(self, db: Database) -> tuple[str, ...]:
        """Return what tells a server's database from its copies on other servers, or under other names."""
        return ()

    def is_same_home(self, one: tuple[str, ...], other: tuple[str, ...]) -> bool:
        """Return whether two such answers may be of one database."""
        return one == other

    def latest_raise(self, db: Database, last: int) -> int | None:
        """Return the latest raise time among the ``last`` newest flags."""
        raise NotImplementedError

    def damaged(self, db: Database, last: int) -> list[int]:
        """Return the ids of damaged rows among the ``last`` newest flags that are not dead."""
        raise NotImplementedError

    def holder_of(self, db: Database, id: int) -> Any:
        """Return who holds a flag's row in an open transaction, as doctor is told of one, or None; waits for nobody.

        :param db: a connection of ours.
        """
        return None

    def reads_all(self, db: Database, query: Select) -> bool:
        """Return whether a query would read a whole table for want of an index."""
        raise NotImplementedError

    def index_for(self, db: Database, model: type[Model], condition: Node, fields: Sequence[Field]) -> str:
        """Return the statement that makes an index for a condition of the site's own."""
        meta = model._meta
        name = "_".join([meta.table_name, "owed", *(field.column_name for field in fields)])
        return db.get_sql_context().sql(model.index(*fields, name=name)).query()[0].replace(" IF NOT EXISTS", "")

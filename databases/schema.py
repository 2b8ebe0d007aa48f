"""The versions of the tables: who makes them, who brings them up to date, and who may use them.

``tables.py`` of each database has the statements of each step: from no tables to version 1, from 1 to 2, and so on. A step that
has been released is never changed. ``models.py`` describes what the last one leads to.
"""

from __future__ import annotations

from collections.abc import Iterator

from peewee import BigIntegerField, Database, IntegerField, Model, fn

from ..errors import FlagSweepError, NotReady
from .connections import Connections
from .dialect import Dialect

SCHEMA = 4
"""The version that this code works with."""


class Schema(Model):
    """Hold which steps were made, and when."""

    version = IntegerField(primary_key=True)
    applied_at = BigIntegerField()

    class Meta:
        table_name = "flagsweep_schema"


def init_file(connections: Connections, now: int) -> bool:
    """Make the database's file where there is none, then do as ``init``.

    :raises NotReady: where it cannot be made, or is newer than this code.
    :raises FlagSweepError: inside an open transaction of the site's.
    """
    if not connections.in_memory and connections.site.in_transaction():
        raise FlagSweepError("init() cannot run inside an open transaction: leave 'with database.atomic():' first")
    connections.create_file()
    with connections.explained("the tables were not created"):
        try:
            return init(connections, now)
        finally:
            connections.close_engine()


def init(connections: Connections, now: int) -> bool:
    """Create or upgrade the tables; return whether anything was missing. Many processes may call it at once."""
    dialect = connections.dialect
    dialect.prepare(connections.engine)
    with connections.write() as db, dialect.migrating(db):
        return upgrade(db, dialect, connections.where, now)


def require(connections: Connections) -> None:
    """Refuse tables that this code cannot work with.

    :raises NotReady: where they are missing, older or newer.
    """
    check(connections.where, version(connections.engine))


def version(db: Database) -> int | None:
    """Return the version of the tables that are there, or None."""
    if not db.table_exists(Schema._meta.table_name):
        return None
    return Schema.select(fn.MAX(Schema.version)).scalar(db)


def upgrade(db: Database, dialect: Dialect, where: str, now: int) -> bool:
    """Make the steps that are missing, under the lock that the caller holds; return whether any was.

    :raises NotReady: where the tables are newer than this code.
    """
    found = version(db)
    _refuse_newer(where, found)
    missing = range((found or 0) + 1, SCHEMA + 1)
    for step in missing:
        for statement in dialect.steps[step - 1]:
            dialect.change(db, statement)
        Schema.insert(version=step, applied_at=now).execute(db)
    dialect.adjust(db)
    return bool(missing)


def check(where: str, found: int | None) -> None:
    """Refuse tables that this code cannot work with.

    :raises NotReady: where they are missing, older or newer.
    """
    _refuse_newer(where, found)
    if found is None:
        raise NotReady(f"{where} has no tables of flagsweep: run 'flagsweep init' (or call flags.init()) once")
    if found < SCHEMA:
        raise NotReady(
            f"the tables in {where} have version {found}, this flagsweep needs {SCHEMA}: "
            "run 'flagsweep init' (or call flags.init()) once"
        )


def _refuse_newer(where: str, found: int | None) -> None:
    if found is not None and found > SCHEMA:
        raise NotReady(f"the tables in {where} have version {found}, this flagsweep knows {SCHEMA}: install a newer flagsweep")


def script(dialect: Dialect) -> Iterator[str]:
    """Yield the statements that make the tables in an empty database, for its own command-line program."""
    yield from dialect.opening
    for step in range(1, SCHEMA + 1):
        yield from dialect.steps[step - 1]
        yield f"INSERT INTO flagsweep_schema (version, applied_at) VALUES ({step}, {dialect.microseconds})"
    yield from dialect.adjustments()
    yield from dialect.closing

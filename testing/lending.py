"""A fresh database for each test: the site's own FlagSweep, whose handlers its modules hold, lives there meanwhile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..adapters.apart import ApartRows
from ..app import FlagSweep
from ..config import Clock
from ..consumer.opened import Opened
from ..consumer.terms import SWEEP
from ..databases.connections import Connections
from ..databases.moving import behind, is_in_memory, moved
from ..errors import FlagSweepError
from .following import Following

SCHEMA = "flagsweep_schema"
"""The one table of ours that no test empties: it says which the others are."""


@contextmanager
def fresh(flags: FlagSweep, database: Any = None, clock: Clock | None = None) -> Iterator[FlagSweep]:
    """Have a FlagSweep live in a fresh database meanwhile, with our tables and nothing in them: ``with fresh(flags):``.

    :param database: a URL, a path or a Peewee database for tests, whose tables of ours are emptied before and afterwards; by
        default a temporary SQLite file. Where the site's own database is a SQLite file, its Peewee object points to that
        temporary one meanwhile, so that the site's models are there, too; their tables the test makes.
    :param clock: by which it goes, such as ``FakeClock()``.
    :raises FlagSweepError: where the site is within a transaction; or where a consumer runs on what was named.

    Nothing is swept by itself, whatever ``mode`` says. What is said to ``flags.configure`` meanwhile is checked, and not kept.
    Raises over the site's other connections, as of Django, go to a temporary file, too, and are taken back where Django rolls
    them back.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="flagsweep-", ignore_cleanup_errors=True))
        opening = flags._opening
        said, sort = opening.said("database"), Opened
        site = behind(opening.in_use.connections.site if opening.in_use else said)
        over = opening.in_use.over.usual if opening.in_use else None
        if database is None and is_in_memory(site) and over is None:  # Else it is another layer's connection, as Django's.
            database = site
        if database is None:
            database = stack.enter_context(moved(site, said, _databases(flags), os.path.join(folder, "site.db")))
            stack.enter_context(_apart(flags))
            sort = Following
        settings = {"database": database, "queue": "memory", "queue_key": (), "state_dir": folder, "mode": "external"}
        settings["restore_check"] = False  # Tests put databases back on purpose.
        connections = stack.enter_context(opening.lent(settings, sort)).connections
        stack.callback(connections.close_thread)
        stack.enter_context(clocked(flags, clock or flags.clock))
        flags.init()
        _refuse_one_that_is_served(flags)
        empty(connections)
        stack.callback(empty, connections)
        yield flags


def _refuse_one_that_is_served(flags: FlagSweep) -> None:
    """Empty no database on which a consumer runs: it is the site's own, whatever was meant."""
    if any(consumer.mode != SWEEP.mode for consumer in flags.store.consumers()):
        raise FlagSweepError(f"a consumer runs on {flags.connections.where}: tests would empty it, so name a database for tests")


def _databases(flags: FlagSweep) -> list[Any]:
    """Return those of the site's Peewee models that are work."""
    own = (handler.rows for handler in flags.handlers.values() if handler.rows is not None and handler.rows.layer == "Peewee")
    return [rows.model._meta.database for rows in own]


@contextmanager
def _apart(flags: FlagSweep) -> Iterator[None]:
    """Have own rows of other layers looked for where those are, in their transaction, and not beside the flags."""
    before = [(handler, handler.rows) for handler in flags.handlers.values()]
    try:
        for handler, rows in before:
            handler.rows = ApartRows.of(rows)
        yield
    finally:
        for handler, rows in before:
            handler.rows = rows


@contextmanager
def clocked(flags: FlagSweep, clock: Clock) -> Iterator[None]:
    """Have a FlagSweep go by a clock meanwhile."""
    before = flags.clock
    flags.clock = flags._opening.clock = clock
    try:
        yield
    finally:
        flags.clock = flags._opening.clock = before


def empty(connections: Connections) -> None:
    """Delete all that is in our tables."""
    mine = connections.site.is_closed()
    with connections.borrowed() as db:
        tables = [name for name in db.get_tables() if name.startswith("flagsweep_") and name != SCHEMA]
        with db.atomic():
            for table in tables:
                db.execute_sql(f"DELETE FROM {table}")
    if mine:
        connections.close_thread()

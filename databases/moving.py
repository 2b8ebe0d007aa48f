"""Where the site's Peewee objects point to: for tests, which have its models live in another file meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from peewee import Database, Proxy, SqliteDatabase

from ..errors import FlagSweepError
from .url import MEMORY


def behind(database: Any) -> Database | None:
    """Return the Peewee database that something is, or is a proxy of; None for anything else."""
    found = database.obj if isinstance(database, Proxy) else database
    return found if isinstance(found, Database) else None


def is_in_memory(site: Database | None) -> bool:
    """Return whether it is SQLite's in memory: nobody else has that, so it is as good as one for tests."""
    return isinstance(site, SqliteDatabase) and site.database == MEMORY


@contextmanager
def moved(site: Database | None, said: Any, others: Iterable[Any], path: str) -> Iterator[Any]:
    """Have all Peewee objects that mean the site's SQLite file point to another one meanwhile; yield what to keep flags in.

    :param site: the site's own; None where there is none yet.
    :param said: what was said of it: perhaps a proxy that has no database yet.
    :param others: of its models.
    :raises FlagSweepError: within a transaction.
    """
    with ExitStack() as stack:
        if site is None and isinstance(said, Proxy):
            stack.enter_context(_initialized(said, path))
            yield said
            return
        objects = (db for db in (site, *map(behind, others)) if isinstance(db, SqliteDatabase) and not is_in_memory(db))
        for db in {id(db): db for db in objects if _is_same(db, site)}.values():
            stack.enter_context(_pointing(db, path))
        yield site if isinstance(site, SqliteDatabase) and not is_in_memory(site) else path


@contextmanager
def _initialized(proxy: Proxy, path: str) -> Iterator[None]:
    db = SqliteDatabase(path)
    proxy.initialize(db)
    try:
        yield
    finally:
        db.close()
        proxy.obj = None


def _is_same(db: SqliteDatabase, site: Database | None) -> bool:
    """Return whether a model's database is the file of the site's, through whatever object."""
    if db is site or not db.database or not isinstance(site, SqliteDatabase) or not site.database:
        return True
    return os.path.realpath(db.database) == os.path.realpath(site.database)


@contextmanager
def _pointing(db: SqliteDatabase, path: str) -> Iterator[None]:
    """Have a Peewee object mean another file meanwhile, and keep all else that was said to it."""
    before = db.database
    _point(db, path)
    try:
        yield
    finally:
        _point(db, before)


def _point(db: Any, name: Any) -> None:
    if db.in_transaction():
        raise FlagSweepError(f"the site is within a transaction on {db.database}: begin it once flags are fresh, end it before")
    if not db.is_closed():
        db.close()
    if hasattr(db, "close_idle"):  # A pool keeps connections that were closed.
        db.close_idle()
    db.database, db.deferred = name, not name

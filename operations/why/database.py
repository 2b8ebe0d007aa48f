"""A database that cannot be asked, or that is not the one."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...databases.schema import SCHEMA
from ...models import Consumer, Flag, History, Schedule
from .answer import Said
from .case import Case

ROOM = 256 * 1024
"""Bytes that must be free on a disk: a transaction of many flags writes so much to the log."""


LEAST = 4096
"""Bytes without which not even the smallest transaction is written."""


def database_away(error: str, version: int | None = None) -> Said | None:
    """The database does not answer: it is stopped, locked, full, or refuses this user."""
    return Said({"error": error})


def no_database(error: str, version: int | None) -> Said | None:
    """The file is not there, or has no tables of flagsweep: it is not the site's database, or nobody has called ``init``."""
    return Said({"error": error}) if version is None else None


def old_tables(error: str, version: int | None) -> Said | None:
    """Its tables are those of an older flagsweep, and were not brought up to date."""
    return Said({"version": version, "needed": SCHEMA}) if version is not None and version < SCHEMA else None


def new_tables(error: str, version: int | None) -> Said | None:
    """Its tables are those of a newer flagsweep than this one."""
    return Said({"version": version, "needed": SCHEMA}) if version is not None and version > SCHEMA else None


def disk_full(case: Case, flag: Flag | None = None) -> Said | None:
    """The disk on which SQLite's file is has no room left, or so little that it is used up soon."""
    return full_disk_of(case.connections.file)


def full_disk_of(file: Path | None, failed: bool = False) -> Said | None:
    """Return that the disk of a file is full; SQLite cannot even be read there, if nobody else has it open.

    :param failed: whether that has just been so.
    """
    try:
        free = None if file is None else shutil.disk_usage(file.parent).free
    except OSError:
        return None
    if free is None or free > ROOM:
        return None
    if free < LEAST or failed:
        left = f"{free // 1024} KiB are left" if free else "nothing is left"
        return Said({"file": file, "full": f"full ({left})", "then": "nothing can be raised, begun or lowered"})
    left = f"nearly full ({free // 1024} KiB are left)"
    return Said({"file": file, "full": left, "then": "raises and sweeps fail once that is used, and large ones now"})


def unused(case: Case) -> Said | None:
    """No flag was ever raised in this database, and no consumer has ever run on it: it is not the one that the site uses."""
    people = case.people
    if people.left is not None or people.swept is not None or case.newest_id():
        return None
    used = (
        model.select(model._meta.primary_key).limit(1).tuples().execute(case.db) for model in (Consumer, Flag, History, Schedule)
    )
    return None if any(list(each) for each in used) else Said({"where": case.connections.where})

"""SQLite: the write-ahead log beside the file, by which commits are seen, and which must be the one that is there."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from peewee import Database

from ..dialect import Dialect

SHORT_LOG = 4 * 1024 * 1024
"""Bytes of a write-ahead log that are as they should be: SQLite writes it back at a thousand pages."""

_kept: list[Any] = []


class SqliteLog(Dialect):
    """Watch the log, keep it short, and never write one back that is no longer the database's."""

    def changes(self, db: Database) -> int:
        return db.execute_sql("PRAGMA data_version").fetchone()[0]

    def trim_log(self, db: Database) -> int:
        """Write a long log back, and cut it off unless somebody reads or writes at this instant: SQLite itself never does."""
        log = Path(f"{db.database}-wal")
        if _size(log) > SHORT_LOG:
            _, frames, written = db.execute_sql("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if frames == written:
                (patience,) = db.execute_sql("PRAGMA busy_timeout").fetchone()
                db.execute_sql("PRAGMA busy_timeout = 0").fetchall()  # It would hold the writer up while it waits for readers.
                try:
                    db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    db.execute_sql(f"PRAGMA busy_timeout = {patience}").fetchall()
        return _size(log)

    def logs(self, file: Path) -> Sequence[Path]:
        return [Path(f"{file}-wal"), Path(f"{file}-shm")]

    def lost_before(self, logs: Sequence[Path]) -> str | None:
        """Look twice: who closes the last connection deletes the one file a little before it closes that."""
        for _ in range(2):
            lost = _deleted_but_open() & {str(log) for log in logs}
            if not lost or str(logs[0]).removesuffix("-wal") in _deleted_but_open():  # The database is gone with its log.
                return None
            time.sleep(0.05)
        return f"{min(lost)} was deleted while this process has the database open: end the process, then start it again"

    def keep_open(self, db: Any) -> None:
        """Keep one connection, and no other of this process writes the log back when it is closed, the site's neither.

        It outlives the interpreter, which closes all else that is open at its end.
        """
        connection = db.connection()
        db._state.reset()
        _kept.append(connection)
        with suppress(ImportError, AttributeError):
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def tells_writes(self, db: Database) -> bool:
        return self.journal_mode(db) == "wal"

    def journal_mode(self, db: Database) -> str:
        """Return how the database keeps its commits: ``wal``, ``delete`` and so on."""
        return db.execute_sql("PRAGMA journal_mode").fetchone()[0]


def _deleted_but_open() -> set[str]:
    """Return the paths of files that this process has open although they were deleted, where the system tells."""
    links = []
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with suppress(OSError):  # It was closed meanwhile.
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return {link.removesuffix(" (deleted)") for link in links if link.endswith(" (deleted)")}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

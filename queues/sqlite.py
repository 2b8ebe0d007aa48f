"""A shared queue in a SQLite file of its own."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huey.storage import SqliteStorage

from ..databases.identity import identity
from .messages import LARGEST
from .private_file import make_private
from .storage import BATCH, KEPT, Storage, is_free

POLL = 0.1
"""Seconds between two looks into a file, which cannot wake us."""


class SqliteQueue(SqliteStorage, Storage):
    """Keep nudges and locks in a file of their own, for the processes of one machine: made where it is missing, never fsynced.

    It has no write-ahead log: a connection that still has a deleted file open deletes, when it closes, the log of the new one.
    """

    def __init__(self, name: str, path: Path, patience: float):
        self._conn: Any = None
        self._file: tuple[int, int] | None = None
        super().__init__(name, filename=str(path), timeout=patience, create_tables=False)

    def _create_connection(self) -> Any:
        make_private(Path(self.filename))
        self._file = identity(self.filename)
        conn = sqlite3.connect(self.filename, timeout=self._timeout, check_same_thread=False, isolation_level=None)
        try:
            for statement in ("pragma journal_mode = truncate", "pragma synchronous = off", *self.ddl):
                conn.execute(statement)
            if self._file is None or self._file != identity(self.filename):
                raise OSError(f"{self.filename} was replaced just now")
        except BaseException:
            conn.close()
            raise
        return conn

    @property
    def conn(self) -> Any:
        if self._conn is not None and self._file != identity(self.filename):  # Deleted or replaced: ours reaches nobody.
            self._conn.close()
            self._conn = None
        return super().conn

    def post(self, lane: str, message: bytes) -> None:
        queue = f"{self.name}.{lane}"
        with self.db(commit=True) as cursor:
            cursor.execute("insert into task (queue, data) values (?, ?)", (queue, message))
            cursor.execute("delete from task where queue = ? and id <= ?", (queue, cursor.lastrowid - KEPT))

    def take(self, lanes: Sequence[str], wait: float, done: threading.Event) -> list[bytes]:
        end = time.monotonic() + wait
        while not (messages := self._pop(lanes)) and time.monotonic() < end and not done.wait(POLL):
            pass
        return messages

    def _pop(self, lanes: Sequence[str]) -> list[bytes]:
        mine = f"queue in ({','.join('?' * len(lanes))}) limit ?"
        queues = (*(f"{self.name}.{lane}" for lane in lanes), BATCH)
        if not self.sql(f"select 1 from task where {mine}", (*queues[:-1], 1), results=True):  # Takes no lock.
            return []
        with self.db(commit=True) as cursor:
            data = f"case when length(data) <= {LARGEST} then cast(data as blob) else x'' end"
            found = cursor.execute(f"select id, {data} from task where {mine}", queues).fetchall()
            cursor.executemany("delete from task where id = ?", [row[:1] for row in found])
        return [row[1] for row in found]

    def hold(self, lock: str, owner: str, seconds: float) -> bool:
        now = time.time()
        with self.db(commit=True) as cursor:
            found = cursor.execute("select cast(value as blob) from kv where queue = ? and key = ?", (self.name, lock)).fetchone()
            if found and not is_free(found[0], owner, now):
                return False
            value = f"{owner} {now + seconds}".encode()
            cursor.execute("insert or replace into kv (queue, key, value) values (?, ?, ?)", (self.name, lock, value))
        return True

    def let_go(self, lock: str, owner: str) -> None:
        mine = f"{owner} ".encode()
        self.sql(
            "delete from kv where queue = ? and key = ? and substr(cast(value as blob), 1, ?) = ?",
            (self.name, lock, len(mine), mine),
            commit=True,
        )

    def disconnect(self) -> None:
        self.close()

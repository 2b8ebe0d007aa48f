"""A shared queue in tables of a PostgreSQL database."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from huey.storage import PostgresStorage

from .messages import LARGEST
from .storage import BATCH, KEPT, Storage, is_free


class PostgresQueue(PostgresStorage, Storage):
    """Keep nudges and locks in tables of a PostgreSQL database, which wakes us by NOTIFY."""

    def __init__(self, name: str, url: str, patience: float):
        self._patience = patience
        alive = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "connect_timeout": 2}
        super().__init__(name, dsn=url, table_prefix="flagsweep_queue", application_name="flagsweep queue", **alive)

    def initialize_schema(self) -> None:
        """Create the tables where they are missing: ``if not exists`` alone fails for all but one of those that race."""
        with self.db(commit=True) as cursor:
            if cursor.execute("select to_regclass(%s)", (self.table_counter,)).fetchone()[0] is None:
                cursor.execute("select pg_advisory_xact_lock(hashtext('flagsweep queue'))")
                for statement in self.ddl:
                    cursor.execute(statement)

    def _connect(self) -> Any:
        conn = super()._connect()
        conn.execute(f"set statement_timeout = {int(max(self._patience, 1) * 1000)}")
        return conn

    _create_connection = _connect

    def post(self, lane: str, message: bytes) -> None:
        queue = f"{self.name}.{lane}"
        with self.db(commit=True) as cursor:
            cursor.execute(f"insert into {self.table_task} (queue, data) values (%s, %s) returning id", (queue, message))
            last = cursor.fetchone()[0]
            cursor.execute(f"delete from {self.table_task} where queue = %s and id <= %s", (queue, last - KEPT))
            cursor.execute("select pg_notify(%s, '')", (self.channel,))

    def take(self, lanes: Sequence[str], wait: float, done: threading.Event) -> list[bytes]:
        listener = self._listen_conn()
        messages = self._pop(lanes)
        if messages or done.is_set() or not list(listener.notifies(timeout=wait, stop_after=1)):
            return messages
        return self._pop(lanes)

    def _pop(self, lanes: Sequence[str]) -> list[bytes]:
        statement = (
            f"delete from {self.table_task} where id in (select id from {self.table_task} where queue = any(%s) limit %s "
            f"for update skip locked) returning case when length(data) <= {LARGEST} then data else '' end"
        )
        return [bytes(row[0]) for row in self.sql(statement, ([f"{self.name}.{lane}" for lane in lanes], BATCH), results=True)]

    def hold(self, lock: str, owner: str, seconds: float) -> bool:
        until = "convert_to(%s || ' ' || extract(epoch from clock_timestamp()) + %s, 'UTF8')"
        key = (self.name, lock)
        with self.db(commit=True) as cursor:
            insert = f"insert into {self.table_kv} (queue, key, value) values (%s, %s, {until}) on conflict do nothing"
            if cursor.execute(insert, (*key, owner, seconds)).rowcount:
                return True
            found = cursor.execute(
                f"select value, extract(epoch from clock_timestamp()) from {self.table_kv} "
                "where queue = %s and key = %s for update",
                key,
            ).fetchone()
            if found and not is_free(bytes(found[0]), owner, float(found[1])):
                return False
            update = f"update {self.table_kv} set value = {until} where queue = %s and key = %s"
            return cursor.execute(update, (owner, seconds, *key)).rowcount == 1

    def let_go(self, lock: str, owner: str) -> None:
        mine = f"{owner} ".encode()
        self.sql(
            f"delete from {self.table_kv} where queue = %s and key = %s and substring(value from 1 for %s) = %s",
            (self.name, lock, len(mine), mine),
        )

    def wake(self) -> None:
        self.sql("select pg_notify(%s, '')", (self.channel,))

    def disconnect(self) -> None:
        self.close()

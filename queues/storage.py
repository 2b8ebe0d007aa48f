"""Where a shared queue lives: Huey's storages, made to hold a few nudges for each lane and the locks of sweeps.

Nothing here may be lost with harm: a wiped store costs a nudge, which the next look at the database makes good, and a lock, which
is a politeness. So no store waits for the disk, keeps more than the latest nudges, or holds a lock that nobody renews.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from huey.storage import PostgresStorage, RedisStorage, SqliteStorage

LARGEST = 4096
"""Bytes of the largest message that is looked at."""
KEPT = 100
"""Nudges kept for a lane that nobody sweeps: one would do, since each says the same."""
LIFE = 60
"""Seconds after which a nudge says nothing any more: the minute's sweep has come."""
BATCH = 1000
"""Messages taken at once."""
POLL = 0.1
"""Seconds between two looks into a store that cannot wake us."""


class Storage(ABC):
    """Keep nudges and locks. Any method may raise whatever the store's driver raises."""

    @abstractmethod
    def post(self, lane: str, message: bytes) -> None:
        """Add a nudge for a lane; the oldest make room for it."""

    @abstractmethod
    def take(self, lanes: Sequence[str], wait: float, done: threading.Event) -> list[bytes]:
        """Take what is there for these lanes, waiting up to ``wait`` seconds for the first.

        :param done: is set, and followed by a ``wake``, when there is nothing more to wait for.
        """

    @abstractmethod
    def hold(self, lock: str, owner: str, seconds: float) -> bool:
        """Take a lock that is free, or renew one that this owner has; return whether it is the owner's now."""

    @abstractmethod
    def let_go(self, lock: str, owner: str) -> None:
        """Free a lock if this owner has it."""

    def wake(self) -> None:
        """Let whoever takes with the same token go on at once."""
        return  # Who takes from a file looks every tenth of a second, and sees that it is done.

    @abstractmethod
    def disconnect(self) -> None:
        """Close every connection that this object has."""


class RedisQueue(RedisStorage, Storage):
    """Keep a list of nudges for each lane, and each lock as a key that expires: all of it works on Redis 7.0.

    :param patience: seconds for which an answer is waited.
    :param token: names who may be woken.
    """

    HOLD = """
    local holder = redis.call('get', KEYS[1])
    if holder and holder ~= ARGV[1] then return 0 end
    redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 1
    """
    LET_GO = """
    if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
    return 0
    """

    def __init__(self, name: str, url: str, patience: float, token: str):
        from redis import ConnectionPool
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        times = {"socket_timeout": patience, "socket_connect_timeout": min(patience, 0.2)}
        if url.startswith("valkey"):
            url = "redis" + url.removeprefix("valkey")
        pool = ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), **times)
        super().__init__(name, connection_pool=pool, clean_name=False)
        self._hold = self.conn.register_script(self.HOLD)
        self._let_go = self.conn.register_script(self.LET_GO)
        self._waking = f"{name}:wake:{token}"

    def post(self, lane: str, message: bytes) -> None:
        key = self._nudges(lane)
        self.conn.pipeline().lpush(key, message).ltrim(key, 0, KEPT - 1).expire(key, LIFE).execute()

    def take(self, lanes: Sequence[str], wait: float, done: threading.Event) -> list[bytes]:
        keys = [*(self._nudges(lane) for lane in lanes), self._waking]
        first = self.conn.brpop(keys, timeout=wait)
        if first is None:
            return []
        rest = self.conn.pipeline(transaction=False)
        for key in keys:
            rest.rpop(key, BATCH)
        return [message for found in ([first[1]], *rest.execute()) for message in found or () if message]

    def hold(self, lock: str, owner: str, seconds: float) -> bool:
        return bool(self._hold(keys=[self._lock_key(lock)], args=[owner, int(seconds * 1000)]))

    def let_go(self, lock: str, owner: str) -> None:
        self._let_go(keys=[self._lock_key(lock)], args=[owner])

    def wake(self) -> None:
        self.conn.pipeline().lpush(self._waking, b"").expire(self._waking, 5).execute()

    def disconnect(self) -> None:
        self.pool.disconnect()

    def _nudges(self, lane: str) -> str:
        return f"{self.name}:nudges:{lane}"

    def _lock_key(self, lock: str) -> str:
        return f"{self.name}:{lock}"


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
        self._file = self._seen()
        conn = sqlite3.connect(self.filename, timeout=self._timeout, check_same_thread=False, isolation_level=None)
        try:
            for statement in ("pragma journal_mode = truncate", "pragma synchronous = off", *self.ddl):
                conn.execute(statement)
            if self._file is None or self._file != self._seen():
                raise OSError(f"{self.filename} was replaced just now")
        except BaseException:
            conn.close()
            raise
        return conn

    @property
    def conn(self) -> Any:
        if self._conn is not None and self._file != self._seen():  # Deleted, or replaced by another: ours reaches nobody.
            self._conn.close()
            self._conn = None
        return super().conn

    def _seen(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.filename)
        except OSError:
            return None
        return found.st_dev, found.st_ino

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


LONGEST_LOCK = 60.0
"""Seconds for which a lock may be held without being renewed: one that says more was written by a wrong clock."""


def is_free(value: bytes, owner: str, now: float) -> bool:
    """Return whether a lock that says ``owner until`` may be taken: it is ours, too old, or was not written by us."""
    holder, _, until = value.partition(b" ")
    if holder == owner.encode():
        return True
    try:
        return not now < float(until) <= now + LONGEST_LOCK
    except ValueError:
        return True


def make_private(path: Path, content: bytes = b"") -> None:
    """Make a file that only its owner can read, unless it is there."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    if path.exists():
        return
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # Whose folder it is must be able to go on without root.
            owner = os.stat(path.parent)
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(content)
    try:
        os.link(draft, path)  # Whoever opens it finds it whole.
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def opener(url: str, path: Path | None, token: str) -> Callable[[str, float], Storage]:
    """Return a function that opens the store of a URL, given the queue's name and the seconds to wait for an answer."""
    if path is not None:
        return lambda name, patience: SqliteQueue(name, path, patience)
    if url.startswith("postgres"):
        return lambda name, patience: PostgresQueue(name, url, patience)
    return lambda name, patience: RedisQueue(name, url, patience, token)

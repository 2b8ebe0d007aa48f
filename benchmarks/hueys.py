"""Plain Huey, the peer: the same work as tasks of its own. Imports little: its consumers' memory is measured."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from huey import Huey, MemoryHuey, PostgresHuey, RedisHuey, SqliteHuey
from huey.consumer import Consumer

VARIABLE = "BENCH_HUEY"
NAME = "bench"
LOOPBACK = "127.0.0.1"


def from_environment() -> Huey:
    """Return the Huey that BENCH_HUEY names: `memory`, `sqlite:PATH`, `redis:PORT:NAME` or a URL of PostgreSQL."""
    storage, _, rest = os.environ[VARIABLE].partition(":")
    if storage == "memory":
        return MemoryHuey(NAME, results=False)
    if storage == "sqlite":
        return sqlite_huey(Path(rest))
    if storage == "postgresql":
        return postgres_huey(os.environ[VARIABLE])
    port, _, name = rest.partition(":")
    return redis_huey(int(port), name)


def sqlite_huey(path: Path, fsync: bool | None = None) -> SqliteHuey:
    """Return a Huey on an SQLite file; fsync None is Huey's own default."""
    return SqliteHuey(NAME, filename=str(path), fsync=fsync, results=False)


def redis_huey(port: int, name: str) -> RedisHuey:
    """Return a Huey on a Redis on loopback that blocks for the next message (its quickest way)."""
    return RedisHuey(name, host=LOOPBACK, port=port, blocking=True, results=False)


def postgres_huey(url: str, **options: object) -> PostgresHuey:
    """Return a Huey on PostgreSQL, which listens for messages (its default)."""
    return PostgresHuey(NAME, dsn=url, results=False, **options)


def stamp_task(huey: Huey, set_now: Callable[[int], None]) -> Callable[[int], object]:
    """Return the task that stamps its start; defined once, since raiser and consumer must name it alike."""

    @huey.task()
    def stamp(n: int) -> None:
        set_now(n)

    return stamp


class _QuietConsumer(Consumer):
    def _set_signal_handlers(self) -> None:
        """Leave the signals to the benchmark, in whose process this consumer runs."""


def drain_rate(path: Path, count: int, fsync: bool | None) -> float:
    """Return the tasks a second that a thread consumer runs from a SqliteHuey holding `count` no-op tasks."""
    _fill(sqlite_huey(path, fsync=False), count)
    return _drain(sqlite_huey(path, fsync), count)


def enqueue_rate(path: Path, count: int) -> float:
    """Return the tasks a second that are enqueued on SQLite at Huey's defaults, each with a commit of its own."""
    huey = sqlite_huey(path)
    rate = _enqueue(huey, count)
    huey.storage.close()
    return rate


def postgres_drain_rate(url: str, count: int) -> float:
    """Return the same of a PostgresHuey."""
    _fill(postgres_huey(url, options="-c synchronous_commit=off"), count)
    return _drain(postgres_huey(url), count)


def postgres_enqueue_rate(url: str, count: int) -> float:
    """Return the tasks a second that are enqueued on PostgreSQL, each with a commit of its own."""
    huey = postgres_huey(url)
    rate = _enqueue(huey, count)
    huey.storage.flush_queue()
    huey.storage.close()
    return rate


def _enqueue(huey: Huey, count: int) -> float:
    noop = _noop_task(huey, count)[0]
    noop(user_id=-1)
    huey.storage.flush_queue()
    start = time.perf_counter()
    for n in range(count):
        noop(user_id=n)
    return count / (time.perf_counter() - start)


def _drain(huey: Huey, count: int) -> float:
    logging.getLogger("huey").setLevel(logging.CRITICAL)
    all_run = _noop_task(huey, count)[1]
    consumer = _QuietConsumer(huey, periodic=False)
    start = time.perf_counter()
    consumer.start()
    all_run.wait()
    elapsed = time.perf_counter() - start
    consumer.stop(graceful=True)
    if huey.pending_count():
        raise RuntimeError("Huey's queue is not empty though every task ran")
    huey.storage.close()
    return count / elapsed


def _fill(huey: Huey, count: int) -> None:
    """Enqueue, by a Huey without fsync: how the messages got there is not measured."""
    noop = _noop_task(huey, count)[0]
    for n in range(count):
        noop(user_id=n)
    huey.storage.close()


def _noop_task(huey: Huey, count: int) -> tuple[Callable[..., object], threading.Event]:
    """Return a task that does nothing, and the event set when it has run `count` times."""
    all_run = threading.Event()
    run = 0

    @huey.task()
    def noop(user_id: int) -> None:
        nonlocal run
        run += 1
        if run == count:
            all_run.set()

    return noop, all_run

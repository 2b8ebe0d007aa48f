"""What tests of shared queues have in common: a key, a store's other client, garbage, and harm."""

import contextlib
import os
import pickle
import sqlite3

from flagsweep.queues.messages import LARGEST, Seal
from flagsweep.queues.redis import RedisQueue
from flagsweep.queues.sqlite import SqliteQueue
from flagsweep.sweep.lane import group_of

KEY = "a key that only tests have"
NOW = 1_767_225_600_000_000


def url_of(request, store, tmp_path):
    if store == "sqlite":
        return f"sqlite:///{tmp_path}/queue.db"
    return request.getfixturevalue("redis_url" if store == "redis" else "postgres_url")


def client_of(work):
    """Return one more client of the store of a site."""
    return work.flags.queue.place.open(2.0)


class Bomb:
    """Make a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def garbage(path, count):
    """Yield messages of every bad sort, pickle bombs among them."""
    bomb = pickle.dumps(Bomb(path))
    forged = Seal([b"a key of somebody else's"], "q").close("work", NOW)
    sorts = [bomb, forged, b"garbage", b"\x00\xff" * 50, b'{"sweep": "default"}', b"x" * (LARGEST + 1), b"0" * 64 + b" " + bomb]
    for number in range(count):
        yield sorts[number % len(sorts)] + b"%d" % number


def flood(store, lane, messages):
    """Put messages into a store past everything that would keep their number down."""
    if isinstance(store, RedisQueue):
        return store.conn.lpush(store._nudges(lane), *messages)
    rows = [(f"{store.name}.{lane}", message) for message in messages]
    mark, table = ("?", "task") if isinstance(store, SqliteQueue) else ("%s", store.table_task)
    with store.db(commit=True) as cursor:
        cursor.executemany(f"insert into {table} (queue, data) values ({mark}, {mark})", rows)


def lock_of(work):
    """Return the name under which the lane `default` of a site is locked."""
    kinds = [kind for kind, handler in work.flags.handlers.items() if handler.lane == "default"]
    return f"sweep:{group_of('default', kinds)}:0"


def goes_on(work, until, numbers):
    """Raise a flag each, and see each done."""
    for number in numbers:
        work.raise_("work", number)
    until(lambda: {f"work:{number}" for number in numbers} <= set(work.journal.flags("end")))


def delete(path):
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def scribble(path):
    path.write_bytes(os.urandom(40_000))


def make_a_folder(path):
    for _ in range(1000):  # Whoever uses the file may make it anew in between.
        delete(path)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return
    raise AssertionError(f"{path} is made anew again and again")


def drop_the_tables(path):
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
        db.executescript("DROP TABLE task; DROP TABLE kv")


def forbid_writing(path):
    path.chmod(0o400)
    path.parent.chmod(0o500)

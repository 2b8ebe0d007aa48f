"""What several test modules share: a clock that stands still, a client that is no part of the site, a lane, children."""

import gc
import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
from peewee import OperationalError

from flagsweep.config import SECOND
from flagsweep.consumer.lanes import make_lanes
from flagsweep.consumer.membership import Enlisted

NEW_YEAR = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC


class FakeClock:
    """Stand still until told to go on."""

    def __init__(self):
        self.passed = 0.0

    def now(self):
        return NEW_YEAR + int(self.passed * SECOND)

    def monotonic(self):
        return self.passed

    def advance(self, seconds):
        self.passed += seconds


def plain(path, statement, *arguments, timeout=10):
    """Run one statement as another program would, with nothing but sqlite3, and return its rows."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=timeout)) as connection:
        return connection.execute(statement, arguments).fetchall()


def kill_with_descendants(child):
    """Kill a child and what it has started, which may be coming and going: first it stands still, and starts no more."""
    if child.poll() is not None:
        return
    parent = psutil.Process(child.pid)
    parent.suspend()
    descendants = parent.children(recursive=True)
    for each in (*descendants, parent):
        with suppress(psutil.NoSuchProcess):
            each.kill()
    child.wait()
    psutil.wait_procs(descendants, 10)


def only(flags):
    """Return the one flag that is up."""
    (flag,) = flags.find()
    return flag


def locked():
    """Return the error that Peewee raises where another program holds SQLite's writer for too long."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return OperationalError(error, *error.args)


def count(path, table="flagsweep_flag"):
    """Return how many rows a table has."""
    return plain(path, f"SELECT count(*) FROM {table}")[0][0]


@contextmanager
def lane_of(flags, name):
    """Have a lane of a consumer that sweeps in this process, without Huey."""
    duties = flags._duties()
    enlisted = Enlisted(duties)
    (lane,) = make_lanes(duties, enlisted, lambda: False, name, flat_out=True).values()
    try:
        yield lane
    finally:
        lane.pool.close()
        enlisted.close()
        flags.connections.close_engine()


def let_go(folder):
    """Collect the errors that hold the frames that hold the cursors that hold a file of this folder, if there are any."""
    for generation in range(3):  # Of all that there is, a hundred milliseconds; mostly they are young.
        if not any(Path(file.path).is_relative_to(folder) for file in psutil.Process().open_files()):
            return
        gc.collect(generation)


class Oops(Exception):
    """Roll a transaction back."""


def idle(flags, kind="work", **options):
    """Return a handler that does nothing."""
    return flags.handler(kind, **options)(lambda n=0: None)


def forked(do):
    """Run something in a child process; return its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            do()
            code = 0
        finally:
            os._exit(code)
    return pid


@contextmanager
def living_fork():
    """Have a forked child that lives as long as the block."""
    read, write = os.pipe()

    def live():
        os.close(write)
        os.read(read, 1)

    pid = forked(live)
    os.close(read)
    try:
        yield
    finally:
        os.close(write)
        ended(pid)


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fill(folder):
    """Leave no byte of a disk free."""
    with (folder / "filler").open("ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(65536 if filler.tell() < 6_000_000 else 512))
    return folder / "filler"

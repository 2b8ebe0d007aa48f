"""The site's connection from one flag to the next: each handler finds it as it would alone, and a small pool is enough."""

import logging
import os
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from peewee import MySQLDatabase, PostgresqlDatabase, SqliteDatabase
from playhouse.pool import PooledMySQLDatabase, PooledPostgresqlDatabase, PooledSqliteDatabase
from test_alive import Server, parameters
from work import running

from flagsweep import Backoff, FlagSweep
from flagsweep.databases.server.healing import Healing
from flagsweep.databases.spare import Spare
from flagsweep.sweep.atomic import LeakedTransaction

KINDS = {
    "sqlite": (SqliteDatabase, PooledSqliteDatabase),
    "postgres_url": (PostgresqlDatabase, PooledPostgresqlDatabase),
    "mysql_url": (MySQLDatabase, PooledMySQLDatabase),
}


@pytest.fixture(params=KINDS)
def place(request, db_path):
    """Return which database, and its URL."""
    if request.param == "sqlite":
        return request.param, f"sqlite:///{db_path}"
    return request.param, request.getfixturevalue(request.param)


def site(place, kind, **options):
    """Return the site's database: a URL, or a Peewee object of its own."""
    name, url = place
    if kind == "url":
        return url
    if name == "sqlite":
        database = url.removeprefix("sqlite:///")
        return KINDS[name][kind == "pool"](database, **({"check_same_thread": False, **options} if kind == "pool" else {}))
    return KINDS[name][kind == "pool"](url.rpartition("/")[2], **parameters(url), **(options if kind == "pool" else {}))


@pytest.fixture
def make(place, tmp_path):
    """Give `make(kind, **options)`: flags on a database of the site's that is ready."""
    made = []

    def make(kind, threads=4, **options):
        flags = FlagSweep(site(place, kind, **options), state_dir=tmp_path / "state", threads=threads)
        flags.init()
        made.append(flags)
        return flags

    yield make
    for flags in made:
        flags.connections.close_thread()
        if hasattr(flags.database, "close_all"):
            flags.database.close_all()


@pytest.fixture(params=["url", "plain", "pool"])
def flags(request, make):
    return make(request.param)


def failures(flags):
    return [info.error for info in flags.find(limit=None) if info.error]


def test_each_handler_finds_the_connection_as_it_would_alone(flags):
    """As Peewee advises: whoever connects closes. Beside it, those that leave that to Peewee."""
    db = flags.database
    found = set()

    @flags.handler
    def connects(n):
        found.add(db.is_closed())
        db.connect()
        db.execute_sql("SELECT 1")
        db.close()

    @flags.handler
    def within(n):
        with db.connection_context():
            db.execute_sql("SELECT 1")

    @flags.handler
    def with_all(n):
        with db:
            db.execute_sql("SELECT 1")

    @flags.handler
    def leaves(n):
        found.add(db.is_closed())
        db.connect()

    @flags.handler
    def without(n):
        found.add(db.is_closed())
        db.execute_sql("SELECT 1")

    @flags.handler
    def raises(n):
        without.raise_flag(n=n + 1000)

    for handler in (connects, within, with_all, leaves, without, raises):
        handler.raise_many([{"n": n} for n in range(40)])
    assert flags.sweep() == {"lowered": 280}
    assert found == {True}
    assert not {"connect", "is_closed"} & vars(db).keys(), "nothing of it is left on the site's database"


class Bursts:
    """Count how often a thread finds flags to do, and does them all: for so long it keeps its connection."""

    def __init__(self):
        self.count, self.runs = 0, 0

    @contextmanager
    def counted(self, performing):
        before = self.runs
        with performing:
            yield
        self.count += self.runs > before


@pytest.fixture
def bursts(monkeypatch):
    found, performing = Bursts(), Spare.performing
    monkeypatch.setattr(Spare, "performing", lambda spare: found.counted(performing(spare)))
    return found


def ask(flags, bursts):
    """Have a handler of `work` ask the site's database, once a flag."""

    @flags.handler("work")
    def work(n):
        bursts.runs += 1
        flags.database.execute_sql("SELECT 1").fetchall()

    return work


def test_a_thread_keeps_its_connection_from_flag_to_flag(make, bursts):
    flags = make("plain", threads=1)
    opened = []
    database = flags.database
    connect = type(database)._connect

    def counted():
        opened.append(threading.get_ident())
        return connect(database)

    database._connect = counted
    ask(flags, bursts).raise_many([{"n": n} for n in range(200)])
    opened.clear()
    assert flags.sweep() == {"lowered": 200}
    workers = [thread for thread in opened if thread != threading.get_ident()]
    assert 1 <= len(workers) <= bursts.count, "one a burst of flags, not one a flag"


def test_the_sites_own_hooks_run_once_a_connection(make, bursts):
    flags = make("plain", threads=1)
    begun = []
    flags.database._initialize_connection = begun.append
    ask(flags, bursts).raise_many([{"n": n} for n in range(100)])
    begun.clear()
    flags.sweep()
    assert 1 <= len(begun) <= bursts.count
    assert flags.database._initialize_connection == begun.append


@pytest.mark.parametrize("how", ["connection_context", "with"])
def test_an_atomic_handler_may_be_within_a_connection_context(flags, how):
    db = flags.database

    @flags.handler(atomic=True)
    def work(n):
        with db.connection_context() if how == "connection_context" else db:
            db.execute_sql("SELECT 1")
        assert db.in_transaction() and not db.is_closed()

    work.raise_many([{"n": n} for n in range(3)])
    flags.sweep(raise_errors=True)
    assert flags.find() == []


@pytest.mark.parametrize("what", ["connect", "close"])
def test_an_atomic_handler_that_connects_or_closes_is_told_why_it_must_not(flags, what):
    work = flags.handler("work", atomic=True)(lambda: getattr(flags.database, what)() and None)
    work.raise_flag()
    flags.sweep()
    (error,) = failures(flags)
    assert "an atomic handler runs in a transaction on flags.database" in error
    assert "connection_context" in error


def test_a_leaked_transaction_is_found_beside_handlers_that_connect(flags):
    db = flags.database

    @flags.handler
    def leaks():
        db.connect()
        db.begin()

    flags.handler("good")(lambda n: db.execute_sql("SELECT 1"))
    leaks.raise_flag()
    flags.handlers["good"].raise_many([{"n": n} for n in range(50)])
    assert flags.sweep()["lowered"] == 50
    (error,) = failures(flags)
    assert LeakedTransaction.__name__ in error


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_a_handler_forks_connects_anew(make):
    flags = make("plain", threads=1)
    db, told = flags.database, []

    @flags.handler
    def work(n):
        kept = db._state.conn
        if kept is not None and not told:
            if (pid := os.fork()) == 0:
                with suppress(BaseException):
                    os._exit(0 if db.is_closed() and db.connection() is not kept else 1)
                os._exit(2)
            told.append(os.waitpid(pid, 0)[1])
            assert db.connection() is kept
        db.execute_sql("SELECT 1").fetchall()

    work.raise_many([{"n": n} for n in range(50)])
    assert flags.sweep() == {"lowered": 50}
    assert told == [0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_from_the_one_that_made_the_flags_keeps_its_connections_too(make, bursts):
    """As a server's workers are: what was made before the fork performs behind it."""
    flags = make("plain", threads=1)
    ask(flags, bursts).raise_many([{"n": n} for n in range(100)])
    flags.connections.close_thread()
    if (pid := os.fork()) == 0:
        opened = []
        anew = flags.database._connect
        flags.database._connect = lambda: (opened.append(threading.get_ident()), anew())[1]
        with suppress(BaseException):
            swept = flags.sweep()
            workers = [thread for thread in opened if thread != threading.get_ident()]
            os._exit(0 if swept == {"lowered": 100} and 1 <= len(workers) <= bursts.count else 1)
        os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0


# A server that ends connections.


@pytest.mark.parametrize("place", ["postgres_url", "mysql_url"], indirect=True)
@pytest.mark.parametrize("kind", ["url", "plain", "pool"])
def test_a_server_that_ends_connections_costs_a_thread_one_attempt_at_most(make, place, kind, until, monkeypatch):
    monkeypatch.setattr(Healing, "RESTED", 0.0)
    flags = make(kind)
    server = Server(*place)
    done, failed = [], []

    @flags.handler(backoff=Backoff(first=0.01), max_attempts=50)
    def work(n):
        try:
            flags.database.execute_sql("SELECT 1").fetchall()
        except Exception:
            failed.append(n)
            raise
        done.append(n)

    work.raise_many([{"n": n} for n in range(3000)])
    with running(flags, until):
        for few in (300, 1000):
            until(lambda few=few: len(done) > few)
            for id in server.connected():
                server.end(id)
        until(lambda: len(set(done)) == 3000, limit=60)
    assert len(failed) <= 2 * 4, "twice, for each of four threads"


# A pool that is smaller than the threads.


def test_a_pool_smaller_than_the_threads_burns_no_attempt(make, until, caplog):
    caplog.set_level(logging.WARNING, "flagsweep")
    flags = make("pool", threads=6, max_connections=2)
    together, most = [], []

    @flags.handler(max_attempts=1)
    def work(n):
        together.append(n)
        most.append(len(together))
        flags.database.execute_sql("SELECT 1")
        time.sleep(0.005)
        together.remove(n)

    flags.handler("other", lane="other", max_attempts=1)(work.function)
    work.raise_many([{"n": n} for n in range(30)])
    flags.handlers["other"].raise_many([{"n": 1000 + n} for n in range(30)])
    with running(flags, until):
        until(lambda: len(most) == 60, limit=20)  # Asked by nobody who would take one of the two connections.
    assert failures(flags) == []
    assert max(most) == 2
    assert "pool has 2 connections for 12 threads (default 6, other 6): 2 handlers run at once" in caplog.text
    (finding,) = [f for f in flags.doctor() if f.what == "pool"]
    assert finding.level == "warn" and "max_connections=12" in finding.fix


def test_a_connection_that_the_caller_of_a_sweep_has_counts(make):
    flags = make("pool", threads=4, max_connections=2)
    flags.handler("work", max_attempts=1)(lambda n: flags.database.execute_sql("SELECT 1"))
    flags.handlers["work"].raise_many([{"n": n} for n in range(40)])
    with flags.database.connection_context():
        assert flags.sweep() == {"lowered": 40}


def test_of_a_pool_that_is_large_enough_nothing_is_said(make):
    flags = make("pool", threads=4, max_connections=4)
    flags.handler("work")(lambda n: None)
    assert not [f for f in flags.doctor() if f.what == "pool"]


def test_who_performs_within_performing_leaves_the_database_as_it_was(db_path):
    """A handler may sweep, and that in its own thread."""
    db = SqliteDatabase(db_path)
    spare, before = FlagSweep(db).store.connections.spare, set(vars(db)) | {"_flagsweep_spare"}
    with spare.performing():
        db.connect()
        spare.put_away()
        kept = db._state.conn
        with spare.performing():
            assert db.is_closed()
        assert db.is_closed() and db.connect() and db.connection() is kept
    assert db.is_closed() and set(vars(db)) == before
    assert db.connect() and db.close()


def test_what_a_failed_flag_left_in_its_traceback_keeps_no_lock_for_a_connection_that_the_next_one_closes(db_path):
    """SQLite keeps the transaction of a closed connection as long as somebody has a statement of it."""
    site = SqliteDatabase(db_path, timeout=0.2)
    flags = FlagSweep(site, threads=1, shutdown_timeout=1)
    flags.init()

    @flags.handler(atomic=True, max_attempts=1)
    def work(n):
        if n == 0:
            site.execute_sql("SELECT * FROM missing")
        if n == 1:
            site.connection().close()

    work.raise_many([{"n": n} for n in range(4)])
    assert flags.sweep() == {"lowered": 2, "dead": 2}

"""Atomic handlers take effect exactly once, and a handler that misuses its connection harms nobody else."""

import logging
import sqlite3
import threading
from contextlib import closing, suppress

import pytest
from peewee import DatabaseError, OperationalError, SqliteDatabase
from rig import FakeClock, count, let_go, plain

from flagsweep import FlagSweep, Snooze
from flagsweep.sweep.threads import Pool


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def flags(db_path, clock):
    """Return flags on the site's own database, with a table `effect` for what handlers do."""
    site = SqliteDatabase(db_path, pragmas={"foreign_keys": 1, "journal_mode": "wal"})
    flags = FlagSweep(site, clock=clock, threads=2)
    flags.init()
    site.execute_sql("CREATE TABLE effect (n PRIMARY KEY, owner REFERENCES effect DEFERRABLE INITIALLY DEFERRED)")
    site.close()
    yield flags
    site.close()
    let_go(db_path.parent)


def write(flags, n, owner=None):
    flags.database.execute_sql("INSERT INTO effect VALUES (?, ?)", (n, owner))


def effects(db_path):
    return {n for (n,) in plain(db_path, "SELECT n FROM effect")}


def up(flags):
    return {flag.payload["n"] for flag in flags.find()}


def is_writable(db_path):
    """Return whether nobody holds the writer."""
    with closing(sqlite3.connect(db_path, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
    return True


# Both, or neither.


def test_effect_and_lowering_commit_together(flags, db_path):
    seen_by_others = []

    @flags.handler(atomic=True)
    def work(n):
        write(flags, n)
        seen_by_others.append((effects(db_path), count(db_path)))

    work.raise_flag(1)
    assert +flags.sweep() == {"lowered": 1}
    assert seen_by_others == [(set(), 1)]
    assert (effects(db_path), up(flags)) == ({1}, set())


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, Snooze(5)])
def test_an_atomic_handler_that_raises_leaves_no_effect(flags, db_path, error):
    @flags.handler(atomic=True)
    def work(n):
        write(flags, n)
        raise error

    work.raise_flag(1)
    flags.sweep()
    assert (effects(db_path), up(flags)) == (set(), {1})
    assert is_writable(db_path)


def test_an_error_while_lowering_leaves_no_effect(flags, db_path, monkeypatch):
    work = flags.handler("work", atomic=True)(lambda n: write(flags, n))
    work.raise_flag(1)
    for after in (False, True):

        def failing(*arguments, settle=flags.store.settle_within, after=after):
            if after:
                settle(*arguments)
            raise RuntimeError("in between")

        monkeypatch.setattr(flags.store, "settle_within", failing)
        assert +flags.sweep() == {"again": 1}
        assert (effects(db_path), up(flags)) == (set(), {1})
        monkeypatch.undo()
        flags.retry()
    assert +flags.sweep() == {"lowered": 1}
    assert effects(db_path) == {1}


def test_a_commit_that_fails_leaves_no_effect(flags, db_path):
    work = flags.handler("work", atomic=True)(lambda n: write(flags, n, owner=n + 100))
    work.raise_flag(1)
    assert +flags.sweep() == {"again": 1}
    assert (effects(db_path), up(flags)) == (set(), {1})
    assert "FOREIGN KEY constraint failed" in flags.find()[0].error
    assert is_writable(db_path)


def test_an_atomic_handler_whose_claim_was_lost_is_rolled_back(flags, db_path, monkeypatch):
    @flags.handler(lane="one", atomic=True)
    def work(n):
        write(flags, n)
        if n == 1:
            assert flags.lower("work", '{"n":2}')

    flags.settings.lanes["one"] = 1
    work.using(priority=1).raise_flag(1)
    work.raise_flag(2)
    monkeypatch.setattr(Pool, "room", lambda pool, kind: 2)  # Both are claimed before the first runs.
    assert +flags.sweep() == {"lowered": 1, "lost": 1}
    assert (effects(db_path), up(flags)) == ({1}, set())


def test_a_flag_that_is_bumped_while_its_atomic_handler_runs_keeps_its_effect_and_runs_once_more(flags, db_path):
    @flags.handler(atomic=True)
    def work(n):
        write(flags, len(effects(db_path)))
        if not effects(db_path):
            assert work.raise_flag(n).how == "bumped"

    work.raise_flag(1)
    assert +flags.sweep() == {"again": 1, "lowered": 1}
    assert effects(db_path) == {0, 1}


def test_a_raise_within_an_atomic_handler_is_rolled_back_with_it(flags, db_path):
    other = flags.handler("other")(lambda n: None)

    @flags.handler(atomic=True)
    def work(n):
        assert other.raise_flag(n).how == "new"
        raise ValueError("no")

    work.raise_flag(1)
    flags.sweep()
    assert [flag.kind for flag in flags.find()] == ["work"]


@pytest.mark.long
def test_progress_within_an_atomic_handler_goes_the_way_of_its_effect(flags, db_path, clock):
    seen = []

    @flags.handler(atomic=True)
    def work(n, flag):
        seen.append(flag.cursor)
        write(flags, n)
        flag.progress(flag.attempt)
        if len(seen) == 1:
            raise ValueError("rolled back")
        if len(seen) == 2:
            work.raise_flag(n)

    work.raise_flag(1)
    flags.sweep()
    assert flags.find()[0].cursor is None
    clock.advance(60)
    assert (+flags.sweep())["again"] == 2  # bumped; then its second effect breaks the primary key
    assert seen == [None, None, None]
    assert effects(db_path) == {1}


def test_atomic_handlers_run_one_at_a_time(flags, db_path):
    running, most = [], []

    @flags.handler(atomic=True)
    def work(n):
        running.append(n)
        write(flags, n)
        most.append(len(running))
        running.remove(n)

    flags.settings.lanes["default"] = 4
    work.raise_many([(n,) for n in range(100)])
    assert +flags.sweep() == {"lowered": 100}
    assert set(most) == {1}
    assert effects(db_path) == set(range(100))


@pytest.mark.long
def test_atomic_handlers_and_others_share_the_writer(flags, db_path):
    atomic = flags.handler("atomic", atomic=True)(lambda n: write(flags, n))
    loose = flags.handler("loose")(lambda n: write(flags, n))
    atomic.raise_many([(n,) for n in range(100)])
    loose.raise_many([(n,) for n in range(100, 200)])
    assert +flags.sweep() == {"lowered": 200}
    assert effects(db_path) == set(range(200))


def test_a_slow_atomic_handler_is_warned_about(flags, clock, caplog):
    work = flags.handler("work", atomic=True)(lambda n: clock.advance(n))
    work.raise_flag(0)
    work.raise_flag(3)
    assert +flags.sweep() == {"lowered": 2}
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "work is atomic and held the database's only writer for 3.0 s" in warning


def test_a_busy_writer_is_not_charged_to_an_atomic_handler(db_path):
    busy = threading.Event()

    class Watched(SqliteDatabase):
        def begin(self, *arguments):
            try:
                super().begin(*arguments)
            except OperationalError:
                busy.set()
                raise

    flags = FlagSweep(Watched(db_path, timeout=0.01), threads=2)
    flags.init()

    @flags.handler
    def site():
        with closing(sqlite3.connect(db_path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert busy.wait(10)

    @flags.handler(atomic=True, retry_on=ValueError)
    def work():
        busy.set()

    site.using(priority=1).raise_flag()
    work.raise_flag()
    flags.sweep()
    assert [(flag.state, flag.attempts, flag.error) for flag in flags.find("work")] in ([("waiting", 0, None)], [])


# Misuse of the transaction by an atomic handler.


def fill_the_disk(db):
    db.pragma("max_page_count", 1)
    with suppress(DatabaseError):
        db.execute_sql("INSERT INTO effect VALUES (?, NULL)", ("x" * 1_000_000,))


def swallow(statement):
    def misuse(db):
        with suppress(DatabaseError):
            db.execute_sql(statement)

    return misuse


def commit_and_begin(db):
    db.commit()
    db.execute_sql("BEGIN")


def commit_and_forge_the_guard(db):
    db.commit()
    db.execute_sql("SAVEPOINT flagsweep_guard")


def close(db):
    with suppress(DatabaseError):
        db.close()


MISUSE = {
    "disk full": fill_the_disk,
    "script": lambda db: db.connection().executescript("SELECT 1"),
    "commit": lambda db: db.commit(),
    "raw commit": lambda db: db.connection().commit(),
    "COMMIT": swallow("COMMIT"),
    "rollback": lambda db: db.rollback(),
    "raw rollback": lambda db: db.connection().rollback(),
    "ROLLBACK": swallow("ROLLBACK"),
    "session": lambda db: db.session_start(),
    "two sessions": lambda db: (db.session_start(), db.session_start()),
    "BEGIN": swallow("BEGIN"),
    "savepoint": swallow("SAVEPOINT mine"),
    "release of the guard": swallow("RELEASE flagsweep_guard"),
    "commit and begin": commit_and_begin,
    "commit and forge": commit_and_forge_the_guard,
    "pop": lambda db: db.pop_transaction(),
    "close": close,
    "raw close": lambda db: db.connection().close(),
    "journal": swallow("PRAGMA journal_mode = delete"),
}


@pytest.mark.long
@pytest.mark.parametrize("misuse", MISUSE)
@pytest.mark.parametrize("then", ["return", "raise"])
def test_no_misuse_of_the_transaction_lowers_a_flag_without_its_effect(flags, db_path, misuse, then):
    @flags.handler(atomic=True, max_attempts=1)
    def work(n):
        write(flags, n)
        if n == 1:
            MISUSE[misuse](flags.database)
            if then == "raise":
                raise ValueError("after all")

    flags.settings.lanes["default"] = 1
    work.raise_many([(n,) for n in range(4)])
    counts = flags.sweep()
    assert counts.total() == 4
    assert {0, 2, 3} <= effects(db_path)
    lowered = {0, 1, 2, 3} - up(flags)
    assert lowered <= effects(db_path)
    assert is_writable(db_path)
    assert flags.database.is_closed()


@pytest.mark.parametrize("misuse", ["disk full", "script", "commit", "rollback", "session", "pop", "raw close"])
def test_a_broken_transaction_is_a_failure_that_says_so(flags, misuse):
    @flags.handler(atomic=True, max_attempts=1)
    def work(n):
        MISUSE[misuse](flags.database)

    work.raise_flag(1)
    assert +flags.sweep() == {"dead": 1}
    assert "transaction" in flags.find()[0].error.splitlines()[-1]


# Misuse of the connection by any other handler.

LEAKS = {
    "session": lambda db: db.session_start(),
    "two sessions": lambda db: (db.session_start(), db.session_start()),
    "BEGIN": lambda db: db.execute_sql("BEGIN IMMEDIATE"),
    "raw BEGIN": lambda db: db.connection().execute("BEGIN IMMEDIATE"),
    "savepoint": lambda db: db.execute_sql("SAVEPOINT mine"),
    "atomic": lambda db: db.atomic().__enter__(),
    "raw close": lambda db: db.connection().close(),
    "close in a transaction": lambda db: (db.atomic().__enter__(), db.connection().close()),
}


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("then", ["return", "raise"])
def test_a_leaked_transaction_is_rolled_back_and_recorded_and_the_next_flag_is_fine(flags, db_path, leak, then):
    @flags.handler(max_attempts=1)
    def work(n):
        if n == 1:
            LEAKS[leak](flags.database)
            with suppress(DatabaseError):
                write(flags, n)
            if then == "raise":
                raise ValueError("after all")
        else:
            with flags.database.atomic():
                write(flags, n)

    flags.settings.lanes["default"] = 1
    work.raise_many([(n,) for n in range(4)])
    assert +flags.sweep() == {"lowered": 3, "dead": 1}
    assert effects(db_path) == {0, 2, 3}
    assert up(flags) == {1}
    assert "transaction" in flags.find()[0].error
    assert then == "return" or "after all" in flags.find()[0].error
    assert is_writable(db_path)


@pytest.mark.parametrize("leak", ["session", "BEGIN", "atomic", "savepoint"])
def test_a_leak_in_a_database_in_memory_loses_no_flag(leak):
    flags = FlagSweep(":memory:")
    flags.init()

    @flags.handler(max_attempts=1)
    def work(n):
        if n == 1:
            LEAKS[leak](flags.database)

    work.raise_many([(n,) for n in range(4)])
    assert +flags.sweep() == {"lowered": 3, "dead": 1}
    assert up(flags) == {1}
    flags.database.close()


# The connection that was lent.


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("open_before", [True, False])
def test_the_sites_connection_is_left_as_it_was_found(flags, atomic, open_before):
    work = flags.handler("work", atomic=atomic)(lambda n: write(flags, n))
    if open_before:
        flags.database.connect()
    connection = flags.database.connection() if open_before else None
    work.raise_flag(1)
    work.raise_many([(2,)])
    flags.sweep()
    flags.find()
    flags.status()
    flags.retry()
    assert flags.database.is_closed() is not open_before
    if open_before:
        assert flags.database.connection() is connection


def test_a_sweep_within_an_atomic_handler_is_refused(flags):
    @flags.handler(atomic=True)
    def work(n):
        flags.sweep()

    work.raise_flag(1)
    assert +flags.sweep() == {"again": 1}
    assert "open transaction" in flags.find()[0].error

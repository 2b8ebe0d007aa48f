"""A database that comes later than the handlers: application factories."""

import threading

import pytest
from peewee import BooleanField, DatabaseProxy, Model, MySQLDatabase, PostgresqlDatabase, SqliteDatabase
from playhouse.pool import PooledSqliteDatabase

from flagsweep import ConfigError, FlagSweep

USES = {
    "raise_flag": lambda flags: flags.handlers["work"].raise_flag(n=1),
    "raise_many": lambda flags: flags.handlers["work"].raise_many([{"n": 1}]),
    "init": lambda flags: flags.init(),
    "sweep": lambda flags: flags.sweep(),
    "run": lambda flags: flags.run(),
    "status": lambda flags: flags.status(),
    "find": lambda flags: flags.find(),
    "database": lambda flags: flags.database,
    "doctor": lambda flags: flags.doctor(),
}
LATE = {
    "nothing": (lambda: None, "call flags.configure"),
    "a proxy": (DatabaseProxy, "call its initialize"),
    "no name": (lambda: SqliteDatabase(None), "call its init"),
    "a pool": (lambda: PooledSqliteDatabase(None, check_same_thread=False), "call its init"),
    "PostgreSQL": (lambda: PostgresqlDatabase(None), "call its init"),
    "MySQL": (lambda: MySQLDatabase(None), "call its init"),
    "a proxy for no name": (lambda: proxy_for(SqliteDatabase(None)), "call its init"),
}


def proxy_for(database):
    proxy = DatabaseProxy()
    proxy.initialize(database)
    return proxy


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    monkeypatch.delenv("FLAGSWEEP_DATABASE", raising=False)
    monkeypatch.delenv("FLAGSWEEP_CONFIG", raising=False)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("late", LATE)
def test_a_use_before_there_is_a_database_is_one_clear_error_and_none_at_the_import(late, use):
    make, fix = LATE[late]
    flags = FlagSweep(make())
    flags.handler("work")(lambda n: None)
    with pytest.raises(ConfigError, match=fix):
        USES[use](flags)


def used(flags, seen):
    flags.init()
    flags.handlers["work"].raise_flag(n=1)
    assert flags.sweep() == {"lowered": 1} and seen == [1]


def test_a_proxy_that_is_initialized_later_is_used(db_path):
    proxy, seen = DatabaseProxy(), []
    flags = FlagSweep(proxy, threads=2)

    class Visitor(Model):
        owed = BooleanField(default=True)

        class Meta:
            database = proxy

    flags.handler("work")(lambda n: seen.append(n))
    flags.when(Visitor.owed, kind="visit")(lambda row: seen.append(row))
    proxy.initialize(SqliteDatabase(db_path))
    proxy.create_tables([Visitor])
    used(flags, seen)
    assert flags.database is proxy.obj and flags.settings.threads == 2
    Visitor.create()
    assert flags.sweep() == {"lowered": 1}
    proxy.close()


def test_a_database_whose_name_comes_later_is_used(db_path):
    db, seen = SqliteDatabase(None), []
    flags = FlagSweep(db)
    flags.handler("work")(lambda n: seen.append(n))
    db.init(db_path)
    used(flags, seen)


def test_what_is_configured_later_is_used_and_may_be_said_twice_in_the_same_way(db_path):
    flags, seen = FlagSweep(threads=3), []
    flags.handler("work")(lambda n: seen.append(n))
    flags.configure(database=f"sqlite:///{db_path}", batch=7)
    flags.configure(database=f"sqlite:///{db_path}", threads=3)
    used(flags, seen)
    flags.configure(batch=7)
    assert (flags.settings.threads, flags.settings.batch) == (3, 7)


def test_what_disagrees_or_comes_too_late_is_refused(db_path, tmp_path):
    flags = FlagSweep(threads=3)
    with pytest.raises(ConfigError, match="threads was set to something else"):
        flags.configure(threads=4)
    flags.configure(database=db_path)
    with pytest.raises(ConfigError, match="database was set to something else"):
        flags.configure(database=tmp_path / "other.db")
    with pytest.raises(ConfigError, match=r"unknown setting 'threds'; did you mean 'threads'\?"):
        FlagSweep(threds=3)
    with pytest.raises(ConfigError, match=r"unknown setting 'nonsense'.*batch"):
        flags.configure(nonsense=1, batch=-1)
    flags.init()
    flags.configure(database=db_path)
    with pytest.raises(ConfigError, match=r"batch came too late: .*site\.db is in use"):
        flags.configure(batch=5)


def test_what_is_wrong_with_what_is_said_at_once_is_told_at_once():
    with pytest.raises(ConfigError, match="threads must be"):
        FlagSweep(threads=0)


def test_the_environment_is_read_at_the_first_use_and_is_enough(db_path, monkeypatch):
    flags, seen = FlagSweep(), []
    flags.handler("work")(lambda n: seen.append(n))
    monkeypatch.setenv("FLAGSWEEP_DATABASE", str(db_path))
    monkeypatch.setenv("FLAGSWEEP_BATCH", "9")
    used(flags, seen)
    assert flags.settings.batch == 9


def test_all_that_is_wrong_is_told_at_the_first_use(monkeypatch, db_path):
    flags = FlagSweep(DatabaseProxy())
    monkeypatch.setenv("FLAGSWEEP_BATCH", "none")
    monkeypatch.setenv("FLAGSWEEP_WATCH", "never")
    with pytest.raises(ConfigError, match=r"batch must be.*watch must be|watch must be.*batch must be"):
        flags.status()


def test_an_own_row_of_another_database_is_refused_at_the_first_use(db_path, tmp_path):
    flags, there = FlagSweep(), SqliteDatabase(tmp_path / "other.db")
    thing = type("Thing", (Model,), {"owed": BooleanField(), "__module__": __name__})
    thing.bind(there)
    flags.when(thing.owed, kind="work")(lambda row: None)
    flags.configure(database=db_path)
    with pytest.raises(ConfigError, match=r"Thing lives in .*other\.db"):
        flags.init()


def test_a_proxy_that_becomes_another_database_is_refused_and_both_are_named(db_path, tmp_path):
    proxy = proxy_for(SqliteDatabase(db_path))
    flags = FlagSweep(proxy)
    flags.init()
    proxy.initialize(SqliteDatabase(tmp_path / "other.db"))
    with pytest.raises(ConfigError, match=r"other\.db.*site\.db"):
        flags.status()
    db = SqliteDatabase(tmp_path / "one.db")
    flags = FlagSweep(db)
    flags.init()
    db.init(tmp_path / "two.db")
    with pytest.raises(ConfigError, match=r"two\.db.*one\.db"):
        flags.sweep()


def test_two_threads_that_use_it_first_at_once_make_one_store(db_path):
    flags, stores, barrier = FlagSweep(), [], threading.Barrier(8)
    flags.configure(database=db_path)

    def use():
        barrier.wait()
        stores.append(flags.store)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, stores))) == 1

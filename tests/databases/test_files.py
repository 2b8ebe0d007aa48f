"""From a URL, a path or the site's own Peewee database to a file; and what a file that is no good is told."""

import logging
import os
import re
import sqlite3
from functools import partial
from pathlib import Path

import pytest
from peewee import DatabaseProxy, Model, MySQLDatabase, PostgresqlDatabase, SqliteDatabase, TextField
from playhouse.cockroachdb import CockroachDatabase
from playhouse.pool import PooledSqliteDatabase
from playhouse.sqliteq import SqliteQueueDatabase
from rig import let_go, plain

from flagsweep import ConfigError, DatabaseAway, FlagSweep, NotReady


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def path_of(database):
    return FlagSweep(database).database.database


# URLs and paths.


@pytest.mark.parametrize(
    ("database", "path"),
    [
        ("sqlite:///site.db", "site.db"),
        ("sqlite:///./site.db", "site.db"),
        ("sqlite:///data/site.db", "data/site.db"),
        ("sqlite:////srv/site.db", "/srv/site.db"),
        ("SQLite:///site.db", "site.db"),
        ("sqlite:///my%20site.db", "my site.db"),
        ("sqlite:///my site.db", "my site.db"),
        ("sqlite:///100%25.db", "100%.db"),
        ("sqlite:///what%3Fnow%23.db", "what?now#.db"),
        ("sqlite:///사이트/가입.db", "사이트/가입.db"),
        ("sqlite:///%EC%82%AC.db", "사.db"),
        ("site.db", "site.db"),
        ("./site.db", "site.db"),
        ("my site.db", "my site.db"),
        ("100%25.db", "100%25.db"),
        ("사이트.db", "사이트.db"),
        ("/srv/site.db", "/srv/site.db"),
        (Path("site.db"), "site.db"),
        (Path("/srv/my site.db"), "/srv/my site.db"),
    ],
    ids=str,
)
def test_a_url_or_path_names_a_file(tmp_path, database, path):
    assert path_of(database) == str(tmp_path / path)


@pytest.mark.parametrize("database", [":memory:", "sqlite://", "sqlite:///", "sqlite:///:memory:", SqliteDatabase(":memory:")])
def test_a_database_may_be_in_memory(database):
    flags = FlagSweep(database)
    assert flags.path is None
    assert flags.init()
    flags.handler("work")(lambda: None).raise_flag()
    assert flags.sweep() == {"lowered": 1}
    flags.database.close()


@pytest.mark.parametrize(
    ("database", "said"),
    [
        ("", "no database: pass a URL"),
        ("sqlite://site.db", "names the host 'site.db': a file takes three slashes"),
        ("sqlite://localhost/site.db", "names the host 'localhost'"),
        ("sqlite:///site.db?mode=ro", "has parameters"),
        ("sqlite:///site.db#top", "has parameters"),
        ("oracle://db/site", "must begin with 'sqlite://', 'postgresql://' or 'mysql://'"),
        ("postgresql://db", "names no database"),
        ("mysql://", "names no database"),
        ("sqlite3:///site.db", "must begin with 'sqlite://'"),
        ("://site.db", "must begin with 'sqlite://'"),
        ("sqlite://[half/site.db", "cannot be read as a URL"),
        ("postgresql://[half", "cannot be read as a URL"),
        ("sqlite:////", "names no file"),
        ("sqlite:///a%00b.db", "names no file"),
        ("a\0b.db", "names no file"),
        (5, "must be a URL, a path or a Peewee Database, got 5"),
        (b"site.db", "must be a URL, a path or a Peewee Database"),
        (CockroachDatabase("site"), "got CockroachDatabase"),
        (PostgresqlDatabase(None), "has no name yet"),
        (MySQLDatabase(None), "has no name yet"),
        (SqliteDatabase(None), "has no name yet"),
        (SqliteDatabase("file:site.db?mode=ro", uri=True), "give it the plain path"),
        (SqliteQueueDatabase("site.db", autostart=False), "SqliteQueueDatabase .* cannot be swept"),
        (DatabaseProxy(), "has no database yet"),
        (PooledSqliteDatabase("site.db"), "give it check_same_thread=False"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_fix(tmp_path, database, said):
    with pytest.raises(ConfigError, match=said):
        assert FlagSweep(database).store
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("foreign", ["playhouse.cysqlite_ext", "playhouse.sqlcipher_ext"])
def test_a_second_sqlite_library_is_refused(foreign):
    Foreign = type("ForeignDatabase", (SqliteDatabase,), {"__module__": foreign})
    with pytest.raises(ConfigError, match=r"Mine \(playhouse\..*\) cannot be swept: use SqliteDatabase"):
        FlagSweep(type("Mine", (Foreign,), {})("site.db"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@db/site",
        "postgresql://me:sec@secret@db/site",
        "postgresql://me:a/secret@db/site",
        "postgresql://me:a?secret@db/site",
        "postgresql://me:a#secret@db/site",
        "postgresql://db/site?password=secret",
        "postgresql://db/site?mail=a@b&password=secret",
        "sqlite://me:secret@db/site.db",
        "sqlite:///site.db?key=secret",
        "sqlite://me:secret@[half/site.db",
    ],
)
def test_a_password_is_never_shown(url):
    try:
        flags = FlagSweep(url)
        shown = f"{flags.store.where} {flags.settings!r} {flags!r}"
    except ConfigError as error:
        shown = str(error)
    assert "secret" not in shown


# The site's own Peewee database.


def test_the_sites_database_begins_its_transactions_immediately_and_the_log_says_so(db_path, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    site = SqliteDatabase(db_path)
    FlagSweep(site).init()
    assert "now begin IMMEDIATE" in caplog.text and str(db_path) in caplog.text
    with site.atomic(), pytest.raises(sqlite3.OperationalError, match="locked"):
        plain(db_path, "BEGIN IMMEDIATE", timeout=0)
    site.close()
    caplog.clear()
    FlagSweep(site)
    assert caplog.text == ""


def test_a_lock_type_that_the_site_chose_stays(db_path, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    site = SqliteDatabase(db_path, lock_type="DEFERRED")
    FlagSweep(site)
    assert (site._lock_type, caplog.text) == ("DEFERRED", "")


class Mine(SqliteDatabase):
    """A database class of the site's own, with a `_connect` of its own."""

    def _connect(self):
        connection = super()._connect()
        connection.create_function("one", 0, lambda: 1)
        return connection


@pytest.mark.parametrize("kind", [SqliteDatabase, partial(PooledSqliteDatabase, check_same_thread=False), Mine])
def test_kinds_of_peewee_databases_that_work(db_path, kind):
    site = kind(db_path)
    flags = FlagSweep(site)
    assert flags.database is site
    flags.init()

    @flags.handler(atomic=True)
    def work(n):
        site.execute_sql("SELECT 1")
        if n == 3:
            raise ValueError("no")

    work.raise_many([(n,) for n in range(20)])
    assert flags.sweep() == {"lowered": 19, "again": 1}
    getattr(site, "close_all", site.close)()


def test_a_proxy_stands_for_the_database_that_it_was_given(db_path):
    proxy, site = DatabaseProxy(), SqliteDatabase(db_path)
    proxy.initialize(site)
    flags = FlagSweep(proxy)
    assert flags.database is site
    flags.init()
    flags.handler("work")(lambda: None).raise_flag()
    assert flags.sweep() == {"lowered": 1}


def test_a_relative_name_is_the_same_file_for_the_site_and_for_us(tmp_path):
    site = SqliteDatabase("site.db")
    flags = FlagSweep(site)
    flags.init()
    flags.handler("work")(lambda: None).raise_flag()
    assert flags.sweep() == {"lowered": 1}
    assert (tmp_path / "site.db").exists()


# Files that are no good.

CALLS = {
    "raise": lambda flags: flags.handlers["work"].raise_flag(),
    "raise many": lambda flags: flags.handlers["work"].raise_many([()]),
    "sweep": lambda flags: flags.sweep(),
    "run": lambda flags: flags.run(),
    "status": lambda flags: flags.status(),
    "find": lambda flags: flags.find(),
    "retry": lambda flags: flags.retry(),
    "discard": lambda flags: flags.discard(),
    "lower": lambda flags: flags.lower("work", "{}"),
}


@pytest.fixture
def make(db_path):
    """Give `make(own)`: flags on the path, or on a Peewee database of the site's own on that path."""
    made = []

    def make(own, **options):
        flags = FlagSweep(SqliteDatabase(db_path, **options) if own else db_path, shutdown_timeout=0)
        flags.handler("work")(lambda: None)
        made.append(flags)
        return flags

    yield make
    for flags in made:
        flags.database.close()
    let_go(db_path.parent)


@pytest.mark.parametrize("own", [False, True], ids=["path", "own"])
@pytest.mark.parametrize("call", CALLS)
def test_a_file_that_is_not_there_is_named_with_the_command_and_not_made(tmp_path, db_path, make, call, own):
    flags = make(own)
    with pytest.raises(NotReady) as caught:
        CALLS[call](flags)
    assert str(db_path) in str(caught.value) and "flagsweep init" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("own", [False, True], ids=["path", "own"])
@pytest.mark.parametrize("call", CALLS)
def test_a_file_without_our_tables_is_named_with_the_command(db_path, make, call, own):
    plain(db_path, "CREATE TABLE site (x)")
    with pytest.raises(NotReady) as caught:
        CALLS[call](make(own))
    assert str(db_path) in str(caught.value) and "flagsweep init" in str(caught.value)


@pytest.mark.parametrize("own", [False, True], ids=["path", "own"])
@pytest.mark.parametrize("call", [*CALLS, "init"])
def test_a_file_that_is_no_database_is_called_so(db_path, make, call, own):
    db_path.write_text("dear diary, " * 1000)
    with pytest.raises(NotReady, match="is no SQLite database: check the path") as caught:
        {**CALLS, "init": FlagSweep.init}[call](make(own))
    assert str(db_path) in str(caught.value)
    assert db_path.read_text() == "dear diary, " * 1000


@pytest.mark.parametrize("own", [False, True], ids=["path", "own"])
@pytest.mark.parametrize("call", [*CALLS, "init"])
def test_a_folder_is_no_database(db_path, make, call, own):
    db_path.mkdir()
    with pytest.raises(NotReady) as caught:
        {**CALLS, "init": FlagSweep.init}[call](make(own))
    assert str(db_path) in str(caught.value)
    assert list(db_path.iterdir()) == []


@pytest.mark.parametrize("call", ["raise", "raise many", "retry", "discard", "lower"])
def test_a_database_that_cannot_be_written_says_so(db_path, make, call):
    writable = make(own=True)
    writable.init()
    writable.handlers["work"].raise_flag()
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead'")
    flags = make(own=True, pragmas={"query_only": 1})
    with pytest.raises(DatabaseAway, match="is read-only: make it writable") as caught:
        CALLS[call](flags)
    assert str(db_path) in str(caught.value)
    assert len(flags.find()) == 1


def test_a_folder_that_is_not_there_is_told_by_init(tmp_path):
    path = tmp_path / "no" / "such" / "site.db"
    with pytest.raises(NotReady, match="cannot be created: No such file or directory; check the path") as caught:
        FlagSweep(path).init()
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["sweep", "run", "init"])
def test_tables_newer_than_this_code_are_left_alone(db_path, make, call):
    flags = make(own=False)
    flags.init()
    flags.handlers["work"].raise_flag()
    plain(db_path, "INSERT INTO flagsweep_schema VALUES (99, 0)")
    with pytest.raises(NotReady, match=r"have version 99, .*: install a newer flagsweep"):
        {**CALLS, "init": FlagSweep.init}[call](flags)
    assert len(flags.find()) == 1


@pytest.mark.parametrize("own", [False, True], ids=["path", "own"])
def test_init_may_be_called_again_and_creates_once(db_path, make, own):
    flags = make(own)
    assert flags.init() is True
    flags.handlers["work"].raise_flag()
    assert flags.init() is False
    assert len(flags.find()) == 1
    assert plain(db_path, "PRAGMA journal_mode") == [("wal",)]
    assert flags.database.is_closed()


def test_a_site_may_have_a_flag_and_a_history_of_its_own(db_path, make):
    class Flag(Model):
        kind = TextField()
        key = TextField()

        class Meta:
            indexes = ((("kind", "key"), True),)

    class History(Model):
        at = TextField(index=True)

    flags = make(own=True)
    with flags.database.bind_ctx([Flag, History]):
        flags.database.create_tables([Flag, History])
        Flag.create(kind="work", key="{}")
    flags.init()
    flags.handlers["work"].raise_flag()
    assert flags.handlers["work"].raise_flag().how == "coalesced"
    assert flags.sweep() == {"lowered": 1}
    names = {name for (name,) in plain(db_path, "SELECT name FROM sqlite_master")}
    assert {name for name in names if not name.startswith(("flagsweep_", "sqlite_"))} == {
        "flag",
        "history",
        "flag_kind_key",
        "history_at",
    }


@pytest.mark.parametrize("atomic", [False, True])
def test_nothing_is_written_into_a_file_that_was_moved_away_while_a_handler_ran(db_path, tmp_path, atomic):
    old, other = tmp_path / "old.db", tmp_path / "other.db"
    FlagSweep(other).init()
    flags = FlagSweep(db_path, shutdown_timeout=0.1)
    flags.init()

    @flags.handler(atomic=atomic)
    def work():
        for suffix in ("", "-wal", "-shm"):
            os.rename(f"{db_path}{suffix}", f"{old}{suffix}")
        os.rename(other, db_path)

    work.raise_flag()
    with pytest.raises(DatabaseAway, match="was replaced or deleted"):
        flags.sweep()
    assert plain(old, "SELECT state, attempts FROM flagsweep_flag") == [("claimed", 0)]
    assert plain(old, "SELECT count(*) FROM flagsweep_consumer") == [(1,)] and flags.find() == []


# URLs as other layers write them.


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql+psycopg://me:pw@db/site", "postgresql://db/site"),
        ("postgresql+psycopg2://me@db:5433/site", "postgresql://db:5433/site"),
        ("postgres+asyncpg://db/site", "postgresql://db/site"),
        ("mysql+pymysql://me@db/site", "mysql://db/site"),
        ("mariadb+mysqldb://me@db/site?charset=utf8", "mysql://db/site"),
        ("postgresql://me:pw@one:5432,two:5433/site?target_session_attrs=read-write", "postgresql://one:5432,two:5433/site"),
        ("postgresql://one,two/site", "postgresql://one:5432,two:5432/site"),
        ("postgresql:///site?host=/run/postgresql", "postgresql:///run/postgresql/site"),
        ("postgresql://me@[::1]:5433/site", "postgresql://::1:5433/site"),
        ("postgresql://me:p%40w%2F@db/site?sslmode=require&connect_timeout=3", "postgresql://db/site"),
    ],
)
def test_a_drivers_name_is_passed_over_and_several_hosts_are_taken(url, where):
    flags = FlagSweep(url)
    assert flags.store.where == where
    assert "pw" not in flags.store.where and "p@w/" not in flags.store.where


def test_a_sqlite_url_may_name_a_driver_too(tmp_path):
    assert FlagSweep(f"sqlite+pysqlite:///{tmp_path}/site.db").path == tmp_path / "site.db"
    assert FlagSweep(f"sqlite+aiosqlite:///{tmp_path}/site.db", queue=f"sqlite+pysqlite:///{tmp_path}/queue.db").queue is not None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///file:site.db?mode=ro", "give the path alone, as in 'sqlite:///site.db'"),
        ("sqlite:///file:site.db", "give the plain path, as in 'sqlite:///site.db'"),
        ("postgresql://db/site?nonsense=secret", 'does not know: invalid connection option "nonsense"'),
        ("oracle+driver://db/site", "must begin with 'sqlite://'"),
    ],
)
def test_what_a_url_cannot_say_is_refused_with_the_form_that_can(url, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        FlagSweep(url)
    assert "secret" not in str(caught.value)


def test_of_several_hosts_the_one_that_answers_is_used(postgres_url, tmp_path):
    from servers import free_port

    place = postgres_url.removeprefix("postgresql://")
    user, _, rest = place.rpartition("@")
    host, _, name = rest.partition("/")
    url = f"postgresql+psycopg://{user}@127.0.0.1:{free_port()},{host}/{name}?target_session_attrs=read-write"
    flags = FlagSweep(url, state_dir=str(tmp_path / "state"))
    flags.init()
    flags.handler("work")(lambda n: None).raise_flag(1)
    assert flags.sweep() == {"lowered": 1}
    assert "ok" in {finding.level for finding in flags.doctor()}
    flags.store.close_thread()


def test_a_mysql_url_of_another_layer_connects(mysql_url, tmp_path):
    flags = FlagSweep(f"{mysql_url.replace('mysql://', 'mysql+pymysql://')}?connect_timeout=3", state_dir=str(tmp_path / "state"))
    flags.init()
    flags.handler("work")(lambda n: None).raise_flag(1)
    assert flags.sweep() == {"lowered": 1}
    flags.store.close_thread()

"""What a URL or a path says of a database, as we write it and as other layers do."""

import re
import ssl
from pathlib import Path

import pytest
from peewee import DatabaseProxy, MySQLDatabase, PostgresqlDatabase, SqliteDatabase
from playhouse.cockroachdb import CockroachDatabase
from playhouse.pool import PooledSqliteDatabase
from playhouse.sqliteq import SqliteQueueDatabase

from flagsweep import ConfigError, FlagSweep


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def path_of(database):
    return FlagSweep(database).database.database


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
        shown = f"{flags.connections.where} {flags.settings!r} {flags!r}"
    except ConfigError as error:
        shown = str(error)
    assert "secret" not in shown


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
    assert flags.connections.where == where
    assert "pw" not in flags.connections.where and "p@w/" not in flags.connections.where


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
    flags.connections.close_thread()


def test_a_mysql_url_of_another_layer_connects(mysql_url, tmp_path):
    flags = FlagSweep(f"{mysql_url.replace('mysql://', 'mysql+pymysql://')}?connect_timeout=3", state_dir=str(tmp_path / "state"))
    flags.init()
    flags.handler("work")(lambda n: None).raise_flag(1)
    assert flags.sweep() == {"lowered": 1}
    flags.connections.close_thread()


def test_connections_to_mysql_share_what_they_need_for_tls(mysql_url, tmp_path, monkeypatch):
    """PyMySQL would read the system's certificates for each."""
    made, make = [], ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **given: made.append(given) or make(**given))
    for _ in range(3):
        flags = FlagSweep(mysql_url, state_dir=tmp_path / "state")
        flags.init()
        flags.sweep()
        assert flags.database.connection().ssl, "TLS is spoken where the server does"
        flags.database.close()
        flags.connections.close_thread()
    assert len(made) <= 1
    with pytest.raises(Exception, match=r"nothing\.pem|No such file"):
        FlagSweep(f"{mysql_url}?ssl_ca=/nothing.pem", state_dir=tmp_path / "state").init()

"""SQLAlchemy in any site: which database it is, and sessions of handlers."""

import pytest
from rig import let_go
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from flagsweep import ConfigError, FlagSweep
from flagsweep.config import without_driver
from flagsweep.embed.sqlalchemy import database_of, init_app

DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}


@pytest.fixture
def engine(url):
    scheme, mark, place = url.partition("://")
    engine = create_engine(f"{DRIVERS[scheme]}{mark}{place}")
    yield engine
    engine.dispose()


@pytest.fixture
def flags(tmp_path):
    flags = FlagSweep(threads=2)
    yield flags
    if flags._opening._opened is not None:
        flags.connections.close_thread()
    let_go(tmp_path)


class Bound:
    """Stand for an engine that names a database which nobody need have a driver for."""

    def __init__(self, url):
        self.url = make_url(url)


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("sqlite:///site.db", "site.db"),
        ("sqlite+aiosqlite:////srv/site.db?timeout=3", "/srv/site.db"),
        ("sqlite:///file:/srv/a%20b.db?uri=true&mode=rwc", "/srv/a b.db"),
        ("sqlite:///file:///srv/site.db?mode=rwc&uri=true", "/srv/site.db"),
        ("postgresql+psycopg://u:p%40ss@h:5433/shop?sslmode=require", "postgresql://u:p%40ss@h:5433/shop?sslmode=require"),
        ("postgresql://u@/shop?host=/run/postgresql", "postgresql://u@/shop?host=%2Frun%2Fpostgresql"),
        (
            "postgresql+asyncpg://u@h/shop?ssl=require&prepared_statement_cache_size=0",
            "postgresql://u@h/shop?sslmode=require",
        ),
        ("mysql+pymysql://u:p@h/shop?charset=utf8mb4&autocommit=true", "mysql://u:p@h/shop?charset=utf8mb4"),
        ("mariadb+mysqldb://u@h/shop?unix_socket=/run/db", "mariadb://u@h/shop?unix_socket=%2Frun%2Fdb"),
    ],
)
def test_a_url_of_sqlalchemys_becomes_one_of_ours(url, ours):
    assert database_of(Bound(url)) == ours


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x?mode=memory&cache=shared&uri=true", "in memory"),
        ("sqlite+pysqlcipher://:key@/site.db", "encrypted"),
        ("oracle+oracledb://h/shop", "'oracle'"),
    ],
)
def test_a_database_that_cannot_hold_flags_is_refused(url, told):
    with pytest.raises(ConfigError, match=told):
        database_of(Bound(url))


def test_whatever_has_an_engine_says_which_database_it_is(engine):
    made = sessionmaker(engine)
    with engine.connect() as connection:
        sources = [engine, connection, made, scoped_session(made), Session(engine), made()]
        assert len({database_of(source) for source in sources}) == 1


def test_so_does_what_is_asynchronous(tmp_path):
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/site.db")
    made = async_sessionmaker(engine)
    for source in (engine, made, made(), async_scoped_session(made, lambda: 1)):
        assert database_of(source) == f"{tmp_path}/site.db"


def test_a_session_without_an_engine_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"bound to no engine: give it bind=engine before, or call flags\.configure"):
        database_of(scoped_session(sessionmaker()))


def test_the_flags_are_where_the_sites_tables_are(flags, engine, url):
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE shop (id INTEGER)"))
    init_app(engine, flags)
    flags.init()
    assert flags.database.table_exists("shop")
    assert without_driver(engine.url.drivername + "://") == url.partition("://")[0] + "://"


def test_what_the_code_says_wins(tmp_path):
    flags = FlagSweep(tmp_path / "flags.db")
    init_app(create_engine(f"sqlite:///{tmp_path}/site.db"), flags)
    assert flags.path == tmp_path / "flags.db"


@pytest.mark.long
def test_the_session_of_each_handler_is_removed_after_it(flags, engine):
    session = scoped_session(sessionmaker(engine))
    init_app(session, flags)
    init_app(session, flags)
    flags.init()
    seen = []

    @flags.handler(max_attempts=1)
    def use(number):
        seen.append(session())
        session.execute(text("SELECT 1"))
        assert number

    use.raise_many([(0,), (1,), (2,)])
    assert flags.find() == []  # Of a transaction that is open.
    session.commit()
    session.remove()
    assert flags.sweep() == {"dead": 1, "lowered": 2}
    assert len(set(map(id, seen))) == 3 and len(flags._around) == 1
    assert engine.pool.checkedout() == 0


def test_what_several_hosts_say_adds_up_and_must_agree(flags, tmp_path):
    first, other = (create_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("first", "other"))
    flags.adopt("flask", {"lanes": {"mail": 2}})
    init_app(first, flags)
    assert (flags.path, flags.settings.lanes) == (tmp_path / "first.db", {"mail": 2})
    flags.adopt("flask", {"lanes": {"mail": 3}})
    assert (flags.path, flags.settings.lanes) == (tmp_path / "first.db", {"mail": 3})
    with pytest.raises(ConfigError, match="database was set to something else before"):
        flags.adopt("flask", {"database": f"{tmp_path}/third.db"})
    init_app(other, flags)
    assert (flags.path, flags.settings.lanes) == (tmp_path / "other.db", {"mail": 3})


def test_the_environment_wins_over_the_engine(flags, tmp_path, monkeypatch):
    monkeypatch.setenv("FLAGSWEEP_DATABASE", f"sqlite:///{tmp_path}/env.db")
    init_app(create_engine(f"sqlite:///{tmp_path}/site.db"), flags)
    assert flags.path == tmp_path / "env.db"

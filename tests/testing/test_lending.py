"""A fresh database for a test: whose it is, what goes there, and that all is as before once it is over."""

import pytest
from peewee import BooleanField, Model, PostgresqlDatabase, SqliteDatabase
from playhouse.pool import PooledSqliteDatabase
from sqlalchemy import Boolean, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from work import running

from flagsweep import ConfigError, FlagSweep, FlagSweepError
from flagsweep.testing import FakeClock, assert_raised, draining, fresh, refute_raised, sweep_all


def site_on(database, **settings):
    flags = FlagSweep(database, **settings)
    flags.done = []
    flags.handler(kind="send")(lambda n: flags.done.append(n))
    return flags


def test_all_is_as_before_once_it_is_over(db_path):
    flags = site_on(f"sqlite:///{db_path}")
    flags.init()
    flags.handlers["send"].raise_flag(1)
    clock, database = flags.clock, flags.database
    with fresh(flags, clock=FakeClock()):
        assert flags.database is database and flags.path != db_path and flags.find() == []
        flags.handlers["send"].raise_flag(2)
        flags.handlers["send"].raise_flag(3)
        place = flags.path
        with fresh(flags):  # Within another: it is a stack.
            assert flags.find() == [] and flags.path != place
        assert len(flags.find()) == 2 and flags.path == place
    assert (flags.clock, flags.path) == (clock, db_path) and not place.parent.exists()
    assert [flag.payload for flag in flags.find()] == [{"n": 1}]
    assert sweep_all(flags) == {"lowered": 1} and flags.done == [1]


def test_all_is_as_before_where_a_test_fails(db_path):
    flags = site_on(db_path)
    flags.init()
    with pytest.raises(ZeroDivisionError), fresh(flags):
        flags.handlers["send"].raise_flag(2)
        1 / 0  # noqa: B018
    assert flags.path == db_path and flags.find() == []


@pytest.mark.parametrize("make", [SqliteDatabase, PooledSqliteDatabase], ids=["plain", "pool"])
def test_a_sites_models_are_there_too_through_whatever_object(db_path, make):
    options = {"check_same_thread": False} if make is PooledSqliteDatabase else {}
    site, other = make(str(db_path), **options), SqliteDatabase(str(db_path))

    class User(Model):
        new = BooleanField(default=True)

        class Meta:
            database = other

    User.create_table()
    User.create()
    flags = site_on(site)

    @flags.when(User.new)
    def greet(user):
        flags.done.append(user.id)

    with fresh(flags):
        assert not User.table_exists()
        User.create_table()
        User.create(), User.create()
        assert sweep_all(flags) == {"lowered": 2} and flags.done == [1, 2]
    assert User.select().count() == 1
    other.close(), site.close()
    if make is PooledSqliteDatabase:
        site.close_all()


def test_a_connection_that_was_open_is_open_again_after_a_sweep(db_path):
    flags = site_on(SqliteDatabase(str(db_path), autoconnect=False))
    with fresh(flags), flags.database.connection_context():
        flags.handlers["send"].raise_flag(1)
        sweep_all(flags)
        assert not flags.database.is_closed()
        flags.handlers["send"].raise_flag(1)
        assert flags.database.execute_sql("SELECT count(*) FROM flagsweep_flag").fetchone() == (1,)


def test_a_sites_server_is_never_touched_unless_it_is_said(db_path):
    flags = site_on(PostgresqlDatabase("site", host="nowhere.invalid"))
    with fresh(flags):
        flags.handlers["send"].raise_flag(1)
        assert sweep_all(flags) == {"lowered": 1} and flags.path.name == "site.db"


def test_a_test_database_on_a_server_is_emptied_before_and_after(url, db_path):
    flags = site_on(db_path)
    with fresh(flags, url):
        flags.handlers["send"].raise_flag(1)
        assert sweep_all(flags) == {"lowered": 1}
        flags.handlers["send"].raise_flag(2)
    with fresh(flags, url):
        assert flags.find() == []
        flags.pause("send")
        flags.handlers["send"].raise_flag(3)
        assert sweep_all(flags) == {}
    with fresh(flags, url):
        flags.handlers["send"].raise_flag(3)
        assert sweep_all(flags) == {"lowered": 1}, "a pause is gone, too"


def test_a_database_on_which_a_consumer_runs_is_never_emptied(db_path, until):
    flags = site_on(db_path)
    flags.init()
    with running(flags, until):
        other = site_on(db_path)
        other.handlers["send"].using(delay="1h").raise_flag(1)
        with pytest.raises(FlagSweepError, match="tests would empty it"), fresh(other, db_path):
            pass
        assert len(other.find()) == 1
    other.connections.close_thread()


def test_a_site_within_a_transaction_is_told_to_leave_it(db_path):
    flags = site_on(db_path)
    flags.init()
    with flags.database.atomic(), pytest.raises(FlagSweepError, match="within a transaction"), fresh(flags):
        pass
    flags.database.close()


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "shop_order"
    id: Mapped[int] = mapped_column(primary_key=True)
    needs_receipt: Mapped[bool] = mapped_column(Boolean, default=True)


@pytest.fixture
def engine(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_a_raise_over_a_session_is_seen_at_once_and_needs_no_tables_there(engine, db_path):
    flags = site_on(db_path)
    with fresh(flags), Session(engine) as session:
        flags.handlers["send"].using(connection=session).raise_flag(1)
        assert_raised(flags, "send", n=1)
        session.commit()
        assert sweep_all(flags) == {"lowered": 1}
        refute_raised(flags, "send")


def test_rows_of_sqlalchemys_are_refused_beside_no_flags_and_found_in_the_sites_test_database(engine, db_path, tmp_path):
    sessions = scoped_session(sessionmaker(engine))
    flags = site_on(db_path, connection=sessions)

    @flags.when(Order.needs_receipt)
    def send_receipt(order):
        flags.done.append(order.id)

    with pytest.raises(ConfigError, match="shop_order is work for rows of SQLAlchemy") as told, fresh(flags):
        pass
    assert "as the fixture flagsweep_database returns it" in str(told.value)
    with fresh(flags, tmp_path / "shop.db"):
        with Session(engine) as session:
            session.add(Order())
            session.commit()
        assert sweep_all(flags) == {"lowered": 1} and flags.done == [1]
    sessions.remove()


def test_what_is_configured_meanwhile_is_checked_and_not_kept(db_path):
    flags = FlagSweep()
    with fresh(flags):
        flags.configure(database=str(db_path), shutdown_timeout=3)
        with pytest.raises(ConfigError, match="unknown setting 'shutdwn'"):
            flags.configure(shutdwn=3)
        assert flags.path != db_path
    flags.configure(database=f"sqlite:///{db_path}")
    assert flags.path == db_path


@pytest.mark.parametrize("mode", ["inline", "embedded"])
def test_nothing_is_swept_by_itself_whatever_the_mode_of_the_site(db_path, mode):
    flags = site_on(db_path, mode=mode)
    with fresh(flags):
        flags.handlers["send"].raise_flag(1)
        assert flags.done == []
        sweep_all(flags)
        assert flags.done == [1]


@pytest.mark.long
def test_what_raises_itself_without_end_fails_the_test(db_path, monkeypatch):
    monkeypatch.setattr(draining, "MOST", 100)
    flags = FlagSweep(db_path)

    @flags.handler
    def again(n):
        again.raise_flag(n + 1)

    with fresh(flags):
        again.raise_flag(0)
        with pytest.raises(AssertionError, match="raised without end"):
            sweep_all(flags)

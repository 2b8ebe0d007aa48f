"""Flask takes flagsweep in: settings, commands, contexts, and where a consumer starts."""

import asyncio
import os
import sys
from contextlib import contextmanager

import pytest
from flask import Flask, current_app, g
from flask_sqlalchemy import SQLAlchemy
from peewee import BooleanField, CharField, SqliteDatabase
from playhouse.flask_utils import FlaskDB
from rig import let_go
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flagsweep import ConfigError, FlagSweep, FlagSweepError, NotReady
from flagsweep.commands.group import COMMANDS
from flagsweep.embed.flask import init_app


@pytest.fixture
def flags(tmp_path):
    """Give what a module of the site's makes at import: a FlagSweep that knows no database yet."""
    flags = FlagSweep(threads=1)
    yield flags
    if flags._opening._opened is not None:
        flags.connections.close_thread()
    let_go(tmp_path)


@pytest.fixture
def create_app(flags):
    """Give the factory of an application; it has our tables."""

    def create_app(path, **config):
        app = Flask("shop")
        app.config.update({"FLAGSWEEP_DATABASE": f"sqlite:///{path}", "TESTING": True, **config})
        init_app(app, flags)
        flags.init()
        return app

    return create_app


# Settings.


def test_settings_come_from_the_applications_configuration(flags, db_path, create_app):
    app = create_app(db_path, FLAGSWEEP_LANES={"mail": 3}, FLAGSWEEP_SHUTDOWN_TIMEOUT="2s", OTHER=1)
    assert (flags.path, flags.settings.lanes, flags.settings.shutdown_timeout) == (db_path, {"mail": 3}, 2)
    assert app.extensions["flagsweep"] is flags


def test_the_configuration_wins_over_the_environment_and_must_agree_with_the_code(db_path, tmp_path, monkeypatch):
    monkeypatch.setenv("FLAGSWEEP_THREADS", "7")
    flags, app = FlagSweep(db_path), Flask("shop")
    app.config.update(FLAGSWEEP_THREADS=2, FLAGSWEEP_DATABASE=db_path)
    init_app(app, flags)
    assert flags.settings.threads == 2
    app.config["FLAGSWEEP_DATABASE"] = tmp_path / "other.db"
    with pytest.raises(ConfigError, match="database was set to something else before"):
        init_app(app, flags)
    app.config.update(FLAGSWEEP_DATABASE=db_path, FLAGSWEEP_LANE=3)
    with pytest.raises(ConfigError, match="unknown setting 'lane'"):
        init_app(app, flags)
    assert flags.settings.threads == 2


def test_without_a_database_the_first_use_says_what_to_do(flags):
    init_app(Flask("shop"), flags)
    with pytest.raises(ConfigError, match="no database"):
        flags.status()


def test_an_application_has_one_flagsweep(flags, db_path, create_app):
    app = create_app(db_path)
    init_app(app, flags)
    assert list(app.cli.commands) == ["flagsweep"] and len(app.before_request_funcs[None]) == 1
    with pytest.raises(ConfigError, match="another FlagSweep already"):
        init_app(app, FlagSweep(db_path))


# One FlagSweep, several applications.


def test_each_test_may_make_an_application_with_a_database_of_its_own(flags, tmp_path, create_app):
    seen = []

    @flags.handler()
    def greet(user_id):
        seen.append((current_app.config["NAME"], user_id))

    for name in ("one", "two"):
        app = create_app(tmp_path / f"{name}.db", NAME=name)
        with app.test_request_context():
            greet.raise_flag(len(seen))
        assert flags.find("greet")[0].payload == {"user_id": len(seen)}
        flags.sweep()
    assert seen == [("one", 0), ("two", 1)]


def test_what_one_application_said_of_a_kind_does_not_outlive_it(flags, tmp_path, create_app):
    @flags.handler(priority=3)
    def greet(): ...

    for path, kinds, priority in (("a", {"greet": {"priority": 9}}, 9), ("b", None, 3)):
        create_app(tmp_path / f"{path}.db", FLAGSWEEP_KINDS=kinds)
        greet.raise_flag()
        assert flags.find("greet")[0].priority == priority


def test_what_is_asked_of_an_application_whose_flags_went_to_another_database_is_refused(flags, tmp_path, create_app):
    first, same = create_app(tmp_path / "one.db"), create_app(tmp_path / "one.db")
    for app in (first, same):
        assert app.test_client().get("/").status_code == 404
    create_app(tmp_path / "two.db")
    with pytest.raises(ConfigError, match="was given to another application since"):
        first.test_client().get("/")
    result = first.test_cli_runner().invoke(args=["flagsweep", "status"])
    assert result.exit_code == 2 and "was given to another application since" in result.output


def test_no_application_takes_the_database_from_under_a_sweep(flags, tmp_path, create_app):
    create_app(tmp_path / "one.db")

    @flags.handler(max_attempts=1)
    def make_another():
        create_app(tmp_path / "two.db")

    make_another.raise_flag()
    with pytest.raises(Exception, match="another flask application came while this FlagSweep sweeps: stop"):
        flags.sweep(raise_errors=True)
    assert flags.path == tmp_path / "one.db"


def test_no_application_takes_the_database_from_under_a_process_that_sweeps_or_stands_by(flags, tmp_path, create_app):
    create_app(tmp_path / "one.db", FLAGSWEEP_MODE="embedded")
    flags.start()
    with pytest.raises(FlagSweepError, match="another flask application came while this FlagSweep sweeps: stop"):
        create_app(tmp_path / "two.db", FLAGSWEEP_MODE="embedded")
    flags.stop(wait=True)
    create_app(tmp_path / "two.db", FLAGSWEEP_MODE="embedded")
    assert flags.path == tmp_path / "two.db"


# Commands.


def test_flask_has_every_command(flags, db_path):
    done = []

    @flags.handler()
    def greet(user_id):
        done.append((user_id, current_app.name))

    app = Flask("shop")
    app.config["FLAGSWEEP_DATABASE"] = db_path
    init_app(app, flags)
    call = app.test_cli_runner().invoke
    listed = call(args=["flagsweep", "--help"]).output
    assert all(f"\n  {name} " in listed for name in COMMANDS)
    assert not flags.database.is_connection_usable() and not db_path.exists()
    assert call(args=["flagsweep", "init"]).exit_code == 0
    assert call(args=["flagsweep", "raise", "greet", '{"user_id": 17}']).exit_code == 0
    assert call(args=["flagsweep", "sweep"]).output == "swept 1 flag: 1 lowered\n"
    assert done == [(17, "shop")]


@pytest.mark.long
def test_offering_the_commands_loads_none(spawn, db_path, tmp_path):
    (tmp_path / "site_.py").write_text(
        "import sys\nfrom flask import Flask\nfrom flagsweep import FlagSweep\nfrom flagsweep.embed.flask import init_app\n"
        "init_app(Flask('shop'), FlagSweep('site.db'))\n"
        "print(*sorted(n for n in sys.modules if n.startswith('flagsweep.commands.') or n == 'rich'))\n"
    )
    child = spawn(sys.executable, "site_.py")
    assert child.wait(60) == 0, child.log.read_text()
    loaded = child.log.read_text().split()
    assert not {"rich", "flagsweep.commands.status", "flagsweep.commands.running"} & set(loaded), loaded


# What handlers find.


def test_each_handler_has_a_context_of_its_own(flags, db_path, create_app):
    create_app(db_path)
    left = []

    @flags.handler()
    def leave(number):
        left.append((current_app.name, hasattr(g, "left")))
        g.left = True

    leave.raise_many([(1,), (2,)])
    assert flags.sweep()["lowered"] == 2
    assert left == [("shop", False)] * 2


def test_async_handlers_of_one_loop_have_a_context_each(flags, db_path, create_app):
    create_app(db_path)
    seen = []

    @flags.handler()
    async def greet(number):
        g.number = number
        await asyncio.sleep(0.01)  # In one thread, and each in the other's time.
        seen.append((current_app.name, g.number == number))

    greet.raise_many([(1,), (2,)])
    assert flags.sweep(raise_errors=True) == {"lowered": 2}
    assert seen == [("shop", True)] * 2


def test_what_the_site_has_around_each_handler_is_within_the_applications_context(flags, db_path, create_app):
    names = []

    @flags.around  # In a module that is imported before there is an application.
    @contextmanager
    def measured():
        names.append(current_app.name)
        yield

    @flags.handler()
    def greet(): ...

    create_app(db_path)
    greet.raise_flag()
    flags.sweep(raise_errors=True)
    assert names == ["shop"]


class Base(DeclarativeBase): ...


@pytest.fixture
def shop(flags, url):
    """Give a Flask-SQLAlchemy site on each kind of database: `db`, its `User`, the application."""
    db = SQLAlchemy(model_class=Base)

    class User(db.Model):
        __tablename__ = "person"
        __table_args__ = {"extend_existing": True}  # noqa: RUF012
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20))
        new: Mapped[bool] = mapped_column(default=True)

    app = Flask("shop")
    scheme, mark, place = url.partition("://")
    driver = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}[scheme]
    app.config["SQLALCHEMY_DATABASE_URI"] = f"{driver}{mark}{place}"
    db.init_app(app)
    init_app(app, flags)
    with app.app_context():
        db.create_all()
    flags.init()
    yield db, User, app
    with app.app_context():
        db.session.remove()
        db.engine.dispose()
    Base.metadata.clear()
    Base.registry.dispose()


@pytest.mark.long
def test_the_flags_are_where_flask_sqlalchemys_tables_are(flags, shop):
    db, User, app = shop

    @flags.handler()
    def rename(user_id):
        user = db.session.get(User, user_id)
        user.name = f"{user.name}!"
        db.session.commit()

    assert flags.database.table_exists("person")
    with app.app_context():
        db.session.add(User(name="Ada"))
        db.session.commit()
        rename.raise_flag(1)
        db.session.commit()
        assert flags.sweep(raise_errors=True)["lowered"] == 1
        db.session.rollback()
        assert db.session.get(User, 1).name == "Ada!"


def test_a_raise_commits_or_rolls_back_with_what_the_request_wrote(flags, shop):
    db, User, app = shop

    @flags.handler()
    def greet(user_id): ...

    @app.get("/<name>")
    def sign_up(name):
        db.session.add(user := User(name=name))
        db.session.flush()
        greet.raise_flag(user.id)
        if name == "Ada":
            db.session.commit()
        return {"id": user.id}

    ada, _ = (app.test_client().get(f"/{name}").json["id"] for name in ("Ada", "Bob"))
    assert [flag.payload for flag in flags.find()] == [{"user_id": ada}]
    with app.app_context():
        assert db.session.scalars(db.select(User.name)).all() == ["Ada"]


@pytest.mark.long
def test_inline_a_handler_has_a_session_of_its_own_after_the_requests_commit(flags, shop):
    db, User, app = shop
    app.config["FLAGSWEEP_MODE"] = "inline"
    init_app(app, flags)

    @flags.handler()
    def rename(user_id):
        db.session.get(User, user_id).name = "Ada!"
        db.session.commit()

    with app.app_context():
        db.session.add(user := User(name="Ada"))
        db.session.flush()
        rename.raise_flag(user.id)
        assert user.name == "Ada"
        db.session.commit()
        assert user.name == "Ada!" and flags.find() == []
        db.session.rollback()


def test_a_flag_that_is_raised_by_command_is_up(flags, shop):
    @flags.handler()
    def greet(user_id): ...

    assert shop[2].test_cli_runner().invoke(args=["flagsweep", "raise", "greet", "[17]"]).exit_code == 0
    assert [flag.payload for flag in flags.find()] == [{"user_id": 17}]


@pytest.mark.long
def test_a_raise_of_a_site_whose_tables_are_elsewhere_fails_and_names_both(flags, tmp_path):
    db, app = SQLAlchemy(), Flask("shop")
    app.config.update(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/shop.db", FLAGSWEEP_DATABASE=tmp_path / "flags.db")
    db.init_app(app)
    init_app(app, flags)
    flags.init()

    @flags.handler()
    def greet(user_id): ...

    with app.app_context():
        with pytest.raises(ConfigError, match=r"shop\.db.*flags\.db is what the consumer sweeps"):
            greet.raise_flag(1)
        db.engine.dispose()


def test_a_peewee_database_that_the_code_gives_is_what_raises_go_over(tmp_path):
    database = SqliteDatabase(tmp_path / "site.db")
    flags, db, app = FlagSweep(database, threads=1), SQLAlchemy(), Flask("shop")
    app.config.update(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/site.db")
    db.init_app(app)
    init_app(app, flags)
    flags.init()

    @flags.handler()
    def greet(user_id): ...

    with app.app_context(), database, database.atomic() as transaction:
        greet.raise_flag(1)
        transaction.rollback()
    assert flags.find() == []
    flags.connections.close_thread()
    let_go(tmp_path)


@pytest.mark.long
def test_a_session_is_removed_after_each_handler_and_what_was_not_committed_with_it(flags, shop):
    db, User, app = shop
    sessions = []

    @flags.handler(max_attempts=1)
    def fail(number):
        sessions.append(db.session())
        db.session.add(User(name="never"))
        db.session.flush()
        raise ValueError(number)

    with app.app_context():
        fail.raise_many([(1,), (2,)])
        db.session.commit()
    assert flags.sweep()["dead"] == 2
    assert len(set(map(id, sessions))) == 2
    with app.app_context():
        assert db.session.query(User).count() == 0
        assert db.engine.pool.checkedout() == 1  # Ours, of this query: none is left of the handlers.


@pytest.mark.long
def test_own_rows_of_flask_sqlalchemy_are_found_and_lowered(flags, shop):
    db, User, app = shop

    @flags.when(User.new)
    def greet(user):
        user.name = f"{user.name}!"
        db.session.commit()

    with app.app_context():
        db.session.add_all([User(name="Ada"), User(name="Bob", new=False)])
        db.session.commit()
    assert flags.sweep(raise_errors=True) == {"lowered": 1}
    with app.app_context():
        assert db.session.execute(db.select(User.name, User.new).order_by(User.id)).all() == [("Ada!", False), ("Bob", False)]
        db.session.rollback()
        assert db.engine.pool.checkedout() == 0


def test_a_site_whose_sqlalchemy_is_in_memory_starts_and_is_told_at_the_first_use(flags):
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///:memory:"
    SQLAlchemy(app)
    init_app(app, flags)
    with pytest.raises(ConfigError, match="no database"):
        flags.status()


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("autoconnect", [True, False])
def test_a_handler_has_flaskdbs_connection_as_a_request_has(flags, db_path, autoconnect, atomic):
    flask_db = FlaskDB()

    class User(flask_db.Model):  # Its database is a proxy until there is an application.
        name = CharField()

    @flags.handler(atomic=atomic)
    def rename(user_id):
        assert not flask_db.database.is_closed()
        assert User.update(name="Ada!").where(User.id == user_id).execute() == 1

    app = Flask("shop")
    settings = {"name": str(db_path), "engine": "SqliteDatabase", "autoconnect": autoconnect}
    app.config.update(DATABASE=settings, TESTING=True)
    flask_db.init_app(app)
    init_app(app, flags)
    flags.init()
    assert flags.database is flask_db.database.obj

    @app.get("/<name>")
    def sign_up(name):
        with flask_db.database.atomic() as transaction:
            rename.raise_flag(User.create(name=name).id)
            if name == "Bob":
                transaction.rollback()
        return name

    with flask_db.database.connection_context():
        flask_db.database.create_tables([User])
    for name in ("Ada", "Bob"):
        assert app.test_client().get(name).status_code == 200
    assert flags.sweep(raise_errors=True) == {"lowered": 1}
    with flask_db.database.connection_context():
        assert [user.name for user in User.select()] == ["Ada!"]


def test_an_async_handler_opens_flaskdbs_connection_itself(flags, db_path):
    flask_db, app, seen = FlaskDB(), Flask("shop"), []
    app.config.update(DATABASE=f"sqlite:///{db_path}")
    flask_db.init_app(app)
    init_app(app, flags)
    flags.init()

    @flags.handler()
    async def look(number):
        seen.append(flask_db.database.is_closed())
        await asyncio.sleep(0.01)

    look.raise_many([(1,), (2,)])
    flags.sweep(raise_errors=True)
    assert seen == [True, True]


def test_own_rows_move_with_a_flaskdb_from_one_application_to_the_next(flags, tmp_path):
    flask_db, greeted = FlaskDB(), []

    class User(flask_db.Model):
        name = CharField()
        new = BooleanField(default=True)

    @flags.when(User.new)
    def greet(user):
        greeted.append((current_app.config["DATABASE"]["name"][-6:], user.name))

    for name in ("one.db", "two.db"):
        app = Flask("shop")
        app.config["DATABASE"] = {"name": f"{tmp_path}/{name}", "engine": "SqliteDatabase"}
        flask_db.init_app(app)
        init_app(app, flags)
        flags.init()
        with flask_db.database.connection_context():
            flask_db.database.create_tables([User])
            User.create(name=name[:3])
        assert flags.sweep(raise_errors=True) == {"lowered": 1}
    assert greeted == [("one.db", "one"), ("two.db", "two")]


def test_a_flaskdb_beside_flags_with_a_connection_of_their_own_is_open_in_a_handler_too(flags, db_path):
    flask_db, app = FlaskDB(), Flask("shop")
    app.config.update(DATABASE=f"sqlite:///{db_path}?autoconnect=false", FLAGSWEEP_DATABASE=db_path, TESTING=True)
    flask_db.init_app(app)
    init_app(app, flags)
    flags.init()
    seen = []

    @flags.handler()
    def look():
        seen.append(flask_db.database.is_closed())

    look.raise_flag()
    flags.sweep()
    assert seen == [False] and flask_db.database.is_closed()


# Where a consumer starts: nowhere but in a process that serves.


@pytest.fixture
def starts(flags, monkeypatch):
    """Give the processes in which `start` was called."""
    starts = []
    monkeypatch.setattr(flags, "start", lambda: starts.append(os.getpid()))
    return starts


@pytest.fixture
def embedded():
    """Return the configuration of a site whose server sweeps."""
    return {"TESTING": False, "FLAGSWEEP_MODE": "embedded"}


REAL = {"User-Agent": "curl/8"}
"""What tells a request of the world from one of Flask's test client."""


def test_an_embedded_consumer_starts_at_the_first_request(flags, db_path, create_app, starts, embedded):
    app = create_app(db_path, **embedded)
    app.test_cli_runner().invoke(args=["routes"])
    app.test_cli_runner().invoke(args=["flagsweep", "status"])
    assert starts == []
    for _ in range(3):
        app.test_client().get("/", headers=REAL)
    assert starts == [os.getpid()]


def test_a_child_that_a_server_forks_starts_one_of_its_own(flags, db_path, create_app, starts, embedded, monkeypatch):
    app = create_app(db_path, **embedded)
    app.test_client().get("/", headers=REAL)
    monkeypatch.setattr(os, "getpid", lambda: 17)
    app.test_client().get("/", headers=REAL)
    assert len(starts) == 2 and starts[1] == 17


def test_a_test_starts_none(flags, db_path, create_app, starts, embedded):
    app = create_app(db_path, **{**embedded, "TESTING": True})
    app.test_client().get("/", headers=REAL)
    assert starts == []


def test_a_site_with_a_consumer_of_its_own_starts_none(flags, db_path, create_app, starts):
    app = create_app(db_path, TESTING=False)
    app.test_client().get("/", headers=REAL)
    assert starts == []


def test_flasks_test_client_starts_none_whether_or_not_it_says_that_it_tests(flags, db_path, create_app, starts, embedded):
    app = create_app(db_path, **embedded)
    app.test_client().get("/")
    assert starts == []


def test_a_start_that_fails_harms_no_request_and_is_tried_again_later(flags, db_path, create_app, embedded, monkeypatch, caplog):
    app = create_app(db_path, **embedded)
    now, tries = [0.0], []

    def start():
        tries.append(now[0])
        raise NotReady("no tables")

    monkeypatch.setattr(flags, "start", start)
    monkeypatch.setattr(flags.clock, "monotonic", lambda: now[0])
    for moment in (0.0, 1.0, 11.0):
        now[0] = moment
        assert app.test_client().get("/", headers=REAL).status_code == 404
    assert tries == [0.0, 11.0] and "no tables" in caplog.text

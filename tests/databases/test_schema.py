"""The tables: made and upgraded on every database, by many at once, after any kill, and refused where they do not fit."""

import itertools
import os
import shutil
import signal
import subprocess
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from places import every_database, on
from rig import ended, forked

from flagsweep import FlagSweep, NotReady
from flagsweep.cli import cli
from flagsweep.databases import schema
from flagsweep.databases.mysql import Mysql
from flagsweep.databases.postgresql import Postgresql
from flagsweep.databases.postgresql.listening import CHANNEL
from flagsweep.databases.schema import Schema
from flagsweep.databases.sqlite import Sqlite
from flagsweep.errors import DatabaseAway
from flagsweep.models import Consumer, Count, Fact, Flag, Gate, History, Hold, Pulse, Schedule

MODELS = (Schema, Flag, Consumer, History, Schedule, Gate, Hold, Pulse, Count, Fact)
NOW_AT, LATER = schema.SCHEMA, schema.SCHEMA + 1

SECOND_STEP = (
    "ALTER TABLE flagsweep_flag ADD COLUMN colour INTEGER NOT NULL DEFAULT 7",
    "CREATE INDEX flagsweep_colour ON flagsweep_flag (colour)",
)


@pytest.fixture
def later(monkeypatch):
    """Give `later()`: from then on the code is that of a later release, which needs one more column."""

    def later():
        monkeypatch.setattr(schema, "SCHEMA", schema.SCHEMA + 1)
        for dialect in (Sqlite, Postgresql, Mysql):
            monkeypatch.setattr(dialect, "steps", (*dialect.steps, SECOND_STEP))

    return later


# Making them.


@every_database
def test_the_tables_have_the_columns_of_the_models(place):
    assert place.flags().init() is True
    assert set(place.tables()) == {model._meta.table_name for model in MODELS}
    for model in MODELS:
        fields = [(field.column_name, field.null) for field in model._meta.sorted_fields]
        assert place.columns(model._meta.table_name) == fields


@pytest.mark.parametrize("dialect", [Sqlite, Postgresql, Mysql])
def test_each_version_has_its_step_on_every_database(dialect):
    assert len(dialect.steps) == schema.SCHEMA


@every_database
def test_calling_init_again_changes_nothing(place):
    assert place.flags().init() is True
    before = place.layout()
    assert place.flags().init() is False
    assert (place.layout(), place.versions()) == (before, [*range(1, NOW_AT + 1)])


@pytest.mark.long
@every_database
@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_ten_processes_may_init_at_once(place, later, rounds):
    later()
    place.flags().init()
    model = place.layout()
    for _ in range(rounds):
        place.wipe()
        read, write = os.pipe()

        def join(read=read, write=write):
            os.close(write)
            os.read(read, 1)  # All start when the parent closes its end.
            place.flags().init()

        pids = [forked(join) for _ in range(10)]
        os.close(write)
        codes = [ended(pid) for pid in pids]
        os.close(read)
        assert codes == [0] * 10
        assert (place.layout(), place.versions()) == (model, [*range(1, LATER + 1)])


@pytest.mark.long
@every_database
@pytest.mark.parametrize("afresh", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one-after-another", "each-afresh"])
def test_killed_at_any_statement_the_next_init_completes_it(place, later, afresh):
    """Each one is killed one statement later; on the databases without a transaction about tables it gets one further."""
    later()
    place.flags().init()
    model = place.layout()
    place.wipe()
    for n in itertools.count(1):

        def die(n=n):
            flags, left = place.flags(), itertools.count(1)
            execute = flags.connections.engine.execute_sql

            def counted(*arguments, **options):
                if next(left) == n:
                    os.kill(os.getpid(), signal.SIGKILL)
                return execute(*arguments, **options)

            flags.connections.engine.execute_sql = counted
            flags.init()

        code = ended(forked(die))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if afresh:
            place.flags().init()
            assert (place.layout(), place.versions()) == (model, [*range(1, LATER + 1)]), n
            place.wipe()
    assert (place.layout(), place.versions()) == (model, [*range(1, LATER + 1)])
    assert n > 10


@on("postgresql", "mysql")
def test_an_init_that_waits_for_another_one_too_long_says_so(place, monkeypatch):
    other = place.flags()
    monkeypatch.setattr(type(other.store.connections.dialect), "patience", 1)
    with (
        other.store.connections.write() as db,
        other.store.connections.dialect.migrating(db),
        pytest.raises(DatabaseAway, match="another 'flagsweep init'"),
    ):
        place.flags().init()
    other.store.connections.close_engine()
    assert place.flags().init() is True


@on("postgresql")
def test_tables_may_be_in_a_schema_of_their_own(place):
    place.ask("CREATE SCHEMA work")
    place.url += "?options=-csearch_path%3Dwork"
    flags = place.flags()
    assert (flags.init(), place.flags().init()) == (True, False)
    flags.handlers["work"].raise_flag(number=1)
    assert flags.sweep() == {"lowered": 1}
    assert place.ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'work'") == [(len(MODELS),)]


# Upgrading them.


@every_database
def test_init_upgrades_older_tables_and_keeps_what_they_hold(place, later):
    flags = place.flags()
    flags.init()
    flags.handlers["work"].raise_flag(number=1)
    later()
    assert place.flags().init() is True
    assert place.versions() == [*range(1, LATER + 1)]
    assert place.ask("SELECT kind, colour FROM flagsweep_flag") in ([("work", 7)], [(b"work", 7)])
    assert place.flags().init() is False
    assert place.flags().sweep() == {"lowered": 1}


@every_database
def test_older_tables_are_refused(place, later):
    place.flags().init()
    later()
    flags = place.flags()
    for verb in (flags.sweep, flags.run):
        with pytest.raises(NotReady, match=rf"have version {NOW_AT}, this flagsweep needs {LATER}: run 'flagsweep init'"):
            verb()
        assert flags.connections.engine.is_closed()
    (finding,) = [finding for finding in flags.doctor() if finding.what == "schema"]
    assert (finding.level, finding.fix) == ("fail", "run 'flagsweep init' (or call flags.init()) once")
    assert place.versions() == [*range(1, NOW_AT + 1)]


@every_database
def test_newer_tables_are_refused(place):
    flags = place.flags()
    flags.init()
    place.ask("INSERT INTO flagsweep_schema (version, applied_at) VALUES (99, 0)")
    for verb in (flags.init, flags.sweep, flags.run):
        with pytest.raises(NotReady, match=r"have version 99, this flagsweep knows \d+: install a newer flagsweep"):
            verb()
        assert flags.connections.engine.is_closed()


@every_database
def test_the_command_says_what_it_did(place, later, monkeypatch):
    monkeypatch.setenv("FLAGSWEEP_DATABASE", place.url)
    said = [CliRunner().invoke(cli, ["init"]).output.rpartition(": ")[2]]
    later()
    monkeypatch.setattr("flagsweep.commands.setup.SCHEMA", schema.SCHEMA)
    said += [CliRunner().invoke(cli, ["init"]).output.rpartition(": ")[2] for _ in range(2)]
    assert said == ["tables created\n", f"tables upgraded from version {NOW_AT} to {LATER}\n", "the tables are there already\n"]


# The SQL of them.


def printed(place, monkeypatch, **settings):
    for name, value in {"database": place.url, **settings}.items():
        monkeypatch.setenv(f"FLAGSWEEP_{name.upper()}", value)
    done = CliRunner().invoke(cli, ["init", "--sql"])
    assert done.exit_code == 0, done.output
    return done.output


def applied(place, script):
    """Apply a script with a plain driver."""
    if place.kind == "mysql":
        place.ask(*filter(None, map(str.strip, script.split(";\n"))))
        return
    with closing(place.connect()) as db:
        (db.executescript if place.kind == "sqlite" else db.execute)(script)


@every_database
def test_the_printed_sql_makes_the_same_tables(place, monkeypatch, later):
    later()
    place.flags().init()
    model = place.layout()
    place.wipe()
    script = printed(place, monkeypatch)
    assert place.tables() == []
    applied(place, script)
    assert (place.layout(), place.versions()) == (model, [*range(1, LATER + 1)])
    flags = place.flags()
    assert flags.init() is False
    flags.handlers["work"].raise_flag(number=1)
    assert flags.sweep() == {"lowered": 1}


@every_database
def test_the_printed_sql_says_when_the_tables_were_made(place, monkeypatch):
    """That is what tells this database from others that share a queue with it."""
    script = printed(place, monkeypatch)
    before = FlagSweep(":memory:").clock.now()
    applied(place, script)
    ((moment,), *_) = place.ask("SELECT applied_at FROM flagsweep_schema")
    assert abs(moment - before) < 60_000_000


@every_database
def test_the_printed_sql_is_one_for_the_databases_own_program(place, monkeypatch):
    parts = urlsplit(place.url)
    commands = {
        "sqlite": ["sqlite3", "-bail", parts.path[1:]],
        "postgresql": ["psql", "-q", "-v", "ON_ERROR_STOP=1", place.url],
        "mysql": ["mysql", "-h", parts.hostname or "", "-P", str(parts.port or 3306), "-u", parts.username or "", parts.path[1:]],
    }
    command = commands[place.kind]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    env = {**os.environ, "MYSQL_PWD": parts.password or ""}
    script = printed(place, monkeypatch)
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=30, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    flags = place.flags()
    flags.handlers["work"].raise_flag(number=1)
    assert flags.sweep() == {"lowered": 1}


# PostgreSQL's trigger.


def hears(place):
    """Return whether a flag raised by another program is told to those who listen."""
    with closing(place.connect()) as db:
        db.execute(f"LISTEN {CHANNEL}")
        place.ask(
            "INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) VALUES ('work', '{}', '{}', 0, 0) "
            "ON CONFLICT (kind, key) DO UPDATE SET generation = flagsweep_flag.generation + 1"
        )
        db.execute("SELECT 1").fetchall()  # What was told at that commit comes with this answer.
        return bool(list(db.notifies(timeout=0)))


@on("postgresql")
def test_init_makes_and_removes_the_trigger_as_the_setting_says(place):
    heard = []
    for notify in ("raise", "trigger", "trigger", "off", "trigger", "raise"):
        place.flags(notify=notify).init()
        heard.append(hears(place))
    assert heard == [False, True, True, False, True, False]
    assert place.ask("SELECT proname FROM pg_proc WHERE proname LIKE 'flagsweep%'") == []


@on("postgresql")
def test_doctor_tells_of_a_trigger_that_is_not_as_the_setting_says(place):
    def found(notify):
        (finding,) = [finding for finding in place.flags(notify=notify).doctor() if finding.what == "schema"]
        return finding.level, finding.text

    place.flags(notify="raise").init()
    assert found("raise") == ("ok", f"version {NOW_AT}")
    assert found("trigger") == ("warn", "notify is 'trigger', and there is no trigger that tells of flags")
    place.flags(notify="trigger").init()
    assert found("trigger") == ("ok", f"version {NOW_AT}")
    assert found("off") == ("warn", "notify is 'off', and there is a trigger that tells of flags")


@on("postgresql")
@pytest.mark.parametrize("notify", ["trigger", "raise"])
def test_init_waits_for_nobody_where_the_trigger_is_as_it_should_be(place, notify):
    place.flags(notify=notify).init()
    with closing(place.connect()) as db, db.transaction():
        db.execute("INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) VALUES ('work', '{}', '{}', 0, 0)")
        assert place.flags(notify=notify).init() is False


@on("postgresql")
def test_the_printed_sql_has_the_trigger(place, monkeypatch):
    applied(place, printed(place, monkeypatch, notify="trigger"))
    assert hears(place)

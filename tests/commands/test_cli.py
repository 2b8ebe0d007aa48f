"""The commands: what they print, where, and with which exit code."""

import importlib
import json
import logging
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import click
import pytest
from click.testing import CliRunner
from rig import count, plain
from work import is_sound

from flagsweep import FlagSweep, cli
from flagsweep.commands import terminal as console

SHOP = """
import pathlib, time
from peewee import BooleanField, Model
from flagsweep import Backoff, FlagSweep

flags = FlagSweep("site.db", lanes={"mail": 2}, shutdown_timeout=0.3)
number = 17


@flags.handler(lane="mail", max_attempts=2, backoff=3600)
def send(user_id, how="ok"):
    pathlib.Path("started").touch()
    if how == "fail":
        raise ValueError("no user \\x1b[31m\\u202e\\x9b")
    if how == "slow":
        time.sleep(0.5)
    if how == "endless":
        time.sleep(30)


@flags.handler
def nightly():
    raise SystemExit("a handler must not be called for being named")


class Person(Model):
    greet = BooleanField(default=True, index=True)

    class Meta:
        database = flags.database


@flags.when(Person.greet)
def greet(person): ...


def make():
    return flags


def make_nothing():
    return None


def make_trouble():
    raise RuntimeError("not today")
"""

PRESENT = ["init", "run", "sweep", "status", "list", "show", "raise", "retry", "discard", "lower", "doctor"]


@pytest.fixture(autouse=True)
def as_found(monkeypatch):
    """Leave the process as it was: its environment, sys.path, modules, loggers and signals."""
    for name in [name for name in os.environ if name.startswith("FLAGSWEEP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before, handler = set(sys.modules), signal.getsignal(signal.SIGTERM)
    loggers = [logging.getLogger(name) for name in ("flagsweep", "huey")]
    state = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    yield
    signal.signal(signal.SIGTERM, handler)
    for logger, logger.level, logger.handlers, logger.propagate in state:
        logger.manager._clear_cache()
    for name in [name for name in sys.modules if name not in before and name.split(".")[0] in ("shop", "broken", "pack")]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shop(folder, monkeypatch):
    """Return the module of a site that stands in the current folder, with its tables."""
    (folder / "shop.py").write_text(SHOP)
    monkeypatch.setenv("FLAGSWEEP_APP", "shop:flags")
    importlib.invalidate_caches()
    monkeypatch.syspath_prepend(str(folder))
    module = importlib.import_module("shop")
    module.flags.init()
    with module.flags.database.connection_context():
        module.Person.create_table()
    return module


def flagsweep(*arguments, input=None, code=0):
    """Call the command in this process; return its result, once the exit code is as expected."""
    result = CliRunner().invoke(cli.cli, [str(argument) for argument in arguments], input=input, prog_name="flagsweep")
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output or "--debug" in arguments
    return result


def line(result):
    """Return the one line that stderr holds."""
    (line,) = result.stderr.splitlines()
    return line


def kill_off(db_path, *ids):
    for id in ids:
        plain(db_path, "UPDATE flagsweep_flag SET state = 'dead', attempts = 2, error = 'boom', died_at = 1 WHERE id = ?", id)


# All commands.


def test_help_lists_the_commands_in_the_order_in_which_a_site_meets_them():
    listed = re.findall(r"^  (\w+)  ", flagsweep("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert listed == PRESENT


@pytest.mark.parametrize("command", PRESENT)
def test_every_command_explains_itself_without_an_app(command):
    assert flagsweep(command, "--help").stdout.startswith(f"Usage: flagsweep {command}")


@pytest.mark.parametrize("command", ["sweep", "status", "list", "show", "raise", "doctor"])
def test_every_reading_command_has_json(command):
    assert "--json" in flagsweep(command, "--help").stdout


WORKING = [
    ["run"],
    ["sweep"],
    ["status"],
    ["list"],
    ["show", "1"],
    ["raise", "nightly"],
    ["retry", "1"],
    ["discard", "--all", "--yes"],
    ["lower", "send", "x"],
]


@pytest.mark.parametrize("command", WORKING, ids=lambda command: command[0])
def test_without_tables_every_command_names_the_file_and_the_remedy(shop, db_path, command):
    for table in ("flag", "schema"):
        plain(db_path, f"DROP TABLE flagsweep_{table}")
    text = line(flagsweep(*command, code=1))
    assert str(db_path) in text and "run 'flagsweep init'" in text


@pytest.mark.parametrize("command", WORKING, ids=lambda command: command[0])
def test_without_a_database_every_command_names_the_path_and_creates_nothing(folder, monkeypatch, db_path, command):
    (folder / "shop.py").write_text(SHOP.replace('"site.db"', '__import__("peewee").SqliteDatabase("site.db")'))
    monkeypatch.setenv("FLAGSWEEP_APP", "shop:flags")
    text = line(flagsweep(*command, code=1))
    assert f"there is no database {db_path}" in text and "run 'flagsweep init'" in text
    assert not db_path.exists()


def test_an_unexpected_error_is_one_line_and_debug_adds_where_it_came_from(shop, monkeypatch):
    def broken(self):
        raise KeyError("gr\x1bmpf")

    monkeypatch.setattr(FlagSweep, "status", broken)
    text = "flagsweep: unexpected: KeyError: 'gr\\x1bmpf'; --debug shows where it came from"
    assert line(flagsweep("status", code=1)) == text
    result = flagsweep("--debug", "status", code=1)
    assert result.stderr.startswith("Traceback") and "in broken" in result.stderr and result.stderr.endswith(text + "\n")


def test_ctrl_c_is_one_line(shop, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(FlagSweep, "status", interrupted)
    assert line(flagsweep("status", code=1)) == "flagsweep: interrupted"


def test_a_file_that_is_no_database_is_called_so(shop, db_path):
    db_path.write_text("Dear diary, " * 1000)
    for leftover in ("-wal", "-shm"):
        db_path.with_name(f"site.db{leftover}").unlink(missing_ok=True)
    assert "is no SQLite database" in line(flagsweep("status", code=1))


# Which FlagSweep.


@pytest.mark.parametrize("arguments", [["run"], ["sweep"], ["status"], ["raise", "send"]], ids=lambda arguments: arguments[0])
def test_without_an_app_the_command_says_how_to_name_one(folder, arguments):
    text = line(flagsweep(*arguments, code=2))
    assert "--app module:attribute" in text and "FLAGSWEEP_APP" in text


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ("shop", "--app must be module:attribute, such as shop:flags, got 'shop'"),
        ("shop.py", "such as shop:flags"),
        ("shop.py:flags", "such as shop:flags"),
        ("./site/shop.py:flags", "such as site.shop:flags"),
        ("shop:make()", "such as shop:make"),
        (":flags", "--app must be module:attribute"),
        ("nowhere:flags", "there is no module 'nowhere' in {folder}"),
        ("shop.deep:flags", "there is no module 'shop.deep'"),
        ("shop:flag", "shop ({folder}/shop.py) has no 'flag'; it has shop:flags"),
        ("shop:number", "shop:number is of type int, not a FlagSweep; it has shop:flags"),
        ("shop:nightly", "shop:nightly is of type Handler, not a FlagSweep"),
        ("shop:FlagSweep", "shop:FlagSweep is a class, not a FlagSweep"),
        ("shop:make_nothing", "shop:make_nothing returns something of type NoneType, not a FlagSweep"),
        ("shop:make_trouble", "shop:make_trouble() failed: RuntimeError: not today"),
        ("queue:flags", "it hides {folder}/queue.py: give that file another name"),
    ],
)
def test_a_wrong_app_is_told_apart_in_one_line(shop, folder, app, expected):
    (folder / "queue.py").write_text("flags = 1\n")
    assert expected.format(folder=folder) in line(flagsweep("--app", app, "status", code=2))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\nimport reqeusts", "broken ({folder}/broken.py, line 2) imports 'reqeusts', which is not there"),
        ("import broken_too", "broken_too ({folder}/broken_too.py, line 1) imports 'reqeusts', which is not there"),
        ("from shop import nothing", "line 1) failed while it was imported: ImportError: cannot import name 'nothing'"),
        ("x = (", "the module 'broken' failed while it was imported: SyntaxError"),
        ("import sys\nsys.exit('no settings')", "line 2) failed while it was imported: SystemExit: no settings"),
        ("import json\njson.loads('{')", "broken ({folder}/broken.py, line 2) failed while it was imported: JSONDecodeError"),
        (
            "from flagsweep import FlagSweep\nflags = FlagSweep('oracle://root:secret@db/site')",
            "ConfigError: the database URL must begin with 'sqlite://', 'postgresql://' or 'mysql://', got 'oracle://***@",
        ),
    ],
    ids=["missing", "missing further on", "name", "syntax", "exit", "elsewhere", "settings"],
)
def test_a_module_that_does_not_import_says_which_line_of_the_site_failed(shop, folder, source, expected):
    (folder / "broken.py").write_text(source)
    (folder / "broken_too.py").write_text("import reqeusts")
    importlib.invalidate_caches()
    text = line(flagsweep("--app", "broken:flags", "status", code=2))
    assert expected.format(folder=folder) in text and "secret" not in text
    sys.modules.pop("broken_too", None)


def test_debug_shows_the_traceback_of_a_failed_import_too(shop, folder):
    (folder / "broken.py").write_text("1 / 0")
    importlib.invalidate_caches()
    result = flagsweep("--debug", "--app", "broken:flags", "status", code=2)
    assert "Traceback" in result.stderr and "1 / 0" in result.stderr


def test_a_function_that_returns_the_flagsweep_will_do(shop):
    assert "mail" in flagsweep("--app", "shop:make", "status").stdout


def test_the_current_folder_comes_last_so_that_it_hides_nothing(shop, folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    flagsweep("status")
    assert sys.path[-1] == str(folder) and sys.path.count(str(folder)) == 1


def test_looking_after_flags_takes_no_more_than_the_database(shop, db_path, monkeypatch):
    shop.send.raise_many([(1,), (2,)])
    kill_off(db_path, 2)
    monkeypatch.delenv("FLAGSWEEP_APP")
    monkeypatch.setenv("FLAGSWEEP_DATABASE", str(db_path))
    assert "known only with --app" in flagsweep("status").stdout
    assert json.loads(flagsweep("status", "--json").stdout)["lanes"]["-"]["dead"] == 1
    assert len(json.loads(flagsweep("list", "--json").stdout)) == 2
    flagsweep("show", 1), flagsweep("init"), flagsweep("doctor")
    flagsweep("retry", 2)
    assert "column" in line(flagsweep("lower", "send", '{"user_id":1}'))
    for command in (["run"], ["sweep"], ["raise", "send"]):
        assert "all commands but run, sweep and raise" in line(flagsweep(*command, code=2))


# init.


def test_init_creates_the_tables_says_where_and_may_be_called_again(folder, db_path, monkeypatch):
    monkeypatch.setenv("FLAGSWEEP_DATABASE", "sqlite:///site.db")
    assert flagsweep("init").stdout == f"{db_path}: tables created\n"
    assert flagsweep("init").stdout == f"{db_path}: the tables are there already\n"
    assert count(db_path) == 0


# status, list and show.


def test_status_counts_by_lane(shop, db_path):
    shop.send.raise_many([(1,), (2,), (3,)])
    shop.send.using(delay="1h").raise_flag(4)
    kill_off(db_path, 3)
    plain(db_path, "INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) VALUES ('gone', 'k', '{}', 1, 1)")
    report = json.loads(flagsweep("status", "--json").stdout)
    assert report.keys() == {"lanes", "consumers"} and report["consumers"] == []
    oldest = report["lanes"]["mail"].pop("oldest_due_s")
    assert report["lanes"]["mail"] == {"waiting": 3, "due": 2, "claimed": 0, "dead": 1} and 0 <= oldest < 60
    empty = {"waiting": 0, "due": 0, "claimed": 0, "dead": 0, "oldest_due_s": None}
    assert report["lanes"]["default"] == empty and report["lanes"]["-"]["due"] == 1
    text = flagsweep("status").stdout
    assert re.search(r"^mail +3 +2 +\d+ s +0 +1$", text, re.MULTILINE)
    assert "lane -: kinds without a handler" in text and "no consumer runs" in text and "no flags" not in text


def test_where_nothing_is_up_the_commands_say_so(shop):
    assert "no flags\n" in flagsweep("status").stdout
    assert flagsweep("list").stdout == "no flags\n"
    assert flagsweep("list", "--json").stdout == "[]\n"
    assert flagsweep("sweep").stdout == "nothing was due\n"


def test_status_names_consumers_alive_and_dead(shop, db_path):
    plain(db_path, "INSERT INTO flagsweep_consumer (id, mode, pid, host, started_at) VALUES (5, 'run', 4711, 'h', 1)")
    (db_path.parent / "site.db.flagsweep").mkdir(mode=0o700)
    (db_path.parent / "site.db.flagsweep" / "lease").touch()
    text = flagsweep("status").stdout
    assert "consumer 5 (pid 4711 on h, since 1970-01-01 00:00:00 UTC) is gone" in text and "no consumer runs" in text
    alive = {"id": 6, "mode": "sweep", "pid": 1, "host": "h", "started_at": "2026-01-01T00:00:00+00:00", "alive": True}
    assert cli.consumer_line(alive).endswith("sweeps once")
    assert cli.consumer_line({**alive, "mode": "run"}).endswith("runs")
    assert cli.consumer_line({**alive, "alive": None}).endswith("cannot see whether it lives")


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], [1, 2, 3, 4]),
        (["--kind", "send"], [1, 2, 3]),
        (["--state", "dead"], [2]),
        (["--key", "later"], [3]),
        (["--lane", "default"], [4]),
        (["--due"], [1, 4]),
        (["--not-due"], [2, 3]),
        (["--due", "--kind", "send"], [1]),
        (["--limit", "2"], [1, 2]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_list_takes_conditions(shop, db_path, options, ids):
    shop.send.raise_many([(1,), (2,)])
    shop.send.using(delay="1h", key="later").raise_flag(3)
    shop.nightly.raise_flag()
    kill_off(db_path, 2)
    result = flagsweep("list", "--json", *options)
    assert [flag["id"] for flag in json.loads(result.stdout)] == ids
    assert result.stderr == ("these are the first 2; --limit shows more\n" if "--limit" in options else "")
    assert [int(id) for id in re.findall(r"^ *(\d+) ", flagsweep("list", *options).stdout, re.MULTILINE)] == ids


@pytest.mark.parametrize("options", [["--lane", "nope"], ["--state", "gone"], ["--limit", "0"], ["--limit", "x"], ["--nope"]])
def test_list_refuses_conditions_that_cannot_be_meant(shop, options):
    assert options[-1] in flagsweep("list", *options, code=2).stderr


def test_only_show_prints_payloads(shop):
    shop.send.using(key="k").raise_flag("a secret")
    assert "secret" not in flagsweep("list").stdout + flagsweep("list", "--json").stdout + flagsweep("status").stdout
    assert "a secret" in flagsweep("show", 1).stdout
    assert json.loads(flagsweep("show", 1, "--json").stdout)["payload"] == {"user_id": "a secret"}


def test_show_prints_all_there_is_with_the_long_texts_last(shop, db_path):
    shop.send.raise_flag(1)
    kill_off(db_path, 1)
    plain(db_path, "UPDATE flagsweep_flag SET error = 'Oh:' || char(10) || 'boom'")
    text = flagsweep("show", 1).stdout
    assert re.search(r"^state +dead \(57 y ago\)|^state +dead \(\d+ y ago\)", text, re.MULTILINE)
    assert text.endswith('payload\n    {\n      "user_id": 1\n    }\nerror\n    Oh:\n    boom\n')
    assert json.loads(flagsweep("show", 1, "--json").stdout)["error"] == "Oh:\nboom"


def test_show_of_a_flag_that_is_not_there_fails(shop):
    assert line(flagsweep("show", 17, code=1)).startswith("flagsweep: there is no flag 17")


@pytest.mark.parametrize("id", ["x", "0", "1.5", str(2**63)])
def test_an_id_that_cannot_be_one_is_wrong_usage(shop, id):
    flagsweep("show", id, code=2)


def test_one_damaged_row_hides_no_other(shop, db_path):
    shop.send.raise_many([(1,), (2,), (3,)])
    plain(db_path, "UPDATE flagsweep_flag SET error = CAST(x'ff1b' AS TEXT), due_at = 'soon' WHERE id = 1")
    plain(db_path, "UPDATE flagsweep_flag SET payload = x'ff', key = x'00ff' WHERE id = 2")
    text = flagsweep("list").stdout
    assert len(text.splitlines()) == 4 and "damaged" in text and r"\xff\x1b" in text
    assert flagsweep("show", 2).exit_code == 0


# Terminals.

STEERING = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202etxt.exe\u2066\u200b\x7f\u2028\x00"


def test_nothing_that_a_site_stores_steers_a_terminal(shop, db_path):
    shop.send.raise_flag(STEERING)
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead', key = ?, error = ?, died_at = 1", "k" + STEERING, "e" + STEERING)
    plain(db_path, "UPDATE flagsweep_flag SET kind = ?", "kind" + STEERING)
    outputs = [
        flagsweep(*c).output for c in (["list"], ["show", 1], ["status"], ["doctor"], ["list", "--json"], ["show", 1, "--json"])
    ]
    outputs.append(flagsweep("lower", "kind" + STEERING, "x", code=1).output)
    outputs.append(flagsweep("retry", "--kind", "kind" + STEERING, input="n\n", code=1).output)
    outputs.append(flagsweep("raise", "kind" + STEERING, code=2).output)
    for output in outputs:
        assert output.replace("\n", "").isprintable()
    assert sum("[2J" in output for output in outputs) >= 6


def test_the_log_is_one_line_a_record_whatever_it_says():
    formatter = console.OneLine(debug=False)
    record = logging.LogRecord("flagsweep", logging.WARNING, "f", 1, "%s failed", ("a\nb" + STEERING,), None)
    assert formatter.format(record).isprintable() and formatter.format(record).endswith("failed")
    record = logging.LogRecord("huey", logging.ERROR, "f", 1, "oh", (), (ValueError, ValueError("x\ny"), None))
    assert formatter.format(record).endswith(r"ERROR huey: oh: ValueError: x\ny")
    assert formatter.format(record).startswith(str(datetime.now().year))
    assert console.OneLine(debug=True).format(record).splitlines()[-2:] == ["ValueError: x", "y"]


def test_columns_are_aligned_in_korean_too(capsys):
    console.print_table([console.Column("name"), console.Column("n", right=True)], [["민지", "1"], ["Jo", "22"], ["é́", "3"]])
    assert capsys.readouterr().out == "name   n\n민지   1\nJo    22\né́      3\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h"), (200_000, "2 d"), (1e8, "3 y"), (-5, "0 s")]
)
def test_lengths_of_time_are_told_in_the_unit_that_suits(seconds, text):
    assert console.span(seconds) == text


def in_terminal(folder, env, *arguments):
    """Call the command on a terminal of 80 columns; return what appears there."""
    main, end = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "flagsweep", "--app", "shop:flags", *arguments],
        stdin=end,
        stdout=end,
        stderr=end,
        cwd=folder,
        env={**env, "TERM": "xterm", "COLUMNS": "80", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    os.close(end)
    shown = b""
    try:
        while part := os.read(main, 65536):
            shown += part
    except OSError:
        pass  # Linux reports the end of a terminal as an error.
    finally:
        os.close(main)
        child.wait(10)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r\n", "\n"), child.returncode


def test_on_a_terminal_long_keys_are_cut_and_ids_never(shop, folder, env):
    shop.send.using(key="k" * 150).raise_flag(1)
    shop.send.using(key="가" * 100).raise_flag(2)
    plain(folder / "site.db", "UPDATE flagsweep_flag SET error = ?", "E" * 150)
    shown, code = in_terminal(folder, env, "list")
    assert code == 0 and "…" in shown and max(map(console._width, shown.splitlines())) <= 80
    assert re.search(r"^ ?1 +send +k+… +waiting +due \d s ago +0 +E+…", shown, re.MULTILINE)


def test_on_a_terminal_a_sweep_shows_how_far_it_is_and_names_failures(shop, folder, env):
    shop.send.raise_many([(1, "fail"), *((n, "slow") for n in range(3))])
    shown, code = in_terminal(folder, env, "sweep")
    assert code == 0 and "sweeping" in shown and r"ValueError: no user \x1b[31m\u202e\x9b" in shown
    assert "swept 4 flags: 3 lowered, 1 again" in shown


# sweep.


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_sweep_says_which_kinds_are_due_that_nobody_imported(shop, db_path, options):
    shop.send.raise_many([(1,), (2,)])
    plain(db_path, "UPDATE flagsweep_flag SET kind = 'other' WHERE id = 1")
    result = flagsweep("sweep", *options, code=1)
    assert "no handler is known for: other (1)" in result.stderr
    assert json.loads(result.stdout)["lowered"] == 1 if options else result.stdout == "swept 1 flag: 1 lowered\n"
    assert "no handler is known for: other (1)" in flagsweep("sweep", *options, code=1).stderr
    assert flagsweep("sweep", "--lane", "mail").exit_code == 0


def test_sweep_does_what_is_due_and_closes_with_a_line_of_counts(shop, db_path):
    shop.send.raise_many([(1,), (2,), (3, "fail")])
    result = flagsweep("sweep")
    assert result.stdout == "swept 3 flags: 2 lowered, 1 again\n"
    assert "WARNING send (flag 3) attempt 1 failed" in line(result)
    assert flagsweep("sweep").stdout == "nothing was due\n"
    assert count(db_path) == 1


def test_sweep_as_json_holds_every_outcome(shop):
    shop.send.raise_flag(1)
    counts = json.loads(flagsweep("sweep", "--json").stdout)
    assert counts == {"lowered": 1, "again": 0, "snoozed": 0, "discarded": 0, "dead": 0, "released": 0, "lost": 0}


def test_sweep_takes_a_lane_and_a_limit(shop, db_path):
    shop.send.raise_many([(1,), (2,)])
    assert flagsweep("sweep", "--lane", "default").stdout == "nothing was due\n"
    assert flagsweep("sweep", "--limit", 1).stdout == "swept 1 flag: 1 lowered\n"
    assert "'nope'" in line(flagsweep("sweep", "--lane", "nope", code=2))
    assert count(db_path) == 1


# raise.


@pytest.mark.parametrize(
    ("arguments", "input", "payload"),
    [
        (["send", '{"user_id": 17}'], None, {"user_id": 17}),
        (["send", '[17, "fail"]'], None, {"user_id": 17, "how": "fail"}),
        (["send", "-"], '{"user_id": "민지"}', {"user_id": "민지"}),
        (["nightly"], None, {}),
    ],
)
def test_raise_takes_arguments_by_name_by_place_or_from_stdin(shop, arguments, input, payload):
    assert flagsweep("raise", *arguments, input=input).stdout == "flag 1: new\n"
    assert shop.flags.find()[0].payload == payload
    assert json.loads(flagsweep("raise", *arguments, "--json", input=input).stdout) == {"id": 1, "how": "coalesced"}


def test_raise_takes_a_key_a_priority_and_a_time(shop):
    flagsweep("raise", "send", "[1]", "--key", "k", "--priority", "-5", "--delay", "1h30m")
    flagsweep("raise", "send", "[1]", "--at", "2030-01-31T09:00:00Z")
    flagsweep("raise", "send", "[2]", "--at", "2030-01-31T09:00")
    first, second, third = shop.flags.find()
    assert (first.key, first.priority) == ("k", -5)
    assert timedelta(minutes=89) < first.due_at - datetime.now(UTC) < timedelta(minutes=91)
    assert second.due_at == datetime(2030, 1, 31, 9, tzinfo=UTC)
    assert third.due_at == datetime(2030, 1, 31, 9).astimezone()


def test_an_own_row_is_raised_by_its_primary_key(shop):
    with shop.flags.database.connection_context():
        shop.Person.create()
    flagsweep("raise", "greet", "[1]")
    assert flagsweep("sweep").stdout == "swept 1 flag: 1 lowered\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sned"], "no handler is registered for the kind 'sned'; there are greet, nightly, send"),
        (["send", "{"], "the arguments are not JSON"),
        (["send", "[" * 100_000], "the arguments are not JSON"),
        (["send", "17"], "must be a JSON object or array, got 17"),
        (["send", "{}"], "missing a required argument: 'user_id'"),
        (["send", '{"usr_id": 1}'], "send(user_id, how='ok')"),
        (["send", "[NaN]"], "JSON does not have"),
        (["send", "[1]", "--delay", "5x"], "delay must be seconds"),
        (["send", "[1]", "--priority", "101"], "-100 to 100"),
        (["send", "[1]", "--priority", "high"], "not a valid integer"),
        (["send", "[1]", "--key", ""], "key must be 1 to 200"),
        (["send", "[1]", "--at", "tomorrow"], "--at must be a time such as"),
        (["send", "[1]", "--at", "0001-01-01"], "--at must be a time such as"),
        (["send", "[1]", "--at", "2020-01-01"], "lies in the past"),
        (["send", "[1]", "--at", "2030-01-01", "--delay", "5m"], "give --delay or --at, not both"),
        (["send", json.dumps(["x" * 40_000])], "the limit is 32,768"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_what_cannot_be_raised_is_wrong_usage_and_raises_nothing(shop, db_path, arguments, expected):
    assert expected in flagsweep("raise", *arguments, code=2).stderr.splitlines()[-1]
    assert count(db_path) == 0


def test_bytes_on_stdin_that_are_no_text_are_wrong_usage(shop):
    assert "not JSON" in line(flagsweep("raise", "send", "-", input=b"\xff\xfe", code=2))


# retry, discard and lower.


def test_retry_lets_named_dead_flags_wait_again(shop, db_path):
    shop.send.raise_many([(1,), (2,)])
    kill_off(db_path, 1, 2)
    assert flagsweep("retry", 1).stdout == "retried 1 flag\n"
    assert [flag.state for flag in shop.flags.find()] == ["waiting", "dead"]


def test_discard_drops_named_dead_flags_and_keeps_the_reason(shop, db_path):
    shop.send.raise_flag(1)
    kill_off(db_path, 1)
    assert flagsweep("discard", 1, "--reason", "left").stdout == "discarded 1 flag\n"
    assert count(db_path) == 0 and plain(db_path, "SELECT reason FROM flagsweep_history") == [("left",)]


def test_named_flags_that_were_not_hit_are_named_and_the_others_done(shop, db_path):
    shop.send.raise_many([(1,), (2,), (3,)])
    kill_off(db_path, 1)
    plain(db_path, "UPDATE flagsweep_flag SET state = 'claimed', claimed_by = 1, claim_token = 1 WHERE id = 2")
    result = flagsweep("discard", 1, 2, 3, 99, code=1)
    assert result.stdout == "discarded 1 flag\n"
    reasons = "there is no flag 99; flag 2 runs, it is not dead; flag 3 waits, it is not dead"
    assert line(result) == f"flagsweep: {reasons}"
    result = flagsweep("retry", 2, 3, code=1)
    assert result.stdout == "retried 0 flags\n"
    assert line(result) == "flagsweep: flag 2 runs just now; flag 3 waits, and has not failed"


@pytest.mark.parametrize("command", ["retry", "discard"])
@pytest.mark.parametrize("options", [["--all"], ["--kind", "send"], ["--all", "--kind", "send"]], ids=" ".join)
def test_acting_on_all_asks_first(shop, db_path, command, options):
    shop.send.raise_many([(1,), (2,)])
    kill_off(db_path, 1, 2)
    for answer in ("n\n", "\n", ""):
        result = flagsweep(command, *options, input=answer, code=1)
        assert "2 flags" in result.stderr and "nothing was changed" in result.stderr and result.stdout == ""
    assert len(shop.flags.find(state="dead")) == 2
    assert "2 flags" in flagsweep(command, *options, input="y\n").stdout
    assert shop.flags.find(state="dead") == []


@pytest.mark.parametrize(("command", "done"), [("retry", "retried"), ("discard", "discarded")])
def test_yes_answers_in_advance_and_kind_spares_the_others(shop, db_path, command, done):
    shop.send.raise_many([(1,), (2,)])
    shop.nightly.raise_flag()
    kill_off(db_path, 1, 2, 3)
    result = flagsweep(command, "--kind", "send", "--yes")
    assert (result.stdout, result.stderr) == (f"{done} 2 flags\n", "")
    assert [flag.kind for flag in shop.flags.find(state="dead")] == ["nightly"]
    assert flagsweep(command, "--kind", "send", "--yes").stdout == f"{done} 0 flags\n"


@pytest.mark.parametrize("command", ["retry", "discard"])
@pytest.mark.parametrize("arguments", [[], ["1", "--all"], ["1", "--kind", "send"], ["x"]], ids=" ".join)
def test_which_flags_are_meant_must_be_said(shop, command, arguments):
    flagsweep(command, *arguments, code=2)


def test_lower_takes_one_flag_down_whatever_its_state(shop, db_path):
    shop.send.raise_flag(1)
    assert flagsweep("lower", "send", '{"user_id":1}').stdout == "lowered\n"
    assert count(db_path) == 0
    assert "is up" in line(flagsweep("lower", "send", '{"user_id":1}', code=1))


# doctor.


def test_doctor_prints_each_finding_with_its_fix(shop):
    shop.nightly.raise_flag()
    text = flagsweep("doctor").stdout
    assert re.search(r"^ok    database          .*site.db answers$", text, re.MULTILINE)
    assert re.search(r"^warn  consumer .*\n {24}-> start 'flagsweep run'", text, re.MULTILINE)
    findings = json.loads(flagsweep("doctor", "--json").stdout)
    assert {"level": "ok", "what": "schema", "text": "version 1", "fix": ""} in findings


def test_doctor_fails_where_something_fails(shop, db_path):
    for file in db_path.parent.glob("site.db*"):
        file.unlink() if file.is_file() else None
    assert "there is no database" in flagsweep("doctor", code=1).stdout
    assert json.loads(flagsweep("doctor", "--json", code=1).stdout)[0]["level"] == "fail"


# run, and processes of their own.


@pytest.fixture
def command(shop, spawn, env):
    """Give `command(*arguments)`: start `python -m flagsweep` in the site's folder."""
    return lambda *arguments, **options: spawn(
        sys.executable, "-m", "flagsweep", *arguments, **{"env": {**env, "FLAGSWEEP_APP": "shop:flags"}, **options}
    )


def test_run_logs_a_banner_refuses_a_second_and_ends_well_at_sigterm(shop, command, until, db_path):
    shop.send.raise_flag(1, "fail")
    first = command("run")
    until(lambda: "again in 3" in first.log.read_text())
    second = command("run")
    assert second.wait(10) == 1
    (refusal,) = second.log.read_text().splitlines()
    assert refusal.startswith("flagsweep: consumer") and f"pid {first.pid}" in refusal and str(db_path) in refusal
    assert f"pid {first.pid}" in flagsweep("status").stdout and "runs (" not in flagsweep("status").stdout
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 0
    log = first.log.read_text()
    assert str(db_path) in log and "lane mail, 2 threads: send" in log
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) "
    assert all(re.match(stamp, each) and each.isprintable() for each in log.splitlines())
    assert r"\x1b[31m\u202e\x9b" in log and "user_id" not in log and log.splitlines()[-1].endswith("stopped")


def test_run_ends_in_time_though_a_handler_does_not(shop, folder, command, until):
    shop.send.raise_flag(1, "endless")
    consumer = command("run")
    until((folder / "started").exists)
    consumer.send_signal(signal.SIGINT)
    assert consumer.wait(5) == 0
    assert "still run" in consumer.log.read_text().splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_sweep_that_is_told_to_end_gives_back_what_has_not_started(shop, folder, command, until, number):
    shop.send.raise_many([(n, "slow") for n in range(20)])
    sweep = command("sweep")
    until((folder / "started").exists)
    sweep.send_signal(number)
    assert sweep.wait(5) == 1
    counts, reason = sweep.log.read_text().splitlines()
    assert counts.startswith("swept ") and reason.startswith(f"flagsweep: stopped by {number.name}: ")
    left = shop.flags.find()
    assert len(left) >= 14 and {(flag.state, flag.attempts) for flag in left} == {("waiting", 0)}


def test_a_second_signal_ends_a_sweep_at_once(shop, folder, command, until):
    shop.send.raise_flag(1, "endless")
    sweep = command("sweep")
    until((folder / "started").exists)
    until(lambda: sweep.send_signal(signal.SIGINT) or sweep.poll() is not None, every=0.1)
    assert sweep.wait(5) == 1
    flagsweep("status")
    assert [flag.state for flag in shop.flags.find()] == ["claimed"]


def test_a_reader_that_goes_away_is_no_reason_for_a_traceback(shop, folder, env):
    shop.send.raise_many([(n,) for n in range(100)])
    shell = f"{sys.executable} -m flagsweep --app shop:flags list --json 2>errors | head -1"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, cwd=folder, env=env, timeout=20)
    assert done.stdout == "[\n" and (folder / "errors").read_text() == ""


def test_text_that_the_terminal_cannot_show_is_spelled_out(shop, env):
    shop.send.using(key="민지").raise_flag(1)
    command = [sys.executable, "-m", "flagsweep", "--app", "shop:flags", "list"]
    done = subprocess.run(command, capture_output=True, text=True, env={**env, "PYTHONIOENCODING": "latin-1"}, timeout=20)
    assert done.returncode == 0 and r"\ubbfc\uc9c0" in done.stdout


LOGGING = {
    "nothing": ("", 1),
    "what disables all loggers that exist": ('logging.config.dictConfig({"version": 1})', 1),
    "a root that writes to the terminal": ("logging.basicConfig(level=logging.DEBUG)", 1),
    "a root that writes to stdout": ("logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)", 1),
    "a root that writes to a file": ("logging.basicConfig(level=logging.DEBUG, filename='root.log')", 2),
    "a handler of its own": (
        """logging.config.dictConfig({"version": 1, "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
           "formatters": {"own": {"format": "OWN %(message)s"}},
           "loggers": {"flagsweep": {"handlers": ["own"], "level": "INFO"}}})""",
        1,
    ),
    "a file of its own": ("logging.getLogger('flagsweep').addHandler(logging.FileHandler('own.log'))", 2),
}


@pytest.mark.parametrize("when", ["at the import", pytest.param("within a handler", marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", LOGGING)
def test_the_log_is_there_whatever_the_site_configures_and_no_line_comes_twice(tmp_path, spawn, env, db_path, what, when):
    text, times = LOGGING[what]
    early, late = (text, "pass") if when == "at the import" else ("", text)
    (tmp_path / "shop.py").write_text(f"""
import logging.config, sys
from flagsweep import FlagSweep
flags = FlagSweep({str(db_path)!r}, threads=1)
@flags.handler(max_attempts=1)
def work():
    {late}
    raise ValueError("no")
{early}
""")
    flags = FlagSweep(db_path)
    flags.init()
    flags.handler("work")(lambda: None).raise_flag()
    flags.store.close_thread()
    child = spawn(sys.executable, "-m", "flagsweep", "--app", "shop:flags", "sweep")
    assert child.wait(20) == 0
    shown = child.log.read_text()
    written = "".join(path.read_text() for path in tmp_path.glob("*.log") if path != child.log)
    assert (shown + written).count("attempt 1 failed") == times, shown
    assert shown.count("attempt 1 failed") == 1
    assert ("OWN work" in shown) == (what == "a handler of its own")


COMMANDS = {
    "init": [],
    "sweep": [],
    "status": [],
    "list": [],
    "show": ["1"],
    "raise": ["send", "[5]"],
    "retry": ["--all", "--yes"],
    "discard": ["--all", "--yes"],
    "lower": ["send", '{"user_id":1}'],
    "doctor": [],
}


EACH_CLOSED = [pytest.param(command, ">&- 2>&- <&-", id=command) for command in COMMANDS]
ONE_CLOSED = [
    pytest.param(command, closed, id=f"{command}, {closed}", marks=() if command == "status" else pytest.mark.slow)
    for command in COMMANDS
    for closed in (">&-", "2>&-", "<&-")
]


@pytest.mark.parametrize(("command", "closed"), [*EACH_CLOSED, *ONE_CLOSED])
def test_closed_standard_streams_change_nothing(shop, folder, env, command, closed):
    """As daemons and cron have them. What is opened next must not get their numbers, nor what is printed."""
    shop.send.raise_flag(1)
    words = " ".join(shlex.quote(word) for word in [command, *COMMANDS[command]])
    line = f"{sys.executable} -m flagsweep --app shop:flags {words}"
    done = subprocess.run(f"{line} {closed}", shell=True, capture_output=True, text=True, cwd=folder, env=env, timeout=20)
    assert (done.returncode, "unexpected" in done.stderr + done.stdout) == (0, False), done.stderr
    if ">&-" not in closed.split():
        assert done.stdout
    assert is_sound(shop.flags.path)


def test_a_consumer_with_closed_standard_streams_runs_and_ends_well(shop, folder, env, until):
    command = f"exec {sys.executable} -m flagsweep --app shop:flags run >&- 2>&- <&-"
    child = subprocess.Popen(command, shell=True, cwd=folder, env=env)
    try:
        shop.send.raise_flag(1)
        until(lambda: not shop.flags.find())
        shop.send.raise_flag(2)
        until(lambda: not shop.flags.find())
    finally:
        child.terminate()
    assert child.wait(20) == 0


def test_every_command_is_tried_with_closed_streams():
    assert {*COMMANDS, "run"} == set(cli.cli.commands)


def test_no_command_takes_a_secret_as_an_argument():
    names = {option for command in cli.cli.commands.values() for option in (p.name for p in command.params)}
    assert isinstance(cli.cli, click.Group) and not {"password", "database", "url"} & names

"""All commands: help, errors in one line, what each must keep to."""

import re
import subprocess
import sys

import click
import pytest
from calling import SHOP, flagsweep, line
from rig import plain

from flagsweep import FlagSweep, cli
from flagsweep.commands.group import COMMANDS, SECTIONS
from flagsweep.commands.terminal import color_wanted

PRESENT = list(COMMANDS)


def test_help_lists_the_commands_by_what_they_are_for():
    shown = flagsweep("--help").stdout
    assert re.findall(r"^  ([a-z]+)  ", shown.partition("Look at it:")[2], re.MULTILINE) == PRESENT
    assert re.findall(r"^(\w.*):$", shown, re.MULTILINE) == ["Options", *SECTIONS]


@pytest.mark.parametrize("command", PRESENT)
def test_what_the_list_says_of_a_command_is_what_its_own_help_begins_with(command):
    about = next(commands[command][1] for commands in SECTIONS.values() if command in commands)
    assert about.endswith(".") and " ".join(cli.cli.commands[command].help.split()).startswith(about)


def test_help_enters_neither_the_engine_nor_a_database_library_nor_any_command(env):
    code = (
        "import sys; from flagsweep.cli import cli; cli(['--help'], standalone_mode=False);"
        "print(*sorted(name for name in sys.modules if name.partition('.')[0] in ('flagsweep', 'peewee', 'huey', 'rich')))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()[-1].split()) <= {
        *("flagsweep", "flagsweep.modules", "flagsweep.errors", "flagsweep.cli", "flagsweep.logs", "flagsweep.commands"),
        *("flagsweep.commands.group", "flagsweep.commands.locate", "flagsweep.commands.terminal"),
    }


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["statsu"], "there is no command 'statsu': did you mean 'status'?"),
        (["zzz"], "there is no command 'zzz'; -h lists those there are"),
        (["schedule", "lits"], "there is no command 'lits': did you mean 'list'?"),
        (["list", "--stat", "dead"], "Did you mean --state?"),
    ],
)
def test_what_is_misspelt_is_told_with_what_was_meant(typed, told):
    assert told in flagsweep(*typed, code=2).stderr.replace("'--state'", "--state")


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, None),
        ({"FORCE_COLOR": "1", "CLICOLOR": "0"}, True),
        ({"FORCE_COLOR": "0"}, None),
        ({"CLICOLOR_FORCE": "1"}, True),
        ({"CLICOLOR": "0"}, False),
        ({"CLICOLOR": "1"}, None),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colours_are_as_the_environment_wants_them(environ, wanted):
    assert color_wanted(environ) is wanted


def test_a_pipe_gets_colours_only_where_they_are_forced(shop, monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b" not in flagsweep("doctor").output
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in flagsweep("doctor").output
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in flagsweep("doctor").output


@pytest.mark.parametrize("command", PRESENT)
def test_every_command_explains_itself_without_an_app(command):
    assert flagsweep(command, "--help").stdout.startswith(f"Usage: flagsweep {command}")


@pytest.mark.parametrize("command", ["sweep", "status", "kinds", "list", "show", "raise", "gates", "doctor"])
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
    ["kinds"],
    ["schedule", "list"],
    ["schedule", "add", "x", "nightly", "--every", "1h"],
    ["schedule", "run", "x"],
    ["gates"],
]


@pytest.mark.parametrize("command", WORKING, ids=lambda command: command[0])
def test_without_tables_every_command_names_the_file_and_the_remedy(shop, db_path, command):
    for table in ("flag", "schema", "schedule", "pulse"):
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


def test_no_command_takes_a_secret_as_an_argument():
    names = {option for command in cli.cli.commands.values() for option in (p.name for p in command.params)}
    assert isinstance(cli.cli, click.Group) and not {"password", "database", "url"} & names

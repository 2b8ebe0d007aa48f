"""All commands: help, errors in one line, what each must keep to."""

import re

import click
import pytest
from calling import SHOP, flagsweep, line
from rig import plain

from flagsweep import FlagSweep, cli

PRESENT = [
    *("init", "run", "sweep", "status", "kinds", "list", "show", "raise", "retry", "discard", "lower"),
    *("schedule", "pause", "resume", "gates", "lane", "doctor"),
]


def test_help_lists_the_commands_in_the_order_in_which_a_site_meets_them():
    listed = re.findall(r"^  (\w+)  ", flagsweep("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert listed == PRESENT


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

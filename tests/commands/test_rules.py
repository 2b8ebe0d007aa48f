"""What every command keeps to: examples that can be meant, widths from 60 columns, no escape but on a terminal, quiet pipes."""

import re
import shlex
import subprocess
import sys

import click
import pytest
from calling import flagsweep, kill_off
from click.testing import CliRunner
from screens import Terminal

from flagsweep import cli
from flagsweep.commands.tables import width_of


def leaves(command=cli.cli, path=()):
    """Yield each command that does something, with the words that lead to it."""
    for name, each in command.commands.items():
        if isinstance(each, click.Group):
            yield from leaves(each, (*path, name))
        else:
            yield (*path, name), each


LEAVES = dict(leaves())


def examples(command):
    """Return the lines of a command's help that show how it is called, without what a shell does with them."""
    found = re.findall(r"^ *(?:eval \"\$\()?(flagsweep [^\n]*)", command.help or "", re.MULTILINE)
    return [re.split(r" [|>;&]|\)\"", line)[0] for line in found]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_the_help_of_every_command_shows_an_example_that_is_taken(path, monkeypatch):
    called = []
    for each in LEAVES.values():
        monkeypatch.setattr(each, "callback", lambda **given: called.append(given))
    lines = examples(LEAVES[path])
    assert lines, f"the help of {' '.join(path)} shows no example: add one to its docstring, below a line with \\b"
    for line in lines:
        words = shlex.split(line)[1:]
        result = CliRunner().invoke(cli.cli, words, prog_name="flagsweep")
        assert result.exit_code == 0, f"{line}: {result.output}"
        after = words[2:] if words[0] == "--app" else words
        assert tuple(after[: len(path)]) == path, f"{line} is an example of another command"
    assert len(called) == len(lines)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_h_explains_every_command_in_60_columns(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    for option in ("-h", "--help"):
        shown = CliRunner().invoke(cli.cli, [*path, option], prog_name="flagsweep", terminal_width=60).output
        assert shown.startswith(f"Usage: flagsweep {' '.join(path)}")
    # Examples are not folded, since they are copied, nor is an option with its choices, which has no space to fold at.
    told = [line for line in shown.splitlines() if "flagsweep " not in line and not line.startswith("  -")]
    assert max(map(len, told)) <= 60


READING = {
    "status": [],
    "kinds": [],
    "list": [],
    "show": ["1"],
    "gates": [],
    "doctor": [],
    "check": [],
    "why": [],
    "dead": [],
    "history": [],
    "schedule": ["list"],
    "top": ["--once"],
}
"""Commands that show what is there, with what else they take."""


@pytest.fixture
def crowded(shop, db_path):
    """Return a site with much to show, and long names."""
    shop.send.using(key="k" * 150).raise_flag(1)
    shop.send.raise_many([(n,) for n in range(3)])
    kill_off(db_path, 1)
    shop.flags.schedules.add("a-weekly-report-with-a-long-name", "nightly", cron="0 4 * * 1", tz="Asia/Seoul")
    shop.flags.pause("send", reason="the provider moves to another place, and says so in a long sentence", until="2h")
    return shop


@pytest.mark.long
@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("command", READING)
def test_what_is_shown_fits_the_terminal(crowded, folder, env, until, command, columns):
    words = [sys.executable, "-m", "flagsweep", "--app", "shop:flags", command, *READING[command]]
    terminal = Terminal(words, folder, {**env, "NO_COLOR": ""}, columns)
    until(terminal.has_ended)
    terminal.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.sent.decode())
    assert shown.strip() and "Traceback" not in shown
    if command not in ("check", "show"):  # One line, as monitoring wants it; values that are whole, to be copied.
        wide = [line for line in shown.replace("\r\n", "\n").split("\n") if width_of(line) > columns]
        assert wide == []


@pytest.mark.long
@pytest.mark.parametrize("command", READING)
def test_a_reader_that_goes_away_ends_it_quietly(crowded, folder, env, command):
    words = shlex.join([sys.executable, "-m", "flagsweep", "--app", "shop:flags", command, *READING[command]])
    shell = f"{words} 2>errors | true"
    subprocess.run(["bash", "-c", shell], cwd=folder, env=env, timeout=60)
    assert (folder / "errors").read_text() == ""


@pytest.mark.parametrize("command", READING)
def test_a_pipe_gets_neither_colours_nor_other_escapes(crowded, monkeypatch, command):
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(cli.cli, [command, *READING[command]], prog_name="flagsweep")
    assert "\x1b" not in result.output and "Traceback" not in result.output


@pytest.mark.parametrize("command", READING)
def test_what_reads_has_json(command):
    path = (command, *(word for word in READING[command] if word == "list"))
    assert "--json" in flagsweep(*path, "--help").stdout

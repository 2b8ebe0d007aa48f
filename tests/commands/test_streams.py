"""Standard streams that are closed, end early, or cannot show every letter."""

import shlex
import subprocess
import sys

import pytest
from work import is_sound

from flagsweep import cli

pytestmark = pytest.mark.long


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


COMMANDS = {
    "init": [],
    "sweep": [],
    "status": [],
    "kinds": [],
    "list": [],
    "show": ["1"],
    "raise": ["send", "[5]"],
    "retry": ["--all", "--yes"],
    "discard": ["--all", "--yes"],
    "lower": ["send", '{"user_id":1}'],
    "schedule": ["list"],
    "pause": ["send"],
    "resume": ["send"],
    "gates": [],
    "lane": ["mail", "--threads", "2"],
    "check": ["--no-consumer"],
    "dead": [],
    "doctor": [],
    "history": [],
    "prune": ["--yes"],
    "top": [],
    "drain": ["--wait", "5"],
    "deploy": ["systemd"],
    "export": [],
    "import": ["saved.jsonl", "--skip"],
    "reconcile": [],
    "move": ["--to", "sqlite:///moved.db", "--yes"],
    "completion": ["bash"],
    "confirm": ["--yes"],
    "digest": [],
    "why": [],
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
    shop.flags.pause("send")
    shop.flags.export(folder / "saved.jsonl")
    shop.flags.connections.close_thread()
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

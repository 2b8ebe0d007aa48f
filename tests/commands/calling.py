"""Call commands, beside a small site, and read what they say."""

from click.testing import CliRunner
from rig import plain

from flagsweep import cli

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

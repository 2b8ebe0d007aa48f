"""All commands as a group in a host's own command line (``commands.group.hosted``)."""

import click
from click.testing import CliRunner

from flagsweep import FlagSweep
from flagsweep.cli import cli
from flagsweep.commands.group import hosted


def test_a_host_gets_every_command_with_the_site_that_it_has_found(db_path):
    flags = FlagSweep(f"sqlite:///{db_path}")

    @flags.handler()
    def greet(user_id): ...

    found = []

    def find():
        found.append(1)
        return flags

    host = click.Group("host", commands=[hosted(find, "the host's application")])
    call = CliRunner().invoke
    assert "sweep" in call(host, ["flagsweep", "--help"]).output and not found
    assert hosted(find, "").list_commands() == list(cli.commands)
    assert call(host, ["flagsweep", "init"]).exit_code == 0
    assert call(host, ["flagsweep", "raise", "greet", '{"user_id": 17}']).exit_code == 0
    assert call(host, ["flagsweep", "sweep"]).output == "swept 1 flag: 1 lowered\n"
    result = call(host, ["flagsweep", "sweep", "--lane", "nosuch"])
    assert result.exit_code == 2 and "no handler is in lane 'nosuch'" in result.output


def test_commands_that_are_named_are_called_as_the_host_calls_them(db_path):
    flags = FlagSweep(f"sqlite:///{db_path}")

    def says(*arguments):
        host = click.Group("host", commands=[hosted(lambda: flags, "the host's application")])
        return CliRunner().invoke(host, ["flagsweep", *arguments], prog_name="host").output

    assert "run 'host flagsweep init'" in says("sweep")
    assert "'host flagsweep init'" in says("doctor")
    says("init")
    flags.handler("work")(lambda: None).raise_flag()
    assert "start 'host flagsweep run'" in says("doctor") and "start 'host flagsweep run'" in says("doctor", "--json")
    assert "'host flagsweep list --kind work' shows" in says("lower", "work", "nosuch")
    assert "'host flagsweep resume --all'" in says("pause", "--all")
    assert "'host flagsweep gates'" in says("resume", "--lane", "default")

"""What commands have alike: --json on all that read, --yes on all that destroy."""

import pytest
from calling import flagsweep, kill_off

from flagsweep import cli

READ = (
    *("status", "top", "kinds", "list", "show", "dead", "why", "history", "gates", "check", "doctor", "reconcile"),
    "schedule list",
)
DESTROY = (*("retry", "discard", "lower", "prune", "dead retry", "dead discard", "schedule remove", "move", "reconcile"),)


def options(name):
    command = cli.cli
    for part in name.split():
        command = command.commands[part]
    return {option for param in command.params for option in param.opts}


@pytest.mark.parametrize("name", READ)
def test_what_reads_has_json(name):
    assert "--json" in options(name)


@pytest.mark.parametrize("name", DESTROY)
def test_what_destroys_has_yes(name):
    assert "--yes" in options(name)


@pytest.mark.parametrize("arguments", [["retry"], ["discard"], ["dead", "retry"], ["dead", "discard"]], ids=" ".join)
def test_where_nobody_can_answer_and_yes_is_not_given_nothing_is_changed(shop, db_path, arguments):
    shop.send.raise_flag(1)
    kill_off(db_path, 1)
    result = flagsweep(*arguments, "--all", input="", code=1)
    assert "nothing was changed; --yes answers in advance" in result.stderr
    assert shop.flags.find()[0].state == "dead"

"""The dead by cause: `dead`, `dead retry` and `dead discard`."""

import json

import pytest
from calling import flagsweep, line
from rig import plain

HOUR = 3600 * 1_000_000


@pytest.fixture
def dead(shop, db_path):
    """Return the site with five flags that died of two causes, the clock being the machine's own."""
    shop.send.raise_many([(n,) for n in range(5)])
    now = shop.flags.clock.now()
    for id in range(1, 6):
        cause = ("ValueError", "KeyError")[id > 3]
        error = f"Traceback (most recent call last):\n  ...\n{cause}: no {id} \x1b[31m"
        values = (f"{cause} shop.py:send:9", error, now - id * HOUR, id)
        plain(db_path, "UPDATE flagsweep_flag SET state = 'dead', died_as = ?, error = ?, died_at = ? WHERE id = ?", *values)
    return shop


def groups():
    return json.loads(flagsweep("dead", "--json").stdout)


def states(shop):
    return [flag.state for flag in shop.flags.find()]


def test_dead_lists_groups_with_their_count_and_an_example(dead):
    out = flagsweep("dead").stdout
    head, first, second = out.splitlines()
    assert head.split()[:3] == ["group", "kind", "dead"]
    assert first.split()[1:3] == ["send", "3"] and "ValueError shop.py:send:9" in first and "ValueError: no 1" in first
    assert second.split()[1:3] == ["send", "2"] and "\x1b" not in out
    assert [group["id"] for group in groups()] == [first.split()[0], second.split()[0]]
    assert flagsweep("dead", "--kind", "nightly").stdout == "no flag is dead\n"
    assert json.loads(flagsweep("dead", "--kind", "nightly", "--json").stdout) == []
    result = flagsweep("dead", "--limit", 1)
    assert len(result.stdout.splitlines()) == 2 and "--limit shows more" in line(result)


def test_a_group_is_retried_and_the_count_said_first(dead):
    result = flagsweep("dead", "retry", groups()[1]["id"], "--yes")
    assert (result.stdout, result.stderr) == ("retried 2 flags\n", "2 dead flags to retry\n")
    assert states(dead) == ["dead"] * 3 + ["waiting"] * 2


def test_a_rate_says_until_when_it_takes(dead):
    result = flagsweep("dead", "retry", "--kind", "send", "--rate", "2/h", "--yes")
    assert result.stdout == "retried 5 flags\n"
    assert "at 2/h the last of them is due in 2 h, at 20" in result.stderr
    due = [flag.due_at.timestamp() for flag in dead.flags.find()]
    assert [round(each - due[0]) for each in due] == [0, 1800, 3600, 5400, 7200]


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_a_dry_run_says_how_many_names_examples_and_changes_nothing(dead, verb):
    result = flagsweep("dead", verb, "--error", "keyerror", "--dry-run")
    assert result.stderr == f"2 dead flags to {verb}\n"
    assert [each.split()[0] for each in result.stdout.splitlines()] == ["4", "5", "nothing"]
    assert states(dead) == ["dead"] * 5


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_without_yes_it_asks_and_where_nobody_answers_nothing_is_changed(dead, verb):
    for answer in ("", "n\n"):
        result = flagsweep("dead", verb, "--all", input=answer, code=1)
        assert "5 dead flags" in result.stderr and "nothing was changed; --yes answers in advance" in result.stderr
    assert states(dead) == ["dead"] * 5
    assert "5 flags" in flagsweep("dead", verb, "--all", input="y\n").stdout


def test_discard_by_age_keeps_the_reason(dead, db_path):
    assert flagsweep("dead", "discard", "--older-than", "3h30m", "--reason", "left", "--yes").stdout.endswith(
        "discarded 2 flags\n"
    )
    assert plain(db_path, "SELECT flag, reason FROM flagsweep_history ORDER BY flag") == [(4, "left"), (5, "left")]
    assert flagsweep("dead", "discard", "--after", "90m", "--dry-run").stderr == "1 dead flag to discard\n"
    assert flagsweep("dead", "retry", "--older-than", "30d", "--yes").stdout == "no dead flag is like that\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "which?"),
        (["nosuch", "--yes"], "there is no group 'nosuch'"),
        (["--older-than", "x"], "--older-than"),
        (["--before", "soon"], "--before must be how long ago"),
        (["--older-than", "1d", "--before", "1d"], "give one"),
    ],
    ids=lambda value: None,
)
def test_what_cannot_be_meant_is_refused(dead, arguments, told):
    for verb in ("retry", "discard"):
        assert told in flagsweep("dead", verb, *arguments, code=2).stderr
    assert "--rate must be" in flagsweep("dead", "retry", "--all", "--rate", "fast", code=2).stderr
    assert states(dead) == ["dead"] * 5

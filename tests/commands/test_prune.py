"""Deleting what is old: `prune`."""

import pytest
from calling import flagsweep, kill_off
from rig import count, plain

LINE = "INSERT INTO flagsweep_history (at, flag, kind, key, event, reason) VALUES (1, 1, 'send', 'k', 'failed', 'r')"


@pytest.fixture
def old(shop, db_path):
    shop.send.raise_flag(1)
    kill_off(db_path, 1)
    plain(db_path, LINE)
    return shop


def lines(db_path):
    return [row[0] for row in plain(db_path, "SELECT reason FROM flagsweep_history")]


def test_prune_says_how_much_first_and_then_what_it_did(old, db_path):
    result = flagsweep("prune", "--older-than", "30d", "--dry-run")
    assert result.stdout == "would be deleted: 1 line of history, 0 counts\nnothing was changed\n" and lines(db_path) == ["r"]
    result = flagsweep("prune", "--yes")
    assert (result.stdout, result.stderr) == (
        "deleted 1 line of history, 0 counts\n",
        "to be deleted: 1 line of history, 0 counts\n",
    )
    assert (lines(db_path), count(db_path)) == ([], 1)
    assert flagsweep("prune", "--yes").stdout == "nothing is that old\n"


def test_dead_flags_are_pruned_where_that_is_said(old, db_path):
    assert "--older-than" in flagsweep("prune", "--dead", "--yes", code=2).stderr
    result = flagsweep("prune", "--dead", "--older-than", "90d", "--yes")
    assert result.stdout == "deleted 1 line of history, 0 counts, 1 dead flag\n"
    assert (lines(db_path), count(db_path)) == (["pruned"], 0)


def test_it_asks_and_where_nobody_answers_nothing_is_changed(old, db_path):
    for answer in ("", "n\n"):
        assert "nothing was changed; --yes" in flagsweep("prune", input=answer, code=1).stderr
    assert lines(db_path) == ["r"]
    assert flagsweep("prune", input="y\n").stdout == "deleted 1 line of history, 0 counts\n"

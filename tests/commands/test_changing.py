"""Deciding about flags: retry, discard and lower."""

import pytest
from calling import flagsweep, kill_off, line
from rig import count, plain


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

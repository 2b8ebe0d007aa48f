"""Raising a flag by hand: raise."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from calling import flagsweep, line
from rig import count


@pytest.mark.parametrize(
    ("arguments", "input", "payload"),
    [
        (["send", '{"user_id": 17}'], None, {"user_id": 17}),
        (["send", '[17, "fail"]'], None, {"user_id": 17, "how": "fail"}),
        (["send", "-"], '{"user_id": "민지"}', {"user_id": "민지"}),
        (["nightly"], None, {}),
    ],
)
def test_raise_takes_arguments_by_name_by_place_or_from_stdin(shop, arguments, input, payload):
    assert flagsweep("raise", *arguments, input=input).stdout == "flag 1: new\n"
    assert shop.flags.find()[0].payload == payload
    assert json.loads(flagsweep("raise", *arguments, "--json", input=input).stdout) == {"id": 1, "how": "coalesced"}


def test_raise_takes_a_key_a_priority_and_a_time(shop):
    flagsweep("raise", "send", "[1]", "--key", "k", "--priority", "-5", "--delay", "1h30m")
    flagsweep("raise", "send", "[1]", "--at", "2030-01-31T09:00:00Z")
    flagsweep("raise", "send", "[2]", "--at", "2030-01-31T09:00")
    first, second, third = shop.flags.find()
    assert (first.key, first.priority) == ("k", -5)
    assert timedelta(minutes=89) < first.due_at - datetime.now(UTC) < timedelta(minutes=91)
    assert second.due_at == datetime(2030, 1, 31, 9, tzinfo=UTC)
    assert third.due_at == datetime(2030, 1, 31, 9).astimezone()


def test_an_own_row_is_raised_by_its_primary_key(shop):
    with shop.flags.database.connection_context():
        shop.Person.create()
    flagsweep("raise", "greet", "[1]")
    assert flagsweep("sweep").stdout == "swept 1 flag: 1 lowered\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sned"], "no handler is registered for the kind 'sned'; there are greet, nightly, send"),
        (["send", "{"], "the arguments are not JSON"),
        (["send", "[" * 100_000], "the arguments are not JSON"),
        (["send", "17"], "must be a JSON object or array, got 17"),
        (["send", "{}"], "missing a required argument: 'user_id'"),
        (["send", '{"usr_id": 1}'], "send(user_id, how='ok')"),
        (["send", "[NaN]"], "JSON does not have"),
        (["send", "[1]", "--delay", "5x"], "delay must be seconds"),
        (["send", "[1]", "--priority", "101"], "-100 to 100"),
        (["send", "[1]", "--priority", "high"], "not a valid integer"),
        (["send", "[1]", "--key", ""], "key must be 1 to 200"),
        (["send", "[1]", "--at", "tomorrow"], "--at must be a time such as"),
        (["send", "[1]", "--at", "0001-01-01"], "--at must be a time such as"),
        (["send", "[1]", "--at", "2020-01-01"], "lies in the past"),
        (["send", "[1]", "--at", "2030-01-01", "--delay", "5m"], "give --delay or --at, not both"),
        (["send", json.dumps(["x" * 40_000])], "the limit is 32,768"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_what_cannot_be_raised_is_wrong_usage_and_raises_nothing(shop, db_path, arguments, expected):
    assert expected in flagsweep("raise", *arguments, code=2).stderr.splitlines()[-1]
    assert count(db_path) == 0


def test_bytes_on_stdin_that_are_no_text_are_wrong_usage(shop):
    assert "not JSON" in line(flagsweep("raise", "send", "-", input=b"\xff\xfe", code=2))

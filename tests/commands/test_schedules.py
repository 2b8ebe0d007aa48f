"""Looking after schedules on a terminal: schedule list, add, edit, pause, resume, run, remove, reset."""

import json
import re

import pytest
from calling import flagsweep, line
from rig import plain
from test_terminal import STEERING, in_terminal

from flagsweep.commands.tables import width_of

WEEKLY = ("add", "weekly", "send", "--cron", "0 4 * * 1", "--tz", "Asia/Seoul", "--arguments", '{"user_id": 17}')


def schedule(*arguments, **options):
    return flagsweep("schedule", *arguments, **options)


@pytest.fixture
def nightly(shop):
    """Have a schedule that the code declares, as a sweep has written it."""
    shop.nightly.cron("0 4 * * *", tz="Asia/Seoul")
    flagsweep("sweep")


def test_where_there_are_none_the_list_says_so(shop):
    assert schedule("list").stdout == "no schedules\n"
    assert json.loads(schedule("list", "--json").stdout) == []


def test_a_schedule_is_added_and_listed_in_plain_english_with_its_next_times(shop):
    added = schedule(*WEEKLY).stdout
    assert schedule("list").stdout == added
    day = r"Mon \d{4}-\d\d-\d\d 04:00"
    head = 'weekly: Mondays at 04:00, Asia/Seoul; send {"user_id": 17}; added by hand'
    assert re.fullmatch(rf"{re.escape(head)}\n    next    {day}, {day}, {day}\n    last    never\n", added)
    (shown,) = json.loads(schedule("list", "--json").stdout)
    assert (shown["name"], shown["spec"], shown["payload"], len(shown["next"])) == ("weekly", "0 4 * * 1", {"user_id": 17}, 3)


def test_arguments_may_stand_in_an_array_or_come_from_stdin(shop):
    schedule("add", "a", "send", "--every", "1h", "--arguments", "[1]")
    shown = schedule("add", "b", "send", "--at", "2990-12-24 18:00", "--arguments", "-", "--json", input='{"user_id": 2}')
    assert json.loads(shown.stdout)["payload"] == {"user_id": 2}
    assert 'a: every hour, UTC; send {"user_id": 1}' in schedule("list").stdout


def test_an_edit_shows_what_the_code_says_and_a_reset_undoes_it(shop, nightly):
    told = schedule("edit", "nightly", "--cron", "0 5 * * *", "--missed", "skip").stdout
    assert "nightly: every day at 05:00, Asia/Seoul\n" in told
    assert re.search(r'^    changed by \w+ [-\d]+ [:\d]+; the code says cron "0 4 \* \* \*", missed "once"$', told, re.MULTILINE)
    assert "nightly: every day at 04:00, Asia/Seoul\n" in schedule("reset", "nightly").stdout
    assert "changed" not in schedule("list").stdout


def test_a_pause_shows_who_why_and_until_when(shop, nightly):
    told = schedule("pause", "nightly", "--reason", "no paper", "--until", "2990-01-31T09:00Z").stdout
    assert re.search(r"^    paused  since [-\d]+ [:\d]+ by \w+ until 2990-01-31 18:00: no paper$", told, re.MULTILINE)
    assert re.search("next    ... 2990-02-01 04:00", told)
    assert "until" not in schedule("pause", "nightly").stdout
    assert "paused" not in schedule("resume", "nightly").stdout
    assert "until" in schedule("pause", "nightly", "--until", "2h").stdout


def test_run_raises_its_flag_and_the_list_says_how_that_ended(shop):
    schedule(*WEEKLY)
    assert schedule("run", "weekly").stdout == "flag 1: new\n"
    assert json.loads(schedule("run", "weekly", "--json").stdout) == {"id": 1, "how": "coalesced"}
    flagsweep("sweep")
    assert re.search(r"^    last    by hand, succeeded [-\d]+ [:\d]+$", schedule("list").stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ("last_at = 0, fired_at = 1", "last    1970-01-01 09:00, not ended yet"),
        ("last_at = 0, fired_at = 9, outcome = 'dead', ended_at = 8", "not ended yet; the run before dead 1970-01-01 09:00"),
        ("last_at = 0, fired_at = 1, outcome = 'dead', ended_at = 8, skipped = 3", "09:00, dead 1970-01-01 09:00; 3 skipped"),
        ("next_at = 0", r"due     since 1970-01-01 09:00, for \d+ y$"),
        ("kind = 'gone', next_at = 0", r"due .* y: no handler here has the kind gone"),
        ("kind = 'gone'", "note    no handler here has the kind gone"),
        ("spec = 'x y'", "problem it cannot fire: cron: 'x y' is no cron expression"),
    ],
)
def test_the_list_tells_what_became_of_a_schedule(shop, nightly, db_path, columns, told):
    plain(db_path, f"UPDATE flagsweep_schedule SET {columns}")
    assert re.search(told, schedule("list").stdout, re.MULTILINE)


def test_removing_asks_first_and_code_is_not_removed(shop, nightly):
    schedule(*WEEKLY)
    assert "Remove the schedule weekly?" in schedule("remove", "weekly", input="n\n", code=1).stderr
    assert schedule("remove", "weekly", input="y\n").stdout == "removed\n"
    assert "'weekly'" in line(schedule("remove", "weekly", "--yes", code=1))
    assert "pause it, or take it out of the code" in line(schedule("remove", "nightly", "--yes", code=2))


@pytest.mark.parametrize(
    ("options", "told", "caret"),
    [
        (["--cron", "0 25 * * *"], "hour: '25' is not from 0 to 23; .* such as '9-17'", 2),
        (["--cron", "0 4 * * mond"], "write 'MON'", 8),
        (["--cron", "민 4 * * 1"], "cannot stand in a spec: .* as in '0 4", 0),
        (["--cron", "0 4 * * 민"], "cannot stand in a spec", 8),
        (["--every", "10 minutes"], "write '10m'", 3),
        (["--at", "2990-02-30 18:00"], "that month has no day 30 .* write '2026-12-24 18:00'", 8),
    ],
)
def test_a_wrong_spec_is_shown_with_a_caret_below_the_mistake(shop, options, told, caret):
    first, text, below = schedule("add", "x", "nightly", *options, code=2).stderr.splitlines()
    assert re.search(told, first) and (text, below) == (f"    {options[1]}", f"    {' ' * caret}^")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "x", "nightly"], "say when 'x' fires"),
        (["add", "x", "nightly", "--cron", ""], "the spec is empty"),
        (["add", "x", "nightly", "--every", "1h", "--tz", ""], "zone '' is not known"),
        (["add", "x", "nightly", "--every", "1h", "--tz", "Asia/Soul"], "did you mean 'Asia/Seoul'"),
        (["add", "x", "nightly", "--every", "1h", "--at", "2990-01-01 00:00"], "give only one of"),
        (["add", "x", "ngihtly", "--every", "1h"], "no handler is registered for the kind 'ngihtly'"),
        (["add", "x", "send", "--every", "1h", "--arguments", "{"], "the arguments are not JSON"),
        (["add", "x", "send", "--every", "1h", "--arguments", "{}"], "missing a required argument: 'user_id'"),
        (["edit", "nightly"], "what is to be changed?"),
        (["pause", "nightly", "--until", "yesterday"], "--until must be how long from now, such as 2h, or a time"),
        (["pause", "nightly", "--until", "2020-01-01"], "until lies in the past"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(shop, arguments, told):
    assert told in schedule(*arguments, code=2).stderr.splitlines()[-1]


def test_without_handlers_what_is_typed_is_taken_as_it_is_and_said_so(shop, monkeypatch, db_path):
    monkeypatch.delenv("FLAGSWEEP_APP")
    monkeypatch.setenv("FLAGSWEEP_DATABASE", str(db_path))
    told = schedule("add", "x", "anything", "--every", "1h", "--arguments", '{"n": 1}').stdout
    assert told.endswith("    note    nothing here knows the kind 'anything': its arguments are not checked\n")
    assert "give a dict such as" in line(schedule("add", "y", "anything", "--every", "1h", "--arguments", "[1]", code=2))


def test_nothing_that_stands_in_a_schedule_steers_a_terminal(shop, nightly, db_path):
    schedule("pause", "nightly", "--reason", STEERING)
    plain(db_path, "UPDATE flagsweep_schedule SET name = ?, kind = ?, outcome = ?", *[f"n{STEERING}"] * 3)
    for output in (schedule("list").output, schedule("run", STEERING, code=1).output):
        assert output.replace("\n", "").isprintable() and "[2J" in output


@pytest.mark.long
def test_on_a_terminal_a_schedule_takes_few_lines_of_eighty_columns(shop, folder, env):
    schedule(*WEEKLY)
    schedule("add", "other", "send", "--every", "90s", "--tz", "America/Argentina/Buenos_Aires", "--arguments", "[17]")
    schedule("pause", "other", "--reason", "the mail server is moved to another house today, nobody knows for how long")
    shown, code = in_terminal(folder, env, "schedule", "list")
    assert code == 0 and max(map(width_of, shown.splitlines())) <= 80
    other, weekly = shown.split("weekly: ")
    assert len(weekly.splitlines()) == 3 and "Mondays at 04:00" in weekly and len(other.splitlines()) <= 6

"""Looking after gates: pause, resume, gates, lane, and a sweep that is forced."""

import json

import pytest
from calling import flagsweep, line
from rig import plain


def test_what_is_paused_waits_until_it_is_resumed_or_forced(shop):
    shop.send.raise_many([(1,), (2,)])
    told = "paused kind send; 'flagsweep resume send' has it go on\n"
    assert flagsweep("pause", "send", "--reason", "audit").stdout == told
    assert flagsweep("sweep").stdout == "nothing was due\n"
    assert flagsweep("sweep", "--force", "--limit", 1).stdout == "swept 1 flag: 1 lowered\n"
    assert flagsweep("resume", "send").stdout == "resumed kind send\n"
    assert flagsweep("sweep").stdout == "swept 1 flag: 1 lowered\n"
    assert flagsweep("resume", "send").stdout == "kind send: not paused; 'flagsweep gates' shows what is\n"


@pytest.mark.parametrize("what", [["--lane", "mail"], ["--all"]], ids=" ".join)
def test_a_lane_or_all_are_paused_by_option(shop, what):
    shop.send.raise_flag(1)
    assert f"'flagsweep resume {' '.join(what)}'" in flagsweep("pause", *what).stdout
    assert flagsweep("sweep").stdout == "nothing was due\n"
    flagsweep("resume", *what)
    assert flagsweep("sweep").stdout == "swept 1 flag: 1 lowered\n"


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize("what", [[], ["send", "--all"], ["send", "--lane", "mail"]], ids=" ".join)
def test_what_is_meant_must_be_said(shop, command, what):
    assert "Name one: KIND, --lane NAME" in flagsweep(command, *what, code=2).stderr


@pytest.mark.parametrize("until", ["2h", "2099-01-31T09:00"])
def test_a_pause_ends_at_a_time_or_after_one(shop, until):
    flagsweep("pause", "send", "--until", until)
    (gate,) = json.loads(flagsweep("gates", "--json").stdout)
    assert gate["closed"] and gate["until"] is not None
    assert "--until must be how long from now, such as 2h" in line(flagsweep("pause", "send", "--until", "soon", code=2))
    assert "lies in the past" in line(flagsweep("pause", "send", "--until", "2020-01-01", code=2))


def test_gates_show_why_until_when_how_many_wait_and_what_is_left(shop):
    assert flagsweep("gates").stdout == "nothing is closed, and no kind is limited\n"
    shop.flags.handler("sms", rate="1/h", limit=3)(lambda n: None).raise_many([(1,), (2,)])
    shop.flags.sweep()
    shop.send.raise_flag(1)
    shop.flags.pause("send", reason="au\x1bdit", by="ada")
    send, since, sms, until, limits = flagsweep("gates").stdout.splitlines()
    assert send == "kind send is closed: paused by ada: au\\x1bdit"
    assert since.startswith("    since 20") and since.endswith("until somebody resumes it; 1 due behind it")
    assert sms == "kind sms is closed: its rate of 1/h is used up"
    assert until.startswith("    until 20") and until.endswith("; 1 due behind it")
    assert limits.startswith("    rate 1/h, 0 left, more in ") and limits.endswith("; limit 3, 3 left")


def test_a_lane_has_threads_by_hand_until_it_has_those_of_its_settings(shop, db_path):
    assert flagsweep("lane", "mail", "--threads", 8).stdout == "lane mail has 8 threads\n"
    assert flagsweep("gates").stdout == "lane mail is open\n    threads 8\n"
    assert flagsweep("lane", "mail", "--threads", "default").stdout == "lane mail has as many threads as the settings say\n"
    assert plain(db_path, "SELECT threads FROM flagsweep_gate") == [(None,)]
    assert "--threads must be" in line(flagsweep("lane", "mail", "--threads", "many", code=2))
    assert "did you mean 'mail'?" in line(flagsweep("lane", "mial", "--threads", 2, code=2))


def test_without_an_app_names_are_taken_as_they_are(shop, monkeypatch, db_path):
    monkeypatch.delenv("FLAGSWEEP_APP")
    monkeypatch.setenv("FLAGSWEEP_DATABASE", str(db_path))
    assert "no flag and no schedule has it" in flagsweep("pause", "send").stderr
    result = flagsweep("gates")
    assert result.stdout.startswith("kind send is closed") and "known only with --app" in result.stderr
    assert not +shop.flags.sweep()

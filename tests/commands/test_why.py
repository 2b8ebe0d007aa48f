"""``flagsweep why``: what it takes, and what it prints."""

import json

import click
from calling import flagsweep
from click.testing import CliRunner

from flagsweep.commands.group import hosted


def test_why_says_what_it_is_about_why_and_what_helps(shop):
    flag = shop.send.raise_flag(1).id
    lines = flagsweep("why", flag).stdout.splitlines()
    assert lines[0] == f'flag {flag} (send {{"user_id":1}}): no-consumer'
    assert lines[1].startswith("  No consumer runs, so that nothing is swept: ")
    assert lines[-1] == "  -> flagsweep run"


def test_why_takes_a_kind_with_a_key_a_lane_a_schedule_or_nothing(shop):
    flag = shop.send.raise_flag(1).id
    shop.flags.schedules.add("hourly", "nightly", every="1h")
    about = f'flag {flag} (send {{"user_id":1}})'
    for arguments, what in (
        (["send", '{"user_id": 1}'], about),
        (["send", '{"user_id":1}'], about),
        (["send"], "kind send"),
        (["mail"], "lane mail"),
        (["--lane", "mail"], "lane mail"),
        (["hourly"], "schedule hourly"),
        (["--schedule", "hourly"], "schedule hourly"),
        ([], "the site"),
        ([flag + 1], f"flag {flag + 1}"),
        (["snd"], "snd"),
    ):
        assert flagsweep("why", *arguments).stdout.startswith(f"{what}: "), arguments


def test_why_refuses_two_names_and_a_key_without_a_kind(shop):
    flagsweep("why", "send", "--lane", "mail", code=2)
    flagsweep("why", "--lane", "mail", "--schedule", "hourly", code=2)


def test_why_prints_the_same_as_json(shop):
    shop.send.raise_flag(1)
    shop.flags.pause("send", by="ann", until="2h")
    told = json.loads(flagsweep("why", "send", "--json").stdout)
    assert (told["code"], told["what"], told["command"], told["ok"]) == (
        "kind-paused",
        "kind send",
        "flagsweep resume send",
        False,
    )
    assert told["since"] and told["until"] and told["last"] is not None
    assert [each["code"] for each in told["also"]] == ["no-consumer"]


def test_why_spells_out_what_would_steer_a_terminal(shop):
    flag = shop.send.raise_flag(1, how="fail").id
    shop.flags.sweep()
    for arguments in ([flag], [], ["send"]):
        shown = flagsweep("why", *arguments).stdout
        assert "\x1b" not in shown and "\u202e" not in shown
    assert "no user \\x1b[31m" in flagsweep("why", flag).stdout


def test_why_answers_without_handlers_where_only_the_database_is_named(shop, monkeypatch):
    flag = shop.send.raise_flag(1).id
    monkeypatch.delenv("FLAGSWEEP_APP")
    monkeypatch.setenv("FLAGSWEEP_DATABASE", "sqlite:///site.db")
    assert "no-consumer" in flagsweep("why", flag).stdout


def test_a_hosts_commands_are_named_as_they_are_called_there(shop):
    shop.send.raise_flag(1)
    host = click.Group("host", commands=[hosted(lambda: shop.flags, "the host's application")])
    shown = CliRunner().invoke(host, ["flagsweep", "why"], prog_name="host").output
    assert "  -> host flagsweep run\n" in shown

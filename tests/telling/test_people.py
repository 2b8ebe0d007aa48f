"""Whom the setting ``tell`` names: few messages, kept as flags, without payloads and without the secrets of URLs."""

import logging
import re

import pytest
from post import hook, mail_server
from rig import FakeClock

from flagsweep import FlagSweep
from flagsweep.errors import ConfigError

SECRET = "s3cret-of-the-payload"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(ready_url, clock):
    made = []

    def make(**settings):
        flags = FlagSweep(ready_url, clock=clock, **settings)
        flags.init()
        made.append(flags)

        @flags.handler(max_attempts=1, breaker=None)
        def send(user_id, word=SECRET):
            raise ValueError(f"no user {user_id}\r\nBcc: everybody@example.org" + "x" * 3000)

        flags.send = send
        return flags

    yield make
    for flags in made:
        flags.connections.close_thread()


@pytest.mark.long
def test_a_thousand_deaths_of_a_cause_are_one_message_an_hour(make, clock):
    with hook() as got:
        flags = make(tell=[got.url])
        flags.send.raise_many([{"user_id": number} for number in range(1000)])
        assert flags.sweep()["dead"] == 1000
        flags.sweep()
        (message,) = got
        assert message["title"].startswith("flagsweep: send died on ")
        assert re.search(r"is dead after attempt 1:\nValueError: no user \d+\n", message["message"])
        assert "flagsweep dead" in message["message"]
        assert len(message["message"]) < 2000
        assert SECRET not in str(message)
        clock.advance(3700)
        flags.retry(kind="send")
        flags.sweep()
        flags.sweep()
    assert len(got) == 2


@pytest.mark.long
def test_many_causes_are_a_handful_of_messages(make, clock):
    with hook() as got:
        flags = make(tell=[got.url])
        for number in range(40):
            flags.handler(kind=f"kind{number}", max_attempts=1, breaker=None)(lambda: 1 / 0).raise_flag()
        flags.sweep()
        flags.sweep()
    assert len(got) == 20
    assert sum("No other death is told within this hour." in each["message"] for each in got) == 1


def test_an_address_gets_a_mail_whose_header_holds_nothing_of_the_error(make, client):
    with mail_server() as box:
        flags = make(tell="owner@example.org", smtp=box.url)
        flags.send.raise_flag(1)
        client.ask("UPDATE flagsweep_flag SET key = ?", "a\r\nBcc: c@d")
        flags.sweep()
        flags.sweep()
    ((to, mail),) = box.mails
    assert to == ["owner@example.org"]
    assert mail["bcc"] is None
    assert mail["subject"].startswith("flagsweep: send died on ")


@pytest.mark.long
def test_what_could_not_be_sent_is_tried_again_by_itself_and_is_no_news(make, clock, caplog):
    told = []
    with hook() as good, hook(status=500) as bad:
        flags = make(tell=[bad.url, good.url], promise={"*": "1h"})
        flags.on_dead(lambda *death: told.append(death[0]))
        flags.send.raise_flag(1)
        flags.sweep()
        assert dict(flags.sweep()) == {"again": 1, "lowered": 1} or flags.find(kind="flagsweep.tell")
        for _ in range(12):
            clock.advance(7200)
            flags.sweep()
    assert len(good) == 1
    assert len(bad) > 2
    assert told.count("send") == 1
    assert "t0psecret" not in caplog.text + str([flag.error for flag in flags.find()])
    assert not any(record.name == "apprise" for record in caplog.records if record.levelno >= logging.WARNING)


def test_a_target_that_nobody_names_any_more_is_not_told(make, clock):
    with hook() as got:
        flags = make(tell=[got.url])
        flags.send.raise_flag(1)
        flags.sweep()
        later = make(tell=["json://127.0.0.1:9/other"])
        assert later.sweep()["discarded"] + 1 or flags.find(kind="flagsweep.tell") == []
    assert len(got) <= 1


@pytest.mark.parametrize("bad", ["owner", ["nobody here"], [7], {"a": 1}, ["a@b\r\nc"]])
def test_what_names_nobody_is_refused_without_being_shown(bad):
    with pytest.raises(ConfigError, match="tell must"):
        FlagSweep("site.db", tell=bad)


def test_what_apprise_does_not_understand_is_told_without_its_secrets(make, caplog):
    flags = make(tell=["nosuch://me:t0psecret@host"])
    flags.send.raise_flag(1)
    flags.sweep()
    flags.sweep()
    (flag,) = flags.find(kind="flagsweep.tell")
    assert "nosuch://***, which apprise does not understand" in flag.error
    assert "t0psecret" not in flag.error + caplog.text + repr(flags.settings)


def test_a_daily_digest_without_an_address_goes_to_those(make, clock):
    with hook() as got:
        flags = make(tell=[got.url], digest={"at": "07:30"})
        firing = flags._duties().firing()
        clock.advance(8 * 3600)
        firing.fire()
        flags.sweep()
        flags.sweep()
    assert [each["title"].split(" on ")[0] for each in got] == ["flagsweep: nobody sweeps"]


def test_the_lane_of_our_own_has_one_thread(make):
    assert make(tell=["a@b"])._duties().threads() == {"default": 4, "flagsweep": 1}

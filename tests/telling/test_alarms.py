"""Alarms: once when a lane breaks its promise, once when it keeps it again, over consumers and restarts."""

import json
import sys

import pytest
from post import hook
from rig import FakeClock

from flagsweep import FlagSweep
from flagsweep.telling.alarms import Alarms


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(ready_url, clock):
    made = []

    def make(**settings):
        flags = FlagSweep(ready_url, clock=clock, **{"promise": {"mail": "1m"}, **settings})
        flags.init()
        made.append(flags)

        @flags.handler(lane="mail")
        def send(user_id):
            pass

        @flags.handler
        def other():
            pass

        flags.send, flags.other, flags.told = send, other, []
        flags.on_alarm(lambda alarm: flags.told.append((alarm.lane, alarm.event)))
        flags.watch = flags._duties().promises
        return flags

    yield make
    for flags in made:
        flags._teller.flush()
        flags.connections.close_engine()
        flags.connections.close_thread()


def looked(flags, clock, times=1, apart=15):
    for _ in range(times):
        flags.watch.look()
        clock.advance(apart)
    flags._teller.flush()
    return flags.told


def test_a_broken_promise_is_told_once_and_once_more_when_it_is_kept_again(make, clock, client, caplog):
    flags = make()
    flags.send.raise_flag(7)
    assert looked(flags, clock, 4) == []
    clock.advance(60)
    assert looked(flags, clock) == []
    assert looked(flags, clock, 10) == [("mail", "began")]
    assert client.ask("SELECT name FROM flagsweep_fact WHERE name LIKE 'promise:%'") == [("promise:mail",)]
    flags.sweep()
    assert looked(flags, clock, 3) == [("mail", "began")]
    assert looked(flags, clock, 5) == [("mail", "began"), ("mail", "ended")]
    assert client.ask("SELECT name FROM flagsweep_fact WHERE name LIKE 'promise:%'") == []
    assert "lane mail breaks its promise: send waits for" in caplog.text


def test_a_lane_that_flutters_has_one_alarm(make, clock):
    flags = make()
    for _ in range(5):
        flags.send.raise_flag(7)
        clock.advance(80)
        looked(flags, clock, 2)
        flags.sweep()
        looked(flags, clock, 2)
    assert flags.told == [("mail", "began")]


def test_several_consumers_tell_once_and_a_new_one_tells_nothing_again(make, clock):
    one, two = make(), make()
    one.send.raise_flag(7)
    clock.advance(120)
    for _ in range(3):
        one.watch.look()
        two.watch.look()
        clock.advance(15)
    assert looked(one, clock) + looked(two, clock) == [("mail", "began")]
    later = make()
    assert looked(later, clock, 5) == []
    later.sweep()
    assert looked(later, clock, 8) == [("mail", "ended")]
    assert looked(one, clock, 8) + looked(two, clock, 8) == [("mail", "began")]


def test_what_somebody_paused_raises_no_alarm(make, clock):
    flags = make()
    flags.pause(lane="mail", reason="new mail server")
    flags.send.raise_flag(7)
    clock.advance(3600)
    assert looked(flags, clock, 4) == []
    flags.resume(lane="mail")
    assert looked(flags, clock, 4) == [("mail", "began")]


def test_a_lane_without_a_promise_raises_none_and_no_promise_costs_nothing(make, clock):
    flags = make()
    flags.other.raise_flag()
    clock.advance(86_400)
    assert looked(flags, clock, 4) == []
    assert make(promise={})._duties().promises is None


def test_another_application_ends_no_alarm_of_a_kind_that_it_does_not_know(make, clock, ready_url):
    flags = make(promise="1m")
    flags.send.raise_flag(7)
    clock.advance(120)
    assert looked(flags, clock, 3) == [("mail", "began")]
    others = make(promise="1m")
    del others._handlers.by_kind["send"]
    assert looked(others, clock, 20) == []
    assert flags._teller.promises().every == 15


def test_a_note_that_a_hand_has_damaged_hinders_nobody(make, clock, client):
    flags = make()
    client.ask("INSERT INTO flagsweep_fact (name, value, at) VALUES ('promise:mail', 'oops', 5)")
    assert looked(flags, clock, 10) == []


def test_it_is_told_by_apprise_too_and_no_url_stands_in_the_database(make, clock, client):
    with hook() as got:
        flags = make(tell=[got.url])
        flags.send.raise_flag(7)
        clock.advance(120)
        looked(flags, clock, 3)
        rows = json.dumps(client.ask("SELECT payload FROM flagsweep_flag WHERE kind = 'flagsweep.tell'"))
        assert rows != "[]"
        assert "t0psecret" not in rows
        flags.sweep()
        looked(flags, clock, 8)
        flags.sweep()
    assert [each["title"].split(" on ")[0] for each in got] == ["flagsweep: lane mail late", "flagsweep: lane mail well again"]
    assert "promised are 60 s" in got[0]["message"]


@pytest.mark.long
def test_a_consumer_that_stays_looks_by_itself(spawn, tmp_path, until):
    (tmp_path / "work.py").write_text(
        "import time\nfrom flagsweep import FlagSweep\n"
        "flags = FlagSweep('sqlite:///site.db', promise={'mail': '1s'}, lanes={'mail': 1}, shutdown_timeout=1)\nflags.init()\n"
        "@flags.handler(lane='mail')\ndef send(number):\n    time.sleep(8 if number == 1 else 0)\n"
        "@flags.on_alarm\ndef told(alarm):\n    open(alarm.event, 'a').write('x')\n"
        "if __name__ == '__main__':\n    send.raise_flag(1)\n    send.raise_flag(2)\n    flags.run()\n"
    )
    spawn(sys.executable, "work.py")
    until((tmp_path / "began").exists, limit=40)
    until((tmp_path / "ended").exists, limit=40)
    assert (tmp_path / "began").read_text() == (tmp_path / "ended").read_text() == "x"


def test_the_pace_follows_the_shortest_promise(make):
    assert isinstance(make().watch, Alarms)
    assert [make(promise=promise).watch.every for promise in ("1s", "20s", "1h")] == [2.0, 5.0, 15.0]

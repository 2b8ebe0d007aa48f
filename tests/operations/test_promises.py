"""How long due flags wait, against what was promised of their lanes."""

import pytest
from rig import NEW_YEAR, idle, plain

from flagsweep import FlagSweep
from flagsweep.config import SECOND
from flagsweep.operations.promises import UNSAID, breaches, promise_of, waits
from flagsweep.testing import FakeClock


def asked(flags, question=waits):
    with flags.connections.lent("asked") as db:
        handlers = {kind: flags.handler_of(kind) for kind in flags.handled}
        return question(db, flags.connections.dialect, flags.settings, handlers, flags.clock.now())


@pytest.fixture
def promising(ready_url, tmp_path):
    flags = FlagSweep(ready_url, clock=FakeClock(NEW_YEAR), promise={"mail": "1m"}, state_dir=str(tmp_path / "state"))
    flags.init()
    yield flags
    flags.connections.close_thread()


def test_a_promise_is_broken_once_the_oldest_due_flag_waits_for_longer(promising):
    send = idle(promising, "send", lane="mail")
    send.raise_flag(1), send.using(delay="30s", priority=9).raise_flag(2)
    assert asked(promising, breaches) == []
    promising.clock.advance(60)
    assert asked(promising, breaches) == []
    promising.clock.advance(1)
    (wait,) = asked(promising, breaches)
    assert (wait.lane, wait.kind, wait.waited_s, wait.promised_s, wait.held) == ("mail", "send", 61.0, 60.0, None)
    promising.sweep()
    assert asked(promising, breaches) == [] and asked(promising) == []


def test_what_backs_off_or_is_not_due_breaks_nothing(promising):
    send = promising.handler("send", lane="mail", backoff="1h")(lambda n: 1 / 0)
    send.raise_flag(1)
    promising.sweep()
    send.using(delay="2h").raise_flag(2)
    promising.clock.advance(1800)
    assert asked(promising) == []


def test_where_nobody_has_promised_anything_an_hour_is_worth_a_warning_and_no_breach(promising):
    idle(promising, "tidy").raise_flag()
    promising.clock.advance(UNSAID + 1)
    (wait,) = asked(promising)
    assert (wait.broken, wait.said, wait.promised_s) == (True, False, UNSAID)
    assert asked(promising, breaches) == []


def test_a_lane_that_is_not_named_has_the_promise_of_all_others(make):
    flags = make(promise={"mail": 60, "*": 300})
    assert [promise_of(lane, flags.settings) for lane in ("mail", "slow", "-")] == [(60, True), (300, True), (300, True)]


def test_the_longest_wait_of_each_lane_is_told_with_what_holds_it_back(make, clock):
    flags = make(promise="1m")
    send, tidy = idle(flags, "send", lane="mail"), idle(flags, "tidy", lane="slow")
    send.raise_flag(1), tidy.raise_flag(1), idle(flags, "later", lane="mail").using(delay=10).raise_flag(1)
    flags.pause(lane="slow", reason="moves", by="ann")
    clock.advance(90)
    mail, slow = asked(flags, breaches)
    assert (mail.lane, mail.kind, mail.held) == ("mail", "send", None)
    assert (slow.lane, slow.held, slow.by) == ("slow", "lane slow paused by ann: moves", "ann")


def test_quiet_hours_break_no_promise_and_what_waited_through_them_waits_since_their_end(make, clock):
    flags = make(promise="10m")  # It is midnight.
    idle(flags, "send", quiet="22:00-07:00").raise_flag(1)
    clock.advance(3 * 3600)
    (wait,) = asked(flags)
    assert (wait.quiet, wait.broken, wait.held) == (True, False, "quiet hours 22:00-07:00")
    clock.advance(4 * 3600 + 60)
    (wait,) = asked(flags)
    assert (wait.quiet, wait.broken, wait.waited_s) == (False, False, 60)
    clock.advance(600)
    assert asked(flags, breaches)


def test_a_pause_within_quiet_hours_is_a_pause(make, clock):
    flags = make(promise="10m")
    idle(flags, "send", quiet="22:00-07:00").raise_flag(1)
    flags.pause("send", by="ann")
    clock.advance(3600)
    (wait,) = asked(flags)
    assert wait.broken and wait.by == "ann"


def test_a_damaged_due_time_hides_no_other_flag(make, clock, db_path):
    flags = make(promise="1m")
    send = idle(flags, "send")
    send.raise_flag(1), idle(flags, "bad").raise_flag(2)
    plain(db_path, "UPDATE flagsweep_flag SET due_at = 'soon' WHERE kind = 'bad'")
    clock.advance(61)
    assert [wait.kind for wait in asked(flags, breaches)] == ["send"]


def test_what_waits_is_told_since_when_in_microseconds_of_the_database(make, clock):
    flags = make()
    idle(flags, "send").using(delay="1s").raise_flag(1)
    clock.advance(3)
    (wait,) = asked(flags)
    assert wait.waited_s == (flags.clock.now() - NEW_YEAR - SECOND) / SECOND == 2
    assert wait.to_dict()["broken"] is False

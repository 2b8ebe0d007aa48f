"""A clock to turn, and a drain that fails where a handler does."""

from datetime import timedelta

import pytest

from flagsweep import ConfigError
from flagsweep.config import SECOND
from flagsweep.testing import FakeClock, assert_raised, drain


def test_a_delayed_flag_is_done_once_the_clock_has_been_advanced(flags, send, clock):
    send.using(delay="5m").raise_flag(1)
    drain(flags)
    assert send.done == []
    clock.advance("5m")
    drain(flags)
    assert send.done == [1]


def test_a_fake_clock_stands_still_and_goes_on_by_any_duration():
    clock = FakeClock(7 * SECOND)
    clock.advance(1)
    clock.advance(timedelta(minutes=1))
    clock.advance("1h")
    assert (clock.now(), clock.monotonic()) == (7 * SECOND + 3661 * SECOND, 3661)
    with pytest.raises(ConfigError, match="by must"):
        clock.advance(-1)


def test_a_fake_clock_that_is_set_jumps_and_no_time_passes():
    clock = FakeClock()
    clock.set(5)
    assert (clock.now(), clock.monotonic()) == (5, 0)


def test_a_drain_raises_what_a_handler_raised_once_all_others_are_done(flags, send):
    @flags.handler
    def fail():
        raise RuntimeError("as it would in production")

    fail.raise_flag()
    send.raise_many([{"user_id": 1}, {"user_id": 2}])
    with pytest.raises(RuntimeError, match="as it would"):
        drain(flags)
    assert sorted(send.done) == [1, 2]


def test_a_drain_of_one_lane_leaves_the_others_alone(flags, send):
    @flags.handler(lane="mail")
    def mail(): ...

    mail.raise_flag()
    send.raise_flag(1)
    assert drain(flags, "mail")["lowered"] == 1
    assert_raised(flags, send)

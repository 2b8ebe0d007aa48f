"""What a site's tests get: a clock to turn, a drain that fails where a handler does, assertions, and crash points."""

import subprocess
import sys
from datetime import timedelta

import pytest
from peewee import BooleanField, Model

from flagsweep import ConfigError, FlagSweep, SignatureError, UnknownKind
from flagsweep.config import SECOND
from flagsweep.testing import POINTS, FakeClock, arm, assert_raised, drain, refute_raised


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def flags(db_path, clock):
    flags = FlagSweep(db_path, clock=clock)
    flags.init()
    return flags


@pytest.fixture
def send(flags):
    @flags.handler
    def send(user_id, text="hello"):
        send.done.append(user_id)

    send.done = []
    return send


# The clock and the drain.


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


# Assertions.


def test_assert_raised_returns_the_flag_that_has_the_arguments(flags, send):
    first, second = send.raise_flag(1), send.raise_flag(2, text="bye")
    assert assert_raised(flags, "send").id == first.id
    assert assert_raised(flags, send, user_id=2).id == second.id
    assert assert_raised(flags, send, text="hello").id == first.id, "a default counts as given"
    assert assert_raised(flags, send, user_id=2, text="bye").payload == {"user_id": 2, "text": "bye"}


def test_assert_raised_says_what_is_up_instead(flags, send):
    send.raise_flag(1)
    with pytest.raises(AssertionError, match=r"no flag of send with \{'user_id': 2\} is up; up are: \{'user_id': 1\}"):
        assert_raised(flags, send, user_id=2)


def test_refute_raised_names_the_flag_that_is_up(flags, send):
    send.raise_flag(1)
    refute_raised(flags, send, user_id=2)
    with pytest.raises(AssertionError, match="flag 1 of send is up"):
        refute_raised(flags, send)
    drain(flags)
    refute_raised(flags, send)


@pytest.mark.parametrize("check", [assert_raised, refute_raised])
def test_a_slip_of_the_keyboard_does_not_pass_for_a_flag_that_is_not_up(flags, send, check):
    with pytest.raises(SignatureError, match="has no argument usr_id"):
        check(flags, send, usr_id=1)
    with pytest.raises(UnknownKind):
        check(flags, "sned")


def test_own_rows_are_asserted_by_instance_or_by_primary_key(flags, send):
    class User(Model):
        new = BooleanField(default=True)

        class Meta:
            database = flags.database

    @flags.when(User.new)
    def greet(user): ...

    with flags.database.connection_context():
        flags.database.create_tables([User])
        user = User.create()
    greet.raise_flag(user)
    assert assert_raised(flags, greet, user=user) == assert_raised(flags, "greet", user=user.id) == assert_raised(flags, greet)
    refute_raised(flags, greet, user=99)


def test_arguments_are_compared_as_json_keeps_them(flags):
    @flags.handler
    def tag(names): ...

    tag.raise_flag(("a", "b"))
    assert_raised(flags, tag, names=("a", "b"))
    assert_raised(flags, tag, names=["a", "b"])


# Crash points.


def test_every_crash_point_says_where_it_lies():
    assert len(POINTS) >= 25
    assert all(point.name == name and 10 < len(point.text) < 90 for name, point in POINTS.items())


def test_without_the_variable_nothing_is_touched():
    before = [getattr(point.owner, point.method) for point in POINTS.values()]
    assert arm({}) is None
    assert [getattr(point.owner, point.method) for point in POINTS.values()] == before


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nowhere", "there are enlist.before"),
        ("claim.after:0", "n from 1"),
        ("claim.after:x", "n from 1"),
        (":2", "the point ''"),
    ],
)
def test_a_crash_point_that_does_not_exist_is_refused_at_once(text, problem):
    with pytest.raises(ConfigError, match=problem):
        arm({"FLAGSWEEP_CRASH_AT": text})


CRASH = """
import os
from flagsweep import FlagSweep, testing
testing.arm(os.environ)
flags = FlagSweep(os.environ["FILE"])
@flags.handler
def note(n): ...
flags.init()
for n in range(5):
    note.raise_flag(n)
"""


def test_a_process_dies_the_nth_time_it_reaches_its_point_and_leaves_the_name(db_path, tmp_path, env):
    log = tmp_path / "reached"
    names = {"FLAGSWEEP_CRASH_AT": "raise.after:3", "FLAGSWEEP_CRASH_LOG": str(log), "FILE": str(db_path)}
    done = subprocess.run([sys.executable, "-c", CRASH], env={**env, **names})
    assert done.returncode == -9 and log.read_text() == "raise.after\n"
    flags = FlagSweep(db_path)
    assert [flag.payload for flag in flags.find()] == [{"n": n} for n in range(3)]

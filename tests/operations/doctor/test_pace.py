"""What is found of lanes that do less than becomes due, and of kinds whose handlers got slower."""

from contextlib import closing

import pytest
from examined import count_runs, found

from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.terms import RUN
from flagsweep.operations.doctor.examine import examine


@pytest.fixture
def busy(flags_anywhere):
    """Give `busy(minutes, arrivals, runs, seconds)`: a site whose consumer has lived through some minutes.

    Each minute so many flags become due, and so many runs end, of so many seconds. Those that are done are no longer there.
    """
    flags = flags_anywhere
    send = flags.handler("send", lane="mail")(lambda number: None)
    number = iter(range(10**6))

    def busy(minutes, arrivals, runs, seconds, raised_in=None):
        for minute in range(minutes):
            count_runs(flags, "send", runs, seconds)
            if raised_in is None or minute in raised_in:
                for _ in range(6):
                    send.raise_many([(next(number),) for _ in range(arrivals // 6)])
                    flags.clock.advance(10)
            else:
                flags.clock.advance(60)
        return flags

    with closing(Enlisted(flags._duties(), RUN)):
        yield busy


def test_a_lane_that_falls_behind_is_told_with_the_threads_that_would_do(busy):
    flags = busy(8, arrivals=120, runs=12, seconds=10)
    finding = found(flags, "pace")
    assert finding.level == "warn" and "lane mail: 960 flags are due, the oldest for 8 min" in finding.text
    assert "120 a minute become due, 12 a minute are done, 10 s each: it falls behind" in finding.text
    assert "about 25 threads would do, it has 2" in finding.fix  # 2 a second, 10 s each, are 20; and a quarter more.
    assert "flagsweep lane mail --threads 25" in finding.fix and "lanes={'mail': 25}" in finding.fix


def test_where_the_threads_would_do_something_else_is_looked_for(busy):
    finding = found(busy(8, arrivals=120, runs=12, seconds=0.5), "pace")
    assert finding.level == "warn" and "more threads than its 2 would not help" in finding.fix


def test_a_heap_of_flags_at_once_is_no_pace_and_when_it_is_done_is_told(busy):
    finding = found(busy(8, arrivals=1200, runs=60, seconds=1, raised_in={0}), "pace")
    assert finding.level == "ok" and "it is done with them in about 20 min" in finding.text


def test_of_too_little_nothing_is_said(busy):
    flags = busy(1, arrivals=60, runs=4, seconds=1)
    assert "ask again in some minutes" in found(flags, "pace").text
    flags.clock.advance(180)
    assert found(flags, "pace").level == "ok" and "too little goes on" in found(flags, "pace").text


def test_what_waits_behind_a_closed_gate_is_not_slow(busy):
    flags = busy(8, arrivals=120, runs=12, seconds=10)
    flags.pause(kind="send")
    assert found(flags, "pace").level == "ok"


def test_limits_of_a_lanes_kinds_are_named_with_it(busy, flags_anywhere):
    flags_anywhere.handler("text", lane="mail", rate="10/m")(lambda number: None)
    assert "limits hold, too: text (rate 10/m)" in found(busy(8, arrivals=120, runs=12, seconds=10), "pace").fix


def test_tasks_are_counted_where_the_handlers_of_a_lane_are_async(flags_anywhere):
    async def ping(number): ...

    pinging = flags_anywhere.handler("ping", lane="net")(ping)
    with closing(Enlisted(flags_anywhere._duties(), RUN)):
        for minute in range(6):
            count_runs(flags_anywhere, "ping", 12, 60)
            for part in range(6):
                pinging.raise_many([(f"{minute} {part} {number}",) for number in range(40)])
                flags_anywhere.clock.advance(10)
        finding = found(flags_anywhere, "pace")
    assert finding.level == "warn" and "about 300 tasks would do, it has 100: tasks={'net': 300}" in finding.fix


def test_without_a_consumer_no_pace_is_told(flags):
    assert not [finding for finding in examine(flags) if finding.what == "pace"]


@pytest.fixture
def ran(flags_anywhere):
    """Give `ran(before, now)`: a kind that ran 40 times an hour, for so many seconds, for three days and then for three hours."""

    def ran(before, now):
        flags_anywhere.handler("send")(lambda number: None)
        for hours, seconds in ((3 * 24, before), (3, now)):
            for _ in range(hours):
                count_runs(flags_anywhere, "send", 40, seconds)
                flags_anywhere.clock.advance(3600)
        return flags_anywhere

    return ran


@pytest.mark.parametrize(
    ("before", "now", "level"),
    [(0.4, 2.4, "warn"), (0.4, 0.5, "ok"), (0.0020, 0.0021, "ok"), (0.001, 0.01, "ok"), (2.4, 0.4, "ok")],
)
def test_kinds_whose_runs_take_much_longer_than_before_are_told(ran, before, now, level):
    finding = found(ran(before, now), "slower kinds")
    assert finding.level == level
    if level == "warn":
        assert "a run of send takes 2.4 s on average of 120 within 3 h, and took 0.4 s of 2,880" in finding.text


def test_one_run_that_hung_makes_no_kind_slower(ran):
    flags = ran(0.4, 0.4)
    flags.clock.advance(-60)
    count_runs(flags, "send", 1, 1000)
    flags.clock.advance(60)
    assert found(flags, "slower kinds").level == "ok"


def test_too_few_runs_tell_nothing(flags_anywhere):
    flags_anywhere.handler("send")(lambda number: None)
    count_runs(flags_anywhere, "send", 29, 60)
    flags_anywhere.clock.advance(60)
    assert found(flags_anywhere, "slower kinds").text == "too few runs to tell"

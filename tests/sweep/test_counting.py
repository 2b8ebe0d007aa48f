"""What was done is counted with it, by kind and minute, and of what failed there is a line each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsweep import Discard, FlagSweep, Retry, Snooze
from flagsweep.config import EVENTS, SECOND
from flagsweep.databases.counts import DURATIONS
from flagsweep.models import Count
from flagsweep.sweep.records import FINE, Records
from flagsweep.sweep.tally import most_of, slot_of

DAY = 86400
HOWS = ("succeeded", "failed", "dead", "snoozed", "discarded", "expired")


@pytest.fixture
def flags(ready_url, clock, tmp_path):
    flags = FlagSweep(ready_url, clock=clock, state_dir=tmp_path / "state", threads=2)
    flags.init()
    yield flags
    flags.connections.close_thread()


@pytest.fixture
def work(flags):
    """Return a handler that ends as its argument says."""

    def work(how, n=0):
        if how == "fail":
            raise ValueError("no luck")
        if how != "work":
            raise {"snooze": Snooze("1h"), "discard": Discard("no use"), "wait": Retry("1h")}[how]

    return flags.handler("work", max_attempts=2, backoff=0, breaker=None)(work)


def counted(flags, **where):
    """Return the sums over all rows of counts."""
    with flags.connections.lent("") as db:
        rows = [row for row in Count.select().dicts().execute(db) if where.items() <= row.items()]
    return {name: sum(row[name] for row in rows) for name in (*HOWS, *DURATIONS, "spent")}, rows


def history(client):
    return client.ask("SELECT event, kind, attempt, reason, took IS NOT NULL FROM flagsweep_history ORDER BY id")


def test_what_became_of_flags_is_counted_by_kind_and_minute(flags, work, clock):
    for n, how in enumerate(["work", "work", "fail", "snooze", "discard", "wait"]):
        work.raise_flag(how, n)
    work.using(expires="1s").raise_flag("work", 9)
    flags.handler("other")(lambda: None).raise_flag()
    clock.advance(5)
    flags.sweep()
    sums, rows = counted(flags, kind="work")
    assert {how: sums[how] for how in HOWS} == dict(zip(HOWS, (2, 2, 1, 1, 1, 1), strict=True))
    assert sum(sums[name] for name in DURATIONS) == 7, "what expired did not run"
    assert sums["spent"] > 0 and all(row["longest"] <= sums["spent"] for row in rows)
    assert all(4 * SECOND <= row["waited"] <= 5 * SECOND for row in rows)
    assert {row["at"] for row in rows} == {clock.now() // (60 * SECOND) * 60 * SECOND}
    assert counted(flags, kind="other")[0]["succeeded"] == 1


def test_a_flag_that_was_no_longer_ours_counts_for_nothing(flags):
    flags.handler("work")(lambda: flags.lower("work", "{}")).raise_flag()
    assert +flags.sweep() == {"lost": 1}
    assert {how: counted(flags)[0][how] for how in HOWS} == dict.fromkeys(HOWS, 0)


def test_minutes_become_hours_after_two_days_and_hours_go_when_they_are_old(flags, work, clock):
    for minute in range(3):
        for n in range(minute + 1):
            work.raise_flag("work", n)
        flags.sweep()
        clock.advance(60)
    before, rows = counted(flags)
    records = Records(flags.connections)
    records.roll(14 * DAY, clock.now())
    assert counted(flags) == (before, rows), "two days are kept by the minute"
    clock.advance(FINE + 3600)
    records.roll(14 * DAY, clock.now())
    after, rows = counted(flags)
    assert after == before and [(row["span"], row["consumer"]) for row in rows] == [(3600, 0)]
    clock.advance(14 * DAY)
    records.roll(14 * DAY, clock.now())
    assert counted(flags)[1] == []


def test_each_failed_attempt_leaves_a_line_and_a_success_only_where_it_is_asked_for(flags, work, client, clock):
    work.raise_flag("work")
    work.raise_flag("fail")
    flags.handler("kept", history=True)(lambda: None).raise_flag()
    flags.sweep()
    lines = history(client)
    assert [line for line in lines if line[1] == "work"] == [
        ("failed", "work", 1, "ValueError: no luck", 1),
        ("dead", "work", 2, "ValueError: no luck", 1),
    ]
    assert [line for line in lines if line[1] == "kept"] == [("succeeded", "kept", 1, "", 1)]


def test_an_atomic_handlers_success_is_counted_and_kept_too(flags, client):
    flags.handler("work", atomic=True, history=True)(lambda: None).raise_flag()
    flags.sweep()
    assert counted(flags)[0]["succeeded"] == 1
    assert [line[:2] for line in history(client)] == [("succeeded", "work")]


def test_history_keeps_no_more_lines_than_it_may_and_each_event_as_long_as_it_should(flags, work, client, clock):
    work.raise_many([("fail", n) for n in range(5)])
    flags.sweep()
    work.raise_flag("discard", 9)
    flags.sweep()
    records, keep = Records(flags.connections), dict.fromkeys(EVENTS, 30.0 * DAY)
    assert len(history(client)) == 11
    assert records.prune(keep, 8, clock.now()) == 3 and len(history(client)) == 8
    clock.advance(DAY)
    records.prune({**keep, "failed": 3600.0}, 100, clock.now())
    assert {line[0] for line in history(client)} == {"dead", "discarded"}
    clock.advance(30 * DAY)
    records.prune(keep, 100, clock.now())
    assert history(client) == []


@given(st.integers(0, 2**45))
def test_a_duration_is_counted_where_it_belongs(took):
    slot = slot_of(took)
    assert slot == len(DURATIONS) - 1 or took < most_of(slot) * SECOND
    assert slot == 0 or took >= most_of(slot - 1) * SECOND

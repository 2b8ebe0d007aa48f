"""How each kind does: what is due, how much is done, how well, and how long it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import let_go

from flagsweep import FlagSweep, KindInfo, Snooze
from flagsweep.config import SECOND
from flagsweep.databases.counts import COLUMNS, DURATIONS
from flagsweep.operations.kinds import reached_by
from flagsweep.sweep.tally import slot_of

IDLE = {"due": 0, "oldest_due_s": None, "per_minute": 0.0, "success": None, "p50_s": None, "p95_s": None, "busy_s": 0.0}


@pytest.fixture
def flags(ready_url, clock, tmp_path):
    flags = FlagSweep(ready_url, clock=clock, state_dir=str(tmp_path / "state"), threads=1)
    flags.init()
    yield flags
    flags.connections.close_thread()
    let_go(tmp_path)


def count(flags, ago, kind="work", span=60, **counts):
    """Count what became of flags some seconds ago."""
    at = (flags.clock.now() - ago * SECOND) // (60 * SECOND) * 60 * SECOND
    row = {**dict.fromkeys(COLUMNS, 0), "kind": kind, "span": span, "at": at, "consumer": 1, **counts}
    with flags.connections.lent("") as db:
        flags.connections.dialect.count(db, [tuple(row.values())])


def only(flags):
    (info,) = flags.kinds()
    return info


def test_a_kind_that_did_nothing_is_shown_where_it_has_a_handler(flags):
    flags.handler("work", lane="mail", aliases="former")(lambda: None)
    assert only(flags) == KindInfo("work", "mail", **IDLE)
    assert only(flags).to_dict() == {"kind": "work", "lane": "mail", **IDLE}


def test_what_is_due_is_shown_of_kinds_without_a_handler_too(flags, clock):
    work = flags.handler("work")(lambda n: None)
    work.raise_many([(1,), (2,)])
    clock.advance(30)
    work.raise_flag(3)
    work.using(delay="1h").raise_flag(4)
    other = FlagSweep(flags.settings.database, clock=clock, state_dir=flags.settings.state_dir)
    for site, lane in ((flags, "default"), (other, "-")):
        info = only(site)
        assert (info.lane, info.due, info.oldest_due_s) == (lane, 3, 30.0)
    other.connections.close_thread()


def test_runs_are_shown_as_they_were_counted(flags, clock):
    def work(n):
        if n:
            raise {1: ValueError(), 2: Snooze("1h")}[n]

    handler = flags.handler("work", max_attempts=1)(work)
    handler.raise_many([(0,), (1,), (2,)])
    clock.advance(10)
    flags.sweep()
    info = only(flags)
    assert (info.success, info.per_minute) == (0.5, round(3 / (4 + 10 / 60), 3))
    assert 0 < info.busy_s < 60 and 0 < info.p50_s <= info.p95_s < 60


def test_only_the_last_minutes_tell_the_pace_and_only_the_last_day_the_rest(flags, clock):
    clock.advance(30)
    for ago, many in ((25 * 3600, 1000), (23 * 3600, 100), (301, 10), (200, 6), (0, 3)):
        count(flags, ago, succeeded=many, d3=many, spent=many * SECOND, longest=SECOND)
    count(flags, 3600, span=3600, succeeded=10_000, d3=10_000)
    info = only(flags)
    assert (info.per_minute, info.busy_s, info.success) == (2.0, 119.0, 1.0)


def test_consumers_and_minutes_are_added_up_by_kind(flags):
    for consumer in (1, 2):
        for ago in (60, 120):
            count(flags, ago, consumer=consumer, succeeded=3, failed=1, d2=4)
    count(flags, 60, kind="mail", dead=1, d12=1, longest=9000 * SECOND)
    mail, work = flags.kinds()
    assert (work.success, work.p50_s, work.p95_s) == (0.75, 0.008192, 0.008192)
    assert (mail.success, mail.p95_s) == (0.0, 9000.0), "the last slot has no bound but the longest run"


@given(st.lists(st.integers(0, 2**40), min_size=1), st.sampled_from([0.5, 0.95]))
def test_as_many_runs_as_said_stay_under_the_bound_and_it_is_no_more_than_four_times_too_high(took, share):
    counts = {**dict.fromkeys(DURATIONS, 0), "longest": max(took)}
    for each in took:
        counts[DURATIONS[slot_of(each)]] += 1
    bound = round(reached_by(counts, share) * SECOND)
    assert sum(each <= bound for each in took) >= share * len(took)
    exact = sorted(took)[max(0, -int(-share * len(took) // 1) - 1)]
    assert slot_of(exact) == 12 or bound <= max(512, 4 * exact)

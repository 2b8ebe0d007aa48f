"""A sweep in this process: what it does, in which order, what it counts, and how it is stopped."""

import os
import signal
import sqlite3
import threading
from contextlib import closing

import pytest
from rig import count, ended, forked, idle, locked

from flagsweep import ConfigError, DatabaseAway, FlagSweepError, LaneStuck, NotReady, Snooze
from flagsweep.sweep.perform import Performer


def test_a_sweep_of_nothing_counts_nothing(flags):
    idle(flags)
    assert flags.sweep() == {}


def test_a_file_that_is_deleted_after_a_sweep_is_made_anew_by_init_in_the_same_process(flags, db_path):
    """A consumer that had left went on guarding the file it had swept."""
    work = idle(flags)
    work.raise_flag()
    assert flags.sweep() == {"lowered": 1}
    os.link(db_path, db_path.with_name("aside"))  # Else the new file may get the number of the old one, and pass for it.
    for path in db_path.parent.glob("site.db*"):
        path.unlink() if path.is_file() else None
    with pytest.raises(NotReady, match="flagsweep init"):
        flags.sweep()
    assert flags.init() is True
    work.raise_flag()
    assert flags.sweep() == {"lowered": 1}


def test_a_sweep_counts_each_outcome(flags, clock):
    @flags.handler(max_attempts=2)
    def work(how):
        if how == "snooze":
            raise Snooze(60)
        if how == "fail":
            raise ValueError("no")

    work.raise_many([("fine",), ("snooze",), ("fail",), ("well",)])
    assert flags.sweep() == {"lowered": 2, "snoozed": 1, "again": 1}
    clock.advance(20)
    assert flags.sweep() == {"dead": 1}


def test_a_sweep_inside_a_transaction_is_refused(flags):
    work = idle(flags)
    with flags.database.atomic():
        work.raise_flag()
        with pytest.raises(FlagSweepError, match="inside an open transaction"):
            flags.sweep()
    assert flags.sweep() == {"lowered": 1}


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT mine"])
def test_a_sweep_inside_a_transaction_begun_by_hand_is_refused(flags, begin):
    work = idle(flags)
    flags.database.connect()
    flags.database.execute_sql(begin)
    work.raise_flag()
    with pytest.raises(FlagSweepError, match="inside an open transaction"):
        flags.sweep()
    flags.database.connection().commit()
    assert flags.sweep() == {"lowered": 1}


def test_a_sweep_of_one_lane_leaves_the_others(flags):
    mail, slow = idle(flags, "mail", lane="mail"), idle(flags, "slow", lane="slow")
    mail.raise_flag()
    slow.raise_flag()
    assert flags.sweep(lane="mail") == {"lowered": 1}
    assert [flag.kind for flag in flags.find()] == ["slow"]


def test_a_lane_that_nobody_names_is_refused_with_those_there_are(make):
    flags = make(lanes={"mail": 1})
    idle(flags, lane="slow")
    with pytest.raises(ConfigError, match="no handler is in lane 'mial'; lanes are mail, slow"):
        flags.sweep(lane="mial")
    assert flags.sweep(lane="mail") == {}


@pytest.mark.parametrize("limit", [0, 1, 3, 7, 100])
def test_a_limit_bounds_what_is_claimed(flags, limit):
    idle(flags).raise_many([(n,) for n in range(10)])
    assert flags.sweep(limit=limit)["lowered"] == min(limit, 10)
    assert len(flags.find()) == max(0, 10 - limit)


@pytest.mark.parametrize("limit", [-1, 1.5, True, "5"])
def test_a_bad_limit_is_refused(flags, limit):
    with pytest.raises(ConfigError, match="limit must be a whole number from 0"):
        flags.sweep(limit=limit)


def test_the_most_urgent_and_the_longest_due_come_first(make, clock):
    flags = make(threads=1)
    order = []
    work = flags.handler("work")(lambda n: order.append(n))
    for n, priority in enumerate([0, 5, -5, 5, 0]):
        work.using(priority=priority).raise_flag(n)
        clock.advance(1)
    while flags.sweep(limit=1):
        pass
    assert order == [1, 3, 0, 4, 2]


def test_a_flood_of_one_kind_starves_no_other(make):
    flags = make(threads=1)
    order = []
    flood = flags.handler("flood")(lambda n: order.append("flood"))
    drip = flags.handler("drip")(lambda: order.append("drip"))
    flood.raise_many([(n,) for n in range(500)])
    drip.raise_flag()
    flags.sweep()
    assert order.index("drip") < 100


def test_progress_is_told_of_all_lanes_together(flags):
    told = []
    for lane in ("one", "two"):
        idle(flags, lane, lane=lane).raise_many([(n,) for n in range(100)])
    total = flags.sweep(progress=lambda counts: told.append(counts["lowered"]))
    assert told == sorted(told)
    assert told[-1] == total["lowered"] == 200


def test_an_error_of_progress_loses_nothing(flags):
    idle(flags).raise_many([(n,) for n in range(100)])

    def progress(counts):
        raise BrokenPipeError("the terminal is gone")

    with pytest.raises(BrokenPipeError):
        flags.sweep(progress=progress)
    assert all(flag.state == "waiting" for flag in flags.find())
    flags.sweep()
    assert flags.find() == []


class Watch:
    """Stand in for the module `time`: sleeping takes no time."""

    def __init__(self):
        self.passed = 0.0

    def monotonic(self):
        return self.passed

    def sleep(self, seconds):
        self.passed += seconds


def test_counts_survive_a_database_that_is_away_for_a_moment(flags, monkeypatch):
    done = []
    flags.handler("work")(lambda n: done.append(n)).raise_many([(n,) for n in range(500)])
    lower, failed = flags.store.lower, []

    def away(*arguments):
        if len(done) > 100 and not failed:
            failed.append(1)
            raise locked()
        return lower(*arguments)

    monkeypatch.setattr(flags.store, "lower", away)
    monkeypatch.setattr("flagsweep.consumer.once.time", Watch())
    assert flags.sweep(limit=400) == {"lowered": 400}
    assert len(set(done)) == len(done) == 400


def test_a_long_sweep_survives_several_short_outages(make, monkeypatch):
    flags = make(shutdown_timeout=8, batch=50)
    idle(flags).raise_many([(n,) for n in range(2000)])
    watch, lower, calls = Watch(), flags.store.lower, []

    def sometimes_away(*arguments):
        calls.append(1)
        if len(calls) % 3 == 0:
            raise locked()
        return lower(*arguments)

    monkeypatch.setattr(flags.store, "lower", sometimes_away)
    monkeypatch.setattr("flagsweep.consumer.once.time", watch)
    assert flags.sweep(progress=lambda counts: watch.sleep(100)) == {"lowered": 2000}
    assert len(calls) > 5


@pytest.mark.long
def test_a_database_that_stays_away_is_told(make, db_path):
    flags = make(shutdown_timeout=0)
    work = idle(flags)
    work.raise_flag()
    flags.connections.engine._timeout = 0.01
    with closing(sqlite3.connect(db_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseAway, match="database is locked") as caught:
            flags.sweep()
    assert str(db_path) in str(caught.value)
    assert flags.sweep() == {"lowered": 1}


def test_outcomes_of_fast_flags_are_settled_while_a_slow_one_runs(flags, db_path, until):
    released = threading.Event()
    seen = []

    @flags.handler
    def work(n):
        if n == 0:
            seen.append(released.wait(20))

    work.raise_many([(n,) for n in range(50)])
    sweeping = threading.Thread(target=lambda: seen.append(flags.sweep()))
    sweeping.start()
    until(lambda: count(db_path) == 1)
    released.set()
    sweeping.join(20)
    assert seen == [True, {"lowered": 50}]


@pytest.mark.parametrize("threads", [1, 8])
def test_as_many_handlers_overlap_as_a_lane_has_threads(make, threads):
    flags = make(lanes={"default": threads})
    lock, all_in = threading.Lock(), threading.Barrier(threads, timeout=10)
    running, most = [0], [0]

    @flags.handler
    def work(n):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        all_in.wait()
        with lock:
            running[0] -= 1

    work.raise_many([(n,) for n in range(threads * 20)])
    assert flags.sweep() == {"lowered": threads * 20}
    assert most[0] == threads


@pytest.mark.long
def test_500_handlers_that_wait_overlap(make):
    flags = make(lanes={"default": 8})
    pause, lock = threading.Event(), threading.Lock()
    running, seen = [0], []

    @flags.handler
    def work(n):
        with lock:
            running[0] += 1
            seen.append(running[0])
        pause.wait(0.01)
        with lock:
            running[0] -= 1

    work.raise_many([(n,) for n in range(500)])
    assert flags.sweep() == {"lowered": 500}
    assert max(seen) == 8
    assert sum(seen) / len(seen) > 5


@pytest.mark.long
def test_a_sweep_whose_thread_died_ends_and_what_it_had_is_free_once_its_process_has_ended(make, monkeypatch):
    """It waited for ever for the outcome, and held its lease."""
    flags = make(lanes={"default": 2})
    work, perform = idle(flags), Performer.perform
    work.raise_many([(n,) for n in range(50)])
    flags.connections.close_thread()

    def dies(performer, claimed):
        if claimed.payload["n"] == 5:
            raise MemoryError("no more")
        return perform(performer, claimed)

    def sweep():
        monkeypatch.setattr(Performer, "perform", dies)
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        with pytest.raises(LaneStuck, match=r"^lane default is stuck: a thread died; what it ran is free once this process has"):
            flags.sweep()
        assert [flag.payload["n"] for flag in flags.find(state="claimed")] == [5]

    assert ended(forked(sweep)) == 0
    left = flags.find()
    assert 5 in [flag.payload["n"] for flag in left]
    assert flags.sweep() == {"lowered": len(left)}


@pytest.mark.long
def test_ctrl_c_gives_back_what_has_not_started_and_settles_what_runs(make):
    flags = make(lanes={"default": 1})
    started, done = [], []

    @flags.handler
    def work(n):
        started.append(n)
        if len(started) == 300:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        done.append(n)

    work.raise_many([(n,) for n in range(20_000)])
    with pytest.raises(KeyboardInterrupt):
        flags.sweep()
    assert len(done) < 20_000
    left = flags.find(limit=None)
    assert {flag.state for flag in left} == {"waiting"}
    assert {flag.attempts for flag in left} == {0}
    assert {flag.payload["n"] for flag in left} == set(range(20_000)) - set(done)
    assert flags.status()["consumers"] == []


@pytest.mark.long
def test_stop_gives_back_what_has_not_started(make):
    flags = make(lanes={"default": 1})
    done = []

    @flags.handler
    def work(n):
        done.append(n)
        if len(done) == 50:
            flags.stop()

    work.raise_many([(n,) for n in range(5000)])
    counts = flags.sweep()
    assert counts["lowered"] == len(done) < 5000
    assert {flag.state for flag in flags.find(limit=None)} == {"waiting"}
    assert flags.sweep() == {"lowered": 5000 - counts["lowered"]}

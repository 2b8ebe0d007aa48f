"""FlagSweep as a site uses it: sweeping, looking after flags, and sharing a process, a file and a connection with the site."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime

import pytest
from peewee import SqliteDatabase
from rig import NEW_YEAR, FakeClock, count, let_go, locked, plain

from flagsweep import ConfigError, DatabaseAway, FlagSweep, FlagSweepError, NotReady, Snooze, UnknownKind
from flagsweep.config import SECOND


class Oops(Exception):
    """Roll a transaction back."""


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(db_path, clock):
    """Give `make(**settings)`: flags with their tables on the test's database."""
    made = []

    def make(path=db_path, **settings):
        made.append(FlagSweep(path, **{"clock": clock, "threads": 2, **settings}))
        made[-1].init()
        return made[-1]

    yield make
    for flags in made:
        flags.database.close()
    let_go(db_path.parent)


@pytest.fixture
def flags(make):
    return make()


def idle(flags, kind="work", **options):
    """Return a handler that does nothing."""
    return flags.handler(kind, **options)(lambda n=0: None)


# Sweeping.


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
    monkeypatch.setattr("flagsweep.app.time", Watch())
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
    monkeypatch.setattr("flagsweep.app.time", watch)
    assert flags.sweep(progress=lambda counts: watch.sleep(100)) == {"lowered": 2000}
    assert len(calls) > 5


def test_a_database_that_stays_away_is_told(make, db_path):
    flags = make(shutdown_timeout=0)
    work = idle(flags)
    work.raise_flag()
    flags.store.engine._timeout = 0.01
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


# Raising, as far as the transaction is concerned.


def test_a_raise_in_a_transaction_that_rolls_back_leaves_nothing(flags, db_path):
    work = idle(flags)
    with flags.database.atomic() as transaction:
        assert work.raise_flag(1).how == "new"
        assert work.raise_many([(2,), (3,)]) == {"new": 2}
        transaction.rollback()
    with pytest.raises(Oops), flags.database.atomic():
        work.raise_flag(4)
        raise Oops
    assert count(db_path) == 0


def test_a_raise_is_seen_when_its_transaction_commits_and_not_before(flags, db_path):
    work = idle(flags)
    with flags.database.atomic():
        work.raise_flag(1)
        assert count(db_path) == 0
    assert count(db_path) == 1


def test_a_savepoint_that_rolls_back_takes_its_flags_with_it(flags):
    work = idle(flags)
    with flags.database.atomic():
        work.raise_flag(1)
        with pytest.raises(Oops), flags.database.atomic():
            work.raise_flag(2)
            raise Oops
    assert [flag.payload for flag in flags.find()] == [{"n": 1}]


def test_100_000_raises_are_one_transaction(flags, db_path):
    work = idle(flags)
    with flags.database.atomic():
        assert work.raise_many({"n": n} for n in range(100_000)) == {"new": 100_000}
        assert count(db_path) == 0
    assert count(db_path) == 100_000
    assert plain(db_path, "SELECT count(DISTINCT key) FROM flagsweep_flag") == [(100_000,)]


def test_many_raises_of_which_one_is_bad_raise_none(flags, db_path):
    work = idle(flags)
    with pytest.raises(ValueError, match="item 5000"):
        work.raise_many([{"n": n} for n in range(5000)] + [{"n": float("nan")}])
    assert count(db_path) == 0


# Looking after flags.


def test_status_has_the_shape_that_is_promised(flags, clock):
    work = idle(flags, lane="mail")
    work.raise_flag(1)
    work.using(delay=60).raise_flag(2)
    clock.advance(5)
    status = flags.status()
    assert status == {
        "lanes": {"mail": {"waiting": 2, "due": 1, "claimed": 0, "dead": 0, "oldest_due_s": 5.0}},
        "consumers": [],
    }


def test_status_shows_lanes_in_which_nothing_is_up(make):
    flags = make(lanes={"mail": 4})
    idle(flags, lane="slow")
    empty = {"waiting": 0, "due": 0, "claimed": 0, "dead": 0, "oldest_due_s": None}
    assert flags.status()["lanes"] == {"mail": empty, "slow": empty}


def test_status_during_a_sweep_shows_the_claim_and_the_consumer(flags):
    seen = []
    work = flags.handler("work")(lambda: seen.append(flags.status()))
    work.raise_flag()
    flags.sweep()
    (status,) = seen
    assert status["lanes"]["default"]["claimed"] == 1
    (consumer,) = status["consumers"]
    assert set(consumer) == {"id", "mode", "pid", "host", "started_at", "alive"}
    assert (consumer["mode"], consumer["alive"]) == ("sweep", True)
    assert flags.status()["consumers"] == []


def test_a_kind_without_a_handler_waits_and_is_shown(flags, make):
    idle(flags, "known").raise_flag()
    idle(flags, "gone").raise_flag()
    other = make()
    idle(other, "known")
    assert other.sweep() == {"lowered": 1}
    assert other.status()["lanes"]["-"]["waiting"] == 1
    assert [flag.kind for flag in other.find(lane="-")] == ["gone"]
    assert [flag.lane for flag in other.find()] == ["-"]
    with pytest.raises(UnknownKind, match="no handler is registered for the kind 'gone'; there are known"):
        other.handler_of("gone")


def test_an_alias_takes_over_flags_of_a_former_kind(flags, make):
    idle(flags, "former").raise_flag()
    other = make()
    idle(other, "present", aliases="former")
    assert other.status()["lanes"]["default"]["waiting"] == 1
    assert list(other.handlers) == ["present"]
    assert other.sweep() == {"lowered": 1}


def test_find_shows_a_flag_whole(flags):
    work = idle(flags, lane="mail", priority=3)
    id = work.using(delay=60, key="k").raise_flag(1).id
    (flag,) = flags.find()
    assert (flag.id, flag.kind, flag.key, flag.payload, flag.state) == (id, "work", "k", {"n": 1}, "waiting")
    assert (flag.lane, flag.priority, flag.attempts, flag.crashes, flag.generation) == ("mail", 3, 0, 0, 1)
    assert flag.due_at == datetime.fromtimestamp(NEW_YEAR / SECOND + 60, UTC)
    assert flag.raised_at == datetime.fromtimestamp(NEW_YEAR / SECOND, UTC)
    assert (flag.error, flag.cursor, flag.claimed_by, flag.claimed_at, flag.died_at) == (None,) * 5
    assert flag.to_dict()["due_at"] == "2026-01-01T00:01:00+00:00"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [1, 2, 3, 4]),
        ({"kind": "work"}, [1, 2, 3]),
        ({"kind": "none"}, []),
        ({"state": "dead"}, [1]),
        ({"state": "waiting", "kind": "work"}, [2, 3]),
        ({"key": "k2"}, [2]),
        ({"lane": "mail"}, [4]),
        ({"lane": "-"}, []),
        ({"lane": "none"}, []),
        ({"id": 3}, [3]),
        ({"id": [4, 2, 99]}, [2, 4]),
        ({"id": []}, []),
        ({"due": True}, [2, 4]),
        ({"due": False}, [1, 3]),
        ({"limit": 2}, [1, 2]),
        ({"limit": 0}, []),
        ({"limit": None}, [1, 2, 3, 4]),
        ({"kind": "work", "state": "dead", "key": "k2"}, []),
    ],
    ids=str,
)
def test_find_meets_all_that_is_given(flags, conditions, expected):
    def work(n):
        raise ValueError("no")

    work = flags.handler(max_attempts=1)(work)
    other = idle(flags, "other", lane="mail")
    ids = {1: work.using(key="k1").raise_flag(1).id}
    flags.sweep()
    ids[2] = work.using(key="k2").raise_flag(2).id
    ids[3] = work.using(key="k3", delay=60).raise_flag(3).id
    ids[4] = other.raise_flag(4).id
    names = {id: name for name, id in ids.items()}
    if "id" in conditions:
        given = conditions["id"]
        conditions = {"id": ids[given] if isinstance(given, int) else [ids.get(name, 10**6) for name in given]}
    assert [names[flag.id] for flag in flags.find(**conditions)] == expected


@pytest.mark.parametrize("conditions", [{"state": "lost"}, {"limit": -1}, {"limit": "5"}], ids=str)
def test_find_refuses_what_cannot_be_meant(flags, conditions):
    with pytest.raises(ConfigError):
        flags.find(**conditions)


@pytest.fixture
def mixed(flags, clock):
    """Return flags of the kind `work`: 0 is dead, 1 backs off, 2 waits, 3 snoozes; and a dead one of the kind `other`: 4."""

    def perform(n):
        if n == 3:
            raise Snooze(60)
        raise ValueError("no")

    work = flags.handler("work", max_attempts=2)(perform)
    other = flags.handler("other", max_attempts=1)(perform)
    flags.ids = {0: work.raise_flag(0).id, 4: other.raise_flag(4).id}
    flags.sweep()
    clock.advance(20)
    flags.sweep()
    flags.ids |= {n: work.raise_flag(n).id for n in (1, 3)}
    flags.sweep()
    flags.ids[2] = work.raise_flag(2).id
    return flags


def states(flags):
    return {flag.payload["n"]: flag.state for flag in flags.find()}


def test_retry_lets_dead_flags_and_those_that_back_off_be_due_now(mixed, clock):
    assert states(mixed) == {0: "dead", 1: "waiting", 2: "waiting", 3: "waiting", 4: "dead"}
    assert mixed.retry() == 3
    flags = {flag.payload["n"]: flag for flag in mixed.find()}
    assert {flag.state for flag in flags.values()} == {"waiting"}
    assert [flags[n].attempts for n in range(5)] == [0] * 5
    assert {n for n, flag in flags.items() if flag.due_at.timestamp() * SECOND <= clock.now()} == {0, 1, 2, 4}


def test_retry_takes_an_id_ids_a_kind_or_a_key(mixed):
    assert mixed.retry(id=mixed.ids[0]) == 1
    assert mixed.retry(id=[mixed.ids[4], 10**6]) == 1
    assert mixed.retry(kind="work", key='{"n":1}') == 1
    assert mixed.retry(kind="none") == 0
    assert mixed.retry(id=mixed.ids[2]) == 0


def test_discard_drops_dead_flags_alone_and_keeps_the_reason(mixed, db_path):
    assert mixed.discard(kind="work", reason="they left") == 1
    assert states(mixed) == {1: "waiting", 2: "waiting", 3: "waiting", 4: "dead"}
    assert mixed.discard(id=mixed.ids[2]) == 0
    assert mixed.discard() == 1
    assert plain(db_path, "SELECT kind, event, reason FROM flagsweep_history") == [
        ("work", "discarded", "they left"),
        ("other", "discarded", "by hand"),
    ]


def test_thousands_of_dead_flags_are_retried_or_discarded_together(flags, db_path):
    idle(flags).raise_many([(n,) for n in range(3000)])
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead', died_at = 0")
    flags.database.connect()
    if hasattr(sqlite3.Connection, "setlimit"):
        flags.database.connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 3000)
    assert flags.retry() == 3000
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead', died_at = 0")
    assert flags.discard() == 3000
    assert (count(db_path), count(db_path, "flagsweep_history")) == (0, 3000)


def test_lower_takes_a_flag_down_whatever_its_state(mixed, db_path):
    for n in (0, 1, 2):
        assert mixed.lower("work", f'{{"n":{n}}}') is True
        assert mixed.lower("work", f'{{"n":{n}}}') is False
    assert sorted(states(mixed)) == [3, 4]
    assert {reason for (reason,) in plain(db_path, "SELECT reason FROM flagsweep_history")} == {"was dead", "was waiting"}


def test_lower_of_a_running_flag_lets_its_handler_end_and_counts_it_lost(flags, db_path):
    done = []

    @flags.handler
    def work():
        assert flags.lower("work", "{}")
        done.append(1)

    work.raise_flag()
    assert flags.sweep() == {"lost": 1}
    assert (done, count(db_path)) == ([1], 0)


def test_a_flag_that_was_lowered_and_raised_anew_while_its_handler_ran_is_run(flags):
    runs = []

    @flags.handler
    def work():
        runs.append(1)
        if len(runs) == 1:
            flags.lower("work", "{}")
            assert work.raise_flag().how == "new"

    work.raise_flag()
    assert flags.sweep() == {"lost": 1, "lowered": 1}
    assert len(runs) == 2


def test_what_a_person_does_joins_the_transaction_that_is_open(flags):
    work = idle(flags)
    work.raise_flag()
    with pytest.raises(Oops), flags.database.atomic():
        flags.lower("work", "{}")
        assert flags.find() == []
        raise Oops
    assert len(flags.find()) == 1


# In memory.


def test_a_database_in_memory_is_swept_in_this_thread(clock):
    flags = FlagSweep(":memory:", clock=clock)
    flags.init()
    seen = []

    @flags.handler
    def work(n, flag):
        seen.append((n, threading.current_thread()))
        flag.progress(n)
        if n < 3:
            work.raise_flag(n + 1)

    work.raise_flag(0)
    assert flags.sweep() == {"lowered": 4}
    assert seen == [(n, threading.main_thread()) for n in range(4)]
    assert flags.status()["consumers"] == []
    flags.database.close()


def test_a_consumer_of_a_database_in_memory_is_refused():
    flags = FlagSweep(":memory:")
    flags.init()
    with pytest.raises(ConfigError, match="not one in memory: call sweep"):
        flags.run()
    flags.database.close()


# Several in one process.


def test_two_objects_on_one_file_share_its_flags(make):
    one, two = make(), make()
    done = []
    for name, flags in (("one", one), ("two", two)):
        flags.handler(name)(lambda name=name: done.append(name))
        flags.handlers[name].raise_flag()
    assert one.sweep() == {"lowered": 1}
    assert two.sweep() == {"lowered": 1}
    assert done == ["one", "two"]


def test_two_objects_on_one_file_sweep_at_once_and_run_nothing_twice(make):
    done, lock = [], threading.Lock()

    def work(n):
        with lock:
            done.append(n)

    both = [make(), make()]
    for flags in both:
        flags.handler("work")(work)
    both[0].handlers["work"].raise_many([(n,) for n in range(3000)])
    counts = []
    sweeps = [threading.Thread(target=lambda flags=flags: counts.append(flags.sweep())) for flags in both]
    for sweep in sweeps:
        sweep.start()
    for sweep in sweeps:
        sweep.join(30)
    assert sorted(done) == list(range(3000))
    assert sum(each["lowered"] for each in counts) == 3000


def test_one_object_may_be_swept_by_two_threads_at_once(flags):
    done = []
    work = flags.handler("work")(lambda n: done.append(n))
    work.raise_many([(n,) for n in range(3000)])
    counts = []
    sweeps = [threading.Thread(target=lambda: counts.append(flags.sweep())) for _ in range(2)]
    for sweep in sweeps:
        sweep.start()
    for sweep in sweeps:
        sweep.join(30)
    assert sorted(done) == list(range(3000))
    assert sum(each["lowered"] for each in counts) == 3000


def test_two_objects_on_two_files_do_not_meet(make, tmp_path):
    one, two = make(), make(tmp_path / "other.db")
    seen = []

    @one.handler("work")
    def first():
        seen.append("one")
        two.handlers["work"].raise_flag()

    two.handler("work")(lambda: seen.append("two"))
    first.raise_flag()
    assert one.sweep() == {"lowered": 1}
    assert two.sweep() == {"lowered": 1}
    assert seen == ["one", "two"]


def test_a_sweep_of_another_file_may_run_inside_a_handler(make, tmp_path):
    one, two = make(), make(tmp_path / "other.db")
    idle(two).raise_flag()
    seen = []
    one.handler("work")(lambda: seen.append(two.sweep())).raise_flag()
    assert one.sweep() == {"lowered": 1}
    assert seen == [{"lowered": 1}]


# Starting.


def test_all_settings_may_come_from_the_environment(db_path, monkeypatch):
    monkeypatch.setenv("FLAGSWEEP_DATABASE", f"sqlite:///{db_path}")
    monkeypatch.setenv("FLAGSWEEP_LANES", "mail=3")
    flags = FlagSweep.from_env()
    assert flags.database.database == str(db_path)
    assert flags.lane_names() == ["mail"]


def test_import_and_creation_open_nothing_and_start_nothing(tmp_path, env):
    program = """
import os, threading
import flagsweep
before = set(os.listdir("/proc/self/fd"))
flags = flagsweep.FlagSweep("sqlite:///site.db", lanes={"mail": 4})
@flags.handler
def work(n): ...
flags.on_dead(print)
assert set(os.listdir("/proc/self/fd")) == before
assert threading.active_count() == 1
assert os.listdir() == []
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("asks /proc what is open")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, check=True)


def test_a_kind_has_one_handler(flags):
    idle(flags, "work", aliases=("former",))
    for kind, aliases in (("work", ()), ("former", ()), ("new", ("work",)), ("new", ("former",))):
        with pytest.raises(ConfigError, match=f"the kind '{aliases[0] if aliases else kind}' has a handler already"):
            idle(flags, kind, aliases=aliases)
    assert list(flags.handlers) == ["work"]


def test_bad_options_of_a_handler_are_named_at_once(flags):
    with pytest.raises(ConfigError) as caught:
        flags.handler("a b", max_attempts=0, priority=500, retry_on="all", backoff="soon", lane="-")(lambda: None)
    for said in ("the kind 'a b'", "max_attempts", "priority", "retry_on", "backoff", "the lane of 'a b'"):
        assert said in str(caught.value)
    assert flags.handlers == {}


def test_a_decorated_function_stays_one(flags):
    @flags.handler
    def work(n, m=2):
        """Work."""
        return n * m

    assert work(3) == 6
    assert (work.__name__, work.__doc__) == ("work", "Work.")
    assert flags.handlers["work"] is work


def test_a_site_that_writes_while_a_sweep_drains_is_not_locked_out(make, db_path):
    site = SqliteDatabase(db_path)
    flags = make(site)
    site.execute_sql("CREATE TABLE visits (n)")
    idle(flags).raise_many([(n,) for n in range(5000)])
    sweeping = threading.Thread(target=flags.sweep)
    sweeping.start()
    visits = 0
    while sweeping.is_alive() and visits < 30:
        with site.atomic():
            (n,) = site.execute_sql("SELECT count(*) FROM visits").fetchone()
            site.execute_sql("INSERT INTO visits VALUES (?)", (n,))
        visits += 1
    sweeping.join(30)
    assert count(db_path, "visits") == visits
    assert count(db_path) == 0


def test_the_log_of_a_sweep_names_what_was_done(flags, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    idle(flags).raise_flag()
    flags.sweep()
    assert "swept default: 1 lowered" in caplog.text

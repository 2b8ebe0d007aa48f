"""Huey's lock is politeness, the claim is correctness: without the lock, and from many sides at once, each flag runs once."""

import random
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count, islice, pairwise

import pytest
from rig import lane_of
from work import Ledger, Work, command, running

from flagsweep.databases.sqlite import flags as texts
from flagsweep.tasks import SweepLock

pytestmark = pytest.mark.long

SWEEPS = 4


@pytest.fixture
def site(db_path, tmp_path):
    work = Work(db_path, tmp_path / "journal").prepare()
    yield work
    work.close()


@pytest.fixture
def without_lock(monkeypatch):
    """Grant Huey's lock to everybody."""
    monkeypatch.setattr(SweepLock, "acquire", lambda lock: True)


@contextmanager
def at_once(*functions):
    """Run functions in threads, all of them starting together; raise what one of them raised."""
    barrier, errors = threading.Barrier(len(functions) + 1), []

    def run(function):
        barrier.wait(10)
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    barrier.wait(10)
    try:
        yield
    finally:
        for thread in threads:
            thread.join(60)
    assert errors == []


def again_and_again(lane, done, store):
    """Return a function that sweeps a lane until told to stop."""

    def sweep():
        while not done.is_set():
            lane.sweep()
        lane.sweep()
        store.connections.close_engine()

    return sweep


def once_each(site):
    ledger = Ledger(site.journal.events())
    assert ledger.lost() == [] and ledger.repeats() == [] and ledger.overlaps() == []
    return ledger


# Each flag runs once.


def test_several_sweeps_of_one_lane_at_once_run_each_flag_once(site):
    done = threading.Event()
    with lane_of(site.flags, "default") as lane:
        sweeps = [again_and_again(lane, done, site.flags.store)] * SWEEPS
        with at_once(*sweeps):
            for start in range(0, 3000, 50):
                site.raise_many("work", range(start, start + 50), do="ok")
                site.raise_("exact", start, do="effect")
            done.set()
    assert len(once_each(site).runs) == 3060
    assert site.effects() == list(range(0, 3000, 50)) and site.up() == {}


def test_sweeps_of_several_consumers_at_once_run_each_flag_once(site):
    done = threading.Event()
    with ExitStack() as stack:
        lanes = [stack.enter_context(lane_of(site.flags, "default")) for _ in range(SWEEPS)]
        with at_once(*(again_and_again(lane, done, site.flags.store) for lane in lanes)):
            for start in range(0, 2000, 50):
                site.raise_many("work", range(start, start + 50))
            done.set()
    assert len(once_each(site).runs) == 2000 and site.up() == {}


def test_a_run_with_the_lock_disabled_and_flooded_with_sweep_messages_runs_each_flag_once(site, until, without_lock):
    with running(site.flags, until):
        tasks = list(site.flags.huey._registry._registry.values())
        for start in range(0, 1500, 50):
            site.raise_many("work", range(start, start + 50))
            site.raise_many("mail", range(start, start + 50))
            for task in tasks:
                site.flags.huey.enqueue(task())
        until(site.is_idle)
    assert len(once_each(site).runs) == 3000


def test_several_processes_that_sweep_and_raise_at_once_run_each_flag_once(site, spawn, db_path, tmp_path, until):
    sweepers = [spawn(*command("sweep", (db_path, tmp_path / "journal"))) for _ in range(2)]
    consumer = spawn(*command("run", (db_path, tmp_path / "journal")))
    numbers = count(20_000)

    def each_has_run_some():
        site.raise_many("work", islice(numbers, 8), do="slow", seconds=0.02)
        until(site.is_idle, limit=20)
        return {event.pid for event in site.journal.events("start")} == {child.pid for child in (*sweepers, consumer)}

    until(each_has_run_some, limit=60)  # A process begins in its own time: by now they may be done with all of it.
    raisers = [raiser(site, start) for start in (0, 10_000)]
    with at_once(*raisers):
        pass
    until(site.is_idle, limit=20)
    (tmp_path / "journal.stop").touch()
    consumer.terminate()
    assert [child.wait(10) for child in (*sweepers, consumer)] == [0, 0, 0], [s.log.read_text() for s in sweepers]
    assert len(once_each(site).runs) == 2 * 150 * 2 + next(numbers) - 20_000


def raiser(site, start):
    def work():
        for number in range(start, start + 150):
            site.raise_("work", number)
            site.raise_("exact", number, do="effect")

    return work


@pytest.mark.faults
def test_the_ledger_catches_a_claim_that_takes_what_others_have(site, monkeypatch):
    """A control: a planted fault that the tests above must find."""
    monkeypatch.setattr(texts, "CLAIM", texts.CLAIM.replace("state = 'waiting' AND ", ""))
    done = threading.Event()
    with lane_of(site.flags, "default") as lane, at_once(*[again_and_again(lane, done, site.flags.store)] * SWEEPS):
        for start in range(0, 1000, 50):
            site.raise_many("work", range(start, start + 50), do="slow", seconds=0.0005)
        done.set()
    with pytest.raises(AssertionError):
        once_each(site)


# Raised while it runs.


class Hammer:
    """Raise one key again and again, in bursts, and wait after each burst until a run has seen its last raise.

    A run that sees a raise's number, or a higher one, was claimed after that raise had committed.
    """

    PATIENCE = 3.0

    def __init__(self, site, key, rounds):
        self.site, self.key, self.rounds = site, key, rounds
        self.chance = random.Random(key)

    def __call__(self):
        number = 0
        for _ in range(self.rounds):
            for _ in range(self.chance.randint(1, 4)):
                number += 1
                self.site.work.using(key=self.key).raise_flag(n=number, do="keyed", seconds=self.chance.uniform(0, 0.001))
            end = time.monotonic() + self.PATIENCE
            while self.site.seen.get(self.key, 0) < number:
                assert time.monotonic() < end, f"no run of {self.key} has seen raise {number}"
                time.sleep(self.chance.uniform(0, 0.0005))


def hammer(site, keys, rounds):
    done = threading.Event()
    with lane_of(site.flags, "default") as lane, at_once(*[again_and_again(lane, done, site.flags.store)] * 2):
        try:
            with at_once(*(Hammer(site, f"key {number}", rounds) for number in range(keys))):
                pass
        finally:
            done.set()


def test_a_flag_that_is_raised_while_it_runs_runs_once_more_whatever_the_moment(site):
    hammer(site, keys=6, rounds=40)
    seen = defaultdict(list)
    for event in site.journal.events("start"):
        seen[event.more["key"]].append(int(event.flag.split(":")[1]))
    assert len(seen) == 6 and site.up() == {}
    for numbers in seen.values():
        assert all(before < after for before, after in pairwise(numbers)), "run again although nobody had raised it"


def test_the_hammer_finds_a_lowering_that_ignores_the_generation(site, monkeypatch):
    """A control: a planted fault that the test above must find."""
    monkeypatch.setattr(texts, "LOWER", f"DELETE FROM flagsweep_flag WHERE {texts.MINE}")
    monkeypatch.setattr(Hammer, "PATIENCE", 0.3)
    with pytest.raises(AssertionError, match="has seen raise"):
        hammer(site, keys=6, rounds=40)


def test_after_every_raise_of_a_shared_key_some_run_starts(site, without_lock, until):
    """Many sites raise one key at once; the last run of all began after the last raise."""

    def raise_some(start):
        for number in range(start, start + 150):
            site.raise_("work", number, key="shared")

    with running(site.flags, until):
        with at_once(*(partial(raise_some, start) for start in (0, 1000, 2000, 3000))):
            pass
        until(site.is_idle)
    invoked = [event.at for event in site.journal.events("invoke")]
    started = [event.at for event in site.journal.events("start")]
    assert len(invoked) == 600 and max(started) > max(invoked)
    assert 1 < len(started) <= 600

"""Consumers that die at any time, at every named point, or by a handler's fault: nothing is lost, only the guilty are charged."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import work as work_module
from work import GATED, Event, Ledger, Work, command, is_sound

from flagsweep.config import SECOND
from flagsweep.consumer.host import OWN
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.terms import RUN
from flagsweep.testing import POINTS, drain

THREADS, BATCH = 4, 20
KILLED = -signal.SIGKILL
FAST = {"backoff": 0.01, "shutdown_timeout": 2}


@pytest.fixture
def site(db_path, tmp_path):
    work = Work(db_path, tmp_path / "journal").prepare()
    yield work
    work.close()


@pytest.fixture
def paths(db_path, tmp_path):
    return db_path, tmp_path / "journal"


@pytest.fixture
def consume(spawn, env, paths):
    """Give `consume(environ, **settings)`: start a consumer as its own process."""

    def consume(environ=None, **settings):
        return spawn(*command("run", paths, **{**FAST, **settings}), env={**env, **(environ or {})})

    return consume


def ended(child, deaths, limit=20):
    """Wait until a consumer has ended by itself; note its death, and return how it ended."""
    code = child.wait(limit)
    deaths[child.pid] = time.monotonic()
    return code


def killed(child, deaths):
    child.send_signal(signal.SIGKILL)
    child.wait()
    deaths[child.pid] = time.monotonic()


def settle(site, until):
    """Sweep in this process until nothing is up."""
    until(lambda: (site.flags.sweep(), site.is_idle())[1])


def died_with_claims(site, flags):
    """Have a consumer die that was running the first of these flags and had claimed them all, without starting a process."""
    store, clock = site.flags.store, site.flags.clock
    dead = Enlisted(site.flags._duties(), RUN, OWN)
    with store.connections.write():
        claimed = store.claim("work", 0, flags, dead.id, clock.now())
    slot = dead.box.slot()
    dead.box.cells[slot], dead.box.cells[slot + 1] = claimed[0].id, claimed[0].token
    dead.box.forget()
    dead._crash_log._file.close()
    dead._close_lease()
    store.connections.close_engine()
    return claimed


# The checker can fail.


def journal_of(*events):
    return [Event(at, pid, 1, what, "work:1", {"attempt": 1}) for at, pid, what in events]


def test_the_ledger_finds_a_planted_loss_and_a_planted_repeat():
    lost = Ledger(journal_of((0, 1, "raised"), (1, 2, "start")), deaths={2: 1.5})
    assert lost.lost() == ["work:1"] and lost.lost(up=["work:1"]) == []
    twice = journal_of((0, 1, "raised"), (1, 2, "start"), (2, 2, "end"), (3, 3, "start"), (4, 3, "end"))
    assert len(Ledger(twice).unexplained()) == 1
    assert not Ledger(twice, deaths={2: 2.5}).unexplained() and len(Ledger(twice, deaths={2: 2.5}).repeats()) == 1
    assert Ledger(twice, deaths={2: 3.5}).unexplained(), "a repeat that began before its first runner was dead"
    two_at_once = journal_of((1, 2, "start"), (2, 3, "start"), (3, 2, "end"), (4, 3, "end"))
    assert len(Ledger(two_at_once).overlaps()) == 1


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "effects"), [("exact", 1), ("work", 2)])
def test_a_death_before_the_commit_repeats_the_effect_of_a_handler_unless_it_is_atomic(site, consume, kind, effects):
    """A control, too: the ledger and the effects tell the two apart."""
    site.raise_(kind, 1, do="effect")
    deaths = {}
    assert ended(consume({"FLAGSWEEP_CRASH_AT": "settle.after"}), deaths) == KILLED
    drain(site.flags)
    ledger = Ledger(site.journal.events(), deaths)
    assert len(ledger.repeats()) == effects - 1 and not ledger.lost() and not ledger.unexplained()
    assert site.effects() == [1] * effects


# Killed at any time.


@pytest.mark.faults
@pytest.mark.parametrize(("cycles", "seed"), [(12, 20240501), pytest.param(60, 20240502, marks=pytest.mark.slow)])
def test_nothing_is_lost_when_consumers_are_killed_again_and_again_while_flags_are_raised(
    site, paths, consume, until, cycles, seed
):
    chance, numbers, deaths = random.Random(seed), count(1), {}
    print("seed", seed)
    for _ in range(cycles):
        child = consume(batch=BATCH)
        end = time.monotonic() + chance.uniform(0.05, 0.3)
        print("kill after", round(end - time.monotonic(), 3))
        while time.monotonic() < end:
            raise_some(site, chance, numbers)
            time.sleep(chance.uniform(0, 0.02))
        killed(child, deaths)
    raise_some(site, chance, numbers)
    last = consume(batch=BATCH)
    until(lambda: any(event.pid == last.pid for event in site.journal.events("start")), limit=1.5)  # It recovers fast.
    until(site.is_idle, limit=20)
    last.terminate()
    assert last.wait(10) == 0
    check(site, paths, deaths)


def raise_some(site, chance, numbers):
    """Raise flags as a site does: one by one, some at once, atomic ones, own rows, for each lane."""
    site.raise_("work", next(numbers))
    site.raise_("slow", next(numbers), do="slow", seconds=chance.uniform(0, 0.01))
    site.raise_("exact", next(numbers), do="effect")
    if chance.random() < 0.3:
        site.raise_many("mail", [next(numbers) for _ in range(30)], do="slow", seconds=0.001)
        site.add_people(2)
    if chance.random() < 0.3:
        site.raise_("work", next(numbers), do=chance.choice(["fail_once", "snooze", "sysexit"]))


def check(site, paths, deaths):
    """Check all that faults.md promises for kills: nothing lost, nothing dead, repeats bounded, exactly once where atomic."""
    ledger = Ledger(site.journal.events(), deaths)
    assert ledger.lost() == [] and site.up() == {}
    assert ledger.unexplained() == [] and ledger.overlaps() == []
    # Four lanes' threads run, and each lane may have done what two claims took: the second is taken before the first is used up.
    assert len(ledger.repeats()) <= len(deaths) * (3 * THREADS + 3 * 2 * BATCH)
    exact = sorted(int(flag.split(":")[1]) for flag in ledger.raised if flag.startswith("exact"))
    assert site.effects() == exact
    assert ledger.most_at_once("gated") <= GATED["limit"] and site.used() >= len(ledger.of("gated")), "a limit was exceeded"
    assert is_sound(paths[0])


# Killed at each named point.


def script(site):
    """Owe work that takes a consumer past every point, and ends it."""
    site.raise_many("work", range(1, 9))
    died_with_claims(site, 5)
    for number, do in enumerate(["fail_once", "snooze", "raises", "sysexit"], 11):
        site.raise_("work", number, do=do)
    site.raise_many("exact", range(21, 24), do="effect")
    site.add_people(3)
    site.begin_outage()
    site.raise_many("away", range(4))
    site.raise_("gated", 0, do="retry_all", seconds=0.01)
    site.raise_many("gated", range(1, 20), do="slow", seconds=0.001)
    site.raise_many("slow", range(31, 40))
    site.raise_("slow", 40, do="stop", seconds=0.01)
    site.raise_many("slow", range(41, 100))
    for number, (kind, missed, runs) in DUE.items():
        due = site.flags.clock.now() - 2 * HOUR - HOUR // 2
        site.add_schedule(f"s{number}", kind, number, "1h", missed, due, do="effect" if kind == "exact" else "ok")
        for _ in range(runs):
            site.journal.write("invoke", f"{kind}:{number}")
        site.journal.write("raised", f"{kind}:{number}")


DUE = {301: ("work", "once", 1), 302: ("slow", "all", 3), 303: ("exact", "once", 1)}
"""Schedules that missed three times: the argument of each, its kind, and the runs that are owed for them."""
HOUR = 3600 * SECOND


def check_schedules(site):
    """Check that each occurrence that was owed has run as a flag of its own, and that all schedules wait for their next time."""
    rows = site.schedules()
    assert rows.keys() == {"yearly", *(f"s{number}" for number in DUE)}
    assert all(row.next_at > site.flags.clock.now() for row in rows.values())
    started = defaultdict(set)
    for event in site.journal.events("start"):
        started[event.flag].add(event.more.get("key"))
    assert [len(started[f"{kind}:{number}"]) for number, (kind, _, _) in DUE.items()] == [runs for _, _, runs in DUE.values()]


class Crash(NamedTuple):
    """How a consumer ended that was to kill itself when it came to a point for the n-th time."""

    point: str
    nth: int
    folder: str
    pid: int
    code: int
    at: float

    def was_reached(self):
        """Return whether it came there: the name that it left proves it."""
        log = Path(self.folder, "log").read_text()
        assert self.code in (KILLED, 0), log
        return self.code == KILLED and Path(self.folder, "reached").read_text() == f"{self.point}\n"


@pytest.fixture(scope="module")
def crashes(request, tmp_path_factory):
    """Have the consumers of all tests that will ask kill themselves, each on a database of its own; give their ends by point."""
    wanted = [item.callspec.params for item in request.session.items if "crashes" in getattr(item, "fixturenames", ())]
    jobs = [[each["point"], each["nth"], str(tmp_path_factory.mktemp(each["point"]))] for each in wanted]
    for _, _, folder in jobs:
        work = Work(f"{folder}/site.db", f"{folder}/journal").prepare()
        script(work)
        work.close()
    file = tmp_path_factory.mktemp("crashes") / "jobs"
    file.write_text(json.dumps(jobs))
    subprocess.run([sys.executable, work_module.__file__, "crash", file], check=True, stdin=subprocess.DEVNULL)
    return {(crash.point, crash.nth): crash for crash in map(Crash._make, json.loads(file.read_text()))}


def survives(crash, until):
    """Check that after a death the next sweep finds all that is owed."""
    paths = Path(crash.folder, "site.db"), Path(crash.folder, "journal")
    work = Work(*paths, schedules=True)
    settle(work, until)
    check(work, paths, {crash.pid: crash.at})
    check_schedules(work)
    work.close()


@pytest.mark.faults
@pytest.mark.parametrize("nth", [1])
@pytest.mark.parametrize("point", POINTS)
def test_nothing_is_lost_when_a_consumer_is_killed_at(crashes, until, point, nth):
    assert crashes[point, nth].was_reached()
    survives(crashes[point, nth], until)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("nth", range(2, 8))
@pytest.mark.parametrize("point", POINTS)
def test_nothing_is_lost_when_a_consumer_is_killed_some_time_later_at(crashes, until, point, nth):
    crashes[point, nth].was_reached()
    survives(crashes[point, nth], until)


# A handler's fault.


def keep_up(consume, until, deaths, done, **settings):
    """Start a consumer again whenever it has died, as a supervisor does, until all is done; return how each died."""
    codes = []
    while len(codes) < 9:
        child = consume(**settings)
        until(lambda child=child: child.poll() is not None or done())
        if child.poll() is None:
            child.terminate()
            assert child.wait(5) == 0
            return codes
        codes.append(ended(child, deaths))
    raise AssertionError(f"the consumer died again and again: {codes}")


def charged(ledger):
    """Return the flags that were told of an earlier attempt."""
    return {flag for flag, runs in ledger.runs.items() if any(run.attempt > 1 for run in runs)}


@pytest.mark.faults
@pytest.mark.parametrize(
    ("do", "place"), [("crash", "in _crash"), pytest.param("overflow", "in _overflow", marks=pytest.mark.slow)]
)
def test_a_segfault_charges_its_flag_alone_which_is_dead_after_three(site, consume, until, tmp_path, do, place):
    gate = str(tmp_path / "gate")
    site.raise_("work", 0, do=do, gate=gate)
    site.raise_("work", 1, do="wait", gate=f"{gate}.2")
    site.raise_("work", 2, do="touch", gate=gate)
    site.raise_many("work", range(3, 40))

    def all_but_the_guilty_done():
        up = site.up()
        if up.keys() <= {"work:0", "work:1"} and up["work:0"].state == "dead":
            (tmp_path / "gate.2").touch()
        return up.keys() == {"work:0"} and up["work:0"].state == "dead"

    deaths = {}
    assert keep_up(consume, until, deaths, all_but_the_guilty_done) == [-signal.SIGSEGV] * 3
    guilty = site.up()["work:0"]
    assert guilty.crashes == 3 and guilty.attempts == 0
    assert "Segmentation fault" in guilty.error and place in guilty.error, "the error names the place"
    ledger = Ledger(site.journal.events(), deaths)
    assert ledger.lost(site.up()) == [] and ledger.unexplained() == []
    assert charged(ledger) == set(), "an innocent was charged"


@pytest.mark.faults
def test_a_process_that_ends_without_a_record_charges_one_attempt_to_what_ran_and_then_runs_it_one_at_a_time(
    site, consume, until, tmp_path
):
    gate = str(tmp_path / "gate")
    site.raise_many("slow", range(20))
    for number in (1, 2, 3):
        site.raise_("work", number, do="hang_once", seconds=0.05)
    site.raise_("work", 4, do="exit_once", gate=gate, seconds=0.05)
    site.raise_many("work", range(5, 60))

    def all_four_run():
        starts = [flag for flag in site.journal.flags("start") if flag in {"work:1", "work:2", "work:3", "work:4"}]
        ended = {flag for flag in site.journal.flags("end") if flag.startswith("slow")}
        if len(starts) >= 4 and len(ended) == 20:  # Nothing else runs: what does is charged, too.
            (tmp_path / "gate").touch()
        return site.is_idle()

    deaths = {}
    assert keep_up(consume, until, deaths, all_four_run) == [9]
    ledger = Ledger(site.journal.events(), deaths)
    suspects = {"work:1", "work:2", "work:3", "work:4"}
    assert charged(ledger) == suspects
    assert [ledger.attempts(flag) for flag in sorted(suspects)] == [[1, 2]] * 4
    second = sorted((ledger.runs[flag][1] for flag in suspects), key=lambda run: run.start)
    assert all(before.end <= after.start for before, after in pairwise(second)), "two suspects at once"
    assert ledger.lost() == [] and ledger.unexplained() == []


def test_a_flag_that_dies_as_its_dead_consumer_is_rescued_is_told_of(db_path, tmp_path, until):
    work, told = Work(db_path, tmp_path / "journal", attempts=1).prepare(), []
    work.flags.on_dead(lambda *news: told.append(news[:3]))
    work.raise_("work", 1)
    died_with_claims(work, 1)
    work.flags.sweep()
    assert until(lambda: told) == [("work", '{"n":1}', {"n": 1})] and work.up()["work:1"].state == "dead"
    work.close()


@pytest.mark.faults
def test_a_clean_stop_with_a_hung_handler_charges_nobody(site, consume, until, tmp_path):
    gate = tmp_path / "gate"
    site.raise_("work", 1, do="wait", gate=str(gate))
    deaths, child = {}, consume(shutdown_timeout=0.1)
    until(lambda: site.journal.flags("start"))
    child.terminate()
    assert ended(child, deaths, 5) == 0
    assert "stopped while these still run, they run again: work" in child.log.read_text()
    gate.touch()
    drain(site.flags)
    ledger = Ledger(site.journal.events(), deaths)
    assert ledger.attempts("work:1") == [1, 1] and ledger.lost() == [] and site.up() == {}


@pytest.mark.faults
def test_suspects_that_wait_for_their_turn_hold_up_nobody_and_are_given_back_at_a_stop(site, consume, until, tmp_path):
    gate = str(tmp_path / "gate")
    site.raise_("slow", 0, do="wait", gate=gate)
    site.raise_many("mail", range(1, 5), do="wait", gate=gate)
    deaths, child = {}, consume()
    until(lambda: len(site.journal.flags("start")) == 5)
    killed(child, deaths)
    child = consume(shutdown_timeout=0.2)
    until(lambda: len(site.journal.flags("start")) == 6)
    site.raise_many("mail", range(10, 30))
    until(lambda: set(site.journal.flags("end")) == {f"mail:{n}" for n in range(10, 30)}, limit=5)
    assert len(site.journal.flags("start")) == 26, "a second suspect ran beside the first"
    child.terminate()
    assert ended(child, deaths) == 0
    assert sorted(flag.state for flag in site.up().values()) == ["claimed"] + ["waiting"] * 4
    (tmp_path / "gate").touch()
    site.flags.sweep()
    ledger = Ledger(site.journal.events(), deaths)
    assert ledger.lost() == [] and ledger.unexplained() == [] and site.up() == {}

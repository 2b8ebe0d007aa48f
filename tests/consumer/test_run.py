"""The consumer: how it stops, how its lanes keep out of each other's way, and what drives it when Huey does not."""

import gc
import logging
import os
import resource
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from types import SimpleNamespace

import huey.consumer
import pytest
from rig import fill
from work import Ledger, Work, command, is_sound, running, sites_in

import flagsweep.databases.sqlite.opening
from flagsweep import DatabaseAway, LeaseHeld, NotReady
from flagsweep.config import Clock
from flagsweep.consumer.rescue import Rescuer
from flagsweep.sweep.threads import Pool

STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.fixture
def make(db_path, tmp_path):
    """Give `make(**settings)`: a site with its tables."""
    with sites_in(db_path, tmp_path) as make:
        yield make


@pytest.fixture
def site(make):
    return make()


@pytest.fixture
def consume(spawn, db_path, tmp_path, until):
    """Give `consume(**settings)`: start a consumer as its own process, and wait until it is there."""

    def consume(**settings):
        child = spawn(*command("run", (db_path, tmp_path / "journal"), **settings))
        until(lambda: "flagsweep sweeps" in child.log.read_text() or child.poll() is not None)
        return child

    return consume


def names(kind, numbers):
    return {f"{kind}:{n}" for n in numbers}


# Stopping.


def claim_many_behind_one(site, gate, until, do="wait"):
    """Let lane slow learn that its flags are fast, then have it claim many of 30 behind one that waits for `gate`."""
    site.raise_many("slow", range(100, 150))
    until(site.is_idle)
    with site.flags.database.connection_context(), site.flags.database.atomic():
        site.raise_("slow", 1, do=do, gate=str(gate))
        site.raise_many("slow", range(2, 32))
    until(lambda: "slow:1" in site.journal.flags("start"))
    until(lambda: len(site.flags.find(state="claimed")) > 1)  # How many depends on how fast the first were.


@pytest.mark.long
@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_gives_back_what_has_not_started_and_lets_the_running_handler_finish(site, consume, until, tmp_path, stop):
    child = consume()
    claim_many_behind_one(site, tmp_path / "gate", until)
    child.send_signal(stop)
    until(lambda: len(site.flags.find(state="waiting", due=True)) == 30)
    assert [flag.payload["n"] for flag in site.flags.find(state="claimed")] == [1], "what runs is not given back"
    site.raise_("mail", 1)
    (tmp_path / "gate").touch()
    assert child.wait(5) == 0
    up = site.up()
    assert up.keys() == names("slow", range(2, 32)) | {"mail:1"}, "the handler finished, and nothing was claimed any more"
    assert all(flag.state == "waiting" and flag.attempts == 0 for flag in up.values())
    assert site.flags.status()["consumers"] == []
    assert "Traceback" not in child.log.read_text()


@pytest.mark.long
def test_a_handler_can_ask_whether_to_stop_and_goes_on_after_the_restart(site, consume, until):
    site.raise_("work", 1, do="patient")
    child = consume()
    until(lambda: site.journal.flags("start"))
    child.terminate()
    assert child.wait(5) == 0
    flag = site.up()["work:1"]
    assert flag.state == "waiting" and flag.attempts == 0
    assert site.flags.find(due=True) == [flag]


@pytest.mark.long
def test_a_signal_is_seen_at_once_although_the_main_thread_does_not_wake(site, consume, until):
    """The kernel may give it to any thread, or to the main one just before it goes to sleep."""
    child = consume()
    site.raise_("work", 0)
    until(site.is_idle)
    site.raise_("work", 1, do="signal")
    until(lambda: child.poll() is not None, limit=3)
    assert child.wait() == 0
    assert "stopping (SIGTERM)" in child.log.read_text()


@pytest.mark.long
@pytest.mark.parametrize("stop", STOPS)
def test_a_second_signal_ends_at_once_and_loses_nothing(site, consume, until, tmp_path, stop):
    child = consume(shutdown_timeout=60)
    claim_many_behind_one(site, tmp_path / "gate", until)
    child.send_signal(stop)
    until(lambda: "stopping" in child.log.read_text())
    until(lambda: child.send_signal(stop) or child.poll() is not None, limit=1, every=0.1)
    assert child.wait() == 0
    ended = {child.pid: time.monotonic()}
    (tmp_path / "gate").touch()
    site.flags.sweep()
    ledger = Ledger(site.journal.events(), ended)
    assert ledger.lost() == [] and ledger.unexplained() == [] and site.up() == {}
    assert ledger.attempts("slow:1") == [1, 1], "ended on purpose, so nobody is charged"


@pytest.mark.long
def test_a_hangup_is_ignored_where_whoever_started_the_consumer_ignores_it(site, spawn, db_path, tmp_path, until):
    child = spawn("nohup", *command("run", (db_path, tmp_path / "journal")))
    until(lambda: "flagsweep sweeps" in child.log.read_text())
    child.send_signal(signal.SIGHUP)
    site.raise_("work", 1)
    until(site.is_idle)
    child.terminate()
    assert child.wait(5) == 0 and "stopping (SIGTERM)" in child.log.read_text()


@pytest.mark.long
def test_two_signals_at_one_instant_are_one(site, consume, until, tmp_path):
    """`timeout` signals its child, and then the group, in which the child is."""
    child = consume(shutdown_timeout=60)
    claim_many_behind_one(site, tmp_path / "gate", until)
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGINT)
    until(lambda: "stopping" in child.log.read_text())
    (tmp_path / "gate").touch()
    assert child.wait(5) == 0
    assert "slow:1" in site.journal.flags("end"), "its handler was given time to end"


@pytest.mark.long
def test_a_handler_that_outlasts_the_shutdown_timeout_is_left_and_runs_again(site, consume, until, tmp_path):
    child = consume(shutdown_timeout=0.3)
    claim_many_behind_one(site, tmp_path / "gate", until)
    site.raise_("work", 1)
    until(lambda: "work:1" in site.journal.flags("end"))
    began = time.monotonic()
    child.terminate()
    until(lambda: child.poll() is not None, limit=1.3)
    assert child.wait() == 0 and time.monotonic() - began >= 0.3
    assert "stopped while these still run, they run again: slow" in child.log.read_text()
    assert [flag.payload["n"] for flag in site.flags.find(state="claimed")] == [1]
    (tmp_path / "gate").touch()
    site.flags.sweep()
    ledger = Ledger(site.journal.events(), {child.pid: time.monotonic()})
    assert ledger.lost() == [] and site.up() == {} and len(ledger.repeats()) == 1


@pytest.mark.faults
@pytest.mark.slow
def test_signals_in_any_number_at_any_time_lose_nothing(site, consume, until, tmp_path):
    deaths = {}
    for cycle in range(50):
        site.raise_many("work", range(cycle * 100, cycle * 100 + 100), do="slow", seconds=0.002)
        child = consume(shutdown_timeout=1)
        for number in range(cycle % 5):
            time.sleep(0.0007 * cycle / (number + 1))
            child.send_signal(STOPS[(cycle + number) % 3])
        child.send_signal(signal.SIGTERM)
        assert child.wait(5) in (0, *(-number for number in STOPS)), child.log.read_text()
        assert "Traceback" not in child.log.read_text()
        deaths[child.pid] = time.monotonic()
    site.flags.sweep()
    ledger = Ledger(site.journal.events(), deaths)
    assert ledger.lost() == [] and ledger.unexplained() == [] and site.up() == {} and is_sound(site.flags.path)


def test_stop_called_by_the_site_ends_a_run_in_a_thread(site, until):
    with running(site.flags, until):
        site.raise_("work", 1)
        until(site.is_idle)
    assert site.journal.flags("end") == ["work:1"]


def test_a_run_can_be_followed_by_another(site, until):
    for number in range(3):
        with running(site.flags, until):
            site.raise_("work", number)
            until(site.is_idle)
    assert site.journal.flags("end") == ["work:0", "work:1", "work:2"]


def test_run_without_tables_names_the_path_and_the_command(db_path, tmp_path):
    work = Work(db_path, tmp_path / "journal")
    with pytest.raises(NotReady, match=f"{db_path}.*flagsweep init"):
        work.flags.run()
    assert not db_path.exists(), "only init makes a file"
    work.close()


# One consumer.


@pytest.mark.long
def test_a_second_run_refuses_and_says_who_runs(site, consume):
    first = consume()
    second = consume()
    assert second.wait(5) == 1
    assert f"LeaseHeld: consumer 1 (pid {first.pid} on" in second.log.read_text()
    assert "stop it first" in second.log.read_text()
    assert [c["pid"] for c in site.flags.status()["consumers"]] == [first.pid]


def test_a_second_run_in_the_same_process_refuses_too(site, make, until):
    with running(site.flags, until), pytest.raises(LeaseHeld, match=f"pid {os.getpid()}"):
        make().flags.run()
    assert site.flags.status()["consumers"] == []


@pytest.mark.long
def test_a_sweep_beside_a_living_run_is_allowed_and_runs_nothing_twice(site, consume, until, tmp_path):
    child = consume()
    site.raise_many("slow", [1], do="wait", gate=str(tmp_path / "gate"))
    until(lambda: site.journal.flags("start"))
    site.flags.sweep()
    assert site.flags.find(state="claimed"), "what the other runs is left alone"
    for start in range(100, 2000, 100):
        site.raise_many("work", range(start, start + 100))
        site.flags.sweep()
    (tmp_path / "gate").touch()
    until(site.is_idle)
    child.terminate()
    assert child.wait(5) == 0
    ledger = Ledger(site.journal.events())
    assert ledger.lost() == [] and ledger.repeats() == []


# Lanes.


@pytest.mark.long
def test_a_long_handler_in_one_lane_never_holds_up_another(site, until, tmp_path):
    gate = tmp_path / "gate"
    with running(site.flags, until):
        for lane in ("slow", "work"):
            site.raise_many(lane, range(10), do="wait", gate=str(gate))
        until(lambda: len(site.journal.flags("start")) == 5)
        site.raise_many("mail", range(500))
        until(lambda: set(site.journal.flags("end")) == names("mail", range(500)))
        assert len(site.journal.flags("start")) == 505, "one of lane slow runs, and four of the default lane"
        gate.touch()
        until(site.is_idle)


@pytest.mark.long
@pytest.mark.parametrize("busy", [False, True], ids=["quiet site", "busy site"])
def test_a_long_handler_holds_up_none_of_its_batch_while_a_thread_is_free(site, until, tmp_path, busy):
    """Its batch mates were expected to be so fast that one thread was to do them all."""
    gate = tmp_path / "gate"
    with ExitStack() as stack:
        stack.enter_context(running(site.flags, until))
        site.raise_many("mail", range(1000, 1300))
        until(site.is_idle)
        if busy:
            stack.enter_context(raising_all_the_time(site))
        stack.callback(gate.touch)
        with site.flags.database.connection_context(), site.flags.database.atomic():
            for start in (0, 100, 200):
                site.raise_("mail", start, do="wait", gate=str(gate))
                site.raise_many("mail", range(start + 1, start + 51))
        short = names("mail", (start + n for start in (0, 100, 200) for n in range(1, 51)))
        until(lambda: short <= set(site.journal.flags("end")), limit=5)
    site.flags.sweep()


@contextmanager
def raising_all_the_time(site):
    """Raise flags of lane mail as fast as a busy site does."""
    done = threading.Event()

    def work():
        number = 10_000
        while not done.wait(0.001):
            site.raise_("mail", number := number + 1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.long
def test_a_lane_whose_threads_are_all_busy_waits_without_work(site, until, tmp_path):
    """What waits behind them must not make the sweep spin, nor pile up wake-up calls."""
    pools = []
    with ExitStack() as stack:
        stack.enter_context(running(site.flags, until))
        claim_many_behind_one(site, tmp_path / "gate", until)
        stack.callback((tmp_path / "gate").touch)
        pools = [each for each in gc.get_objects() if isinstance(each, Pool) and each.name == "slow"]
        woken = pools[-1]._work.qsize()
        looks = Counter()
        stack.enter_context(counted(pools[-1], "_is_ready", looks))
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 0.3)
        assert pools[-1]._work.qsize() <= woken and looks["_is_ready"] <= 5


@contextmanager
def counted(thing, method, calls):
    original = getattr(thing, method)

    def call(*args):
        calls[method] += 1
        return original(*args)

    setattr(thing, method, call)
    try:
        yield
    finally:
        delattr(thing, method)


@pytest.mark.faults
def test_a_consumer_ends_for_its_supervisor_where_all_handlers_of_a_lane_hang(site, consume, until):
    site.raise_("slow", 1, do="hang_once")
    child = consume(stuck_after=2, shutdown_timeout=0.2)
    site.raise_("mail", 1)
    until(lambda: "mail:1" in site.journal.flags("end"))
    assert child.wait(15) == 1
    assert "lane slow is stuck: all its handlers run for more than 2 s" in child.log.read_text()
    ended = {child.pid: time.monotonic()}
    site.flags.sweep()
    ledger = Ledger(site.journal.events(), ended)
    assert ledger.lost() == [] and ledger.unexplained() == [] and site.up() == {}
    assert ledger.attempts("slow:1") == [1, 2], "what hangs is charged, or it would hang for ever"


@pytest.mark.faults
def test_a_handler_that_lets_no_other_thread_go_on_ends_the_process_for_its_supervisor(site, consume, until):
    site.raise_("work", 1, do="spin_once")
    site.raise_("mail", 2)
    child = consume(stuck_after=2)
    assert child.wait(15) == 1
    assert "Timeout (0:00:02)" in child.log.read_text() and "in _spin_once" in child.log.read_text()
    site.flags.sweep()
    assert site.up() == {} and {"work:1", "mail:2"} <= set(site.journal.flags("end"))


@pytest.mark.long
def test_a_consumer_ends_for_its_supervisor_where_a_thread_never_starts(site, consume, until):
    """Python waits for ever for a thread in which memory ends before it could say that it has started."""
    site.raise_("slow", 1, do="let_none_start_once")
    child = consume(shutdown_timeout=0.2)
    until(lambda: site.journal.flags("end"))
    site.raise_("mail", 1)
    assert child.wait(15) == 1
    assert "lane mail is stuck: a thread has not started within 0.3 s" in child.log.read_text()
    site.flags.sweep()
    assert site.journal.flags("end") == ["slow:1", "mail:1"] and site.up() == {}


def test_a_lane_is_in_trouble_once_a_thread_died_or_all_its_handlers_hang():
    pool, now = Pool("slow", 2, None, SimpleNamespace(id=1, box=None)), time.monotonic()
    pool.running = {1: SimpleNamespace(began=now - 9)}
    assert pool.trouble(5) is None, "a thread is free"
    pool.running[2] = SimpleNamespace(began=now - 3)
    assert pool.trouble(5) is None and pool.trouble(None) is None
    assert "more than 2 s" in pool.trouble(2)
    pool._starting.since = now - 9
    assert "more than 2 s" in pool.trouble(2)
    pool._starting.since = now - 11
    assert pool.trouble(None) == "a thread has not started within 10 s"
    pool._starting.since = None
    pool._threads.append(threading.Thread(target=int))
    assert pool.trouble(None) is None, "it has not started yet"
    pool._threads[0].start()
    pool._threads[0].join()
    assert pool.trouble(None) == "a thread died"
    pool.close()
    assert pool.trouble(None) is None, "they were told to end"


@pytest.mark.long
@pytest.mark.parametrize(("lane", "spared"), [("slow", 0), ("mail", 1)])
def test_a_lane_goes_on_where_the_system_has_no_more_threads_for_a_while(site, until, monkeypatch, tmp_path, lane, spared):
    """A thread that could not be started was counted as one for ever: the lane stood still."""
    start, refused = threading.Thread.start, []

    def starts(thread):
        if thread.name.startswith(f"flagsweep-{lane}") and not thread.name.endswith(f"-{spared}") and len(refused) < 3:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    with running(site.flags, until):
        site.raise_many(lane, range(50), do="slow", seconds=0.005)
        until(site.is_idle, limit=20)
    assert refused and Ledger(site.journal.events()).lost() == []


# What drives it.


@pytest.fixture
def short_minute(monkeypatch):
    """Have Huey's scheduler bring its periodic tasks once a second: it looks no oftener."""
    monkeypatch.setattr(huey.consumer.Scheduler, "periodic_task_seconds", 0.5)


@pytest.mark.long
def test_without_a_watcher_the_sweep_of_the_minute_gets_everything_done(make, until, short_minute):
    site = make(watch="off")
    with running(site.flags, until):
        site.raise_many("work", range(50))
        site.add_people(2)
        until(site.is_idle)
    assert Ledger(site.journal.events()).lost() == []


@pytest.mark.long
def test_a_wiped_queue_loses_nothing(make, until, short_minute):
    """With its messages go its locks: the claims alone keep two sweeps apart."""
    site = make(watch="off")
    with running(site.flags, until):
        for number in range(40):
            site.raise_many("work", range(number * 50, number * 50 + 50), do="slow", seconds=0.0005)
            site.flags.huey.storage.flush_all()
        until(lambda: (site.flags.huey.storage.flush_all(), site.is_idle())[1])
    ledger = Ledger(site.journal.events())
    assert ledger.lost() == [] and ledger.repeats() == []


class HastyClock(Clock):
    """A minute lasts a second."""

    def monotonic(self):
        return 60 * super().monotonic()


@pytest.mark.long
def test_the_keeper_asks_for_sweeps_where_hueys_scheduler_is_stuck(make, until, monkeypatch):
    """And asks again where the queue lost what was asked for."""
    monkeypatch.setattr(huey.consumer.Scheduler, "loop", lambda scheduler, now=None: scheduler.stop_flag.wait())
    site = make(watch="off", clock=HastyClock())
    lost = swallow_asks_of_the_start(site, monkeypatch)
    with running(site.flags, until):
        until(lambda: lost)
        site.raise_("work", 1)
        until(site.is_idle, limit=4)
        site.raise_("work", 2)
        until(site.is_idle, limit=4)


@pytest.mark.long
def test_a_chore_of_the_keeper_that_always_fails_hinders_no_other_and_is_told_of_once_a_minute(make, until, monkeypatch, caplog):
    monkeypatch.setattr(huey.consumer.Scheduler, "loop", lambda scheduler, now=None: scheduler.stop_flag.wait())
    failures, clock = [], HastyClock()
    site = make(watch="off", clock=clock)
    with running(site.flags, until):
        until(lambda: site.flags.huey.pending_count() == 0)
        monkeypatch.setattr(Rescuer, "_others", lambda *_: failures.append(clock.monotonic()) or 1 / 0)
        site.raise_("work", 1)
        until(site.is_idle, limit=10)
        until(lambda: len(failures) > 2)
    told = [r for r in complaints(caplog) if "free the dead" in r.getMessage()]
    assert 1 <= len(told) <= 1 + (failures[-1] - failures[0]) / 60 + 1


@pytest.mark.parametrize("away", ["killed", "frozen"])
def test_no_handler_is_ended_as_hung_since_a_server_is_away(private_postgres, spawn, until, tmp_path, away):
    """What is done in the database fails, or hangs, for as long; that handlers can go on is seen without it."""
    site = Work(private_postgres.url, tmp_path / "journal", state_dir=str(tmp_path / "state")).prepare()
    settings = {"stuck_after": 2, "shutdown_timeout": 1, "state_dir": str(tmp_path / "state")}
    site.raise_("work", 1, do="wait", gate=str(tmp_path / "gate"))
    child = spawn(*command("run", (private_postgres.url, tmp_path / "journal"), **settings))
    until(lambda: site.journal.flags("start"))
    private_postgres.kill() if away == "killed" else private_postgres.freeze()
    began = time.monotonic()
    until(lambda: child.poll() is not None or time.monotonic() - began > 5)
    (tmp_path / "gate").touch()
    until(lambda: site.journal.flags("end") or child.poll() is not None)
    assert child.poll() is None, child.log.read_text()
    private_postgres.start() if away == "killed" else private_postgres.thaw()
    until(site.is_idle, limit=30)
    child.terminate()
    assert child.wait(10) == 0 and site.journal.flags("start") == ["work:1"]
    site.flags.connections.close_thread()
    site.close()


def swallow_asks_of_the_start(site, monkeypatch):
    """Have the queue lose the messages of the first asks, one for each lane; return those."""
    enqueue, lost = site.flags.huey.storage.enqueue, []
    lanes = len(site.flags.lane_names())
    monkeypatch.setattr(
        site.flags.huey.storage, "enqueue", lambda *args: lost.append(args) if len(lost) < lanes else enqueue(*args)
    )
    return lost


# A database that cannot be written.


@contextmanager
def locked(database):
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")


def complaints(caplog):
    return [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.long
def test_a_locked_database_is_waited_for_with_one_line_in_the_log(make, until, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(flagsweep.databases.sqlite.opening, "BUSY", 0.1)
    site = make()
    site.raise_many("mail", range(4), do="wait", gate=str(tmp_path / "gate"))
    site.raise_many("work", range(1000), do="slow", seconds=0.001)
    with running(site.flags, until):
        until(lambda: len(site.journal.flags("start")) > 50)
        with locked(site.flags.path):
            began = time.monotonic()
            (tmp_path / "gate").touch()
            with pytest.raises(DatabaseAway, match=r"the flag was not raised.*locked"):
                site.raise_("work", 5000)
            until(lambda: time.monotonic() - began > 2)
            assert not site.is_idle()
        released = time.monotonic()
        until(lambda: any(event.at > released for event in site.journal.events("start")), limit=2)
        until(site.is_idle)
    ledger = Ledger(site.journal.events())
    assert ledger.lost() == [] and ledger.repeats() == [], "what could not be settled was kept, not run again"
    assert len(complaints(caplog)) == 1 and "the database is away" in complaints(caplog)[0].getMessage()
    assert not any(r.exc_info for r in caplog.records)


@pytest.mark.long
def test_a_lock_that_was_waited_for_is_not_taken_for_a_share_of_the_writer(make, until, tmp_path):
    site = make()
    site.raise_("work", 1, do="wait", gate=str(tmp_path / "gate"))
    with running(site.flags, until):
        until(lambda: site.journal.flags("start"))
        with locked(site.flags.path):
            (tmp_path / "gate").touch()
            until(lambda: site.journal.flags("end"))
            began = time.monotonic()
            until(lambda: time.monotonic() - began > 3)  # The outcome is to be settled, and has to wait.
        site.raise_("work", 2)
        until(lambda: "work:2" in site.journal.flags("end"), limit=3)


@pytest.mark.faults
def test_a_full_disk_loses_nothing_and_a_raise_fails_loudly(spawn, until, small_disk, tmp_path):
    site = Work(small_disk / "site.db", tmp_path / "journal").prepare()
    child = spawn(*command("run", (site.flags.path, tmp_path / "journal")))
    until(lambda: "flagsweep sweeps" in child.log.read_text())
    site.raise_many("work", range(200), do="slow", seconds=0.004)
    site.raise_many("exact", range(1000, 1050), do="effect")
    until(lambda: len(site.journal.flags("end")) > 20)
    filler = fill(small_disk)
    with pytest.raises(DatabaseAway, match=r"the disk is full|disk I/O error"):
        for number in range(5000, 9000):
            site.raise_("work", number)
    until(lambda: "the database is away" in child.log.read_text())
    filler.unlink()
    until(site.is_idle, limit=20)
    child.terminate()
    assert child.wait(5) == 0
    ledger = Ledger(site.journal.events())
    assert ledger.lost() == []
    assert all(run.flag.startswith("exact") for run in ledger.repeats()), "only what was rolled back ran again"
    assert site.effects() == list(range(1000, 1050))
    assert "Traceback" not in child.log.read_text() and child.log.read_text().count("is away") == 1
    assert "is full; nothing is lost" in child.log.read_text(), "the log says why"
    assert is_sound(site.flags.path)
    site.close()


@pytest.mark.faults
def test_a_consumer_does_not_start_on_a_full_disk_and_says_why(spawn, until, small_disk, tmp_path):
    site = Work(small_disk / "site.db", tmp_path / "journal").prepare()
    site.raise_("work", 1)
    filler = fill(small_disk)
    child = spawn(*command("run", (site.flags.path, tmp_path / "journal")))
    assert child.wait(10) == 1, child.log.read_text()
    assert "the consumer did not start" in child.log.read_text() and "Traceback" not in child.log.read_text()
    filler.unlink()
    site.flags.sweep()
    assert site.journal.flags("end") == ["work:1"]
    site.close()


@pytest.mark.faults
def test_writes_that_fail_for_a_while_lose_nothing(site, consume, until):
    """As on a broken disk: the file may not grow, which SQLite sees as an I/O error. Needs no rights, unlike a full disk."""
    child = consume()
    site.raise_many("work", range(200), do="slow", seconds=0.004)
    until(lambda: len(site.journal.flags("end")) > 20)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (os.path.getsize(f"{site.flags.path}-wal") + 5000, resource.RLIM_INFINITY))
    until(lambda: "the database is away" in child.log.read_text())
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    until(site.is_idle, limit=20)
    child.terminate()
    assert child.wait(5) == 0
    ledger = Ledger(site.journal.events())
    assert ledger.lost() == [] and ledger.repeats() == [] and is_sound(site.flags.path)

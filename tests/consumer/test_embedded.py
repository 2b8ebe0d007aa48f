"""Embedded: a process of the site's that sweeps, or stands by, and what becomes of both; the servers have a file of their own."""

import os
import shutil
import sys
import textwrap
import threading
import time
from importlib.util import find_spec

import pytest
from rig import let_go

from flagsweep import ConfigError, FlagSweep, LeaseHeld
from flagsweep.consumer.embedded import Worker
from flagsweep.sweep.threads import Pool

pytestmark = pytest.mark.long


class Site:
    """A site that notes what its handler did."""

    def __init__(self, url, folder, **settings):
        settings = {"mode": "embedded", "threads": 2, "shutdown_timeout": 5, **settings}
        self.flags = FlagSweep(url, state_dir=str(folder / "state"), **settings)
        self.done = []
        self.gate = threading.Event()
        self.entered = threading.Event()

        @self.flags.handler(max_attempts=5, backoff=0)
        def work(n, waits=False):
            if waits:
                self.entered.set()
                self.gate.wait(20)
            self.done.append(n)

        self.work = work

    def raise_(self, n, **more):
        self.work.raise_flag(n, **more)

    def close(self):
        self.gate.set()
        self.flags.stop(wait=True)
        self.flags.connections.close_thread()
        self.flags.database.close()


@pytest.fixture
def make(tmp_path, url, monkeypatch):
    """Give `make(**settings)`: a site whose process may sweep, on each kind of database."""
    monkeypatch.setattr(Worker, "REST", 0.2)
    made = []

    def make(init=True, **settings):
        made.append(Site(url, tmp_path, **settings))
        if init:
            made[-1].flags.init()
        return made[-1]

    yield make
    for site in made:
        site.close()
    end = time.monotonic() + 5
    while any(thread.name == "flagsweep-embedded" for thread in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.02)
    let_go(tmp_path)


@pytest.fixture
def site(make):
    return make()


@pytest.fixture
def program(spawn, tmp_path, url):
    """Give `program(text)`: start a program of a site on the same database, which has `flags` and `say`."""

    def program(text, **settings):
        settings = {"mode": "embedded", "threads": 2, "state_dir": str(tmp_path / "state"), **settings}
        begin = f"""
            import os, sys, threading, time
            from flagsweep import FlagSweep
            flags = FlagSweep({url!r}, **{settings!r})
            def say(*words):
                os.write(1, (" ".join(map(str, words)) + chr(10)).encode())
            def until(condition):
                end = time.monotonic() + 30
                while not condition():
                    assert time.monotonic() < end
                    time.sleep(0.01)
            begun = []
            @flags.handler(max_attempts=5, backoff=0)
            def work(n, waits=False, seconds=0):
                begun.append(n)
                say("begins", n)
                time.sleep(seconds)
                say("did", n)
        """
        path = tmp_path / f"program-{len(list(tmp_path.glob('program-*')))}.py"
        path.write_text(textwrap.dedent(begin) + textwrap.dedent(text))
        return spawn(sys.executable, path)

    return program


# Beginning.


def test_a_process_that_started_sweeps_what_is_raised(site, until):
    site.flags.start()
    site.raise_(1)
    until(lambda: site.done == [1])
    until(lambda: site.flags.sweeping)


def test_to_start_again_does_no_harm(site, until):
    for _ in range(3):
        site.flags.start()
    until(lambda: site.flags.sweeping)
    site.flags.start()
    assert [t.name for t in threading.enumerate()].count("flagsweep-embedded") == 1


def test_many_threads_that_answer_their_first_request_start_one(site, until):
    threads = [threading.Thread(target=site.flags.start) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [t.name for t in threading.enumerate()].count("flagsweep-embedded") == 1


def test_nothing_sweeps_before_it_is_asked_to(site):
    site.raise_(1)
    assert not site.flags.sweeping
    assert not [t for t in threading.enumerate() if t.name.startswith("flagsweep")]


@pytest.mark.parametrize("mode", ["external", "inline"])
def test_start_says_what_to_do_where_the_mode_is_another(make, mode):
    site = make(mode=mode)
    with pytest.raises(ConfigError, match=f"mode is '{mode}': set mode='embedded', or "):
        site.flags.start()


def test_a_mode_that_there_is_not_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="mode must be 'external', 'embedded' or 'inline', got 'eager'"):
        FlagSweep(tmp_path / "site.db", mode="eager")


def test_a_database_in_memory_is_refused():
    with pytest.raises(ConfigError, match="not one in memory"):
        FlagSweep("sqlite:///:memory:", mode="embedded").start()


def test_a_second_flagsweep_on_the_same_database_is_refused_while_the_first_one_serves(make):
    first, second = make(), make()
    first.flags.start()
    with pytest.raises(ConfigError, match=r"another FlagSweep sweeps .* in this process already"):
        second.flags.start()
    first.flags.stop(wait=True)
    second.flags.start()


PATCHES = {"gevent": "import gevent.monkey; gevent.monkey.patch_all()", "eventlet": "import eventlet; eventlet.monkey_patch()"}


@pytest.mark.parametrize("name", PATCHES)
def test_a_process_whose_threads_are_green_is_refused_with_the_way_out(spawn, missing, name):
    if find_spec(name) is None:
        missing(f"{name} is not installed")
    text = "from flagsweep import FlagSweep\nFlagSweep('sqlite:///site.db', mode='embedded').start()\n"
    child = spawn(sys.executable, "-W", "ignore", "-c", f"{PATCHES[name]}\n{text}")
    child.wait(60)
    assert f"ConfigError: mode='embedded' needs threads, and {name} has replaced those of this process: " in child.log.read_text()
    assert "have 'flagsweep run' as a consumer of its own" in child.log.read_text()


# Who sweeps.


def test_status_and_doctor_tell_of_it(site, until):
    site.flags.start()
    until(lambda: site.flags.sweeping)
    [consumer] = site.flags.status()["consumers"]
    assert (consumer["mode"], consumer["pid"], consumer["alive"]) == ("embedded", os.getpid(), True)
    found = {each.what: each for each in site.flags.doctor()}["consumer"]
    assert found.level == "ok" and f"pid {os.getpid()}" in found.text


def test_who_stands_by_has_one_thread_and_neither_huey_nor_a_connection_and_sweeps_when_the_other_has_ended(site, program, until):
    site.flags.start()
    until(lambda: site.flags.sweeping)
    child = program("""
        flags.start()
        time.sleep(1)
        ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("flagsweep")]
        say("by", flags.sweeping, ours, "huey" in sys.modules, flags.connections.engine.is_closed())
        until(lambda: flags.sweeping)
        say("sweeps")
        sys.stdin.read()
        time.sleep(20)
    """)
    until(lambda: "by False ['flagsweep-embedded'] False True" in child.log.read_text() or child.poll() is not None, 30)
    site.raise_(1)
    until(lambda: site.done == [1])
    site.flags.stop()
    until(lambda: "sweeps" in child.log.read_text())
    site.raise_(2)
    until(lambda: "did 2" in child.log.read_text())
    assert site.done == [1]


def test_another_process_sweeps_on_when_one_is_killed_and_charges_nobody_else(make, program, until):
    site = make(mode="external")
    first = program("flags.start(); time.sleep(60)")
    site.raise_(1)
    until(lambda: "did 1" in first.log.read_text(), 30)
    second = program("flags.start(); time.sleep(60)")
    first.kill()
    site.raise_(2)
    until(lambda: "did 2" in second.log.read_text(), 30)


def test_run_is_refused_beside_it_with_its_name(site, until, url):
    if not url.startswith("sqlite"):
        pytest.skip("on a server further consumers stand by")
    site.flags.start()
    until(lambda: site.flags.sweeping)
    with pytest.raises(LeaseHeld, match=f"pid {os.getpid()} "):
        site.flags.run()


# A fork.


def test_a_forked_child_sweeps_only_once_it_is_asked_to(make, program):
    """Somebody else has a SQLite database open meanwhile: where a parent is the last to close it, its log goes, and with that
    the child's, which SQLite does not allow to have been open before the fork."""
    site = make(mode="external")
    site.flags.database.connect()
    child = program("""
        flags.start()
        until(lambda: flags.sweeping)
        work.raise_flag(0)
        until(lambda: not flags.find())
        time.sleep(0.5)  # Nobody is within the database's library then, whose locks would be the child's for ever.
        pid = os.fork()
        if not pid:
            say("child", flags.sweeping, [t.name for t in threading.enumerate() if t.name.startswith("flagsweep")])
            work.raise_flag(1)
            flags.start()
            say("child stands by", flags.sweeping)
            until(lambda: flags.sweeping)
            say("child sweeps")
            work.raise_flag(2)
            until(lambda: not flags.find())
            say("child ends")
            sys.exit()
        until(lambda: not flags.find())
        flags.stop(wait=True)
        say("parent stopped")
        os.waitpid(pid, 0)
        say("parent ends")
    """)
    assert child.wait(60) == 0, child.log.read_text()
    said = child.log.read_text().splitlines()
    assert "child False []" in said and "child stands by False" in said
    assert "child ends" in said, said
    assert said.index("parent stopped") < said.index("child sweeps") < said.index("did 2") < said.index("child ends")
    assert site.flags.status()["consumers"] == []


# The end.


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise SystemExit(3)", "os.kill(os.getpid(), 15)"])
def test_the_end_of_the_interpreter_lets_handlers_end_and_gives_back_the_rest(make, program, until, end):
    site = make(mode="external")
    child = program(f"""
        import signal
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        flags.start()
        until(lambda: flags.sweeping)
        work.raise_many({{"n": n, "seconds": 0.5}} for n in range(20))
        until(lambda: len(begun) > 1)
        say("ends")
        {end}
        time.sleep(5)
    """)
    assert child.wait(60) == 3, child.log.read_text()
    begun, did = (child.log.read_text().count(word) for word in ("begins", "did"))
    assert begun == did and 2 <= did < 20
    assert len(site.flags.find()) == 20 - did and {flag.state for flag in site.flags.find()} == {"waiting"}
    assert site.flags.status()["consumers"] == []


def test_the_end_of_a_forked_multiprocessing_child_gives_back_the_rest(make, program):
    site = make(mode="external")
    child = program("""
        import multiprocessing
        def serve():
            flags.start()
            until(lambda: flags.sweeping)
            work.raise_many({"n": n, "seconds": 0.5} for n in range(20))
            until(lambda: begun)
        process = multiprocessing.get_context("fork").Process(target=serve)
        process.start()
        process.join()
    """)
    assert child.wait(60) == 0, child.log.read_text()
    assert child.log.read_text().count("begins") == child.log.read_text().count("did")
    assert {flag.state for flag in site.flags.find()} == {"waiting"} and site.flags.status()["consumers"] == []


def test_a_handler_that_hangs_keeps_no_interpreter_from_ending(make, program, until):
    site = make(mode="external")
    child = program(
        """
        flags.start()
        work.raise_flag(1, seconds=60)
        until(lambda: begun)
        say("ends", time.monotonic())
    """,
        shutdown_timeout=0.5,
    )
    assert child.wait(60) == 0
    [ends] = [line for line in child.log.read_text().splitlines() if line.startswith("ends ")]
    assert time.monotonic() - float(ends.split()[1]) < 10, "and not 60"
    site.flags.sweep(limit=0)
    [flag] = site.flags.find()
    assert (flag.state, flag.attempts) == ("waiting", 0), "it ended on purpose: nobody is charged"


# What fails.


def test_it_begins_once_the_database_is_there(make, until, caplog):
    site = make(init=False)
    site.flags.start()
    until(lambda: "the consumer in this process is away: " in caplog.text)
    assert "flagsweep init" in caplog.text
    site.flags.init()
    site.raise_(1)
    until(lambda: site.done == [1])


def test_a_handler_that_outlasts_its_stop_keeps_its_flag_and_nobody_from_sweeping(make, until):
    site, other = make(shutdown_timeout=0.2), make()
    site.flags.start()
    site.raise_(1, waits=True)
    assert site.entered.wait(10)
    site.flags.stop(wait=True)
    assert not site.flags.sweeping
    other.flags.start()
    site.raise_(2)
    until(lambda: len(site.flags.find()) == 1)
    [flag] = site.flags.find()
    assert other.done == [2]
    assert (flag.payload["n"], flag.state) == (1, "claimed")
    site.gate.set()
    until(lambda: not site.flags.find())
    assert site.done == [1] and other.done == [2], "each once"
    until(lambda: len(site.flags.status()["consumers"]) == 1)


def test_a_thread_that_dies_ends_no_host_and_another_turn_goes_on(site, until, caplog, monkeypatch):
    run = Pool._run
    monkeypatch.setattr(Pool, "_run", lambda pool: None)
    site.flags.start()
    site.raise_(1)
    until(lambda: "this process goes on serving" in caplog.text, 20)
    monkeypatch.setattr(Pool, "_run", run)
    site.raise_(2)
    until(lambda: 2 in site.done, 20)


def test_a_file_that_takes_the_place_of_the_database_is_swept_instead(site, url, until, tmp_path):
    if not url.startswith("sqlite"):
        pytest.skip("a file")
    site.flags.start()
    site.raise_(1)
    until(lambda: site.done == [1])
    site.flags.database.close()
    other = FlagSweep(tmp_path / "other.db")
    other.init()
    other.connections.close_thread()
    shutil.move(tmp_path / "other.db", tmp_path / "site.db")
    until(lambda: not site.flags.sweeping)
    until(lambda: site.flags.sweeping, 20)
    site.raise_(2)
    until(lambda: site.done == [1, 2])


def test_who_is_elected_while_the_interpreter_ends_leaves_it_to_others_without_an_alarm(site, program, until):
    site.flags.start()
    until(lambda: site.flags.sweeping)
    child = program("""
        from flagsweep.consumer.embedded import Worker
        tried, sweep = threading.Event(), Worker._sweep
        def sweep_and_tell(worker):
            try:
                sweep(worker)
            finally:
                tried.set()
        Worker._sweep = sweep_and_tell
        flags.start()
        def linger():
            say("ending")
            tried.wait(20)
            say("tried", tried.is_set())
        threading._register_atexit(linger)
    """)
    until(lambda: "ending" in child.log.read_text())
    site.flags.stop(wait=True)
    assert child.wait(30) == 0
    said = child.log.read_text()
    assert "tried True" in said and "is away" not in said and "Traceback" not in said


class Late:
    """Stand for a runner whose handlers outlasted its stop."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked = 0

    def settle_late(self):
        self.asked += 1
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def a_worker_with(site, *late):
    worker = Worker(site, site.flags.connections, None, None, lambda: None)
    worker._late = list(late)
    return worker


def test_of_several_late_ones_who_is_settled_is_settled_once_whatever_becomes_of_the_others(site):
    first, second = Late(True), Late(OSError("away"), True)
    worker = a_worker_with(site, first, second)
    with pytest.raises(OSError, match="away"):
        worker._settle_late()
    worker._settle_late()
    assert (first.asked, second.asked, worker._late) == (1, 2, [])


def test_a_late_one_that_cannot_be_settled_is_tried_again_at_the_end_and_told(site, caplog):
    late = Late(False, OSError("away"), True)
    worker = a_worker_with(site, late)
    worker.stop("it is over")
    worker.start()
    worker.join(20)
    assert not worker.is_alive() and worker.has_left.is_set()
    assert late.asked == 3 and "the consumer in this process is away: away" in caplog.text

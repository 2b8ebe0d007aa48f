"""FlagSweep as a site uses it: it shares a transaction, a process and a file with the site, and registers handlers."""

import logging
import subprocess
import sys
import threading

import pytest
from peewee import SqliteDatabase
from rig import Oops, count, idle, plain

from flagsweep import ConfigError, FlagSweep


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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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

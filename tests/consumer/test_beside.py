"""Beside: the site's own Huey, whose tasks run in the process of the consumer, and stop with it."""

import logging
import signal
import sys
import threading

import pytest
from huey import Huey, MemoryHuey, RedisHuey, SqliteHuey, signals
from work import running

from flagsweep import ConfigError, FlagSweep

pytestmark = pytest.mark.long


@pytest.fixture(params=["memory", "sqlite", "redis"])
def huey(request, tmp_path):
    """Return a site's own Huey, in each of the stores that a site may have."""
    if request.param == "redis":
        huey = RedisHuey("beside", url=request.getfixturevalue("redis_url"))
        huey.storage.flush_all()
    else:
        huey = MemoryHuey("beside") if request.param == "memory" else SqliteHuey("beside", filename=str(tmp_path / "huey.db"))
    yield huey
    huey.storage.close()
    if request.param == "redis":
        huey.storage.pool.disconnect()


@pytest.fixture
def site(db_path):
    """Give `site(also)`: flags with one handler, beside a Huey."""

    def site(also):
        flags = FlagSweep(db_path, also=also, shutdown_timeout=5)
        flags.init()
        flags.done = []

        @flags.handler
        def send(user_id):
            flags.done.append((user_id, threading.current_thread().name))

        return flags

    return site


def test_a_sites_tasks_run_in_the_process_that_sweeps_now_later_and_every_minute(huey, site, until):
    flags, done = site(huey), []

    @huey.task()
    def resize(n):
        done.append(n)

    @huey.periodic_task(lambda now: True)
    def tick():
        done.append("tick")

    with running(flags, until):
        resize(1)
        resize.schedule((2,), delay=1)
        flags.handlers["send"].raise_flag(17)
        until(lambda: {1, 2, "tick"} <= set(done) and flags.done)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("Worker-", "Scheduler", "flagsweep"))]
    resize(3)
    with running(flags, until):
        until(lambda: 3 in done)


def test_a_stop_lets_a_running_task_end_and_takes_no_other(huey, site, until):
    flags, gate, done = site({"huey": huey, "workers": 2}), threading.Event(), []

    @huey.task()
    def wait(n):
        done.append(n)
        gate.wait(10)
        done.append(-n)

    with running(flags, until):
        wait(1), wait(2), wait(3)
        until(lambda: len(done) == 2)
        flags.stop()
        threading.Timer(0.2, gate.set).start()
    assert sorted(done) == [-2, -1, 1, 2]
    assert huey.pending_count() == 1


def test_a_task_that_outlasts_the_stop_is_told_as_interrupted_and_keeps_nobody(db_path, until):
    huey, gate, interrupted = MemoryHuey("beside"), threading.Event(), []
    flags = FlagSweep(db_path, also=huey, shutdown_timeout=0.2)
    flags.init()

    @flags.handler
    def nothing(): ...

    @huey.task()
    def hang():
        gate.wait(20)

    @huey.signal(signals.SIGNAL_INTERRUPTED)
    def tell(signal, task):
        interrupted.append(task.name)

    with running(flags, until):
        hang()
        until(lambda: huey.pending_count() == 0)
    assert interrupted == ["hang"]
    gate.set()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("Worker-")])


def test_its_log_is_as_ever_and_ours_is_not_in_it(db_path, until, caplog):
    huey, done = MemoryHuey("beside"), []
    flags = FlagSweep(db_path, also=huey)
    flags.init()

    @flags.handler(lane="of_ours")
    def send(n):
        done.append(n)

    @huey.task()
    def resize(n):
        done.append(n)

    level = logging.NOTSET  # As it is where nobody has set one; an earlier run in this process may have.
    with caplog.at_level(level, logger="huey"), caplog.at_level(logging.INFO), running(flags, until):
        resize(1)
        send.raise_flag(2)
        until(lambda: sorted(done) == [1, 2])
        until(lambda: "executed in" in caplog.text)
        assert logging.getLogger("huey").level == level
    told = [record.getMessage() for record in caplog.records if record.name.startswith("huey")]
    assert any(line.startswith("Executing") and "resize" in line for line in told)
    assert not [line for line in told if "of_ours" in line], told
    assert sum("consumer started" in line for line in told) == 1
    assert not logging.getLogger("huey").filters


SITE = """
import pathlib, time
from huey import SqliteHuey
from flagsweep import FlagSweep

huey = SqliteHuey("beside", filename="huey.db")
flags = FlagSweep("site.db", also=huey, shutdown_timeout=8)

@flags.handler
def send(n):
    pathlib.Path(f"sent-{n}").touch()

@huey.task()
def resize(n):
    pathlib.Path("began").touch()
    while not pathlib.Path("gate").exists():
        time.sleep(0.01)
    pathlib.Path(f"resized-{n}").touch()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_stop_both_once_and_what_runs_ends_in_time(tmp_path, spawn, until, number):
    (tmp_path / "shop.py").write_text(SITE)
    made = spawn(sys.executable, "-c", "import shop; shop.flags.init(); shop.resize(1); shop.send.raise_flag(2)")
    assert made.wait(20) == 0, made.log.read_text()
    child = spawn(sys.executable, "-m", "flagsweep", "--app", "shop", "run")
    until(lambda: (tmp_path / "began").exists() and (tmp_path / "sent-2").exists())
    child.send_signal(number)
    until(lambda: "stopping" in child.log.read_text())
    (tmp_path / "gate").touch()
    assert child.wait(10) == 0
    text = child.log.read_text()
    assert (tmp_path / "resized-1").exists() and "stopped" in text and "Traceback" not in text
    assert "Executing shop.resize" in text and text.count("Huey consumer started") == 1


@pytest.mark.parametrize(
    ("also", "expected"),
    [
        (17, "also must be the site's own Huey, or .* got 17"),
        ({"workers": 2}, "also must be the site's own Huey, or .* got None"),
        ({"huey": MemoryHuey("beside"), "wrkers": 2}, "unexpected keyword argument 'wrkers'"),
        ({"huey": MemoryHuey("beside"), "worker_type": "process"}, "in threads, not with worker_type='process'"),
        ({"huey": MemoryHuey("beside"), "scheduler_interval": 7}, "Scheduler interval must be"),
        (MemoryHuey("beside", immediate=True), "immediate mode, in which it has no consumer: set huey.immediate = False"),
    ],
    ids=["number", "none", "option", "process", "interval", "immediate"],
)
def test_what_cannot_run_beside_is_refused_before_anything_begins(site, also, expected):
    flags = site(also)
    with pytest.raises(ConfigError, match=expected):
        flags.run()
    assert not flags.store.consumers()


def test_our_own_huey_is_none_of_the_sites(site):
    flags = site(None)
    flags.also = flags.huey
    with pytest.raises(ConfigError, match="the site's own Huey"):
        flags.run()
    assert isinstance(flags.huey, Huey)

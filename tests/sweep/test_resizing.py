"""A lane has more or fewer threads while it runs: nothing is lost, nobody is stuck, and there are never too many in all."""

import threading
import time
from types import SimpleNamespace

import pytest
from playhouse.pool import PooledSqliteDatabase
from rig import idle, lane_of
from work import running

from flagsweep import ConfigError, FlagSweep
from flagsweep.config import Clock
from flagsweep.sweep.crew import Crew


class Busy:
    """A site whose handler takes some milliseconds, and that knows how many run at a time."""

    def __init__(self, database, **settings):
        self.flags = FlagSweep(database, clock=Clock(), **{"threads": 1, **settings})
        self.flags.init()
        self.ran, self.most, self._running, self._lock = [], 0, 0, threading.Lock()
        self.work = self.flags.handler("work")(self._work)

    def _work(self, n):
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        time.sleep(0.004)
        with self._lock:
            self._running -= 1
            self.ran.append(n)

    def runs_at_once(self, seconds=0.1):
        """Return how many run at a time, at the most, from now on."""
        self.most, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.005)
        return self.most


def pool_of(flags):
    return flags._runner._lanes["default"].pool


@pytest.mark.long
def test_one_thread_becomes_eight_and_then_two_while_handlers_run(db_path, until):
    site = Busy(db_path)
    with running(site.flags, until):
        site.work.raise_many([(n,) for n in range(1200)])
        until(lambda: len(site.ran) > 5)
        assert site.runs_at_once() == 1
        site.flags.set_threads("default", 8)
        until(lambda: site.most == 8)
        site.flags.set_threads("default", 2)
        until(lambda: len(pool_of(site.flags)._threads) == 2)
        assert site.runs_at_once() == 2 and site.flags.find(limit=1), "there was work until then"
        site.flags.set_threads("default", 8)
        until(lambda: len(site.ran) == 1200)
        site.flags.set_threads("default", None)
        until(lambda: len(pool_of(site.flags)._threads) <= 1)
        box = site.flags._runner._enlisted.box
        assert len(box._free) >= 4095, "who has ended has given up its slot"
        site.work.raise_flag(1200)
        until(lambda: site.flags.find() == [])
    assert sorted(site.ran) == list(range(1201)), "each once"


@pytest.mark.slow
def test_sizes_that_change_all_the_time_lose_nothing(db_path, until):
    site = Busy(db_path)
    with running(site.flags, until):
        site.work.raise_many([(n,) for n in range(4000)])
        for threads in [8, 1, 3, 12, 2, None, 1, 16] * 2:
            site.flags.set_threads("default", threads)
            until(lambda wanted=threads: pool_of(site.flags).size == (wanted or 1))
        until(lambda: len(site.ran) == 4000, 30)
    assert sorted(site.ran) == list(range(4000))


def test_a_sweep_has_the_threads_of_the_row_too(url, clock, tmp_path):
    flags = FlagSweep(url, clock=clock, state_dir=tmp_path / "state", threads=1)
    flags.init()
    idle(flags).raise_many([(n,) for n in range(50)])
    flags.set_threads("default", 3)
    with lane_of(flags, "default") as lane:
        assert lane.sweep()["lowered"] == 50
        assert lane.pool.size == 3
    assert [(gate.name, gate.threads, gate.closed) for gate in flags.gates()] == [("default", 3, False)]
    flags.set_threads("default", None)
    assert flags.gates() == []
    flags.connections.close_thread()


@pytest.mark.long
def test_a_lane_never_grows_beyond_the_connections_of_the_sites_pool(db_path, until):
    site = Busy(
        PooledSqliteDatabase(db_path, max_connections=3, timeout=1, check_same_thread=False), lanes={"default": 1, "slow": 1}
    )
    idle(site.flags, "other", lane="slow")
    with running(site.flags, until):
        site.flags.set_threads("default", 8)
        site.work.raise_many([(n,) for n in range(100)])
        until(lambda: len(site.ran) == 100)
        assert pool_of(site.flags).size == 2 and site.most == 2
    site.flags.database.close_all()


@pytest.mark.parametrize("threads", [0, 1001, True, "8"])
def test_what_is_no_number_of_threads_is_refused(flags, threads):
    idle(flags)
    with pytest.raises(ConfigError, match="threads of lane 'default' must be a whole number from 1 to 1000"):
        flags.set_threads("default", threads)


def test_a_lane_gets_what_the_others_have_given_up_and_ended():
    def pool(size, alive):
        each = SimpleNamespace(size=size, alive=alive, manned=max(size, alive))
        each.resize = lambda size: vars(each).update(size=size, manned=max(size, each.alive))
        return each

    crew, one, other = Crew(10), pool(6, 6), pool(2, 2)
    crew.join(one), crew.join(other)
    assert crew.resize(other, 8) == 4
    assert crew.resize(one, 1) == 1 and crew.resize(other, 8) == 4, "its handlers still run"
    one.alive = 1
    one.manned = 1
    assert crew.resize(other, 8) == 8
    assert crew.resize(one, 50) == 2

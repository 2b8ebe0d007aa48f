"""Async handlers in a consumer's process: how it stops, and who is to blame where it dies."""

import json
import signal
import sys

import pytest
from rig import plain

from flagsweep import FlagSweep

pytestmark = pytest.mark.long

WORK = """
import asyncio, faulthandler, json, os, sys, time
from flagsweep import FlagSweep, Snooze

flags = FlagSweep(sys.argv[1], **json.loads(sys.argv[2]))


def note(*what):
    os.write(1, (json.dumps(what) + chr(10)).encode())


@flags.handler(backoff=30)
async def work(n, do="wait", flag=None):
    note("start", n)
    if do == "crash":
        while len(flags._runner._lanes["default"].pool.under_way()) < 3:
            await asyncio.sleep(0.001)
        faulthandler._sigsegv()
    if do == "block":
        time.sleep(60)
    try:
        while do != "quick" and not (do == "polite" and flag.should_stop()):
            await asyncio.sleep(0.005)
    except asyncio.CancelledError:
        note("cancelled", n)
        if do != "swallow":
            raise
        await asyncio.sleep(60)
    if do == "polite":
        raise Snooze(0)
    note("end", n)


@flags.handler(backoff=30)
def sync(n):
    note("start", "sync")
    time.sleep(60)


if __name__ == "__main__":
    flags.run() or os._exit(0)
"""


@pytest.fixture
def flags(db_path, tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    flags = FlagSweep(db_path)
    flags.init()

    @flags.handler()
    def work(n, do="wait"): ...

    @flags.handler()
    def sync(n): ...

    yield flags
    flags.connections.close_thread()


@pytest.fixture
def run(spawn, db_path):
    """Give `run(**settings)`: start a consumer in a process of its own."""
    return lambda **settings: spawn(sys.executable, "work.py", db_path, json.dumps({"shutdown_timeout": 0.3, **settings}))


def noted(child, what):
    """Return what a child has noted."""
    lines = [json.loads(line) for line in child.log.read_text().splitlines() if line.startswith('["')]
    return [n for name, n in lines if name == what]


def rows(db_path, what="state, attempts, suspect, crashes"):
    return plain(db_path, f"SELECT {what} FROM flagsweep_flag ORDER BY id")


@pytest.mark.parametrize("sorts", ["async", "both"])
def test_those_that_wait_too_long_are_cancelled_and_their_flags_are_free_and_uncharged(flags, run, until, db_path, sorts):
    flags.handler_of("work").raise_many([(n,) for n in range(10)])
    if sorts == "both":
        flags.handler_of("sync").raise_flag(1)
    child = run(tasks=4)
    until(lambda: len(noted(child, "start")) == 4 + (sorts == "both"))
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    assert sorted(noted(child, "cancelled")) == [0, 1, 2, 3] and not noted(child, "end")
    assert plain(db_path, "SELECT state, attempts, suspect FROM flagsweep_flag WHERE kind = 'work'") == [("waiting", 0, 0)] * 10
    assert ("stopped while these still run" in child.log.read_text()) == (sorts == "both")


def test_one_that_goes_on_all_the_same_keeps_no_process_alive_and_is_not_charged(flags, run, until, db_path):
    work = flags.handler_of("work")
    work.raise_many([(1, "swallow"), (2, "wait")])
    child = run()
    until(lambda: len(noted(child, "start")) == 2)
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    assert "stopped while these still run, they run again: work (flag 1)" in child.log.read_text()
    second = run()
    until(lambda: len(noted(second, "start")) == 2)
    second.kill()
    assert [attempts for _, attempts, *_ in rows(db_path)] == [0, 0]


def test_those_that_ask_whether_to_stop_end_in_time(flags, run, until, db_path):
    flags.handler_of("work").raise_many([(n, "polite") for n in range(5)])
    child = run(shutdown_timeout=20)
    until(lambda: len(noted(child, "start")) == 5)
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    assert rows(db_path) == [("waiting", 0, 0, 0)] * 5


def test_a_kill_charges_once_each_of_those_that_ran_and_nobody_else(flags, run, until, db_path):
    flags.handler_of("work").raise_many([(n,) for n in range(20)])
    child = run(tasks=5)
    until(lambda: len(noted(child, "start")) == 5)
    child.kill()
    child.wait()
    second = run(tasks=5)
    until(lambda: "consumer 1 died" in second.log.read_text())
    second.kill()
    second.wait()
    charged = [row for row in rows(db_path, "attempts, suspect, crashes, strikes") if row[0]]
    assert charged == [(1, 1, 0, 100)] * 5


def test_a_crash_charges_the_one_that_had_the_thread_and_none_that_waited(flags, run, until, db_path):
    flags.handler_of("work").raise_many([(1, "wait"), (2, "wait"), (3, "crash")])
    child = run()
    assert child.wait(20) == -signal.SIGSEGV
    second = run()
    until(lambda: "consumer 1 died" in second.log.read_text())
    assert "charged, since they were running: work (flag 3)" in second.log.read_text()
    second.kill()
    second.wait()
    assert rows(db_path, "attempts, suspect")[:2] == [(0, 0), (0, 0)]


def test_a_loop_that_is_blocked_for_too_long_ends_the_consumer_and_charges_who_blocks_it(flags, run, until, db_path):
    flags.handler_of("work").raise_many([(1, "wait"), (2, "wait"), (3, "block")])
    child = run(stuck_after=2)
    assert child.wait(30) == 1
    text = child.log.read_text()
    assert "lane default is stuck: work (flag 3) blocks its event loop for more than 2 s" in text
    second = run()
    until(lambda: "consumer 1 died" in second.log.read_text())
    assert "charged, since they were running: work (flag 3)" in second.log.read_text()
    second.kill()

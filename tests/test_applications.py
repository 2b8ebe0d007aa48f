"""Two applications on one database of a server, each with handlers and a consumer of its own, and no lane named."""

import sys
import threading

import pytest

from flagsweep import FlagSweep

APP = """
import os, sys
from flagsweep import FlagSweep
flags = FlagSweep(sys.argv[1], state_dir=sys.argv[2], queue=sys.argv[3], queue_key="a key that is long enough", threads=2)
for kind in sys.argv[4:]:
    @flags.handler(kind)
    def work(n, kind=kind):
        with open(os.path.join(sys.argv[2], "journal"), "a") as journal:
            journal.write(f"{kind} {n} {os.getpid()}\\n")
flags.run()
"""
QUEUES = ["memory", "redis", "sqlite"]


@pytest.fixture(params=["postgres", "mysql"])
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(params=QUEUES)
def queue(request, tmp_path):
    if request.param == "redis":
        return request.getfixturevalue("redis_url")
    return "memory" if request.param == "memory" else f"sqlite:///{tmp_path}/queue.db"


@pytest.fixture
def flags(url, tmp_path):
    """Return the site as somebody sees it who may raise every kind."""
    (tmp_path / "state").mkdir()
    flags = FlagSweep(url, state_dir=str(tmp_path / "state"))
    flags.init()
    for kind in "abc":
        flags.handler(kind)(lambda n: None)
    yield flags
    flags.connections.close_thread()


@pytest.fixture
def start(url, spawn, tmp_path, until):
    """Give `start(*kinds)`: a consumer that serves them, in a process of its own, once it runs."""

    def start(*kinds, queue="memory"):
        child = spawn(sys.executable, "-c", APP, url, tmp_path / "state", queue, *kinds)
        until(lambda: "flagsweep sweeps" in child.log.read_text() or child.poll() is not None or seen(child), 20)
        return child

    def seen(child):
        flags = FlagSweep(url, state_dir=str(tmp_path / "state"))
        try:
            return any(each["pid"] == child.pid for each in flags.status()["consumers"])
        finally:
            flags.connections.close_thread()

    return start


def done(tmp_path):
    """Return (kind, n, pid) of what was done."""
    path = tmp_path / "state" / "journal"
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def test_two_applications_work_side_by_side_and_neither_waits_for_the_other(flags, start, queue, until, tmp_path):
    one, two = start("a", queue=queue), start("b", queue=queue)
    for kind in "ab":
        flags.handlers[kind].raise_many([{"n": n} for n in range(20)])
    until(lambda: len(done(tmp_path)) == 40, 20)
    assert {(kind, pid) for kind, _, pid in done(tmp_path)} == {("a", str(one.pid)), ("b", str(two.pid))}
    one.kill()
    one.wait()
    flags.handlers["b"].raise_flag(n=100)
    until(lambda: ("b", "100", str(two.pid)) in done(tmp_path))


def test_a_second_consumer_of_the_same_application_stands_by_and_takes_over(flags, start, until, tmp_path):
    one = start("a", "b")
    flags.handlers["a"].raise_flag(n=1)
    until(lambda: len(done(tmp_path)) == 1)
    two = start("a", "b")
    flags.handlers["a"].raise_many([{"n": n} for n in range(10, 30)])
    until(lambda: len(done(tmp_path)) == 21)
    assert {pid for *_, pid in done(tmp_path)} == {str(one.pid)}
    one.kill()
    one.wait()
    flags.handlers["b"].raise_flag(n=100)
    until(lambda: ("b", "100", str(two.pid)) in done(tmp_path), 20)


def test_a_new_release_that_knows_one_kind_more_serves_it_at_once(flags, start, until, tmp_path):
    start("a", "b")
    new = start("a", "b", "c")
    flags.handlers["c"].raise_flag(n=1)
    until(lambda: ("c", "1", str(new.pid)) in done(tmp_path), 20)
    flags.handlers["a"].raise_many([{"n": n} for n in range(50)])
    until(lambda: len(done(tmp_path)) == 51, 20)
    assert len({(kind, n) for kind, n, _ in done(tmp_path)}) == 51, "no flag ran twice"


def test_what_nobody_serves_is_told_of_and_what_the_other_application_serves_is_not(url, tmp_path, until, caplog):
    flags = FlagSweep(url, state_dir=str(tmp_path))
    flags.init()
    flags.handler("mine")(lambda n: None)
    flags.handler("theirs")(lambda n: None).raise_flag(1)
    flags.handler("nobodys")(lambda n: None).raise_flag(1)
    with flags.connections.borrowed() as db:
        db.execute_sql(f"UPDATE flagsweep_flag SET due_at = 1 WHERE kind = {'%s'}", ("nobodys",))
    here = FlagSweep(url, state_dir=str(tmp_path))
    here.handler("mine")(lambda n: None)
    text = " ".join(finding.text for finding in here.doctor() if finding.what == "kinds")
    assert "nobodys" in text and any(finding.level == "warn" for finding in here.doctor() if finding.what == "kinds")
    consumer = threading.Thread(target=here.run)
    consumer.start()
    try:
        until(lambda: any("nobodys" in record.getMessage() for record in caplog.records), 20)
        told = [record.getMessage() for record in caplog.records if "without a handler wait" in record.getMessage()]
        assert all("theirs" not in line for line in told)
    finally:
        here.stop()
        consumer.join(20)
        flags.connections.close_thread()
        here.store.connections.close_thread()

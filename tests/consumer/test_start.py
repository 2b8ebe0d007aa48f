"""How a consumer starts and stops: whatever step fails, and whenever it is told to stop, it leaves nothing behind."""

import os
import resource
import threading
from types import SimpleNamespace

import psutil
import pytest
from clients import DATABASES
from work import Work, running

import flagsweep.consumer.runner
from flagsweep import ConfigError, LeaseHeld
from flagsweep.consumer.crash_log import CrashLog
from flagsweep.consumer.keeper import Keeper
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.rescue import Rescuer
from flagsweep.consumer.runner import Runner
from flagsweep.consumer.wakeups import SessionBell
from flagsweep.consumer.watcher import Watcher
from flagsweep.databases import schema
from flagsweep.sweep.blackbox import BlackBox
from flagsweep.tasks import SweepTasks


@pytest.fixture(params=DATABASES)
def url(request, db_path):
    """Return the URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{db_path}"
    return request.getfixturevalue("postgres_url" if request.param == "postgresql" else "mysql_url")


@pytest.fixture
def site(url, tmp_path):
    work = Work(
        url, tmp_path / "journal", state_dir=str(tmp_path / "state"), queue=f"sqlite:///{tmp_path / 'queue.db'}"
    ).prepare()
    yield work
    work.flags.connections.close_thread()
    work.close()


class Planted(Exception):
    """The error that a test plants."""


def fails(*_, **__):
    raise Planted("planted")


def descriptors():
    """Return how many files, pipes and sockets this process has open."""
    return psutil.Process().num_fds()


def traces(site):
    """Return what is left of a consumer: rows, threads, and files other than the lease's."""
    rows = [each["id"] for each in site.flags.status()["consumers"]]
    threads = [each.name for each in threading.enumerate() if each.name.startswith("flagsweep")]
    folder = site.journal.path.parent
    return [*rows, *threads, *folder.rglob("box-*"), *folder.rglob("crash-*")]


STEPS = {
    "its black box is made": (BlackBox, "__init__"),
    "its crash log is made": (CrashLog, "__init__"),
    "its lanes are made": (flagsweep.consumer.runner, "make_lanes"),
    "Huey is given its tasks": (SweepTasks, "_register"),
    "the dead are looked for": (Rescuer, "free_the_dead"),
    "commits are to be seen": (flagsweep.consumer.runner, "choose_bell"),
    "the watcher starts": (Watcher, "start"),
    "the keeper is made": (Keeper, "__init__"),
    "the keeper starts": (Keeper, "start"),
    "it listens to the queue": (SweepTasks, "listen"),
    "Huey's consumer is made": (flagsweep.consumer.runner._Consumer, "__init__"),
    "it says what it does": (Runner, "_banner"),
    "it takes its seats": (Enlisted, "sit"),
    "a first sweep is asked for": (SweepTasks, "ask"),
    "Huey's consumer starts": (flagsweep.consumer.runner._Consumer, "start"),
    "Huey's consumer runs": (flagsweep.consumer.runner._Consumer, "loop"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_start_that_fails_leaves_nothing_behind_and_the_next_one_works(site, monkeypatch, until, step):
    site.flags.sweep()
    before = descriptors()
    with monkeypatch.context() as planted:
        planted.setattr(*STEPS[step], fails)
        with pytest.raises(Planted):
            site.flags.run()
    until(lambda: not traces(site), limit=5)
    until(lambda: descriptors() <= before, limit=5)
    with running(site.flags, until):
        site.raise_("work", 1)
        until(site.is_idle)


THREADS = [("sqlite", f"flagsweep-{name}") for name in ("signals", "watcher", "keeper", "guard", "listener")]


@pytest.mark.parametrize(
    ("url", "name"), [*THREADS, *((server, "flagsweep-lease") for server in DATABASES[1:])], indirect=["url"]
)
def test_a_start_for_which_the_system_has_no_thread_leaves_nothing_behind(site, monkeypatch, until, name):
    site.flags.sweep()
    before, start = descriptors(), threading.Thread.start

    def starts(thread):
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as planted:
        planted.setattr(threading.Thread, "start", starts)
        with pytest.raises(RuntimeError, match="can't start"):
            site.flags.run()
    until(lambda: not traces(site), limit=5)
    until(lambda: descriptors() <= before, limit=5)


def test_a_task_that_huey_has_already_leaves_nothing_behind_and_none_of_its_own_with_huey(site, until):
    others = SweepTasks(site.flags.huey, {"mail": SimpleNamespace(name="mail")}, 1)
    with pytest.raises(ValueError, match="mail"):
        site.flags.run()
    until(lambda: not traces(site), limit=5)
    others.unregister()
    with running(site.flags, until):
        site.raise_("work", 1)
        until(site.is_idle)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("step", [step for step in STEPS if step != "Huey's consumer runs"])
def test_a_stop_during_a_start_is_obeyed_at_whatever_step_it_comes(site, monkeypatch, step):
    place, name = STEPS[step]
    original = getattr(place, name)

    def stopped(*args, **options):
        site.flags.stop()
        return original(*args, **options)

    monkeypatch.setattr(place, name, stopped)
    stops_by_itself(site)


def stops_by_itself(site):
    """Check that a run which was told to stop already does."""
    ended = []
    run = threading.Thread(target=lambda: ended.append(site.flags.run()), name="consumer", daemon=True)
    run.start()
    run.join(10)
    if run.is_alive():
        site.flags.stop()
        run.join(10)
        pytest.fail("the stop was lost")
    assert ended == [True] and not traces(site)


def test_a_stop_is_obeyed_while_the_tables_are_looked_at_and_is_forgotten_by_the_next_run(site, monkeypatch, until):
    version = schema.version
    with monkeypatch.context() as planted:
        planted.setattr(schema, "version", lambda db: (site.flags.stop(), version(db))[1])
        stops_by_itself(site)
    site.flags.stop()
    with running(site.flags, until):
        site.raise_("work", 1)
        until(site.is_idle)


def test_a_second_run_of_one_object_fails_and_leaves_the_first_as_it_was(site, until):
    with running(site.flags, until) as first:
        for _ in range(2):
            with pytest.raises(LeaseHeld, match="runs already"):
                site.flags.run()
        site.raise_("work", 1)
        until(site.is_idle)
        site.flags.stop()
        first.join(10)
        assert not first.is_alive()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_each_of_many_threads_has_its_place_in_the_black_box(url, tmp_path, until):
    """The 1,025th found none, and died."""
    lanes = {"default": 1000, "mail": 1000, "slow": 1}
    work = Work(url, tmp_path / "journal", lanes=lanes).prepare()
    with running(work.flags, until):
        box = work.flags._runner._enlisted.box
        assert len({box.slot() for _ in range(2001)}) == 2001
    work.close()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_more_threads_than_a_process_should_have_are_refused_before_anything_starts(url, tmp_path):
    lanes = {f"lane{number}": 1000 for number in range(5)}
    work = Work(url, tmp_path / "journal", lanes=lanes).prepare()
    for start in (work.flags.run, work.flags.sweep):
        with pytest.raises(ConfigError, match=r"lanes have 5,012 threads in all, and 4,096 are the most.*lane0 1000"):
            start()
    assert not traces(work)
    work.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_commits_are_heard_of_by_a_process_with_more_than_a_thousand_files_open(site, until):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    many = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        session = site.flags.connections.dialect.listener(site.flags.connections.session)
        bell = SessionBell(session)
        bell.wait(0, None)
        site.raise_("work", 1)
        until(lambda: bell.wait(1, None) and bell.heard() == {(0, "work")})
        bell.close()
        bell.free()
    finally:
        for each in many:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

"""The locks of lanes across hosts: held while a sweep lasts, free once it has ended however it did."""

import json
import os
import sys
import time

import pytest
from huey.exceptions import TaskLockedException
from queue_rig import KEY, client_of, lock_of
from work import running

from flagsweep.queues.locks import Locks


def test_a_lane_that_another_host_sweeps_is_swept_here_once_that_is_done(url, make, until, patient):
    work = make(url)
    other = client_of(work)
    try:
        with running(work.flags, until):
            until(work.is_idle)
            until(lambda: other.hold(lock_of(work), "99", 30))
            work.raise_("work", 1)
            work.raise_("mail", 1)
            until(lambda: work.journal.flags("end") == ["mail:1"])
            assert work.up()["work:1"].state == "waiting"
            other.let_go(lock_of(work), "99")
            until(work.is_idle)
    finally:
        other.disconnect()


@pytest.mark.long
def test_a_lock_is_renewed_while_its_sweep_lasts_and_free_afterwards(make, until, tmp_path, monkeypatch, patient):
    monkeypatch.setattr(Locks, "LASTS", 1.5)
    work = make(f"sqlite:///{tmp_path}/queue.db")
    other = client_of(work)
    try:
        with running(work.flags, until):
            work.raise_("work", 1, do="wait", gate=str(tmp_path / "gate"))
            until(lambda: work.journal.flags("start"))
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                assert not other.hold(lock_of(work), "99", 30), "nobody renewed it"
                time.sleep(0.05)
            (tmp_path / "gate").touch()
            until(work.is_idle)
            until(lambda: other.hold(lock_of(work), "99", 30))
    finally:
        other.disconnect()


def test_a_dead_consumers_locks_are_freed_for_it(url, make, patient):
    work = make(url)
    store = client_of(work)
    try:
        assert store.hold("sweep:default:0", "17", 30) and store.hold("sweep:mail:1", "18", 30)
        work.flags.queue.forget(17, ["default", "mail"], slots=2)
        work.flags.queue._asker.flush(5)
        assert store.hold("sweep:default:0", "1", 30)
        assert not store.hold("sweep:mail:1", "1", 30)
    finally:
        store.disconnect()


def test_a_lane_has_as_many_locks_as_it_has_slots(url, make, patient):
    work = make(url)
    queue = work.flags.queue
    with queue.lock("mail", 1, slots=2), queue.lock("mail", 2, slots=2), queue.lock("slow", 3):
        for slots, lane in ((2, "mail"), (1, "slow")):
            with pytest.raises(TaskLockedException), queue.lock(lane, 4, slots):
                pass
    with queue.lock("mail", 4, slots=2):
        pass


@pytest.mark.long
def test_a_killed_consumers_lock_is_free_as_soon_as_it_is_rescued(
    url, make, until, spawn, db_path, tmp_path, monkeypatch, patient
):
    monkeypatch.setattr(Locks, "LASTS", 50.0)
    work = make(url)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from flagsweep.queues.locks import Locks; Locks.LASTS = 50.0\n"
        "import work; work.main('run', *sys.argv[2:])"
    )
    settings = json.dumps({"queue": url, "queue_key": KEY})
    child = spawn(sys.executable, "-c", code, os.path.dirname(os.path.dirname(__file__)), db_path, tmp_path / "journal", settings)
    work.raise_("work", 1, do="hang_once")
    until(lambda: work.journal.flags("start"))
    store = client_of(work)
    try:
        assert not store.hold(lock_of(work), "99", 30)
    finally:
        store.disconnect()
    child.kill()
    child.wait(10)
    with running(work.flags, until):
        until(lambda: "work:1" in work.journal.flags("end"))

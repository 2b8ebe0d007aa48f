"""Nudges: each leaves behind the commit of its raise, and no raise needs it."""

import sys
import threading
import time
from functools import partial

import pytest
from queue_rig import KEY
from work import running

from flagsweep.queues.courier import Courier
from flagsweep.queues.nudges import Nudges
from flagsweep.queues.place import Place
from flagsweep.queues.sqlite import SqliteQueue


@pytest.mark.long
def test_a_raise_nudges_a_consumer_that_sees_no_commit_itself(url, make, until):
    work = make(url, watch="off")
    with running(work.flags, until):
        until(work.is_idle)
        for number in range(3):
            work.raise_("work", number)
            work.raise_("mail", number)
            until(work.is_idle)
        work.raise_many("slow", range(5))
        until(work.is_idle)


@pytest.mark.long
def test_what_another_process_raises_nudges_too_although_that_ends_at_once(url, make, until, spawn, db_path):
    work = make(url, watch="off")
    code = (
        "import sys; from flagsweep import FlagSweep\n"
        "flags = FlagSweep(sys.argv[1], queue=sys.argv[2], queue_key=sys.argv[3], nudge='on')\n"
        "@flags.handler(kind='work')\ndef work(n, do='ok'): pass\n"
        "work.raise_flag(n=1)\n"
    )
    with running(work.flags, until):
        until(work.is_idle)
        # It has 0.2 s to send it, which a busy machine may not give it.
        raising = partial(spawn, sys.executable, "-c", code, db_path, url, KEY)
        until(lambda: raising().wait(30) == 0 and "work:1" in work.journal.flags("end"), limit=30)


@pytest.fixture
def quiet(make, tmp_path, monkeypatch):
    """Return a site beside a SQLite queue, and the list of lanes for which nudges were posted."""
    posted = []
    post = SqliteQueue.post
    monkeypatch.setattr(SqliteQueue, "post", lambda store, lane, message: (posted.append(lane), post(store, lane, message)))
    return make(f"sqlite:///{tmp_path}/queue.db"), posted


def test_a_nudge_leaves_after_the_commit_and_not_before(quiet, until):
    work, posted = quiet
    with work.flags.database.connection_context():
        with work.flags.database.atomic():
            with work.flags.database.atomic():
                work.raise_("work", 1)
            work.flags.queue._postman.flush(1)
            assert posted == []
        until(lambda: posted == ["default"])


def test_what_is_rolled_back_nudges_nobody(quiet):
    work, posted = quiet
    with work.flags.database.connection_context(), work.flags.database.atomic() as transaction:
        work.raise_("work", 1)
        transaction.rollback()
    work.flags.queue._postman.flush(1)
    assert posted == []


def test_a_flag_that_is_due_later_nudges_nobody(quiet):
    work, posted = quiet
    work.work.using(delay="5m").raise_flag(n=1)
    work.work.using(delay=60).raise_many([{"n": 2}])
    work.flags.queue._postman.flush(1)
    assert posted == []


def test_a_transaction_of_many_raises_nudges_each_lane_once(quiet, until):
    work, posted = quiet
    with work.flags.database.connection_context(), work.flags.database.atomic():
        for number in range(200):
            work.raise_("work", number)
            work.raise_("mail", number)
    work.flags.queue._postman.flush(5)
    until(lambda: len(posted) == 2)
    assert sorted(posted) == ["default", "mail"]


@pytest.mark.long
def test_a_storm_of_raises_sends_few_nudges(quiet):
    work, posted = quiet
    with work.flags.database.connection_context():
        began = time.monotonic()
        for number in range(1000):
            work.work.raise_flag(n=number % 10)
        took = time.monotonic() - began
    work.flags.queue._postman.flush(5)
    assert 1 <= len(posted) <= took / 0.005 + 2


def test_a_raise_within_manual_commit_or_a_leaked_transaction_is_only_not_nudged(quiet):
    work, _ = quiet
    db = work.flags.database
    with db.connection_context(), db.manual_commit():
        db.begin()
        work.raise_("work", 1)
        db.commit()
    assert work.up().keys() == {"work:1"}


def test_a_raise_succeeds_whatever_becomes_of_its_nudge(quiet, monkeypatch):
    work, _ = quiet
    for owner, broken in (
        (Courier, "send"),
        (Nudges, "_post"),
        (Place, "name"),
        (type(work.flags.database), "after_commit"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, broken, lambda *_: 1 / 0)
            patch.setattr(Courier, "REST", 0.0)
            with work.flags.database.connection_context(), work.flags.database.atomic():
                work.raise_("work", broken)
            work.flags.queue._postman.flush(1)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: 1 / 0)
    work.raise_("work", "no thread")
    assert len(work.up()) == 5


def test_nobody_is_nudged_where_that_is_off_or_the_database_tells_by_itself(make, tmp_path):
    for nudge in ("off", "auto"):
        work = make(f"sqlite:///{tmp_path}/queue.db", nudge=nudge)
        work.raise_("work", 1)
        assert work.flags.queue._postman._thread is None and not work.flags.queue._nudges._senders

"""Claiming at once: who sees what is due claims it, while the lane's sweep lingers under its lock; a sweep does all the rest."""

import threading

import pytest
from peewee import OperationalError
from work import Ledger, Work, running

from flagsweep import tasks

on_each_database = pytest.mark.parametrize(
    "url", ["sqlite", *(pytest.param(name, marks=pytest.mark.servers) for name in ("postgresql", "mysql"))], indirect=True
)


@pytest.fixture
def site(url, tmp_path, monkeypatch):
    """Give a site whose lanes Huey's scheduler does not call besides, as it does at the start and each minute: a sweep that was
    just called claims what the watcher would have."""
    monkeypatch.setattr(tasks, "every_minute", lambda _: False)
    site = Work(url, tmp_path / "journal", state_dir=str(tmp_path / "state")).prepare()
    yield site
    site.close()


@pytest.fixture
def lingering(site, until):
    """Give the lanes of a consumer whose sweeps have nothing to do."""
    with running(site.flags, until):
        lanes = site.flags._runner._lanes
        until(lambda: all(lane.demand.lingers for lane in lanes.values()))
        yield lanes


@pytest.mark.long
@on_each_database
def test_what_is_due_for_an_idle_consumer_goes_through_no_queue(site, lingering, until, monkeypatch):
    enqueued, enqueue = [], site.flags.huey.storage.enqueue
    monkeypatch.setattr(site.flags.huey.storage, "enqueue", lambda *args: (enqueued.append(args), enqueue(*args))[1])
    for number in range(10):
        site.raise_("work", number)
        until(site.is_idle)
    site.raise_many("mail", range(200), do="slow", seconds=0.001)
    until(site.is_idle)
    assert not enqueued and Ledger(site.journal.events()).lost() == []


@on_each_database
def test_a_claim_at_once_that_fails_is_made_good_by_a_sweep(site, lingering, until, monkeypatch):
    dialect, failed = site.flags.connections.dialect, []
    claim = dialect.claim

    def fails_in_the_watcher(*arguments):
        taken = claim(*arguments)
        if threading.current_thread().name == "flagsweep-watcher" and len(failed) < 3:
            failed.append(taken)
            raise OperationalError("the answer was lost")
        return taken

    monkeypatch.setattr(dialect, "claim", fails_in_the_watcher)
    for number in range(6):
        site.raise_("mail", number)
        until(site.is_idle)
    assert failed and sorted(site.journal.flags("end")) == [f"mail:{n}" for n in range(6)]


@pytest.mark.long
@on_each_database
def test_what_is_claimed_at_once_while_no_thread_can_be_started_waits_for_one_and_no_longer(site, lingering, until, monkeypatch):
    refused, start = [], threading.Thread.start

    def cannot(thread):
        if thread.name.startswith("flagsweep-mail-") and len(refused) < 3:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", cannot)
    site.raise_("mail", 1)
    until(site.is_idle)
    assert len(refused) == 3


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_lane_that_cannot_claim_at_once_claims_what_it_was_told_of_without_a_look(site, lingering, until, monkeypatch):
    lane, done = lingering["mail"], []
    due, claim = lane.claimer.due, site.flags.connections.dialect.claim
    monkeypatch.setattr(lane, "claim_at_once", lambda due: False)
    monkeypatch.setattr(lane.claimer, "due", lambda now: (done.append("look"), due(now))[1])
    monkeypatch.setattr(site.flags.connections.dialect, "claim", lambda *args: (done.append("claim"), claim(*args))[1])
    site.raise_("mail", 1)
    until(site.is_idle)
    assert done[0] == "claim"


@on_each_database
def test_suspects_that_are_claimed_at_once_run_one_after_the_other(site, lingering, until, tmp_path):
    flags, gate = site.flags, tmp_path / "gate"
    with flags.database.connection_context(), flags.database.atomic():
        site.raise_many("work", range(3), do="wait", gate=str(gate))
        flags.database.execute_sql("UPDATE flagsweep_flag SET suspect = 1")
    until(lambda: site.journal.flags("start"))
    site.raise_("work", 9)
    until(lambda: "work:9" in site.journal.flags("end"))
    assert len(site.journal.flags("start")) == 2, "an innocent one goes past it"
    gate.touch()
    until(site.is_idle)
    assert Ledger(site.journal.events()).overlaps() == []


@on_each_database
def test_more_than_there_are_threads_are_claimed_by_a_sweep_meanwhile(site, lingering, until, tmp_path):
    gate, lane = tmp_path / "gate", lingering["slow"]
    site.raise_many("slow", range(lane.pool.size + 3), do="wait", gate=str(gate))
    until(lambda: len(site.journal.flags("start")) == lane.pool.size)
    gate.touch()
    until(site.is_idle)
    assert Ledger(site.journal.events()).lost() == []


@pytest.mark.long
@on_each_database
def test_a_stop_lets_what_was_claimed_at_once_finish_and_settles_it(site, until, tmp_path):
    gate = tmp_path / "gate"
    with running(site.flags, until) as run:
        lanes = site.flags._runner._lanes
        until(lambda: all(lane.demand.lingers for lane in lanes.values()))
        site.raise_("mail", 1, do="wait", gate=str(gate))
        until(lambda: site.journal.flags("start"))
        site.flags.stop()
        until(lambda: all(lane.stopping for lane in lanes.values()))
        run.join(1.5)
        assert run.is_alive() and site.flags.find(state="claimed"), "it is nobody else's before its handler has ended"
        gate.touch()
        run.join(10)
        assert not run.is_alive()
    assert site.journal.flags("end") == ["mail:1"] and site.is_idle()


@on_each_database
def test_what_is_claimed_at_once_just_as_the_consumer_stops_is_its_own_until_it_is_done(site, until, tmp_path, monkeypatch):
    gate, dialect = tmp_path / "gate", site.flags.connections.dialect
    claim = dialect.claim

    def stop_and_claim(*arguments):
        if threading.current_thread().name == "flagsweep-watcher":
            site.flags.stop()
            until(lambda: all(lane.stopping and not lane.demand.lingers for lane in site.flags._runner._lanes.values()))
        return claim(*arguments)

    with running(site.flags, until) as run:
        until(lambda: all(lane.demand.lingers for lane in site.flags._runner._lanes.values()))
        monkeypatch.setattr(dialect, "claim", stop_and_claim)
        site.raise_("mail", 1, do="wait", gate=str(gate))
        until(lambda: site.journal.flags("start") or not run.is_alive())
        if run.is_alive():  # A thread took it before it could be given back.
            run.join(1.5)
            assert run.is_alive() and site.flags.find(state="claimed")
            gate.touch()
            run.join(10)
        assert not run.is_alive()
    assert Ledger(site.journal.events()).overlaps() == [] and not site.flags.find(state="claimed")


@on_each_database
def test_a_lane_that_lingers_ends_at_once_when_it_is_told_to(site, until):
    with running(site.flags, until) as run:
        lanes = site.flags._runner._lanes
        until(lambda: all(lane.demand.lingers for lane in lanes.values()))
        site.flags.stop()
        run.join(5)
        assert not run.is_alive() and not any(lane.demand.lingers for lane in lanes.values())

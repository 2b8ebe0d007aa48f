"""Drain: what a deploy waits for, and what is left when it ends badly. And what runs just now, which it asks for."""

import threading
from contextlib import contextmanager

import pytest
from rig import idle
from work import running

from flagsweep import FlagSweep
from flagsweep.models import Consumer, Flag
from flagsweep.operations.drain import SEEN

pytestmark = pytest.mark.long


@pytest.fixture
def flags(ready_url, tmp_path):
    flags = FlagSweep(ready_url, state_dir=tmp_path / "state", threads=1)
    flags.init()
    yield flags
    flags.database.close()
    flags.connections.close_thread()


@contextmanager
def one_that_runs(flags, until):
    """Have a consumer run one flag until it is told to go on, and have others in hand that wait for its one thread."""
    began, go_on, ran = threading.Event(), threading.Event(), []

    @flags.handler("work")
    def work(n):
        began.set()
        assert go_on.wait(30)
        ran.append(n)

    work.raise_many([(n,) for n in range(5)])
    with running(flags, until):
        try:
            assert began.wait(10)
            yield work, go_on, ran
        finally:
            go_on.set()


def the_pause(flags):
    return next((gate for gate in flags.gates() if gate.sort == "all"), None)


def test_a_drain_gives_back_what_has_not_begun_waits_for_what_runs_and_lets_nothing_start(flags, until):
    with one_that_runs(flags, until) as (work, go_on, ran):
        held = flags.drain()
        looks = []
        found = held.wait(SEEN + 1, looks.append)
        assert found.claimed == 1 and looks[-1] is found
        (one,) = found.running
        assert (one.id, one.kind, one.lane, one.started) == (1, "work", "default", True)
        assert one.running_s > 0 and one.alive and one.pid == flags.status()["consumers"][0]["pid"]
        go_on.set()
        assert held.wait(20).claimed == 0
        work.raise_flag(99)
        assert held.wait(SEEN + 1).claimed == 0 and ran == [0]
        assert flags.undrain() and not flags.undrain()
        until(lambda: sorted(ran) == [0, 1, 2, 3, 4, 99])


def test_a_drain_ends_by_itself_so_that_a_failed_deploy_leaves_no_pause(flags, clock):
    site = FlagSweep(flags.connections.where if flags.path is None else f"sqlite:///{flags.path}", clock=clock)
    idle(site).raise_flag(1)
    site.drain("10m", by="ada")
    assert not +site.sweep() and "all paused by ada: drain" in the_pause(site).why
    clock.advance(601)
    assert +site.sweep() == {"lowered": 1}
    site.database.close(), site.connections.close_thread()


def test_somebodys_own_pause_of_all_stays_as_it_is(flags):
    flags.pause(reason="provider moves", by="ada")
    held = flags.drain()
    assert (held.mine, held.ends_at) == (False, None)
    assert held.wait(SEEN + 1).claimed == 0
    assert not flags.undrain() and "provider moves" in the_pause(flags).why


def test_a_second_drain_takes_the_place_of_the_first(flags):
    first, second = flags.drain("10m"), flags.drain("2h")
    assert second.mine and second.ends_at - first.ends_at > 6e9
    assert first.resume() and the_pause(flags) is None


def test_pauses_of_kinds_and_lanes_outlive_a_drain(flags):
    idle(flags)
    flags.pause("work", reason="moves")
    flags.drain()
    assert flags.undrain()
    assert [(gate.sort, gate.name) for gate in flags.gates()] == [("kind", "work")]


def test_claims_of_who_is_gone_hold_no_drain_up(flags):
    idle(flags).raise_many([(1,), (2,)])
    flags.sweep(limit=0)  # From here on there is a file of leases to look at.
    with flags.connections.lent("") as db:
        gone = Consumer.insert(mode="run", pid=2**22, host="nosuchhost", started_at=1).execute(db)
        Flag.update(state="claimed", claimed_by=gone, claim_token=5, claimed_at=1).where(Flag.id == 1).execute(db)
        Flag.update(state="claimed", claimed_by=gone + 7, claim_token=6, claimed_at=1).where(Flag.id == 2).execute(db)
    found = flags.drain().wait(SEEN + 2)
    assert (found.claimed, found.orphaned, found.running) == (0, 2, [])


def test_a_damaged_claim_is_shown_as_it_is(flags, until):
    with one_that_runs(flags, until) as (_, _, _):
        with flags.connections.lent("") as db:
            Flag.update(claimed_at=None).where(Flag.id == 1).execute(db)
        (one,) = [each for each in flags.running().running if each.id == 1]
        assert (one.since, one.running_s) == (None, None)

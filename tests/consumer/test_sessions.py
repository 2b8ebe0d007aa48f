"""Leases on a database server: who died is known there, too, and who lives."""

import os
import signal
import time
from collections import Counter
from contextlib import closing

import pytest
from clients import Client
from rig import lane_of, living_fork
from work import Ledger, Work, command, freeze, running

from flagsweep import FlagSweep
from flagsweep.consumer.crash_log import leftovers
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.session_lease import SessionLease
from flagsweep.consumer.terms import RUN
from flagsweep.databases.alive import descriptor
from flagsweep.databases.errors import DATABASE_ERRORS
from flagsweep.databases.news import news, read_news
from flagsweep.sweep.blackbox import BlackBox


@pytest.fixture(params=["postgres_url", "mysql_url"])
def server(request):
    """Return the URL of an empty database on each server."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def site(server, tmp_path):
    work = Work(server, tmp_path / "journal", state_dir=tmp_path / "state").prepare()
    yield work
    work.flags.connections.close_thread()
    work.close()


@pytest.fixture
def consume(spawn, server, tmp_path, until):
    """Give `consume()`: start a consumer as its own process."""

    def consume():
        child = spawn(*command("run", (server, str(tmp_path / "journal")), state_dir=str(tmp_path / "state"), shutdown_timeout=1))
        until(lambda: "flagsweep sweeps" in child.log.read_text() or child.poll() is not None)
        return child

    return consume


def test_a_sweep_frees_what_a_killed_consumer_had_claimed(site, consume, until):
    """Nobody runs who could do it: it waits as long as a consumer that lost its connection has to come back."""
    site.raise_("work", 1, do="hang_once")
    child = consume()
    until(lambda: site.journal.flags("start"))
    child.kill()
    child.wait()
    site.flags.sweep()
    until(lambda: (site.flags.sweep(), site.is_idle())[1], limit=3)
    assert site.journal.flags("end") == ["work:1"]


def test_a_living_consumers_flags_stay_its_own_whoever_sweeps(site, consume, until, tmp_path, monkeypatch):
    monkeypatch.setattr(SessionLease, "GRACE", 30.0)
    gate = tmp_path / "gate"
    site.raise_("work", 1, do="wait", gate=str(gate))
    consume()
    until(lambda: site.journal.flags("start"))
    began = time.monotonic()
    for _ in range(3):
        site.flags.sweep()
    assert time.monotonic() - began < 30, "a sweep waits for the dead alone"
    gate.touch()
    until(site.is_idle)
    assert site.journal.flags("start") == ["work:1"]


def test_a_lease_that_was_lost_is_taken_again_but_claims_nothing_before_that_is_confirmed(site, until):
    store = site.flags.store
    lease = SessionLease(store.connections.session, store.connections.dialect)
    other = SessionLease(store.connections.session, store.connections.dialect)
    try:
        lease.take(17)
        assert lease.take_name("lane mail 0") and lease.is_sure()
        lease._db.connection().close()
        assert not lease.keep(again=False) and not lease.keep(again=False), "only who confirms takes it again"
        until(lambda: other.take_name("lane mail 0"))  # Who stood by has the seat, once the server saw the end of the session.
        assert lease.keep() and lease.needs_confirming() and not lease.is_sure()
        assert not lease.keep(again=False)
        assert other.is_held(17) and lease.holds("consumer 17") and not lease.holds("lane mail 0")
        lease.confirm()
        assert lease.is_sure() and lease.keep(again=False)
    finally:
        lease.close()
        other.close()


def test_a_session_that_breaks_while_others_are_looked_at_is_a_lease_that_was_lost(site, until):
    """Whatever was asked when it broke, no new session may take its place without the locks."""
    store = site.flags.store
    lease, other = (SessionLease(store.connections.session, store.connections.dialect) for _ in range(2))
    try:
        lease.take(17)
        lease._db.connection().close()
        for ask in (lease.is_held, lease.is_dead):
            with pytest.raises(DATABASE_ERRORS):
                ask(99)
        until(lambda: not other.is_held(17))
        assert not lease.keep(again=False), "it answers, but it holds nothing"
        assert not lease.keep() or lease.needs_confirming()
        assert lease.keep() and lease.needs_confirming() and other.is_held(17)
    finally:
        lease.close()
        other.close()


def test_a_forked_child_keeps_no_session_of_its_parents_alive(site, until):
    """Neither our own connections nor the site's: a lease would live on with the child."""
    connections, database = site.flags.store.connections, site.flags.database
    lease, other = (SessionLease(connections.session, connections.dialect) for _ in range(2))
    lease.take(17)
    database.connect()
    if hasattr(lease._db.connection(), "pgconn"):
        own, everyone = "SELECT pg_backend_pid()", "SELECT pid FROM pg_stat_activity"
    else:
        own, everyone = "SELECT connection_id()", "SELECT id FROM information_schema.processlist"
    sessions = {db.execute_sql(own).fetchone()[0] for db in (lease._db, database)}
    with living_fork(), closing(other):
        for db in (lease._db, database):
            _vanish(db.connection())
            db.dispose()
        until(lambda: not other.is_held(17))
        until(lambda: not sessions & {number for (number,) in other._db.execute_sql(everyone).fetchall()})


def _vanish(connection):
    """Leave a server's connection as a killed process does: without a word, and not for whoever else holds its socket."""
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), descriptor(connection))


def test_a_consumer_that_was_taken_for_dead_goes_on_under_a_new_id_with_its_traces(site, until):
    """On one host the rescuer has deleted them."""
    site.raise_("work", 1)
    with running(site.flags, until):
        enlisted = site.flags._runner._enlisted
        until(site.is_idle)
        before, folder = enlisted.id, enlisted.folder
        site.flags.store.rescue(before, (), site.flags.clock.now())
        for file in leftovers(folder, before):
            file.unlink()
        enlisted.leases.session._db.connection().close()
        until(lambda: enlisted.id != before and enlisted.may_claim("default"))
        others = ("bell-", "stamp")  # A bell only where its path is short; a stamp once work was done.
        traces = {file for file in folder.iterdir() if not file.name.startswith(others)}
        assert traces == {*leftovers(folder, enlisted.id), folder / "lease"}
        site.raise_("work", 2)
        until(site.is_idle)
    assert site.journal.flags("end") == ["work:1", "work:2"]
    assert {file.name for file in folder.iterdir()} - {"stamp"} == {"lease"}


def test_a_sweep_that_was_taken_for_dead_goes_on_under_a_new_id_and_runs_nothing_beside_itself(
    site, server, spawn, until, tmp_path
):
    """It went on under the old one: others freed what it ran, again and again, and it claimed that once more."""
    gate = tmp_path / "gate"
    site.raise_many("work", range(2), do="wait", gate=str(gate))
    site.raise_many("work", range(2, 40), do="slow", seconds=0.01)
    child = spawn(*command("sweep", (server, str(tmp_path / "journal")), state_dir=str(tmp_path / "state")))
    until(lambda: {"work:0", "work:1"} <= set(site.journal.flags("start")))
    freeze(child, server)
    with closing(Client(server)) as client:
        client.cut_others()
    elsewhere = FlagSweep(server, state_dir=str(tmp_path / "elsewhere"))  # The kernel's word does not help it.
    elsewhere.handler("other")(lambda: None)
    until(lambda: (elsewhere.sweep(), not site.flags.find(state="claimed"))[1], limit=20, every=0.1)
    child.send_signal(signal.SIGCONT)
    until(lambda: (elsewhere.sweep(), "it is consumer" in child.log.read_text() or len(site.up()) == 2)[1], limit=20, every=0.1)
    until(lambda: (elsewhere.sweep(), site.up().keys() == {"work:0", "work:1"})[1], limit=20, every=0.1)
    gate.touch()
    until(site.is_idle, limit=20)
    (tmp_path / "journal.stop").touch()
    assert child.wait(20) == 0, child.log.read_text()
    ledger = Ledger(site.journal.events())
    assert ledger.overlaps() == [] and ledger.lost() == []
    assert "it is consumer" in child.log.read_text() and "Traceback" not in child.log.read_text()
    elsewhere.store.connections.close_thread()


def test_a_sweep_whose_session_breaks_waits_for_its_lease_and_does_all_that_is_due(site, until, monkeypatch):
    """It took a lease that was lost for a moment for the end of its work."""
    may_claim, refused = Enlisted.may_claim, []

    def lost_for_a_moment(enlisted, lane):
        if site.journal.flags("start") and len(refused) < 4:
            refused.append(lane)
            return False
        return may_claim(enlisted, lane)

    monkeypatch.setattr(Enlisted, "may_claim", lost_for_a_moment)
    site.raise_many("slow", range(5))
    site.flags.sweep()
    assert len(refused) == 4 and site.is_idle()


def test_what_is_claimed_just_as_a_consumer_is_taken_for_dead_is_its_own_under_its_new_id_or_given_back(site, until, tmp_path):
    """Others would give back what runs, since nobody entered has it."""
    store, gate = site.flags.store, tmp_path / "gate"
    with lane_of(site.flags, "slow") as lane:
        site.raise_("slow", 1, do="wait", gate=str(gate))
        site.raise_("slow", 2)
        store.rescue(lane._member.id, (), site.flags.clock.now())
        with store.connections.write():
            claimed = store.claim("slow", 0, 2, lane._member.id, site.flags.clock.now())
        lane.pool.give(claimed)
        until(lambda: site.journal.flags("start"))
        before = lane._member.id
        lane._member.id = store.enlist("sweep", 1, "host", site.flags.clock.now(), lambda id: None)
        lane._turn(Counter())
        store.adopt(before, lane._member.id)
        assert store.release_orphans(site.flags.clock.now()) == 0
        assert {name: flag.state for name, flag in site.up().items()} == {"slow:1": "claimed", "slow:2": "waiting"}
        gate.touch()
        until(lambda: lane.pool._done)
        lane.sweep()
        store.strike(lane._member.id, site.flags.clock.now())
    assert site.journal.flags("start") == ["slow:1", "slow:2"] and site.is_idle()


def others(member):
    """Return the other consumers that are entered."""
    return [peer for id, peer in member.store.peers().items() if id != member.id]


def test_on_one_host_the_kernel_tells_at_once_who_died_and_who_lives_without_its_session(site, consume, until):
    site.raise_("work", 1, do="hang_once")
    child = consume()
    until(lambda: site.journal.flags("start"))
    enlisted = Enlisted(site.flags._duties(), RUN)
    try:
        (peer,) = others(enlisted)
        leases = enlisted.leases
        leases.session.GRACE = 3600
        assert not leases.is_dead(peer)
        child.kill()
        child.wait()
        until(lambda: leases.is_dead(peer))
        peer.host = "elsewhere"
        assert leases._knows_alive(peer) is None and not leases.is_dead(peer)
    finally:
        enlisted.close()


def test_who_lives_on_this_host_is_not_taken_for_dead_however_long_its_session_is_gone(site, until):
    one, other = (Enlisted(site.flags._duties(), RUN) for _ in range(2))
    try:
        one._closing.set()  # Nobody looks after its session.
        one._thread.join()
        one.leases.session._db.connection().close()
        lease = other.leases.session
        lease.GRACE = 0
        until(lambda: not lease.is_held(one.id))
        (peer,) = others(other)
        assert lease.is_dead(one.id) or lease.is_dead(one.id)
        assert not other.leases.is_dead(peer)
        BlackBox.remove(one.box)
        assert other.leases.is_dead(peer), "it might be on another host"
    finally:
        one.box = None
        other.close()
        one.close()


GARBAGE = [
    "",
    "0",
    "0 ",
    " work",
    "0 nobody",
    "99999 work",
    "x work",
    "-0x work",
    "9 work",
    "\u0663 work",
    "0 work\n",
    "🧹" * 1000,
]


def test_what_anybody_tells_of_flags_harms_nothing_and_hides_nothing(postgres_url, tmp_path, until):
    site = Work(postgres_url, tmp_path / "journal", state_dir=tmp_path / "state").prepare()
    try:
        with running(site.flags, until):
            for number, text in enumerate(GARBAGE):
                with site.flags.database.connection_context():
                    site.flags.database.execute_sql("SELECT pg_notify('flagsweep', %s)", (text,)).fetchall()
                site.raise_("work", number)
                until(site.is_idle)
        assert len(site.journal.flags("end")) == len(GARBAGE)
    finally:
        site.close()


def test_what_is_told_of_flags_is_read_as_it_was_written():
    assert [read_news(news(kind, number)) for kind, number in (("a b", 0), ("é", -100))] == [(0, "a b"), (-100, "é")]
    for text in GARBAGE:
        told = read_news(text)
        assert told is None or (isinstance(told[0], int) and told[1])

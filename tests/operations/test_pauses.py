"""What people do with gates: pause, resume, and see what is closed or limited; a running consumer obeys within a second."""

import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from clients import at_once
from rig import NEW_YEAR, Oops, idle, lane_of
from work import running

from flagsweep import ConfigError, DatabaseAway, FlagSweep, Retry, UnknownKind, UnknownSchedule
from flagsweep.config import SECOND, Clock
from flagsweep.models import Schedule

SOON = 1.5
"""Seconds within which a consumer sees a pause; it takes half of one, and the machine may be busy."""


@pytest.fixture
def flags(ready_url, clock, tmp_path):
    flags = FlagSweep(ready_url, clock=clock, state_dir=tmp_path / "state", threads=2)
    flags.init()
    yield flags
    flags.database.close()
    flags.connections.close_thread()


def gate(flags, sort="kind", name="work"):
    return next((each for each in flags.gates() if (each.sort, each.name) == (sort, name)), None)


# What a pause stops.


@pytest.mark.parametrize("options", [{}, {"rate": "100/s", "limit": 4}], ids=["free", "limited"])
@pytest.mark.parametrize("what", [{"kind": "work"}, {"lane": "slow"}, {}], ids=str)
def test_sweep_obeys_a_pause_and_force_does_not(flags, what, options):
    idle(flags, lane="slow", **options).raise_many([(1,), (2,)])
    flags.pause(**what)
    assert not +flags.sweep()
    assert +flags.sweep(force=True) == {"lowered": 2}
    flags.handlers["work"].raise_flag(3)
    assert flags.resume(**what) and +flags.sweep() == {"lowered": 1}
    assert not flags.resume(**what), "it goes on already"


CLAIMS = {
    "at once": lambda lane, told: lane.claim_at_once(told) or pytest.fail("nothing was tried"),
    "by a hint": lambda lane, told: (lane.claimer.hint(told), lane.sweep()),
    "after a look": lambda lane, told: lane.sweep(),
}


@pytest.mark.parametrize("options", [{}, {"rate": "100/s"}, {"per": "n"}], ids=["free", "limited", "by turns"])
@pytest.mark.parametrize("how", CLAIMS)
def test_a_pause_that_has_committed_holds_for_every_claim_that_begins_after_it(flags, monkeypatch, how, options):
    idle(flags, lane="slow", **options).raise_flag(1)
    with lane_of(flags, "slow") as lane:
        turn = lane._pacer.turn
        for what in ({"kind": "work"}, {"lane": "slow"}, {}):
            lane.look_at_gates()
            if how == "after a look":
                monkeypatch.setattr(lane._pacer, "turn", lambda what=what: (flags.pause(**what), turn()))
            else:
                flags.pause(**what)
            lane.demand.lingers = how == "at once"
            CLAIMS[how](lane, [(0, "work")])
            assert lane.pool.outstanding == 0 and [flag.state for flag in flags.find()] == ["waiting"]
            flags.resume(**what)


# Beside open transactions of the site's.


on_a_server = pytest.mark.parametrize("url", ["postgresql", "mysql"], indirect=True)


@contextmanager
def open_transaction(flags):
    """Be a site's request that has a transaction open, and rolls it back."""
    with flags.database.connection_context(), suppress(Oops), flags.database.atomic():
        yield
        raise Oops


@on_a_server
@pytest.mark.parametrize("options", [{}, {"rate": "100/s"}, {"per": "n"}], ids=["free", "limited", "by turns"])
@pytest.mark.parametrize("known", [False, True])
def test_a_pause_that_has_not_committed_holds_up_no_more_than_its_kind(flags, url, options, known):
    for kind, more in (("work", options), ("other", {"limit": 2})):
        idle(flags, kind, lane="slow", **more).raise_flag(1)
    site = FlagSweep(url)
    if known:
        site.pause("work"), site.resume("work")
    with open_transaction(site):
        for what in ({"lane": "slow"}, {}, {"kind": "work"}):
            site.pause(**what)
        assert +flags.sweep() == {"lowered": 1 if "rate" in options else 2}, "its limit is a part of the row that is paused"
    assert flags.sweep()["lowered"] == ("rate" in options)


@on_a_server
def test_who_claims_never_waits_for_a_pause_that_has_not_committed(flags, url):
    """Else the two would wait for each other where the site pauses another kind that it has locked."""
    site, dialect = FlagSweep(url), flags.connections.dialect
    site.pause("known"), site.resume("known")
    with open_transaction(site):
        site.pause("new"), site.pause("known")
        with flags.connections.write() as db:
            assert dialect.lock_gate(db, "third", "") is not None
            assert dialect.lock_gate(db, "new", "") is dialect.lock_gate(db, "known", "") is None
            assert dialect.in_transaction(db)


@on_a_server
@pytest.mark.parametrize("first", [lambda work: work.raise_flag(), lambda work: None], ids=["raised", "not raised"])
def test_who_fires_a_schedule_never_waits_for_a_site_that_pauses_it(flags, url, clock, first):
    """MariaDB would end the site's transaction where that has raised the flag before, and then waits for the schedule."""
    flags.handler("work")(lambda: None).every("1s")
    firing, site = flags._duties().firing(), FlagSweep(url)
    firing.fire()
    clock.advance(2)
    with open_transaction(site):
        first(site.handler("work")(lambda: None))
        site.pause(schedule="work")
        held = count_waits(flags.connections.engine)
        assert firing.fire() == set()
        assert held == []
    clock.advance(2)
    assert firing.fire() == {(0, "work")}
    flags.connections.close_engine()


def count_waits(db):
    """Return a list that gets an error for each statement that has waited too long for somebody else."""
    waits, execute = [], db.execute_sql

    def watched(sql, params=None):
        try:
            return execute(sql, params)
        except Exception as error:
            if "NOWAIT" not in sql:
                waits.append(error)
            raise

    db.execute_sql = watched
    return waits


@on_a_server
def test_two_requests_that_pause_the_same_take_turns(url):
    """With a lock that both may have before they write, MariaDB would end one of them."""
    sites, ready = [FlagSweep(url), FlagSweep(url)], threading.Barrier(2)
    sites[0].init()
    sites[0].pause("work")

    def pause(site):
        execute = site.database.execute_sql

        def slow(sql, params=None):
            cursor = execute(sql, params)
            if "INSERT" in sql and "flagsweep_gate" in sql:
                with suppress(threading.BrokenBarrierError):
                    ready.wait(0.3)
            return cursor

        site.database.execute_sql = slow
        with site.database.connection_context(), site.database.atomic():
            site.pause("work")

    at_once(sites[0], *[partial(pause, site) for site in sites])
    (shown,) = sites[0].gates()
    assert shown.closed
    sites[0].database.close()


@on_a_server
def test_of_two_requests_that_pause_the_same_things_in_opposite_orders_one_is_told_to_do_it_again(url):
    sites, both, told = [FlagSweep(url), FlagSweep(url)], threading.Barrier(2), []
    sites[0].init()

    def pause(site, kinds):
        try:
            with site.database.connection_context(), site.database.atomic():
                site.pause(kinds[0])
                both.wait(10)
                site.pause(kinds[1])
        except DatabaseAway as error:
            told.append(str(error))

    at_once(sites[0], partial(pause, sites[0], "ab"), partial(pause, sites[1], "ba"))
    assert len(told) == 1 and "two transactions waited for each other: do it again" in told[0]
    sites[0].database.close()


# What a pause leaves alone.


def test_another_kind_and_another_lane_go_on(flags):
    idle(flags).raise_flag(1)
    idle(flags, "other", lane="slow").raise_flag(1)
    flags.pause("work")
    flags.pause(lane="default")
    assert +flags.sweep() == {"lowered": 1}
    flags.resume(), flags.resume("work")
    assert not +flags.sweep(), "its lane is paused still"


def test_a_pause_until_a_time_ends_by_itself(flags, clock):
    idle(flags).raise_flag(1)
    flags.pause("work", until="2h")
    flags.pause(until=datetime.fromtimestamp(NEW_YEAR / SECOND, UTC) + timedelta(hours=1))
    clock.advance(3600)
    assert not +flags.sweep()
    clock.advance(3600)
    assert +flags.sweep() == {"lowered": 1} and flags.gates() == []


def test_a_pause_is_a_part_of_the_sites_transaction(flags):
    idle(flags).raise_flag(1)
    with pytest.raises(Oops), flags.database.connection_context(), flags.database.atomic():
        flags.pause("work", reason="Prüfung 점검", by="Ada")
        assert gate(flags).why == "paused by Ada: Prüfung 점검"
        raise Oops
    assert flags.gates() == [] and +flags.sweep() == {"lowered": 1}


@pytest.mark.parametrize(("missed", "runs"), [("once", 1), ("skip", 0), ("all", 3)])
def test_schedules_of_what_is_paused_do_not_fire_and_missed_decides_at_the_resume(flags, clock, missed, runs):
    ran = []

    def work(flag):
        ran.append(flag.missed)

    flags.handler("work", unique=missed != "all")(work).every("1h", missed=missed)
    flags.sweep()
    flags.pause("work")
    clock.advance(3 * 3600 + 600)
    flags.sweep(), flags.sweep(force=True)
    assert ran == []
    flags.resume("work")
    flags.sweep()
    assert len(ran) == runs


def test_a_schedule_alone_is_paused_by_its_name(flags, clock):
    ran = []
    flags.handler("work")(lambda: ran.append(1)).every("1h")
    flags.sweep()
    flags.pause(schedule="work", reason="audit", by="ada")
    assert (gate(flags, "schedule").why, gate(flags, "schedule").by) == ("paused by ada: audit", "ada")
    clock.advance(3700)
    flags.sweep()
    assert ran == [] and flags.resume(schedule="work") and not flags.resume(schedule="work")
    flags.sweep()
    assert ran == [1] and flags.gates() == []
    with pytest.raises(UnknownSchedule, match="no schedule 'wrok'; did you mean 'work'"):
        flags.pause(schedule="wrok")


# Who is meant.


def test_what_no_code_has_any_more_goes_on_by_the_name_that_gates_shows(flags):
    FlagSweep(flags.database).pause("former")
    FlagSweep(flags.database).pause(lane="gone")
    FlagSweep(flags.database).set_threads("gone", 8)
    idle(flags, aliases="former")
    assert flags.resume("former") and flags.resume(lane="gone") and not flags.resume("former")
    flags.set_threads("gone", None)
    assert flags.gates() == []
    for change in (flags.pause, flags.resume, lambda lane: flags.set_threads(lane, None)):
        with pytest.raises(ConfigError, match="no handler is in lane 'gone'"):
            change(lane="gone")


@pytest.mark.parametrize(
    ("what", "error", "told"),
    [
        ({"kind": "wrok"}, UnknownKind, "kind 'wrok'; did you mean 'work'?"),
        ({"lane": "defult"}, ConfigError, "lane 'defult'; did you mean 'default'?"),
        ({"kind": "work", "lane": "default"}, ConfigError, "name one thing, got kind='work' and lane='default'"),
        ({"until": "soon"}, ConfigError, "until, if it is no datetime with a time zone, must be seconds"),
        ({"until": 0}, ConfigError, "until must lie in the future"),
        ({"until": datetime(2030, 1, 1)}, ConfigError, "until must have a time zone"),
        ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, ConfigError, "until lies in the past"),
    ],
)
def test_what_cannot_be_paused_is_refused_with_the_fix(make, what, error, told):
    flags = make()
    idle(flags)
    with pytest.raises(error, match=told):
        flags.pause(**what)
    assert flags.gates() == []


def test_an_alias_pauses_its_handlers_kind(flags):
    idle(flags, aliases="old").raise_flag(1)
    flags.pause("old")
    assert [each.name for each in flags.gates()] == ["work"] and not +flags.sweep()


def test_without_handlers_a_kind_is_paused_by_its_own_name_and_an_alias_is_one(flags, url, clock):
    """Who looks after a site from elsewhere cannot know that it was renamed, and has paused what still has the old name."""
    stranger = FlagSweep(url, clock=clock)
    stranger.handler("old")(lambda n=0: None).raise_flag(1)
    stranger = FlagSweep(url, clock=clock)
    stranger.schedules.add("nightly", "old", every="1h")
    idle(flags, aliases="old", rate="100/s").raise_flag(1)
    stranger.pause("old", by="ada")
    clock.advance(7200)
    assert +flags.sweep() == {"lowered": 1}
    ((name, why, waiting),) = ((each.name, each.why, each.waiting) for each in flags.gates() if each.closed)
    assert (name, why, waiting) == ("old", "paused by ada", 1)
    assert flags.resume("old") and +flags.sweep() == {"lowered": 2}
    stranger.database.close()


def test_a_kind_that_no_flag_and_no_schedule_has_ever_had_is_paused_with_a_warning(flags, url, clock, caplog):
    idle(flags).raise_flag(1)
    flags.sweep()
    stranger = FlagSweep(url, clock=clock)
    stranger.schedules.add("nightly", "tick", every="1h")
    for kind in ("work", "tick"):
        stranger.pause(kind)
    assert caplog.messages == []
    stranger.pause("wrok")
    assert caplog.messages == [
        "kind wrok is paused, but no flag and no schedule has it, and none of it ran of late: is that its name? "
        "Kinds and their aliases are known where their handlers are; 'flagsweep kinds' shows those with flags"
    ]
    stranger.database.close()


# What is shown.


def test_gates_show_why_by_whom_since_and_until_and_how_many_flags_wait(flags, clock):
    idle(flags, lane="slow").raise_many([(n,) for n in range(3)])
    flags.handlers["work"].using(delay=60).raise_flag(9)
    flags.pause("work", reason="audit", by="ada", until="1h")
    flags.pause(lane="slow", by="bob")
    lane, kind = flags.gates()
    since = datetime.fromtimestamp(NEW_YEAR / SECOND, UTC)
    assert (lane.sort, lane.name, lane.closed, lane.waiting, lane.until) == ("lane", "slow", True, 3, None)
    assert (kind.by, kind.since, kind.until, kind.waiting) == ("ada", since, None, 3)
    assert kind.why == "paused by ada: audit; lane slow paused by bob"
    flags.resume(lane="slow")
    (kind,) = flags.gates()
    assert (kind.why, kind.until) == ("paused by ada: audit", since + timedelta(hours=1))
    assert kind.to_dict()["until"] == "2026-01-01T01:00:00+00:00"


def test_gates_show_what_is_left_of_each_limit(flags, clock):
    work = idle(flags, rate="2/h burst 2", budget="3/d", limit=5, quiet="22:00-07:00")
    clock.advance(12 * 3600)
    (shown,) = flags.gates()
    assert (shown.closed, shown.rate.left, shown.budget.left, shown.limit.left, shown.quiet) == (False, 2, 3, 5, "22:00-07:00")
    work.raise_many([(n,) for n in range(9)])
    flags.sweep()
    (shown,) = flags.gates()
    assert (shown.closed, shown.why, shown.waiting) == (True, "its rate of 2/h burst 2 is used up", 7)
    assert shown.rate.next_at == shown.until == datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
    clock.advance(3600)
    flags.sweep()
    assert "its budget of 3/d is used up" in gate(flags).why and gate(flags).budget.next_at == datetime(2026, 1, 2, tzinfo=UTC)
    clock.advance(10 * 3600)
    assert gate(flags).why.startswith("quiet hours 22:00-07:00")


def test_gates_show_a_breaker_with_its_next_probe_and_what_a_handler_asked_for(flags, clock):
    def mail(n):
        raise ConnectionError("no route")

    def post(n):
        raise Retry("5m", "429", all=True)

    flags.handler("mail", backoff=3600)(mail).raise_many([(n,) for n in range(9)])
    flags.handler("post")(post).raise_flag(1)
    flags.sweep()
    mail, post = gate(flags, name="mail"), gate(flags, name="post")
    assert mail.closed and "ConnectionError" in mail.breaker.why and mail.why.startswith("its provider seems to be away: ")
    assert mail.breaker.since == mail.since and mail.since < mail.breaker.next_probe <= mail.since + timedelta(seconds=30)
    assert (post.why, post.until - mail.since) == ("a handler asked for it: 429", timedelta(minutes=5))
    clock.advance(300)
    assert gate(flags, name="post") is None


def test_gates_show_the_buckets_that_wait_and_not_those_that_have_only_used_something(flags, clock):
    def sync(customer, ok):
        if not ok:
            raise Retry("5m", "429", all=True)

    handler = flags.handler("sync", per="customer", rate="1/s")(sync)
    handler.raise_many([("ada", True), ("bob", False), ("cy", True)])
    flags.sweep()
    kind, bucket = flags.gates()
    assert (kind.name, kind.closed, kind.rate.said, kind.rate.left, bucket.bucket) == ("sync", False, "1/s", None, "bob")
    assert bucket.closed and bucket.why == "a handler asked for it: 429" and bucket.until is not None


# A running consumer.


@contextmanager
def consumer(url, tmp_path, until, **settings):
    """Give a site with a consumer, in this process, whose one-threaded lane has one flag that runs and thirty behind it."""
    flags = FlagSweep(url, state_dir=tmp_path / "state", clock=Clock(), threads=1, **settings)
    flags.init()
    go_on, began, ran = threading.Event(), threading.Event(), []

    @flags.handler
    def work(n):
        if n < -1:
            return  # Of these the lane learns that its flags are fast, and claims ahead.
        if n == -1:
            return work.raise_many([(n,) for n in range(31)])  # The sweep goes on: nobody need see that commit.
        if n == 0:
            began.set()
            go_on.wait(20)
        ran.append(n)

    work.raise_many([(n,) for n in range(-50, 0)])
    with running(flags, until):
        try:
            assert began.wait(10)
            yield flags, work, ran, go_on
        finally:
            go_on.set()
    flags.database.close()
    flags.connections.close_thread()


@pytest.mark.long
@pytest.mark.parametrize("watch", ["auto", "off"])
def test_a_running_consumer_obeys_a_pause_and_a_resume_within_a_second(url, tmp_path, until, watch, caplog):
    if watch == "off" and not url.startswith("sqlite"):
        pytest.skip("beside a file alone the keeper looks so seldom")
    caplog.set_level("INFO", "flagsweep")
    with consumer(url, tmp_path, until, watch=watch) as (flags, work, ran, go_on):
        until(lambda: len(flags.find(state="claimed")) > 1 or watch == "off")
        flags.pause("work", reason="no route", by="ada")
        until(lambda: len(flags.find(state="claimed")) == 1, limit=SOON)  # What had not started is given back.
        until(lambda: "kind work waits: paused by ada: no route" in caplog.messages)
        work.raise_flag(99)
        go_on.set()
        until(lambda: flags.find(state="claimed") == [])
        assert ran == [0], "what runs goes on, and nothing begins"
        assert {flag.attempts for flag in flags.find()} == {0} and len(flags.find()) == 31
        flags.resume("work")
        until(lambda: len(ran) > 1, limit=SOON)
        until(lambda: flags.find() == [])
        assert sorted(ran) == [*range(31), 99]
        until(lambda: "kind work goes on" in caplog.messages)


@pytest.mark.slow
def test_a_running_consumer_fires_no_schedule_of_a_paused_kind_until_it_goes_on(url, tmp_path, until):
    flags = FlagSweep(url, state_dir=tmp_path / "state", threads=1)
    flags.init()
    ran = []
    flags.handler("tick")(lambda: ran.append(time.monotonic())).every("1s")
    with running(flags, until):
        until(lambda: ran)
        flags.pause(lane="default")
        paused = time.monotonic()
        until(lambda: _is_overdue(flags))
        assert not [at for at in ran if at > paused + SOON]
        flags.resume(lane="default")
        until(lambda: [at for at in ran if at > paused + SOON])
    flags.database.close()
    flags.connections.close_thread()


def _is_overdue(flags):
    with flags.connections.lent("") as db:
        next_at = Schedule.select(Schedule.next_at).scalar(db)
    return next_at < flags.clock.now() - 2 * SECOND

"""Every promise of design.md and semantics.md, on every database. Where promises differ, the dialect's capabilities say so.

Every pair of database and queue comes last, with consumers that are processes of their own.
"""

import json
import re
import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest
from clients import DATABASES, Client, at_once, gather
from peewee import BooleanField, CharField, DateTimeField, IntegerField, Model
from rig import NEW_YEAR, FakeClock, lane_of
from work import Ledger, Work, command, running

from flagsweep import ConfigError, Discard, FlagSweep, FlagSweepError, NotReady, Retry, Snooze
from flagsweep.config import SECOND
from flagsweep.databases.errors import DATABASE_ERRORS
from flagsweep.databases.schema import SCHEMA
from flagsweep.errors import ClaimLost, DatabaseAway
from flagsweep.models import Consumer, Flag, fact, facts, forget_fact
from flagsweep.sweep.claims import Step
from flagsweep.sweep.records import Records

HOUR = 3600
ODD = {
    "upper": "A",
    "lower": "a",
    "space": "a ",
    "two spaces": "a  ",
    "accent": "á",
    "sharp s": "ß",
    "double s": "ss",
    "korean": "안녕하세요",
    "emoji": "🧹 sweep 🚀",
    "quote": 'it\'s "quoted" \\ % %s ? {0} :a',
    "empty": "-",
}


@pytest.fixture(params=[*DATABASES, "apsw"])
def url(request, tmp_path, monkeypatch):
    """Return the URL of an empty database."""
    if request.param == "apsw":
        monkeypatch.setenv("FLAGSWEEP_DRIVER", "apsw")
    if request.param in ("sqlite", "apsw"):
        return f"sqlite:///{tmp_path / 'site.db'}"
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    # PyMySQL makes ready for TLS with every connection: 20 ms of CPU. The consumers on every pair do without this.
    return request.getfixturevalue("mysql_url") + "?ssl_disabled=true"


@pytest.fixture
def client(url, request):
    """Give another program's session."""
    client = Client(url)
    yield client
    client.close()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def flags(ready_url, clock, tmp_path):
    flags = FlagSweep(ready_url, clock=clock, threads=2, state_dir=str(tmp_path / "state"))
    flags.init()
    yield flags
    flags.connections.close_thread()


@pytest.fixture
def work(flags):
    """Return a handler that does nothing and is only ever raised and claimed."""
    return flags.handler("work")(lambda n=0: None)


def only(flags, **where):
    """Return the one flag that is up."""
    (flag,) = flags.find(**where)
    return flag


def due_in(flags, flag):
    """Return in how many seconds a flag is due."""
    return (flag.due_at.timestamp() * SECOND - flags.clock.now()) / SECOND


def claim(flags, kind="work", limit=100, consumer=1, priority=0):
    """Claim in this thread as a consumer would that never comes back."""
    with flags.connections.write():
        return flags.store.claim(kind, priority, limit, consumer, flags.clock.now())


def settle(flags, claimed, state="waiting", error=None):
    """Settle one as a failed attempt; return its new state, or None where the claim was lost."""
    step = Step(state, claimed.attempts + 1, flags.clock.now() + 60 * SECOND, 0, flags.clock.now(), error=error)
    with flags.connections.write():
        return flags.store.settle_one(claimed.id, claimed.token, step, flags.clock.now())


def lower(flags, claimed):
    with flags.connections.write():
        return flags.store.lower([c.id for c in claimed], claimed[0].token)


def table(flags, name, /, **fields):
    """Make a model of the site's own, and its table."""
    meta = type("Meta", (), {"database": flags.database, "table_name": name})
    model = type(name.title(), (Model,), {**fields, "__module__": __name__, "Meta": meta})
    with flags.database.connection_context():
        flags.database.create_tables([model])
    return model


# Raising.


def test_init_makes_the_tables_once(flags):
    assert flags.init() is False
    assert flags.find() == []


def test_a_raise_says_what_it_did(flags, work):
    first = work.raise_flag()
    assert first.how == "new"
    assert work.raise_flag() == (first.id, "coalesced")
    (claimed,) = claim(flags)
    assert work.raise_flag() == (first.id, "bumped")
    assert lower(flags, [claimed]) == (0, 1)
    (claimed,) = claim(flags)
    assert settle(flags, claimed, "dead", "no use") == "dead"
    assert work.raise_flag() == (first.id, "revived")
    assert lower(flags, claim(flags)) == (1, 0)
    assert work.raise_flag().id > first.id


def test_raise_many_says_what_it_did(flags, work):
    for n in ("coalesced", "bumped", "revived"):
        work.raise_flag(n=n)
    taken = {json.loads(c.key)["n"]: c for c in claim(flags)}
    with flags.connections.write():
        flags.store.release([taken["coalesced"].id], taken["coalesced"].token, flags.clock.now())
    settle(flags, taken["revived"], "dead", "no use")
    again = [{"n": n} for n in ("revived", "new", "bumped", "coalesced", "bumped", "new")]
    assert work.raise_many(again) == {"revived": 1, "new": 1, "bumped": 2, "coalesced": 2}
    states = {f.payload["n"]: f.state for f in flags.find()}
    assert states == {"new": "waiting", "coalesced": "waiting", "bumped": "claimed", "revived": "waiting"}


@pytest.mark.parametrize(
    ("before", "delay", "due", "attempts"),
    [
        ("waiting", 50, 50, 0),
        ("waiting", 500, 100, 0),
        ("backing off", 0, 60, 1),
        ("backing off", 500, 60, 1),
        ("claimed", 500, 500, 0),
        ("bumped", 50, 50, 0),
        ("bumped", 500, 100, 0),
        ("dead", 500, 500, 0),
    ],
)
def test_a_raise_settles_when_the_flag_is_due(flags, work, before, delay, due, attempts):
    raise_ = work.using(key="k", delay=100 if before == "waiting" else 0).raise_flag
    raise_(n=1)
    if before != "waiting":
        (claimed,) = claim(flags)
    if before == "backing off":
        settle(flags, claimed, error="no")
    if before == "dead":
        settle(flags, claimed, "dead", "no")
    if before == "bumped":
        work.using(key="k", delay=100).raise_flag(n=2)
    work.using(key="k", delay=delay).raise_flag(n=3)
    flag = only(flags)
    assert (due_in(flags, flag), flag.attempts, flag.payload) == (due, attempts, {"n": 3})
    assert flag.generation == (3 if before == "bumped" else 2)
    assert flag.died_at is None


def test_the_highest_priority_asked_for_counts_while_a_flag_waits(flags, work):
    raise_ = lambda priority: work.using(key="k", priority=priority).raise_flag()  # noqa: E731
    seen = []
    for priority in (0, 5, -5):
        raise_(priority)
        seen.append(only(flags).priority)
    claim(flags, priority=5)
    for priority in (-9, 3, 1):
        raise_(priority)
        seen.append(only(flags).priority)
    assert seen == [0, 5, 5, -9, 3, 3]


def test_a_raise_that_is_rolled_back_leaves_nothing(flags, work, client):
    work.using(key="stays").raise_flag(n=1)
    with pytest.raises(ZeroDivisionError), flags.database.atomic():
        work.using(key="goes").raise_flag(n=2)
        work.using(key="stays").raise_flag(n=3)
        work.raise_many([(4,), (5,)])
        assert client.ask("SELECT count(*) FROM flagsweep_flag") == [(1,)]
        raise ZeroDivisionError
    assert (only(flags).key, only(flags).payload, only(flags).generation) == ("stays", {"n": 1}, 1)


def test_a_raise_is_seen_once_its_transaction_commits(flags, work, client):
    with flags.database.atomic():
        assert work.raise_flag().how == "new"
        assert work.raise_flag().how == "coalesced"
        assert client.ask("SELECT count(*) FROM flagsweep_flag") == [(0,)]
    assert client.ask("SELECT generation FROM flagsweep_flag") == [(2,)]


def test_a_raise_leaves_the_sites_connection_as_it_was(flags, work):
    for opened in (False, True):
        flags.database.connect() if opened else None
        work.raise_flag()
        work.raise_many([(1,)])
        assert flags.database.is_closed() is not opened


def test_a_raise_after_a_failed_statement_of_the_site_is_a_raise(flags, work):
    with pytest.raises(DATABASE_ERRORS), flags.database.atomic():
        flags.database.execute_sql("SELECT nothing FROM nowhere")
    assert work.raise_flag().how == "new"


def test_thousands_are_raised_in_one_call(flags, work):
    assert work.raise_many([(n,) for n in range(3000)]) == {"new": 3000}
    assert work.raise_many([(n,) for n in range(2990, 3010)]) == {"new": 10, "coalesced": 10}
    assert flags.status()["lanes"]["default"]["due"] == 3010


def test_two_sessions_raise_the_same_keys_in_opposite_orders(flags, work):
    keys = [{"n": n} for n in range(60)]

    def session(order):
        def raises():
            return [work.raise_many(order) for _ in range(15)]

        return raises

    counts = [count for result in at_once(flags, session(keys), session(keys[::-1])) for count in result]
    assert sum(count["new"] for count in counts) == 60 and sum(count.total() for count in counts) == 30 * 60
    assert {flag.generation for flag in flags.find()} == {30}


@pytest.mark.long
def test_two_sessions_that_raise_one_key_raise_one_flag(flags, work):
    raised = gather(at_once(flags, *[lambda: [work.raise_flag(n=1) for _ in range(40)]] * 3))
    assert sorted(r.how for r in raised) == ["coalesced"] * 119 + ["new"]
    assert only(flags).generation == 120


@pytest.mark.long
def test_keys_and_kinds_are_told_apart_by_every_character(flags):
    done = []
    for name in ("A", "a"):
        flags.handler(name)(lambda n, name=name: done.append((name, n)))
        for text in ODD.values():
            assert flags.handlers[name].using(key=text).raise_flag(n=text).how == "new"
            assert flags.handlers[name].using(key=text).raise_flag(n=text).how == "coalesced"
    up = flags.find()
    assert sorted((f.kind, f.key) for f in up) == sorted((kind, text) for kind in "Aa" for text in ODD.values())
    assert all(f.payload == {"n": f.key} for f in up)
    assert only(flags, kind="a", key="a ").key == "a "
    assert flags.sweep() == {"lowered": 2 * len(ODD)}
    assert sorted(done) == sorted((kind, text) for kind in "Aa" for text in ODD.values())


def test_a_long_key_and_a_large_payload_are_kept(flags):
    got = []
    handler = flags.handler("k" * 100)(lambda text: got.append(text))
    text = "안🧹" * 1400
    handler.using(key="ß" * 200).raise_flag(text=text)
    assert only(flags, key="ß" * 200).payload == {"text": text}
    assert flags.sweep() == {"lowered": 1} and got == [text]


def test_an_id_is_never_given_twice(flags, work):
    seen = []
    for _ in range(3):
        seen += [work.raise_flag(n=n).id for n in range(2)]
        assert flags.sweep() == {"lowered": 2}
    assert sorted(set(seen)) == seen


# Claiming.


def test_the_longest_due_are_claimed_first_and_no_more_than_asked_for(flags, work, clock):
    for n in (3, 1, 4, 2, 5):
        work.using(delay=n).raise_flag(n=n)
    clock.advance(4)
    assert [c.payload["n"] for c in claim(flags, limit=3)] == [1, 2, 3]
    assert [c.payload["n"] for c in claim(flags, limit=3)] == [4]
    assert claim(flags) == []


def test_only_this_kind_and_priority_is_claimed_and_the_agenda_knows_them(flags, work):
    flags.handler("other")(lambda: None)
    flags.handlers["other"].raise_flag()
    for priority in (0, 7, -7):
        work.using(priority=priority, key=str(priority)).raise_flag()
    work.using(priority=9, delay=HOUR, key="later").raise_flag()
    assert [c.key for c in claim(flags, priority=7)] == ["7"]
    agenda = flags.store.agenda(["work", "other", "none"])
    assert sorted((kind, priority) for kind, priority, _ in agenda) == [("other", 0), ("work", -7), ("work", 0), ("work", 9)]
    assert sorted(flags.store.waiting_kinds()) == ["other", "work"]


def test_the_higher_priority_runs_first(flags, clock):
    ran = []
    flags.handler("work")(lambda n: ran.append(n))
    for n, priority in enumerate((-3, 0, 90, 4)):
        flags.handlers["work"].using(priority=priority).raise_flag(n=n)
    while flags.sweep(limit=1):
        pass
    assert ran == [2, 3, 1, 0]


def test_two_who_claim_at_once_never_get_the_same_flag(flags, work):
    work.raise_many([(n,) for n in range(300)])

    def consumer(id):
        def claims():
            found = []
            while batch := claim(flags, limit=7, consumer=id):
                found += [c.id for c in batch]
            return found

        return claims

    one, two, three = at_once(flags, *(consumer(id) for id in (1, 2, 3)))
    assert len({*one, *two, *three}) == len(one) + len(two) + len(three)
    rest = claim(flags, limit=300)  # Who skips what others hold for a moment may end early.
    assert len(one) + len(two) + len(three) + len(rest) == 300


def test_a_claim_notes_who_and_when(flags, work, client):
    work.raise_flag()
    (claimed,) = claim(flags, consumer=77)
    assert client.ask("SELECT state, claimed_by, claimed_at, claim_token, claimed_generation FROM flagsweep_flag") == [
        ("claimed", 77, NEW_YEAR, claimed.token, 1)
    ]
    assert (only(flags).claimed_by, only(flags).state) == (77, "claimed")


def test_a_claim_whose_answer_was_lost_is_given_back_and_its_flags_run_once(flags, monkeypatch):
    """The statement may have taken place, or will: nothing tells."""
    ran, lost = [], []
    flags.handler("work")(lambda n: ran.append(n))
    take = flags.connections.dialect.claim

    def claim_and_lose(*arguments):
        taken = take(*arguments)
        if taken and not lost:
            lost.append(taken)
            raise DatabaseAway("the connection broke")
        return taken

    monkeypatch.setattr(flags.connections.dialect, "claim", claim_and_lose)
    flags.handlers["work"].raise_many([{"n": n} for n in range(5)])
    with lane_of(flags, "default") as lane:
        with pytest.raises(DatabaseAway):
            lane.sweep()
        assert (lane.sweep()["lowered"], sorted(ran), len(lost)) == (5, list(range(5)), 1)
    assert flags.find() == []


def test_a_claim_that_took_place_after_its_consumer_gave_up_is_given_back_at_the_second_look(flags, work):
    with lane_of(flags, "default") as lane:
        work.raise_many([{"n": n} for n in range(5)])
        claim(flags, consumer=lane._member.id)
        lane.release_strays()
        assert flags.status()["lanes"]["default"]["claimed"] == 5
        lane.release_strays()
        assert flags.status()["lanes"]["default"]["claimed"] == 0
        assert lane.sweep()["lowered"] == 5


@pytest.mark.parametrize("hints", [[(0, "work")], [(5, "work")], [(0, "work"), (5, "other")], [(-100, "work"), (100, "work")]])
def test_what_is_said_to_be_due_hides_nothing_that_is(flags, hints):
    ran = []
    flags.handler("work")(lambda n: ran.append(n))
    flags.handler("other")(lambda n: ran.append(n))
    for n in range(3):
        flags.handlers["work"].using(priority=n).raise_flag(n=n)
    flags.handlers["other"].raise_flag(n=3)
    with lane_of(flags, "default") as lane:
        for hint in hints:
            lane.claimer.hint([hint])
        assert lane.sweep()["lowered"] == 4 and not lane.has_due()
    assert sorted(ran) == [0, 1, 2, 3]


def test_a_claim_of_a_consumer_that_is_gone_is_given_back(flags, work):
    """It died, and was rescued, before the server carried its last claim out."""
    work.raise_many([{"n": n} for n in range(5)])
    with lane_of(flags, "default") as lane:
        claim(flags, limit=2, consumer=lane._member.id + 1000)
        claim(flags, limit=2, consumer=lane._member.id)
        assert flags.store.release_orphans(flags.clock.now()) == 2
        assert [flag.claimed_by for flag in flags.find(state="claimed")] == [lane._member.id] * 2
    claim(flags, consumer=4711)
    assert flags.sweep()["lowered"] == 5


def test_a_consumer_that_came_back_is_not_rescued_and_one_that_was_rescued_cannot_come_back(flags, work):
    store = flags.store
    work.raise_flag()
    with lane_of(flags, "default") as lane:
        claim(flags, consumer=lane._member.id)
        assert store.peers()[lane._member.id].comebacks == 0
        assert store.come_back(lane._member.id) and store.peers()[lane._member.id].comebacks == 1
        assert store.rescue(lane._member.id, (), flags.clock.now(), comebacks=0) is None
        assert only(flags).state == "claimed"
        assert store.rescue(lane._member.id, (), flags.clock.now(), comebacks=1) == (1, [])
        assert store.rescue(lane._member.id, (), flags.clock.now(), comebacks=1) is None
        assert not store.come_back(lane._member.id)


def test_what_runs_when_its_consumer_goes_on_under_a_new_id_is_not_started_beside_itself(flags, until, monkeypatch):
    gate, started, ran = threading.Event(), threading.Event(), []

    @flags.handler
    def work(n):
        started.set()
        ran.append("start")
        gate.wait(20)
        ran.append("end")

    work.raise_flag(n=1)
    with lane_of(flags, "default") as lane:
        sweep = threading.Thread(target=lambda: (lane.sweep(), flags.connections.close_thread()))
        sweep.start()
        assert started.wait(10)
        monkeypatch.setattr(lane._member, "may_claim", lambda name: False)  # A consumer whose lease is gone claims nothing.
        with lane._turns:
            flags.store.rescue(lane._member.id, (), flags.clock.now())
        lane._member.id += 1
        monkeypatch.undo()
        lane.demand.call()
        until(lambda: [flag.claimed_by for flag in flags.find(state="claimed")] == [lane._member.id])
        gate.set()
        sweep.join(20)
    assert ran == ["start", "end"] * 2 and flags.find() == []


def test_a_claim_that_runs_is_no_stray(flags):
    gate, started = threading.Event(), threading.Event()

    @flags.handler
    def work(n):
        started.set()
        gate.wait(20)

    work.raise_many([{"n": n} for n in range(5)])
    with lane_of(flags, "default") as lane:
        sweep = threading.Thread(target=lambda: (lane.sweep(), flags.connections.close_thread()))
        sweep.start()
        assert started.wait(10)
        for _ in range(3):
            lane.release_strays()
        claimed = flags.status()["lanes"]["default"]["claimed"]
        gate.set()
        sweep.join(20)
    assert claimed and flags.find() == []


# Settling.


def outcome_of(do):
    if do == "error":
        raise ValueError("no")
    if do == "retry":
        raise Retry(after=90)
    if do == "snooze":
        raise Snooze(30)
    if do == "discard":
        raise Discard("no use")


@pytest.mark.parametrize(
    ("do", "plain", "bumped"),
    [  # State, attempts and seconds until it is due.
        ("success", None, ("waiting", 0, 20)),
        ("error", ("waiting", 1, 60), ("waiting", 1, 60)),
        ("retry", ("waiting", 1, 90), ("waiting", 1, 90)),
        ("snooze", ("waiting", 0, 30), ("waiting", 0, 20)),
        ("discard", None, ("waiting", 0, 20)),
    ],
)
@pytest.mark.parametrize("raised_again", [False, True])
@pytest.mark.parametrize("atomic", [False, True])
def test_every_outcome_settles_as_the_table_says(flags, do, plain, bumped, raised_again, atomic):
    other = FlagSweep(flags.settings.database, clock=flags.clock)
    again = other.handler("work", backoff=60)(lambda n: None)

    @flags.handler(backoff=60, atomic=atomic)
    def work(n):
        if raised_again and not (atomic and flags.connections.dialect.one_writer):
            at_once(other, lambda: again.using(delay=20).raise_flag(n=1))
        elif raised_again:
            work.using(delay=20).raise_flag(n=1)
        outcome_of(do)

    work.raise_flag(n=1)
    flags.sweep()
    if raised_again and atomic and flags.connections.dialect.one_writer and do != "success":
        bumped = plain  # Its own raise is undone with its transaction.
    wanted = bumped if raised_again else plain
    found = [(f.state, f.attempts, due_in(flags, f)) for f in flags.find()]
    assert found == ([] if wanted is None else [wanted])


@pytest.mark.parametrize(("raised_again", "state", "attempts", "due"), [(False, "dead", 2, 0), (True, "waiting", 0, 60)])
def test_the_last_attempt_buries_a_flag_unless_it_was_raised_anew(flags, clock, raised_again, state, attempts, due):
    @flags.handler(max_attempts=2, backoff=60)
    def work(n):
        if raised_again:
            work.raise_flag(n=n)
        raise ValueError("no")

    work.raise_flag(n=1)
    assert flags.sweep() == {"again": 1}
    clock.advance(60)
    flags.sweep()
    flag = only(flags)
    assert (flag.state, flag.attempts) == (state, attempts)
    assert state == "dead" or due_in(flags, flag) == due
    assert "ValueError: no" in flag.error


def test_what_was_released_waits_again_and_costs_nothing(flags, work, clock):
    work.raise_many([(n,) for n in range(3)])
    claimed = claim(flags)
    work.using(delay=50).raise_flag(n=2)
    clock.advance(5)
    with flags.connections.write():
        assert flags.store.release([c.id for c in claimed], claimed[0].token, clock.now()) == 3
    assert [(f.state, f.attempts, due_in(flags, f) <= 0) for f in flags.find()] == [("waiting", 0, True)] * 3


def test_a_lost_claim_settles_nothing(flags, work):
    work.raise_flag()
    (lost,) = claim(flags)
    flags.store.rescue(1, (), flags.clock.now())
    (held,) = claim(flags, consumer=2)
    assert lower(flags, [lost]) == (0, 0)
    assert settle(flags, lost) is None
    with flags.connections.write():
        assert flags.store.release([lost.id], lost.token, flags.clock.now()) == 0
    assert flags.store.progress(lost.id, lost.token, '"here"', False) is False
    with pytest.raises(ClaimLost), flags.database.atomic():
        flags.store.settle_within(lost, None)
    assert (only(flags).state, only(flags).claimed_by, only(flags).cursor) == ("claimed", 2, None)
    assert lower(flags, [held]) == (1, 0)


@pytest.mark.parametrize("atomic", [False, True])
def test_a_flag_lowered_by_hand_while_it_runs_is_lost_to_its_handler(flags, atomic):
    if atomic and flags.connections.dialect.one_writer:
        pytest.skip("with one writer, nobody else lowers a flag while an atomic handler runs")
    effects = table(flags, "effect", n=IntegerField())

    @flags.handler(atomic=atomic)
    def work(n):
        if atomic:
            effects.insert(n=n).execute()
        assert at_once(flags, lambda: flags.lower("work", '{"n":1}')) == [True]

    work.raise_flag(n=1)
    assert flags.sweep() == {"lost": 1}
    assert written(flags, effects) == []


# Atomic handlers.


@pytest.fixture
def effects(flags):
    return table(flags, "effect", n=IntegerField())


def written(flags, model):
    with flags.database.connection_context():
        return sorted(row.n for row in model.select())


def test_an_atomic_handler_takes_effect_with_its_lowering(flags, effects, client):
    @flags.handler(atomic=True)
    def exact(n):
        effects.insert(n=n).execute()
        assert client.ask("SELECT count(*) FROM effect") == [(0,)]

    exact.raise_flag(n=1)
    assert flags.sweep(raise_errors=True) == {"lowered": 1}
    assert written(flags, effects) == [1] and flags.find() == []


def test_an_atomic_handler_that_fails_takes_no_effect(flags, effects, clock):
    @flags.handler(atomic=True, backoff=10)
    def exact(n, flag):
        effects.insert(n=n).execute()
        if flag.attempt == 1:
            raise ValueError("no")

    exact.raise_flag(n=1)
    assert flags.sweep() == {"again": 1} and written(flags, effects) == []
    clock.advance(10)
    assert flags.sweep() == {"lowered": 1} and written(flags, effects) == [1]


def test_an_atomic_handler_may_undo_a_part_of_its_own(flags, effects):
    @flags.handler(atomic=True)
    def exact(n):
        effects.insert(n=n).execute()
        with pytest.raises(ZeroDivisionError), flags.database.atomic():
            effects.insert(n=-n).execute()
            raise ZeroDivisionError

    exact.raise_many([(1,), (2,)])
    assert flags.sweep(raise_errors=True) == {"lowered": 2}
    assert written(flags, effects) == [1, 2]


def test_a_swallowed_database_error_never_lowers_a_flag_without_its_effect(flags, effects):
    """SQLite and MySQL undo the failed statement alone; PostgreSQL would undo all, so there it is a failed attempt."""

    @flags.handler(atomic=True, backoff=10)
    def exact(n):
        effects.insert(n=n).execute()
        with suppress(Exception):
            flags.database.execute_sql("SELECT nothing FROM nowhere")

    exact.raise_flag(n=1)
    done = flags.sweep()
    assert (done, written(flags, effects)) in [({"lowered": 1}, [1]), ({"again": 1}, [])]
    assert len(flags.find()) == done["again"]


def test_a_transaction_that_a_handler_ends_itself_is_a_failed_attempt(flags, effects):
    @flags.handler(atomic=True, backoff=10)
    def exact(n):
        effects.insert(n=n).execute()
        flags.database.execute_sql("ROLLBACK")

    exact.raise_flag(n=1)
    assert flags.sweep() == {"again": 1} and written(flags, effects) == []
    assert "transaction" in only(flags).error


def test_a_transaction_that_a_handler_leaves_open_is_undone(flags, effects):
    @flags.handler(backoff=10)
    def leaky(n):
        flags.database.connect()
        flags.database.begin()
        effects.insert(n=n).execute()

    leaky.raise_flag(n=1)
    assert flags.sweep() == {"again": 1}
    assert written(flags, effects) == [] and "left a transaction open" in only(flags).error


# Own rows.


def test_a_boolean_column_is_work_and_comes_down_when_it_is_done(flags):
    person = table(flags, "person", name=CharField(), greet=BooleanField(default=True))
    greeted = []
    flags.when(person.greet, kind="greet")(lambda someone: greeted.append(someone.name))
    with flags.database.connection_context():
        person.insert_many([{"name": "Ann"}, {"name": "김"}, {"name": "no", "greet": False}]).execute()
    assert flags.sweep(raise_errors=True) == {"lowered": 2}
    assert sorted(greeted) == ["Ann", "김"]
    with flags.database.connection_context():
        assert not person.select().where(person.greet).exists()
    assert not flags.sweep()


def test_a_nullable_timestamp_that_is_set_anew_meanwhile_stays_up(flags, client):
    page = table(flags, "page", due=DateTimeField(null=True))
    seen = []

    @flags.when(page.due)
    def render(found):
        seen.append(found.due)
        if len(seen) == 1:
            client.ask("UPDATE page SET due = '2026-01-02 03:04:05.678901'")

    client.ask("INSERT INTO page (due) VALUES ('2026-01-01 00:00:00.123')")
    assert flags.sweep(raise_errors=True) == {"lowered": 2}
    assert len(seen) == 2 and client.ask("SELECT count(*) FROM page WHERE due IS NULL") == [(1,)]


def test_a_condition_is_work_until_its_handler_makes_it_false(flags, clock):
    order = table(flags, "orders", paid=BooleanField(default=False), sent=BooleanField(default=False))

    @flags.when(order.paid & ~order.sent, backoff=10)
    def send(found, flag):
        if flag.attempt > 1:
            with flags.database.atomic():
                order.update(sent=True).where(order.id == found.id).execute()

    with flags.database.connection_context():
        order.insert_many([{"paid": True}, {"paid": False}]).execute()
    assert flags.sweep() == {"again": 1}
    assert "its condition still holds" in only(flags).error
    clock.advance(10)
    assert flags.sweep(raise_errors=True) == {"lowered": 1}
    assert not flags.sweep()


def test_with_lower_before_a_column_set_while_it_runs_is_new_work(flags, client):
    person = table(flags, "person", greet=BooleanField(default=True))
    runs = []

    @flags.when(person.greet, lower="before")
    def greet(someone):
        runs.append(someone.id)
        if len(runs) == 1:
            client.ask("UPDATE person SET greet = true")

    with flags.database.connection_context():
        person.insert().execute()
    assert sum(flags.sweep(raise_errors=True).values()) >= 1
    flags.sweep(raise_errors=True)
    assert len(runs) == 2 and not flags.find() and client.ask("SELECT count(*) FROM person WHERE greet") == [(0,)]


def test_two_that_look_for_own_rows_at_once_make_one_flag_each(flags):
    person = table(flags, "person", greet=BooleanField(default=True))
    greet = flags.when(person.greet, kind="greet")(lambda someone: None)
    with flags.database.connection_context():
        person.insert_many([{"greet": True}] * 40).execute()

    def discovers():
        while True:
            try:
                with flags.connections.write() as db:
                    rows = greet.rows.find(db, flags.connections.dialect, "greet", 100)
                    return flags.store.discover("greet", rows, 0, flags.clock.now())
            except DATABASE_ERRORS as error:  # Nobody waits for what another is just writing: it is tried again.
                assert flags.connections.dialect.is_busy(error)

    assert sum(at_once(flags, discovers, discovers, discovers)) == 40
    assert len(flags.find(kind="greet")) == 40
    assert discovers() == 0


def test_the_death_of_an_own_row_is_for_a_person_to_end(flags, clock):
    person = table(flags, "person", greet=BooleanField(default=True))

    @flags.when(person.greet, kind="greet", max_attempts=1)
    def greet(someone):
        raise ValueError("no")

    with flags.database.connection_context():
        person.insert().execute()
    assert flags.sweep() == {"dead": 1} and not flags.sweep()
    assert flags.discard(kind="greet", reason="enough") == 1
    assert not flags.sweep() and flags.find() == []
    with flags.database.connection_context():
        assert not person.select().where(person.greet).exists()


def test_an_own_row_that_was_done_meanwhile_is_lowered_without_a_run(flags, client):
    person = table(flags, "person", greet=BooleanField(default=True))
    flags.when(person.greet, kind="greet")(lambda someone: pytest.fail("it ran"))
    with flags.database.connection_context():
        row = person.create()
    flags.handlers["greet"].raise_flag(row)
    client.ask("UPDATE person SET greet = false")
    assert flags.sweep(raise_errors=True) == {"lowered": 1}


def test_a_missing_table_of_the_site_parks_that_kind_only(flags, work, client):
    gone = table(flags, "gone", owed=BooleanField(default=True))
    flags.when(gone.owed, kind="gone")(lambda row: None)
    client.ask("DROP TABLE gone")
    work.raise_flag()
    assert flags.sweep() == {"lowered": 1}


# What people do.


def test_the_dead_are_told_kept_retried_and_discarded(flags, clock, client):
    told = []
    flags.on_dead(lambda *death: told.append(death[:3]))

    @flags.handler(max_attempts=1)
    def send(user):
        raise ValueError("refused 안녕 🧹")

    send.raise_many([("ann",), ("bob",)])
    assert flags.sweep() == {"dead": 2}
    assert sorted(told) == [("send", f'{{"user":"{user}"}}', {"user": user}) for user in ("ann", "bob")]
    assert all(f.state == "dead" and f.died_at and f.headline == "ValueError: refused 안녕 🧹" for f in flags.find())
    assert not flags.sweep()
    assert flags.retry(key='{"user":"ann"}') == 1
    assert (only(flags, state="waiting").attempts, only(flags, state="waiting").died_at) == (0, None)
    assert flags.sweep() == {"dead": 1} and len(told) == 3
    assert flags.discard(kind="send", reason="left us") == 2
    assert flags.find() == []
    assert client.ask("SELECT reason FROM flagsweep_history WHERE event = 'discarded'") == [("left us",)] * 2


def test_a_flag_in_backoff_is_due_at_once_when_a_person_says_so(flags):
    flags.handler("work", backoff=HOUR)(lambda: 1 / 0).raise_flag()
    assert flags.sweep() == {"again": 1} and not flags.sweep()
    assert flags.retry() == 1 and flags.sweep() == {"again": 1}


def test_a_flag_is_lowered_by_hand_in_every_state(flags, work, client):
    for key in ("waiting", "claimed", "dead"):
        work.using(key=key).raise_flag()
    claimed = {c.key: c for c in claim(flags)}
    settle(flags, claimed["dead"], "dead", "no")
    settle(flags, claimed["waiting"])
    assert [flags.lower("work", key) for key in ("waiting", "claimed", "dead", "none")] == [True, True, True, False]
    assert flags.find() == []
    reasons = client.ask("SELECT reason FROM flagsweep_history WHERE event LIKE 'lowered%' ORDER BY id")
    assert reasons == [("was waiting",), ("was claimed",), ("was dead",)]


def test_a_snooze_waits_and_progress_is_kept_for_the_next_attempt(flags, clock):
    seen = []

    @flags.handler(backoff=10)
    def long(n, flag):
        seen.append((flag.attempt, flag.cursor))
        flag.progress({"page": len(seen), "text": "안녕 🧹"})
        if len(seen) == 1:
            raise Snooze(30)
        if len(seen) == 2:
            raise ValueError("no")

    long.raise_flag(n=1)
    assert flags.sweep() == {"snoozed": 1}
    clock.advance(30)
    assert flags.sweep() == {"again": 1}
    clock.advance(10)
    assert flags.sweep() == {"lowered": 1}
    text = "안녕 🧹"
    assert seen == [(1, None), (1, {"page": 1, "text": text}), (2, {"page": 2, "text": text})]


def test_progress_within_an_atomic_handler_goes_with_its_transaction(flags, clock):
    seen = []

    @flags.handler(atomic=True, backoff=10)
    def long(n, flag):
        seen.append(flag.cursor)
        flag.progress(len(seen))
        if len(seen) == 1:
            raise ValueError("no")

    long.raise_flag(n=1)
    assert flags.sweep() == {"again": 1}
    clock.advance(10)
    assert flags.sweep() == {"lowered": 1} and seen == [None, None]


def test_a_discard_leaves_a_line_of_history_that_is_pruned(flags, clock, client):
    flags.handler("work")(lambda: outcome_of("discard")).raise_flag()
    assert flags.sweep() == {"discarded": 1}
    assert client.ask("SELECT kind, event, reason FROM flagsweep_history") == [("work", "discarded", "no use")]
    records, keep = Records(flags.connections), {"discarded": 60.0, "failed": 0.0}
    assert records.prune(keep, 10, clock.now() + 60 * SECOND) == 0
    assert records.prune(keep, 10, clock.now() + 60 * SECOND + 1) == 1


def test_find_and_status_tell_what_is_up(flags, work, clock):
    work.raise_many([(n,) for n in range(5)])
    work.using(delay=HOUR).raise_flag(n=9)
    claimed = claim(flags, limit=3)
    settle(flags, claimed[0], "dead", "no")
    clock.advance(7)
    lane = flags.status()["lanes"]["default"]
    assert lane == {"waiting": 3, "due": 2, "claimed": 2, "dead": 1, "oldest_due_s": 7.0}
    assert {f.id for f in flags.find(due=True)}.isdisjoint(c.id for c in claimed) and len(flags.find(due=True)) == 2
    assert [f.id for f in flags.find(state="claimed")] == [c.id for c in claimed[1:]]
    assert [f.id for f in flags.find(id=claimed[0].id)] == [claimed[0].id]
    assert len(flags.find(limit=2)) == 2 and len(flags.find(lane="default")) == 6 and flags.find(lane="-") == []
    assert only(flags, key='{"n":9}').due_at - only(flags, key='{"n":9}').raised_at == timedelta(hours=1)


def test_flags_of_an_unknown_kind_stay_up_and_are_shown(flags, client):
    other = FlagSweep(flags.settings.database, clock=flags.clock)
    other.handler("theirs")(lambda: None).raise_flag()
    assert not flags.sweep()
    assert flags.status()["lanes"]["-"]["waiting"] == 1 and len(flags.find(lane="-")) == 1


def test_doctor_finds_nothing_wrong_with_a_new_database(flags, work):
    work.raise_flag()
    flags.sweep()
    assert [f for f in flags.doctor() if f.level == "fail"] == []


# Clocks and damage.


def test_due_times_of_a_clock_that_was_ahead_are_mended(flags, work, clock):
    clock.advance(400 * 86400)
    work.raise_flag(n=1)
    work.using(delay=60).raise_flag(n=2)
    clock.advance(-400 * 86400)
    assert flags.store.heal_clock(clock.now(), clock.now() + 10 * 366 * 86400 * SECOND) == 2
    assert [due_in(flags, f) for f in flags.find()] == [0, 60]
    assert flags.sweep() == {"lowered": 1}


def test_a_due_time_beyond_all_years_is_parked(flags, work, client):
    work.raise_flag(n=1)
    client.ask("UPDATE flagsweep_flag SET due_at = ?", 2**62)
    assert flags.store.heal_clock(flags.clock.now(), flags.clock.now() + SECOND) == 1
    assert only(flags).state == "dead" and "parked" in only(flags).error


@pytest.mark.parametrize("payload", ["{", "", "[1]", "5", "null", '"n"', '{"m": 1}', "[" * 5000])
def test_a_damaged_row_is_parked_and_hinders_no_other(flags, payload, client):
    done = []
    flags.handler("work", max_attempts=1)(lambda n: done.append(n)).raise_many([(n,) for n in range(5)])
    client.ask("UPDATE flagsweep_flag SET payload = ? WHERE id = ?", payload, flags.find()[2].id)
    flags.sweep()
    assert sorted(done) == [0, 1, 3, 4]
    assert (only(flags).state, bool(only(flags).error)) == ("dead", True)


def test_a_damaged_cursor_parks_that_row_only(flags, client):
    done = []

    @flags.handler
    def work(n, flag):
        done.append(n)

    work.raise_many([(n,) for n in range(3)])
    client.ask("UPDATE flagsweep_flag SET cursor = '{' WHERE id = ?", flags.find()[1].id)
    flags.sweep()
    assert sorted(done) == [0, 2] and only(flags).state == "dead"


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b", "🧹" * 5000, "x" * 100_000, "\x01\x1b[31m", "%s %(a)s {0} ? '\"\\", ""])
def test_every_error_text_is_recorded(flags, text):
    @flags.handler(max_attempts=1)
    def work(n):
        raise ValueError(text)

    work.raise_flag(n=1)
    assert flags.sweep() == {"dead": 1}
    assert "ValueError" in only(flags).error or len(text) > 4000
    assert len(only(flags).error.encode()) <= 8192


def test_text_with_a_nul_in_payload_and_cursor_comes_back(flags):
    got = []

    @flags.handler
    def work(text, flag):
        got.append((text, flag.cursor))
        if flag.cursor is None:
            flag.progress(text)
            raise Snooze(0)

    work.raise_flag(text="a\0b\u2028")
    assert flags.sweep(raise_errors=True) == {"snoozed": 1, "lowered": 1}
    assert got == [("a\0b\u2028", None), ("a\0b\u2028", "a\0b\u2028")]


def test_a_newer_schema_is_refused(flags, work, client):
    client.ask("INSERT INTO flagsweep_schema (version, applied_at) VALUES (?, 0)", SCHEMA + 1)
    work.raise_flag()
    for refused in (flags.init, flags.sweep, flags.run):
        with pytest.raises(NotReady, match="install a newer flagsweep"):
            refused()


def test_missing_tables_are_named_with_the_fix(url, tmp_path):
    flags = FlagSweep(url, state_dir=str(tmp_path / "state"))
    work = flags.handler("work")(lambda: None)
    for refused in (work.raise_flag, flags.sweep, flags.run, flags.find):
        with pytest.raises(NotReady, match="flagsweep init"):
            refused()
    flags.connections.close_thread()


def test_ten_that_call_init_at_once_make_one_schema(url, tmp_path, client):
    flags = FlagSweep(url, state_dir=str(tmp_path / "state"))
    assert sorted(at_once(flags, *[flags.init] * 10)) == [False] * 9 + [True]
    assert client.ask("SELECT version FROM flagsweep_schema ORDER BY version") == [(version,) for version in range(1, SCHEMA + 1)]


# Others on the same rows.


@contextmanager
def held(client, statement, *arguments):
    """Have somebody else's transaction hold rows."""
    client.ask("BEGIN")
    client.ask(statement, *arguments)
    try:
        yield
    finally:
        client.ask("ROLLBACK")


def test_a_row_that_another_transaction_holds_hinders_no_claim_and_is_done_after(flags, client):
    if flags.connections.dialect.one_writer:
        pytest.skip("with one writer, rows are not held one by one")
    done = []
    flags.handler("work")(lambda n: done.append(n)).raise_many([(n,) for n in range(6)])
    with held(client, "UPDATE flagsweep_flag SET priority = priority WHERE id = ?", flags.find()[2].id):
        flags.sweep(limit=5)
        assert sorted(done) == [0, 1, 3, 4, 5]
    assert flags.sweep() == {"lowered": 1} and sorted(done) == [0, 1, 2, 3, 4, 5]


def test_a_row_that_is_held_when_it_is_to_be_settled_hinders_no_other_and_is_settled_after(flags, client):
    if flags.connections.dialect.one_writer:
        pytest.skip("with one writer, rows are not held one by one")
    done, first, holding, free = [], threading.Event(), threading.Event(), threading.Event()

    @flags.handler
    def work(n):
        done.append(n)
        if n == 2:
            first.set()
            holding.wait(10)

    work.raise_many([(n,) for n in range(6)])
    held_id = only(flags, key='{"n":2}').id
    swept = []
    sweeper = threading.Thread(target=lambda: (swept.append(flags.sweep()), flags.connections.close_thread(), free.set()))
    sweeper.start()
    assert first.wait(10)
    with held(client, "UPDATE flagsweep_flag SET generation = generation WHERE id = ?", held_id):
        holding.set()
        for _ in range(2000):
            if len(flags.find()) == 1:
                break
            free.wait(0.005)
        assert [f.payload["n"] for f in flags.find()] == [2]
    sweeper.join(20)
    assert not sweeper.is_alive() and swept == [{"lowered": 6}]
    assert sorted(done) == [0, 1, 2, 3, 4, 5] and flags.find() == []


def test_sweeping_within_an_open_transaction_is_refused(flags):
    with flags.database.atomic():
        for refused in (flags.sweep, flags.init):
            with pytest.raises(FlagSweepError, match="open transaction"):
                refused()


def test_the_dialect_knows_how_rows_are_claimed_seen_and_leased(flags):
    dialect = flags.connections.dialect
    assert dialect.one_writer is not dialect.shared, "many hosts, many writers"
    assert dialect.shared is (flags.path is None)


def test_a_bad_url_is_refused_before_anything_is_opened():
    with pytest.raises(ConfigError):
        FlagSweep("oracle://host/name")


# Consumers that are processes of their own.

QUEUES = ("memory", "sqlite", "redis", "postgresql")
FEW = {("sqlite", "memory"), ("sqlite", "sqlite"), ("postgresql", "redis"), ("mysql", "postgresql")}
PAIRS = [
    pytest.param(database, queue, id=f"{database}-{queue}", marks=() if (database, queue) in FEW else pytest.mark.slow)
    for database in DATABASES
    for queue in QUEUES
]
LONG = 60  # seconds: what a busy machine may take


@pytest.fixture
def queue_at(request, tmp_path, missing):
    """Give `queue_at(name)`: the settings that name an empty queue."""
    made = []

    def queue_at(name):
        if name == "memory":
            return {}
        if name == "sqlite":
            queue = f"sqlite:///{tmp_path / 'queue.db'}"
        elif name == "redis":
            queue = request.getfixturevalue("redis_url")
        else:
            server, _, database = request.getfixturevalue("postgres_url").rpartition("/")
            made.append((f"{server}/{database}", f"{database}_queue"))
            _ask_once(made[0][0], f"DROP DATABASE IF EXISTS {made[0][1]} WITH (FORCE)", f"CREATE DATABASE {made[0][1]}")
            queue = f"{server}/{made[0][1]}"
        return {"queue": queue, "queue_key": "a key that only tests have"}

    yield queue_at
    for server, name in made:
        _ask_once(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _ask_once(url, *statements):
    client = Client(url)
    for statement in statements:
        client.ask(statement)
    client.close()


@pytest.fixture
def site_at(tmp_path, spawn):
    """Give `site_at(url, **settings)`: a site on this database, whose ``consume()`` starts a consumer as a process."""
    sites = []

    def site_at(url, **settings):
        settings = {"backoff": 0.01, "shutdown_timeout": 5, "state_dir": str(tmp_path / "state"), **settings}
        site = Work(url, tmp_path / "journal", **settings).prepare()
        site.consume = lambda **more: spawn(*command("run", (url, tmp_path / "journal"), **{**settings, **more}))
        site.deaths = {}
        sites.append(site)
        return site

    yield site_at
    for site in sites:
        site.flags.connections.close_thread()
        site.close()


@pytest.fixture
def site(site_at, url):
    return site_at(url)


def kill(site, child):
    child.kill()
    child.wait()
    site.deaths[child.pid] = time.monotonic()


def pids(site):
    """Return which processes have run flags."""
    return {event.pid for event in site.journal.events("start")}


@pytest.mark.long
@pytest.mark.parametrize(("database", "queue"), PAIRS)
def test_a_killed_consumer_loses_nothing_on_any_pair(request, site_at, queue_at, until, tmp_path, database, queue):
    fixture = {"postgresql": "postgres_url", "mysql": "mysql_url"}.get(database)
    url = request.getfixturevalue(fixture) if fixture else f"sqlite:///{tmp_path / 'site.db'}"
    site = site_at(url, **queue_at(queue))
    gate = tmp_path / "gate"
    site.raise_many("exact", range(20), do="effect")
    site.raise_("work", 1, do="wait", gate=str(gate))
    first = site.consume()
    until(lambda: "work:1" in site.journal.flags("start"), LONG)
    kill(site, first)
    gate.touch()
    site.raise_many("mail", range(20))
    site.consume()
    until(site.is_idle, LONG, every=0.05)
    ledger = Ledger(site.journal.events(), site.deaths)
    assert (ledger.lost(), ledger.unexplained(), ledger.overlaps()) == ([], [], [])
    assert ledger.attempts("work:1") == [1, 2], "a death without a record is an attempt of what was running"
    assert site.effects() == sorted(range(20))


def test_a_flag_that_another_program_inserts_is_seen_before_the_minutes_sweep(site_at, url, client, until):
    notify = {} if site_at(url).flags.connections.dialect.notify == "off" else {"notify": "trigger"}
    site = site_at(url, **notify)
    columns = "kind, key, payload, priority, due_at, raised_at"
    with running(site.flags, until):
        for n in range(3):
            client.ask(f"INSERT INTO flagsweep_flag ({columns}) VALUES ('work', ?, ?, 0, 1, 1)", f"k{n}", json.dumps({"n": n}))
            until(lambda n=n: f"work:{n}" in site.journal.flags("end"), 15)


def test_a_raise_is_seen_before_the_minutes_sweep_and_own_rows_too(site, until):
    with running(site.flags, until):
        for n in range(3):
            site.raise_("work", n)
            until(lambda n=n: f"work:{n}" in site.journal.flags("end"), 15)
        site.add_people(2)
        until(site.is_idle, 30)
    assert Ledger(site.journal.events()).repeats() == []


def test_a_second_consumer_waits_and_takes_over_when_the_first_is_killed(site, until, tmp_path):
    if not site.flags.connections.dialect.shared:
        pytest.skip("a second consumer beside a file is refused")
    site.raise_("work", 0)
    first = site.consume()
    until(lambda: site.journal.flags("end") == ["work:0"], LONG)
    second = site.consume()
    until(lambda: b"standing by" in second.log.read_bytes(), LONG)
    site.raise_many("work", range(1, 30), do="slow", seconds=0.02)
    until(lambda: len(site.journal.flags("end")) == 30, LONG)
    assert pids(site) == {first.pid}
    site.raise_("work", 99, do="wait", gate=str(tmp_path / "gate"))
    until(lambda: "work:99" in site.journal.flags("start"), LONG)
    kill(site, first)
    (tmp_path / "gate").touch()
    until(site.is_idle, LONG)
    ledger = Ledger(site.journal.events(), site.deaths)
    assert pids(site) == {first.pid, second.pid}
    assert (ledger.lost(), ledger.unexplained(), ledger.overlaps()) == ([], [], [])


@pytest.mark.slow
def test_two_sweepers_both_work_and_no_flag_runs_twice(site_at, url, until):
    site = site_at(url, sweepers=2)
    if not site.flags.connections.dialect.shared:
        pytest.skip("one consumer sweeps a file")
    both = [site.consume(), site.consume()]
    for child in both:
        until(lambda child=child: b"lane slow" in child.log.read_bytes(), LONG)

    def both_have_worked():
        numbers = range(len(site.journal.flags("raised")), len(site.journal.flags("raised")) + 50)
        site.raise_many("work", numbers, do="slow", seconds=0.02)
        until(site.is_idle, LONG)
        return pids(site) == {child.pid for child in both}

    until(both_have_worked, LONG)
    assert Ledger(site.journal.events()).repeats() == [] and not Ledger(site.journal.events()).lost()


@pytest.mark.slow
def test_connections_that_are_cut_while_it_works_lose_nothing_and_repeat_no_effect(site, client, until):
    if not site.flags.connections.dialect.shared:
        pytest.skip("a file has no connections that somebody could cut")
    site.raise_many("exact", range(60), do="effect")
    site.raise_many("work", range(200), do="slow", seconds=0.02)
    site.consume()
    for done in (10, 80, 150):
        until(lambda done=done: len(site.journal.flags("end")) >= done, LONG)
        assert client.cut_others() > 0
    site.flags.connections.close_thread()
    until(site.is_idle, LONG, every=0.1)
    ledger = Ledger(site.journal.events())
    assert (ledger.lost(), ledger.overlaps()) == ([], [])
    assert site.effects() == list(range(60))


@pytest.mark.slow
def test_a_flag_that_crashes_the_process_is_dead_after_three_and_the_others_are_done(site, until, tmp_path):
    site.raise_("work", 0, do="crash", gate=str(tmp_path / "gate"))
    site.raise_many("mail", range(1, 20))
    (tmp_path / "gate").touch()
    for _ in range(3):
        crashed = site.consume()
        crashed.wait(LONG)
        site.deaths[crashed.pid] = time.monotonic()
    site.consume()
    until(site.is_idle, LONG)
    (flag,) = site.flags.find()
    assert (flag.kind, flag.state, flag.crashes) == ("work", "dead", 3)
    assert Ledger(site.journal.events(), site.deaths).lost(up=site.up()) == []


# What is told to who looks after it.


def died_as(flags):
    """Return how each flag that is up died, by kind."""
    with flags.connections.lent("not read") as db:
        return dict(Flag.select(Flag.kind, Flag.died_as).order_by(Flag.id).tuples().execute(db))


def test_a_dead_flag_says_how_it_died_until_it_is_up_again(flags, clock):
    @flags.handler("fails", max_attempts=1)
    def fails():
        raise ValueError("x")

    @flags.handler("parks")
    def parks(n):
        raise AssertionError("it is never run")

    fails.raise_flag()
    parks.raise_flag(n=1)
    with flags.connections.lent("not written") as db:
        Flag.update(payload="{").where(Flag.kind == "parks").execute(db)
    flags.sweep()
    assert re.fullmatch(r"ValueError test_conformance\.py:fails:\d+", died_as(flags)["fails"])
    assert died_as(flags)["parks"] == "parked"
    flags.retry(kind="fails")
    parks.raise_flag(n=1)
    assert died_as(flags) == {"fails": None, "parks": None}


def test_who_ends_is_noted_and_whether_it_was_by_itself(flags, clock):
    store, now = flags.store, flags.clock.now()
    for mode in ("run", "run", "sweep"):
        ids = store.enlist(mode, 17, "shop", now, lambda id: None, "work")
    store.strike(ids, now)
    store.rescue(ids - 1, (), now + 5, comebacks=0)
    with flags.connections.lent("not read") as db:
        left, swept = fact(db, "left"), fact(db, "swept")
        assert json.loads(left.value) == {"id": ids - 1, "mode": "run", "pid": 17, "host": "shop", "app": "work", "how": "died"}
        assert (left.at, json.loads(swept.value)["how"]) == (now + 5, "stopped")
        assert [each.name for each in facts(db, "l")] == ["left"]
        assert forget_fact(db, "left") and not forget_fact(db, "left") and fact(db, "left") is None


def test_a_note_takes_the_place_of_the_one_before(flags):
    with flags.connections.write() as db:
        for value, at in (("1", 5), ("größer 旗", 6)):
            flags.connections.dialect.note_fact(db, "kind:größer 旗", value, at)
    with flags.connections.lent("not read") as db:
        assert [(each.name, each.value, each.at) for each in facts(db, "kind:")] == [("kind:größer 旗", "größer 旗", 6)]


def test_a_consumer_says_that_it_goes_on_and_what_it_serves(flags, until, clock):
    @flags.handler("mail", lane="post")
    def mail(): ...

    def told():
        clock.advance(1)
        with flags.connections.lent("not read") as db:
            return [json.loads(each.lanes) for each in Consumer.select().execute(db) if each.lanes], facts(db, "kind:")

    with running(flags, until):
        until(lambda: all(told()))
        (lanes,), (served,) = told()
    assert lanes["post"]["kinds"] == ["mail"] and lanes["post"]["seat"] and lanes["post"]["swept_at"] is not None
    assert (served.name, json.loads(served.value)["app"]) == ("kind:mail", __name__)

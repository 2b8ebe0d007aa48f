"""Gates: what is paused, limited or whose provider is away waits; what waits costs nothing, and nothing is lost."""

import itertools
import sqlite3
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest
from rig import Oops, lane_of

from flagsweep import Backoff, ConfigError, DatabaseAway, Discard, FlagSweep, Retry, Snooze
from flagsweep.sweep.records import Records
from flagsweep.sweep.threads import Pool

MINUTE, HOUR = 60, 3600
THREADS = 4


@pytest.fixture
def flags(ready_url, clock, tmp_path):
    flags = FlagSweep(ready_url, clock=clock, state_dir=tmp_path / "state", threads=THREADS)
    flags.init()
    yield flags
    flags.connections.close_thread()


def make(flags, kind="work", **options):
    """Make a handler that notes what it is called with."""
    ran = []

    def work(n=0):
        ran.append(n)

    handler = flags.handler(kind, **options)(work)
    handler.raise_many([(n,) for n in range(100)])
    return handler, ran


def failing(flags, error=None, kind="mail", **options):
    """Make a handler that fails as long as ``down`` is set."""
    state = {"down": True, "tried": []}

    def mail(n=0):
        state["tried"].append(n)
        if state["down"]:
            raise error or ConnectionError("no route")

    state["handler"] = flags.handler(kind, **{"backoff": 3600, **options})(mail)
    return state


# Rates and budgets.


def test_no_more_start_than_the_rate_lets_through(flags, clock):
    _, ran = make(flags, rate="300/m")
    assert +flags.sweep() == {"lowered": 5}, "the burst is what a second brings"
    assert not +flags.sweep()
    clock.advance(1)
    assert +flags.sweep() == {"lowered": 5}
    clock.advance(60)
    assert +flags.sweep() == {"lowered": 5}, "what was not used is no credit"
    assert len(ran) == 15


def test_a_rate_holds_across_restarts_and_for_retries(flags, clock, url, tmp_path):
    state = failing(flags, rate="10/m", backoff=1, breaker=None)
    state["handler"].raise_many([(n,) for n in range(3)])
    flags.sweep()
    again = FlagSweep(url, clock=clock, state_dir=tmp_path / "state")
    again.handler("mail", rate="10/m", backoff=1)(state["handler"].function)
    clock.advance(5)
    assert not +again.sweep()
    clock.advance(1)
    assert +again.sweep() == {"again": 1}
    assert len(state["tried"]) == 2
    again.connections.close_thread()


def test_another_kind_is_not_held_up(flags):
    make(flags, "slow", rate="1/h")
    _, ran = make(flags, "fast")
    flags.sweep()
    assert len(ran) == 100


def test_a_budget_counts_the_day_of_its_zone(url, clock, tmp_path):
    flags = FlagSweep(url, clock=clock, state_dir=tmp_path / "state", timezone="Asia/Seoul")
    flags.init()
    _, ran = make(flags, budget="30/d")
    flags.sweep()
    clock.advance(14 * HOUR)
    flags.sweep()
    assert len(ran) == 30
    clock.advance(HOUR)
    flags.sweep()
    assert len(ran) == 60
    flags.connections.close_thread()


def test_what_expired_or_was_given_back_takes_nothing_of_a_rate(flags, clock):
    handler, ran = make(flags, rate="2/h burst 2")
    flags.discard()
    flags.sweep()
    clock.advance(2 * HOUR)
    handler.using(key="late", expires="1s", priority=9).raise_flag()
    clock.advance(2)
    assert +flags.sweep() == {"expired": 1, "lowered": 2}, "the token of the one that did not run is there again"
    assert len(ran) == 4


@pytest.mark.parametrize("options", [{}, {"per": "n"}], ids=str)
def test_a_sweep_does_all_that_its_rate_lets_through_though_threads_that_have_just_ended_count_as_busy(
    flags, monkeypatch, options
):
    """A claim that found no thread free had the kind wait for 50 ms, and a sweep with nothing else to do left its flags."""
    make(flags, rate="100/h burst 100", **options)
    free, answers = Pool.free_places, itertools.cycle((False, True))
    monkeypatch.setattr(Pool, "free_places", lambda pool, kind: free(pool, kind) if next(answers) else 0)
    assert +flags.sweep() == {"lowered": 100}


@pytest.mark.parametrize("options", [{"rate": "100/s"}, {"limit": 2}, {"per": "n", "budget": "5/d"}], ids=str)
def test_what_a_claim_takes_of_a_gate_is_taken_in_one_transaction_with_it(flags, monkeypatch, options):
    """Without one nothing is locked: two consumers would take the same token."""
    dialect, within = flags.connections.dialect, []

    def watched(verb):
        return lambda db, *given: (within.append(dialect.in_transaction(db)), verb(db, *given))[1]

    for name in ("lock_gate", "set_gate", "hold", "claim", "claim_by_bucket"):
        monkeypatch.setattr(dialect, name, watched(getattr(dialect, name)))
    flags.handler("work", **options)(lambda n: None).raise_many([(n,) for n in range(3)])
    assert +flags.sweep() == {"lowered": 3} and len(within) >= 3 and all(within)


# Concurrency.


@pytest.mark.parametrize("limit", [1, 2, 4, 8])
def test_no_more_run_at_the_same_time_than_the_limit(flags, limit):
    running, most, lock = [], [], threading.Lock()

    def work(n):
        with lock:
            running.append(n)
            most.append(len(running))
        time.sleep(0.002)
        with lock:
            running.remove(n)

    flags.handler("work", limit=limit)(work).raise_many([(n,) for n in range(60)])
    _, others = make(flags, "other")
    assert +flags.sweep() == {"lowered": 160}
    assert max(most) <= min(limit, 4) and (limit == 1 or max(most) > 1) and len(others) == 100


def test_slots_are_given_up_when_nothing_is_in_hand(flags, client):
    make(flags, limit=2)
    flags.sweep()
    assert client.ask("SELECT * FROM flagsweep_hold") == []


def test_slots_of_others_count_while_they_are_entered(flags, client, clock):
    _, ran = make(flags, limit=3)
    client.ask("INSERT INTO flagsweep_hold (kind, consumer, slots) VALUES ('work', 4711, 3)")
    flags.sweep()
    assert len(ran) == 100, "a consumer that is not entered holds nothing"
    flags.handlers["work"].raise_many([(n,) for n in range(5)])
    enter = "INSERT INTO flagsweep_consumer (mode, pid, host, started_at) VALUES ('run', 1, 'h', 0)"
    if not flags.connections.dialect.shared:
        pytest.skip("beside a file one consumer runs at a time")
    client.ask(enter)
    id = client.ask("SELECT max(id) FROM flagsweep_consumer")[0][0]
    client.ask("INSERT INTO flagsweep_hold (kind, consumer, slots) VALUES ('work', ?, 3)", id)
    lease = flags.connections.dialect
    assert lease.slots(flags.connections.engine, "work", 0) == (3, 0)
    flags.connections.close_engine()


# Quiet hours.


def test_in_quiet_hours_none_starts(flags, clock):
    _, ran = make(flags, quiet="22:00-07:00")
    flags.sweep()
    clock.advance(7 * HOUR - 1)
    flags.sweep()
    assert ran == []
    clock.advance(1)
    flags.sweep()
    assert len(ran) == 100


# Retry-After.


def test_one_429_holds_back_the_others_of_its_kind(flags, clock):
    state = failing(flags, Retry("2m", "429", all=True))
    state["handler"].raise_many([(n,) for n in range(100)])
    flags.sweep()
    tried = len(state["tried"])
    assert tried <= THREADS, "what had not started when it was asked for is given back"
    state["down"] = False
    clock.advance(119)
    assert not +flags.sweep()
    clock.advance(1)
    assert flags.sweep()["lowered"] == 100
    assert len(state["tried"]) == tried + 100


def test_without_a_time_of_its_own_a_429_holds_the_others_back_as_long_as_its_own_backoff(flags, clock):
    state = failing(flags, Retry(None, "429", all=True), backoff=Backoff(first=60, factor=10, jitter=0))
    state["handler"].raise_flag(n=1)
    flags.sweep()
    clock.advance(60)
    flags.sweep()
    state["handler"].raise_many([(n,) for n in range(100)])
    clock.advance(599)
    assert not +flags.sweep()
    clock.advance(1)
    flags.sweep()
    assert 2 < len(state["tried"]) <= 2 + THREADS


# The breaker.


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"limit": 3}, {"rate": "600/s"}, {"per": "n"}])
def test_a_provider_that_goes_while_much_is_claimed_ahead_costs_few_an_attempt(flags, options):
    state = failing(flags, **options)
    gone_at = 200
    state["handler"].function = lambda n: state["tried"].append(n) or (len(state["tried"]) > gone_at and 1 / 0)
    state["handler"].raise_many([(n,) for n in range(2000)])
    flags.sweep()
    assert gone_at + 5 <= len(state["tried"]) < gone_at + 5 + THREADS
    assert len([flag for flag in flags.find(limit=None) if flag.attempts]) == len(state["tried"]) - gone_at


def test_flags_that_fail_alike_hold_back_the_others_of_their_kind_and_one_probes(flags, clock):
    told = []
    flags.on_outage(lambda *news: told.append(news[:2]))
    state = failing(flags)
    state["handler"].raise_many([(n,) for n in range(100)])
    flags.sweep()
    tried = len(state["tried"])
    assert 5 <= tried < 5 + THREADS and told == [("mail", "began")]
    assert not +flags.sweep()
    clock.advance(31)
    flags.sweep()
    assert tried + 1 <= len(state["tried"]) <= tried + 2
    state["down"] = False
    clock.advance(16 * MINUTE)
    assert flags.sweep()["lowered"] >= 1
    clock.advance(HOUR)
    flags.sweep()
    assert flags.find() == [] and told[-1] == ("mail", "ended")


def test_a_success_between_keeps_it_open(flags):
    tried = []

    def mail(n):
        tried.append(n)
        if n % 3:
            raise ConnectionError("no")

    flags.handler("mail", backoff=3600, lane="one")(mail)
    one = FlagSweep(flags.settings.database, clock=flags.clock, threads=1, state_dir=flags.settings.state_dir)
    one.handler("mail", backoff=3600)(mail).raise_many([(n,) for n in range(60)])
    one.sweep()
    assert len(tried) == 60
    one.connections.close_thread()


@pytest.mark.parametrize("options", [{"breaker": None}, {}])
def test_without_a_breaker_or_where_a_test_wants_the_first_error_all_are_tried(flags, options):
    state = failing(flags, **options)
    state["handler"].raise_many([(n,) for n in range(40)])
    if options:
        flags.sweep()
    else:
        with pytest.raises(ConnectionError):
            flags.sweep(raise_errors=True)
    assert len(state["tried"]) == 40


@pytest.mark.parametrize("error", [Snooze("1h"), Discard("no"), Retry("1h")])
def test_what_a_handler_asked_for_is_no_failure_of_its_provider(flags, error):
    state = failing(flags, error)
    state["handler"].raise_many([(n,) for n in range(40)])
    flags.sweep()
    assert len(state["tried"]) == 40


@pytest.fixture
def paging(flags):
    """Give a handler that comes a page further in each run, and fails as long as ``down`` is set, or for these pages."""
    state = {"down": False, "pages": 0, "bad": lambda page: False}

    def page(n, flag):
        state["pages"] += 1
        if state["down"] or state["bad"](state["pages"]):
            raise ConnectionError("no route")
        flag.progress((flag.cursor or 0) + 1)
        if flag.cursor < 10:
            raise Snooze(0)

    flags.handler("page", backoff=3600, max_attempts=100)(page).raise_many([(n,) for n in range(20)])
    return state


@pytest.mark.long
def test_whoever_comes_further_and_asks_for_later_tells_that_the_provider_answers(flags, paging):
    paging["bad"] = lambda page: page % 6 == 0
    flags.sweep()
    assert paging["pages"] > 60, "failures that lie among pages which came close no gate"


def test_a_probe_that_comes_further_and_asks_for_later_ends_the_outage(flags, clock, paging):
    told = []
    flags.on_outage(lambda *news: told.append(news[1]))
    paging["down"] = True
    flags.sweep()
    paging["down"] = False
    clock.advance(31)
    flags.sweep(limit=1)
    assert told == ["began", "ended"]


@pytest.mark.parametrize("error", [DatabaseAway("no space"), sqlite3.OperationalError("database is locked")], ids=str)
def test_that_our_own_database_is_away_tells_nothing_of_a_provider(flags, error):
    if isinstance(error, sqlite3.Error):
        if not flags.connections.dialect.one_writer:
            pytest.skip("the server's errors have other numbers")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
    state = failing(flags, error=error, backoff=None)
    state["handler"].raise_many([(n,) for n in range(20)])
    flags.sweep()
    assert len(state["tried"]) == 20 and not any(gate.closed for gate in flags.gates())


def test_what_was_called_back_does_not_start_though_the_answer_to_that_commit_was_lost(flags, monkeypatch):
    """It is free by then, and another consumer may have it."""
    make(flags)
    commit = type(flags.connections).write
    with lane_of(flags, "default") as lane:
        monkeypatch.setattr(lane.pool, "_wake", lambda count: None)  # No thread takes any.
        lane._turn(Counter())
        claimed = lane.pool.outstanding
        flags.pause("work")
        lane.look_at_gates()

        @contextmanager
        def answered_by_nobody(*arguments):
            with commit(flags.connections, *arguments) as db:
                yield db
            raise Oops

        with monkeypatch.context() as once, pytest.raises(Oops):
            once.setattr(flags.connections, "write", answered_by_nobody)
            lane._turn(Counter())
        assert claimed > 0 and lane.pool.outstanding == 0 and not lane.pool.todo
        lane._turn(Counter())
        assert lane.pool.outstanding == 0 and {flag.state for flag in flags.find()} == {"waiting"}


@pytest.mark.parametrize("atomic", [False, True])
def test_a_transaction_that_a_handler_breaks_tells_nothing_of_a_provider(flags, atomic):
    """A full disk does so, too, where a handler swallows the error."""

    @flags.handler(max_attempts=1, atomic=atomic)
    def breaks(n):
        flags.database.connect(reuse_if_open=True)
        flags.database.rollback() if atomic else flags.database.begin()

    breaks.raise_many([(n,) for n in range(20)])
    assert +flags.sweep() == {"dead": 20} and not any(gate.closed for gate in flags.gates())


def test_another_kind_goes_on_while_one_waits(flags):
    state = failing(flags)
    state["handler"].raise_many([(n,) for n in range(1000)])
    mail = state["handler"].function
    state["handler"].function = lambda n: (time.sleep(0.005), mail(n))
    _, ran = make(flags, "other")
    flags.sweep()
    assert len(ran) == 100 and len(state["tried"]) < 500


@pytest.mark.long
def test_no_flag_dies_of_an_outage_of_an_hour(flags, clock):
    state = failing(flags, backoff=None)
    state["handler"].raise_many([(n,) for n in range(20)])
    for _ in range(60):
        flags.sweep()
        clock.advance(MINUTE)
    assert {flag.state for flag in flags.find()} == {"waiting"} and len(flags.find()) == 20
    state["down"] = False
    for _ in range(30):
        clock.advance(5 * MINUTE)
        flags.sweep()
    assert flags.find() == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rate": "10 per minute"}, "rate of 'work' must be"),
        ({"rate": 10}, "rate of 'work' must be"),
        ({"budget": "500/w"}, "budget of 'work' must be"),
        ({"limit": 0}, "limit of 'work' must be a whole number from 1"),
        ({"quiet": "22-7"}, "quiet of 'work'"),
        ({"breaker": 0}, "breaker of 'work' must be a whole number from 1"),
    ],
)
def test_what_is_no_limit_is_refused(flags, options, told):
    with pytest.raises(ConfigError, match=told):
        make(flags, **options)


# Buckets.


def by_customer(flags, **options):
    """Make a handler whose flags take turns by their customer."""
    ran = []

    def work(customer, n):
        ran.append(customer)

    return flags.handler("work", per="customer", **options)(work), ran


@pytest.mark.long
def test_a_flood_of_one_customer_starves_no_other(flags):
    work, ran = by_customer(flags)
    work.function = lambda customer, n: (time.sleep(0.001), ran.append(customer))
    work.raise_many([("flood", n) for n in range(600)])
    work.raise_many([(name, 0) for name in "abc"])
    flags.sweep()
    assert len(ran) == 603 and max(ran.index(name) for name in "abc") < 200


def test_a_rate_holds_for_each_customer(flags, clock):
    work, ran = by_customer(flags, rate="1/m")
    work.raise_many([(name, n) for name in "abc" for n in range(3)])
    for minute in range(1, 4):
        flags.sweep()
        assert {name: ran.count(name) for name in "abc"} == dict.fromkeys("abc", minute)
        clock.advance(MINUTE)
    assert flags.find() == []


def test_a_limit_holds_for_each_customer(flags):
    running, most, lock = [], [], threading.Lock()

    def work(customer, n):
        with lock:
            running.append(customer)
            most.append(max(running.count(name) for name in running))
        time.sleep(0.002)
        with lock:
            running.remove(customer)

    work = flags.handler("work", per="customer", limit=1)(work)
    work.raise_many([(name, n) for name in "abc" for n in range(10)])
    assert +flags.sweep() == {"lowered": 30}
    assert max(most) == 1


def test_a_budget_and_a_429_hold_for_each_customer(flags, clock):
    work, ran = by_customer(flags, budget="2/d", breaker=None)
    fine = work.function

    def choosy(customer, n):
        if customer == "bad" and n == 0:
            raise Retry("1h", "429", all=True)
        fine(customer, n)

    work.function = choosy
    work.raise_many([("good", n) for n in range(4)])
    flags.sweep()
    work.raise_many([("bad", n) for n in range(2)])
    flags.sweep()
    assert ran.count("good") == 2
    clock.advance(24 * HOUR)
    flags.sweep()
    assert ran.count("good") == 4


def test_gates_of_buckets_that_are_full_again_are_forgotten(flags, clock, client):
    work, _ = by_customer(flags, rate="1/h", budget="5/d", limit=2)
    work.raise_many([(name, 0) for name in "abc"])
    flags.sweep()
    count = "SELECT count(*) FROM flagsweep_gate WHERE bucket <> ''"
    records = Records(flags.connections)
    assert (records.forget_gates(clock.now()), client.ask(count)) == (0, [(3,)])
    clock.advance(3 * 24 * HOUR)
    client.ask("INSERT INTO flagsweep_hold (kind, consumer, slots) VALUES ('work', 4711, 3)")
    assert (records.forget_gates(clock.now()), client.ask(count)) == (3, [(0,)])
    assert client.ask("SELECT * FROM flagsweep_hold") == []
    flags.connections.close_engine()

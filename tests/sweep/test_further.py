"""Attempts of a flag whose handler comes further start anew; and yet nothing fails, or kills its process, for ever."""

import pytest
from rig import NEW_YEAR, Oops, only

from flagsweep import FlagSweep, Snooze
from flagsweep.config import SECOND
from flagsweep.consumer.blame import charge
from flagsweep.sweep import outcomes

HOUR = 3600


@pytest.fixture
def flags(ready_url, clock, tmp_path):
    flags = FlagSweep(ready_url, clock=clock, state_dir=tmp_path / "state", threads=1)
    flags.init()
    yield flags
    flags.connections.close_engine()
    flags.connections.close_thread()


@pytest.fixture
def few(monkeypatch):
    """Have what a flag may fail in all be counted within a test."""
    monkeypatch.setattr(outcomes, "STRIKES", 5)


def collect(flags, function, **options):
    flags.handler("collect", **{"max_attempts": 3, "backoff": 10, "breaker": None, **options})(function).raise_flag()


def sweep_until(flags, clock, done, most=60):
    """Sweep again and again, an hour later each time, until something is so; return how often."""
    for times in range(most):
        if done():
            return times
        flags.sweep()
        clock.advance(HOUR)
    raise AssertionError(f"not so after {most} sweeps")


def is_dead(flags):
    return lambda: only(flags).state == "dead"


@pytest.mark.long
@pytest.mark.parametrize("a_run_each", [True, False])
def test_a_collector_of_many_pages_does_not_die_of_scattered_failures(flags, clock, a_run_each):
    failed, attempts = [], []

    def pages(flag):
        attempts.append(flag.attempt)
        for page in range(flag.cursor or 0, 30):
            if page % 3 == 2 and page not in failed:
                failed.append(page)
                raise ConnectionError("no route")
            flag.progress(page + 1)
            if a_run_each:
                raise Snooze(0)

    collect(flags, pages)
    sweep_until(flags, clock, lambda: not flags.find())
    assert len(failed) == 10 and max(attempts) == 2


def test_the_first_failure_after_some_progress_waits_for_the_shortest_backoff(flags, clock):
    def one_page_each(flag):
        flag.progress((flag.cursor or 0) + 1)
        raise ConnectionError("no route")

    collect(flags, one_page_each, backoff=None)
    for _ in range(5):
        began = clock.now()
        flags.sweep()
        assert only(flags).attempts == 1 and 10 * SECOND <= due_at(flags) - began < 20 * SECOND
        clock.advance(HOUR)


def due_at(flags):
    (flag,) = flags.verbs.find(())
    return flag.due_at


@pytest.mark.parametrize("cursor", [1, None])
def test_who_comes_no_further_dies_as_ever(flags, clock, cursor):
    def stuck(flag):
        if cursor is not None:
            flag.progress(cursor)
        raise ConnectionError("no route")

    collect(flags, stuck)
    sweep_until(flags, clock, is_dead(flags), 8)


@pytest.mark.parametrize("atomic", [True, False])
def test_what_was_rolled_back_is_no_progress(flags, clock, atomic):
    def undone(flag):
        if atomic:
            flag.progress(flag.attempt)
            raise Oops
        with flags.database.connection_context(), flags.database.atomic():
            flag.progress(flag.attempt)
            raise Oops

    collect(flags, undone, atomic=atomic)
    assert sweep_until(flags, clock, is_dead(flags)) == 3


@pytest.mark.long
def test_who_only_pretends_to_come_further_dies_after_many_more_attempts(flags, clock, few):
    def pretends(flag):
        flag.progress(clock.now())
        raise ConnectionError("no route")

    collect(flags, pretends)
    assert sweep_until(flags, clock, is_dead(flags)) == 5 * 3
    assert "15 times without a success" in only(flags).error
    assert flags.retry() == 1 and sweep_until(flags, clock, is_dead(flags)) == 15, "it starts from scratch"


@pytest.mark.long
def test_pages_that_come_make_good_the_failures_between_them(flags, clock, few):
    """A collector that never ends, such as one that asks for what is new each hour, must not die of old age."""
    runs = []

    def endless(flag):
        runs.append(flag.attempt)
        if len(runs) % 2:
            raise ConnectionError("no route")
        flag.progress(len(runs))
        raise Snooze(10)

    collect(flags, endless)
    sweep_until(flags, clock, lambda: len(runs) >= 50)
    assert only(flags).state == "waiting"


# Its process dies.


def die_after(flags, clock, progress):
    """Have a consumer claim the flag, come further perhaps, and be killed; return what became of the flag."""
    store, now = flags.store, clock.now()
    consumer = store.enlist("run", 1, "h", now, lambda id: None)
    with store.connections.write():
        (claimed,) = store.claim("collect", 0, 9, consumer, now)
    if progress:
        assert store.progress(claimed.id, claimed.token, str(now), atomic=False)
    steps = charge(store.claimed_by(consumer), set(), "", lambda kind: flags.handlers[kind].options, now)
    store.rescue(consumer, [(flag.id, flag.claim_token, step) for flag, step in steps], now)
    clock.advance(HOUR)
    return only(flags)


def test_who_kills_its_process_after_each_page_dies_as_ever(flags, clock):
    collect(flags, lambda flag: None)
    assert [die_after(flags, clock, progress=True).state for _ in range(3)] == ["waiting", "waiting", "dead"]


def test_who_kills_its_process_after_every_other_page_dies_hardly_later(flags, clock):
    def one_page(flag):
        flag.progress((flag.cursor or 0) + 1)
        raise Snooze(0)

    collect(flags, one_page)
    deaths = 1
    while die_after(flags, clock, progress=True).state != "dead":
        flags.sweep(limit=2)
        assert only(flags).attempts == 0
        clock.advance(HOUR)
        deaths += 1
    assert deaths == 4, "three deaths, less what two pages between make good"


@pytest.mark.long
def test_a_success_forgets_all_that_failed_before(flags, clock, few):
    fails = [True]

    def pretends(flag):
        flag.progress(clock.now())
        if fails[0]:
            raise ConnectionError("no route")

    collect(flags, pretends)
    sweep_until(flags, clock, lambda: clock.now() > NEW_YEAR + 13 * HOUR * SECOND)
    fails[0] = False
    with flags.connections.write():  # Raised again while it runs, it keeps its row.
        (claimed,) = flags.store.claim("collect", 0, 1, 1, clock.now())
    flags.handlers["collect"].raise_flag()
    with flags.connections.write():
        assert flags.store.lower([claimed.id], claimed.token) == (0, 1)
    fails[0] = True
    assert sweep_until(flags, clock, is_dead(flags)) == 15

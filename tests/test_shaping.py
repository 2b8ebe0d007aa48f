"""What a raise may say besides: until when it is worth doing, that more of it may come, and whose payload holds."""

from datetime import UTC, datetime, timedelta

import pytest
from rig import only

from flagsweep import ConfigError, FlagSweep

MINUTE = 60


@pytest.fixture
def flags(ready_url, clock, tmp_path):
    flags = FlagSweep(ready_url, clock=clock, state_dir=tmp_path / "state")
    flags.init()
    yield flags
    flags.connections.close_thread()


@pytest.fixture
def runs(flags):
    """Return a list of (note, raises) that the handlers of ``shaped`` add to."""
    return []


def shaped(flags, runs, **options):
    """Make a handler whose flag is the same for each note."""

    def work(name, note, flag):
        runs.append((note, flag.raises))

    return flags.handler("work", **options)(work)


def due_in(flags):
    return only(flags).due_at.timestamp() - flags.clock.now() / 1e6


# Until when.


@pytest.mark.parametrize("how", ["option", "duration", "moment"])
def test_what_is_too_late_to_be_worth_it_is_lowered_unrun_with_a_line_of_history(flags, client, clock, runs, how):
    work = shaped(flags, runs, **({"expires": "10m"} if how == "option" else {}))
    until = datetime.fromtimestamp(clock.now() / 1e6, UTC) + timedelta(minutes=10)
    expires = {"option": None, "duration": "10m", "moment": until}[how]
    work.using(expires=expires).raise_flag("a", 1)
    clock.advance(9 * MINUTE)
    work.using(key="other", expires="1h").raise_flag("b", 2)
    clock.advance(1 * MINUTE)
    assert +flags.sweep() == {"expired": 1, "lowered": 1}
    assert runs == [(2, 1)] and flags.find() == []
    assert client.ask("SELECT event, reason FROM flagsweep_history") == [("expired", "0 s too late, unrun")]


def test_an_expiry_counts_from_when_the_flag_is_due(flags, clock, runs):
    shaped(flags, runs).using(delay="1h", expires="1m").raise_flag("a", 1)
    clock.advance(3600 + 59)
    assert +flags.sweep() == {"lowered": 1}


def test_the_latest_raise_says_until_when(flags, clock, runs):
    work = shaped(flags, runs).using(key="one", expires="1m")
    work.raise_flag("a", 1)
    shaped_again = flags.handlers["work"].using(key="one")
    shaped_again.raise_flag("a", 2)
    clock.advance(2 * MINUTE)
    assert only(flags).expires_at is None
    assert +flags.sweep() == {"lowered": 1} and runs == [(2, 2)]


def test_a_flag_that_expired_while_it_was_raised_again_waits_for_that(flags, clock, runs):
    """What was claimed too late is lowered; the raise that came meanwhile is not."""
    work = shaped(flags, runs)

    def again(name, note, flag):
        work.using(key="one", expires="1m").raise_flag("a", note + 1)
        clock.advance(2 * MINUTE)

    work.function = again
    work.using(key="one").raise_flag("a", 1)
    assert +flags.sweep() == {"again": 1, "expired": 1}


# More of it may come.


def test_each_raise_puts_a_debounced_flag_off_and_one_run_covers_them_all(flags, clock, runs):
    work = shaped(flags, runs, debounce="30s").using(key="one")
    for note in range(5):
        work.raise_flag("a", note)
        assert due_in(flags) == 30
        clock.advance(20)
        assert not +flags.sweep()
    clock.advance(10)
    assert +flags.sweep() == {"lowered": 1} and runs == [(4, 5)]


@pytest.mark.parametrize("many", [False, True])
def test_the_first_raise_says_how_long_a_debounced_flag_waits_at_the_most(flags, clock, runs, many):
    work = flags.handler("work", debounce="30s", longest="1m")(lambda name, flag: runs.append(flag.raises))
    for _ in range(3):
        work.raise_many([("a",), ("a",)]) if many else work.raise_flag("a")
        clock.advance(25)
    assert due_in(flags) == -15
    assert +flags.sweep() == {"lowered": 1} and runs == [6 if many else 3]
    work.raise_flag("a")
    assert due_in(flags) == 30, "the next first raise counts anew"


def test_a_debounce_does_not_move_what_backs_off_and_starts_anew_for_a_running_one(flags, clock, runs):
    work = shaped(flags, runs, debounce="30s", backoff="1h").using(key="one")
    seen = []

    def fails(name, note, flag):
        if note == 1:
            clock.advance(100)
            work.raise_flag("a", 2)
            clock.advance(5)
            work.raise_flag("a", 3)
            seen.append(flag.raises)
            return
        raise ValueError("no")

    flags.handlers["work"].function = fails
    work.raise_flag("a", 1)
    clock.advance(30)
    assert +flags.sweep() == {"again": 1} and seen == [1]
    assert due_in(flags) == 30, "raised while it ran, it waits for the latest of those raises"
    clock.advance(30)
    assert +flags.sweep() == {"again": 1}
    work.raise_flag("a", 4)
    assert due_in(flags) == 3600, "it backs off"


@pytest.mark.parametrize(
    ("options", "said", "told"),
    [
        ({"longest": "1m"}, {}, "longest of 'work' bounds a debounce: give debounce, too"),
        ({"debounce": "2m", "longest": "1m"}, {}, "longest of 'work' must be at least the debounce of 120 s, got 60 s"),
        ({"debounce": 0}, {}, "debounce of 'work' must be longer than 0 seconds: leave it out"),
        ({"expires": "soon"}, {}, "expires of 'work' must be seconds, a timedelta or text such as"),
        ({"per": "nobody"}, {}, "per of 'work' must name one of its arguments"),
        ({"debounce": "1m"}, {"delay": 5}, "a flag that is debounced is due 60 s after its latest raise: leave out delay=5"),
        ({}, {"debounce": "1m", "delay": 5}, "leave out delay=5"),
        ({}, {"expires": 0}, "expires of 'work' must be longer than 0 seconds"),
        ({}, {"expires": datetime(2026, 1, 1)}, "expires must be a datetime with a time zone"),
        ({}, {"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "expires lies in the past"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, runs, options, said, told):
    with pytest.raises(ConfigError, match=told):
        shaped(make(), runs, **options).using(**said)


@pytest.mark.parametrize("name", ["expires", "debounce", "replace"])
def test_a_row_of_the_sites_says_itself_what_is_owed(make, name):
    """Lowered unrun, or put off, it would be found anew."""
    from own_rows import User

    with pytest.raises(ConfigError, match=f"flags.when does not know {name}"):
        make().when(User.owed, **{name: False if name == "replace" else "1m"})


# Whose payload holds.


@pytest.mark.parametrize("many", [False, True])
def test_the_first_payload_and_expiry_hold_where_it_is_not_to_be_replaced(flags, clock, runs, many):
    work = shaped(flags, runs, replace=False)

    def put(note, **options):
        if not many:
            work.using(key="one", **options).raise_flag("a", note)
        else:
            flags.verbs.raise_many("work", [f'[["one","{{\\"name\\":\\"a\\",\\"note\\":{note}}}",null]]'], _terms(work, options))

    put(1, expires="1h")
    put(2, expires="2h")
    assert (only(flags).payload["note"], only(flags).expires_at) == (1, only(flags).due_at + timedelta(hours=1))
    assert +flags.sweep() == {"lowered": 1} and runs == [(1, 2)]


def _terms(work, options):
    return work.using(**options)._options.terms(work.options, work._site.clock.now())


def test_what_is_raised_while_it_runs_is_the_first_of_the_next(flags, runs):
    work = shaped(flags, runs, replace=False)

    def again(name, note, flag):
        runs.append((note, flag.raises))
        for next_note in (2, 3) if note == 1 else ():
            work.using(key="one").raise_flag("a", next_note)

    work.function = again
    work.using(key="one").raise_flag("a", 1)
    assert +flags.sweep() == {"again": 1, "lowered": 1}
    assert runs == [(1, 1), (2, 2)]


def test_the_raises_of_an_attempt_that_failed_are_covered_by_the_next(flags, clock, runs):
    work = shaped(flags, runs, backoff="1m").using(key="one")

    def fails_once(name, note, flag):
        runs.append((note, flag.raises))
        if flag.attempt == 1:
            raise ValueError("no")

    flags.handlers["work"].function = fails_once
    work.raise_flag("a", 1)
    flags.sweep()
    work.raise_flag("a", 2)
    clock.advance(MINUTE)
    assert +flags.sweep() == {"lowered": 1}
    assert runs == [(1, 1), (2, 2)]


BUCKETS = [("shop", "shop"), (17, "17"), (None, "null"), ([1, "a"], '[1,"a"]'), ("é" * 201, None)]


@pytest.mark.parametrize(("value", "bucket"), BUCKETS)
def test_the_value_of_an_argument_is_kept_with_the_flag(flags, value, bucket):
    work = flags.handler("work", per="customer")(lambda n, customer="shop": None)
    work.raise_flag(1, value)
    work.raise_many([{"n": 2, "customer": value}, (3,)])
    first, second, third = [flag.bucket for flag in flags.find()]
    assert first == second == bucket or len(first) == 64
    assert third == "shop"

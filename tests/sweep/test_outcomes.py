"""Every way in which a handler can end, and every flag that cannot be handled, ends in one of the settle verbs."""

import json
import logging
import threading

import pytest
from rig import count, only, plain

from flagsweep import Backoff, Discard, Retry, Snooze


class Weird(BaseException):
    """Stand for what a library derives from BaseException."""


def outcome(flags, handler):
    """Return the one outcome that a sweep of one flag met."""
    handler.raise_flag()
    ((how, number),) = (+flags.sweep()).items()
    assert number == 1
    return how


def raising(flags, error, **options):
    """Return a handler that raises this."""

    @flags.handler("work", **options)
    def work():
        raise error

    return work


# What a handler may do.


def test_a_handler_that_returns_lowers_its_flag(flags):
    seen = []
    work = flags.handler("work")(lambda: seen.append(1))
    assert outcome(flags, work) == "lowered"
    assert (seen, flags.find()) == ([1], [])


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(1), KeyboardInterrupt(), GeneratorExit(), Weird("odd"), StopIteration()]
)
def test_whatever_a_handler_raises_is_a_failed_attempt(flags, error):
    assert outcome(flags, raising(flags, error)) == "again"
    flag = only(flags)
    assert (flag.state, flag.attempts) == ("waiting", 1)
    assert type(error).__name__ in flag.error


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, Weird])
def test_no_thread_is_lost_to_an_error(flags, error):
    used = set()

    @flags.handler
    def work(n):
        used.add(threading.get_ident())
        if n % 2:
            raise error

    work.raise_many([(n,) for n in range(200)])
    assert +flags.sweep() == {"lowered": 100, "again": 100}
    assert len(used) <= 2


def test_an_error_hinders_no_other_flag(flags):
    done = []

    @flags.handler
    def work(n):
        if n == 7:
            raise ValueError(n)
        done.append(n)

    work.raise_many([(n,) for n in range(50)])
    flags.sweep()
    assert sorted(done) == [n for n in range(50) if n != 7]
    assert only(flags).payload == {"n": 7}


@pytest.mark.parametrize("delay", [90, 90.0, "1m30s", "90"])
def test_a_snooze_waits_that_long_and_costs_no_attempt(flags, clock, delay):
    work = raising(flags, Snooze(delay))
    assert outcome(flags, work) == "snoozed"
    assert (only(flags).attempts, only(flags).error) == (0, None)
    clock.advance(89)
    assert not +flags.sweep()
    clock.advance(1)
    assert +flags.sweep() == {"snoozed": 1}


@pytest.mark.parametrize("delay", ["soon", -1, float("nan"), float("inf"), None, True, "99999999999d"])
def test_a_bad_snooze_is_a_failed_attempt_that_names_the_value(flags, delay):
    assert outcome(flags, raising(flags, Snooze(delay))) == "again"
    assert repr(delay) in only(flags).error


def test_a_handler_can_snooze_for_ever(flags, clock):
    work = raising(flags, Snooze("1h"), max_attempts=2)
    work.raise_flag()
    for _ in range(5):
        assert +flags.sweep() == {"snoozed": 1}
        clock.advance(3600)


def test_a_discard_lowers_the_flag_and_leaves_its_reason(flags, db_path):
    assert outcome(flags, raising(flags, Discard("the account is gone"))) == "discarded"
    assert flags.find() == []
    assert plain(db_path, "SELECT kind, event, reason FROM flagsweep_history") == [("work", "discarded", "the account is gone")]


def test_a_retry_waits_as_long_as_it_says_and_costs_an_attempt(flags, clock):
    work = raising(flags, Retry(after="5m", reason="their server is closed"), max_attempts=2)
    assert outcome(flags, work) == "again"
    assert (only(flags).attempts, only(flags).error) == (1, "their server is closed")
    clock.advance(299)
    assert not +flags.sweep()
    clock.advance(1)
    assert +flags.sweep() == {"dead": 1}


def test_a_retry_without_a_time_takes_the_backoff(flags, clock):
    raising(flags, Retry(), backoff=70).raise_flag()
    flags.sweep()
    assert only(flags).due_at.timestamp() * 1e6 == clock.now() + 70e6


@pytest.mark.parametrize("after", ["later", -5, float("nan")])
def test_a_bad_retry_is_a_failed_attempt_that_names_the_value(flags, after):
    assert outcome(flags, raising(flags, Retry(after=after))) == "again"
    assert repr(after) in only(flags).error


@pytest.mark.parametrize(("error", "how"), [(ConnectionError("gone"), "again"), (ValueError("bad"), "dead")])
def test_only_what_is_in_retry_on_is_tried_again(flags, error, how):
    assert outcome(flags, raising(flags, error, retry_on=(OSError,))) == how


@pytest.mark.parametrize("error", [Snooze(5), Retry(5)])
def test_retry_on_does_not_hinder_the_outcomes_that_a_handler_chooses(flags, error):
    assert outcome(flags, raising(flags, error, retry_on=OSError)) in ("again", "snoozed")


def test_what_is_in_discard_on_lowers_the_flag(flags, db_path):
    assert outcome(flags, raising(flags, LookupError("no user 7"), discard_on=LookupError)) == "discarded"
    assert plain(db_path, "SELECT reason FROM flagsweep_history") == [("LookupError: no user 7",)]


def test_waits_grow_up_to_the_cap_and_then_the_flag_is_dead(flags, clock):
    work = raising(flags, ValueError("no"), max_attempts=5, backoff=Backoff(first=10, factor=3, cap=60, jitter=0))
    work.raise_flag()
    waits = []
    while flags.sweep()["again"]:
        due = only(flags).due_at.timestamp()
        waits.append(due - clock.now() / 1e6)
        clock.advance(waits[-1])
    assert waits == [10, 30, 60, 60]
    assert (only(flags).state, only(flags).attempts) == ("dead", 5)


def test_a_dead_flag_keeps_the_traceback(flags):
    assert outcome(flags, raising(flags, ValueError("no such template"), max_attempts=1)) == "dead"
    error = only(flags).error
    assert error.startswith("Traceback") and error.endswith("ValueError: no such template")
    assert "in work\n    raise error" in error
    assert "perform.py" not in error


def test_raise_errors_raises_the_first_error_when_all_is_done(flags):
    done = []

    @flags.handler
    def work(n):
        if n == 0:
            raise LookupError("no user 0")
        done.append(n)

    work.raise_many([(n,) for n in range(5)])
    with pytest.raises(LookupError, match="no user 0"):
        flags.sweep(raise_errors=True)
    assert sorted(done) == [1, 2, 3, 4]
    assert only(flags).attempts == 1


# Errors that are hard to write down.


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Liar(Exception):
    def __str__(self):
        return 5


class Deadly(Exception):
    def __str__(self):
        raise SystemExit


def circle():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one


def chain():
    error = ValueError("first")
    for n in range(5000):
        later = ValueError(n)
        later.__cause__ = error
        error = later
    return error


HARD = {
    "mute": Mute(),
    "liar": Liar(),
    "deadly": Deadly(),
    "nul": ValueError("a\0b"),
    "surrogate": ValueError("a\ud800b"),
    "huge": ValueError("x" * 10_000_000),
    "circle": circle(),
    "chain": chain(),
    "empty": ValueError(""),
    "newlines": ValueError("\n\n\n"),
    "mute discard": Discard(Mute()),
    "mute retry": Retry(reason=Mute()),
}


@pytest.mark.parametrize("name", HARD)
def test_every_error_can_be_recorded(flags, name):
    handler = raising(flags, HARD[name])
    assert outcome(flags, handler) in ("again", "discarded")
    for flag in flags.find():
        assert flag.attempts == 1
        assert 0 < len(flag.error.encode()) <= 8192
        assert "\0" not in flag.error


def test_a_long_error_keeps_its_end(flags):
    raising(flags, ValueError("x" * 100_000 + "the end")).raise_flag()
    flags.sweep()
    assert only(flags).error.endswith("the end")


# Deaths.


def test_the_site_is_told_once_of_a_death(flags):
    told = []
    flags.on_dead(lambda *death: told.append(death))

    @flags.handler(max_attempts=1)
    def send(user_id):
        raise ValueError("refused")

    send.using(key="user-7").raise_flag(user_id=7)
    flags.sweep()
    flags.sweep()
    ((kind, key, payload, error),) = told
    assert (kind, key, payload) == ("send", "user-7", {"user_id": 7})
    assert error.endswith("ValueError: refused")


def test_a_flag_that_dies_again_is_told_again(flags):
    told = []
    flags.on_dead(lambda *death: told.append(death))
    raising(flags, ValueError(), max_attempts=1).raise_flag()
    flags.sweep()
    assert flags.retry() == 1
    flags.sweep()
    assert len(told) == 2


@pytest.mark.parametrize("error", [ValueError, SystemExit, Weird])
def test_an_error_in_on_dead_harms_nothing(flags, caplog, error):
    told = []

    @flags.on_dead
    def first(*death):
        raise error("the pager is off")

    @flags.on_dead
    def second(*death):
        told.append(death)

    raising(flags, ValueError(), max_attempts=1).raise_flag()
    for _ in range(2):
        assert +flags.sweep() == {"dead": 1}
        flags.retry()
    assert len(told) == 2
    assert "on_dead" in caplog.text


# Rows that were damaged by hand.

DAMAGE = {
    "bad JSON": "payload = '{'",
    "empty payload": "payload = ''",
    "list": "payload = '[1]'",
    "number": "payload = '5'",
    "null": "payload = 'null'",
    "text": "payload = '\"n\"'",
    "blob payload": "payload = x'00ff'",
    "not UTF-8": "payload = CAST(x'7b226e223a2022ff227d' AS TEXT)",
    "too deep": "payload = '" + '{"n":' * 3000 + "1" + "}" * 3000 + "'",
    "NaN": "payload = '{\"n\": NaN}'",
    "blob key": "key = x'00ff'",
    "key that is not UTF-8": "key = CAST(x'ff' AS TEXT)",
    "bad cursor": "cursor = '{'",
    "time to expire": "expires_at = 'x'",
    "cursor that is not UTF-8": "cursor = CAST(x'22ff22' AS TEXT)",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_row_is_parked_with_the_reason_and_the_others_go_on(flags, db_path, damage):
    done = []
    work = flags.handler("work")(lambda n: done.append(n))
    ids = [work.raise_flag(n).id for n in range(5)]
    plain(db_path, f"UPDATE flagsweep_flag SET {DAMAGE[damage]} WHERE id = ?", ids[2])
    counts = +flags.sweep()
    assert sorted(done) == [0, 1, 3, 4]
    assert counts == {"lowered": 4, "dead": 1}
    assert only(flags).id == ids[2]
    assert only(flags).state == "dead"
    assert "parked" in only(flags).error
    assert flags.status()["lanes"]["default"]["dead"] == 1
    assert flags.discard(ids[2]) == 1


@pytest.mark.parametrize(
    "damage",
    [
        "attempts = 'many'",
        "attempts = x'ff'",
        "attempts = 3.7",
        "crashes = 'none'",
        "suspect = 'yes'",
        "generation = 'first'",
        "raised_at = 'today'",
        "raised_as = ''",
        "error = x'ff'",
        "claim_token = 'x', claimed_by = 'y', claimed_at = 'z', claimed_generation = 'w'",
        "priority = 4711",
        "priority = 1.5",
        "priority = 'high'",
        "priority = x'ff'",
        "due_at = 1.5",
        "due_at = -5",
    ],
)
def test_damage_that_does_not_matter_is_overlooked(flags, db_path, damage):
    done = []
    work = flags.handler("work")(lambda n: done.append(n))
    ids = [work.raise_flag(n).id for n in range(3)]
    plain(db_path, f"UPDATE flagsweep_flag SET {damage} WHERE id = ?", ids[1])
    flags.find()
    assert +flags.sweep() == {"lowered": 3}
    assert sorted(done) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["x'ff'", "CAST(x'ff' AS TEXT)", "''", "'a b'", "5"])
def test_a_damaged_kind_is_nobodys_and_hinders_no_other_flag(flags, db_path, kind):
    work = flags.handler("work")(lambda n: None)
    for n in range(3):
        work.raise_flag(n)
    plain(db_path, f"UPDATE flagsweep_flag SET kind = {kind} WHERE id = 2")
    assert flags.sweep() == {"lowered": 2}
    assert flags.status()["lanes"]["-"]["waiting"] == 1
    assert [flag.id for flag in flags.find(lane="-")] == [2]
    json.dumps([flag.to_dict() for flag in flags.find()])


@pytest.mark.parametrize("due", ["'soon'", "x'ff'", "''", "99999999999999999"])
def test_a_damaged_due_time_hinders_no_other_flag(flags, db_path, due):
    done = []
    work = flags.handler("work")(lambda n: done.append(n))
    ids = [work.raise_flag(n).id for n in range(3)]
    lonely = work.using(priority=5).raise_flag(3).id
    plain(db_path, f"UPDATE flagsweep_flag SET due_at = {due} WHERE id IN (?, ?)", ids[1], lonely)
    assert +flags.sweep() == {"lowered": 2}
    assert sorted(done) == [0, 2]
    assert {flag.id for flag in flags.find()} == {ids[1], lonely}
    assert flags.status()["lanes"]["default"]["waiting"] + flags.status()["lanes"]["default"]["dead"] == 2


def test_a_damaged_due_time_can_be_retried_by_raising_again(flags, db_path):
    done = []
    work = flags.handler("work")(lambda n: done.append(n))
    work.raise_flag(1)
    plain(db_path, "UPDATE flagsweep_flag SET due_at = 'soon'")
    work.raise_flag(1)
    flags.sweep()
    assert done == [1]


def test_arguments_that_the_handler_no_longer_takes_are_a_failed_attempt(flags, db_path):
    work = flags.handler("work")(lambda n: None)
    work.raise_flag(1)
    plain(db_path, "UPDATE flagsweep_flag SET payload = ?", json.dumps({"m": 1}))
    assert +flags.sweep() == {"again": 1}
    assert "unexpected keyword argument 'm'" in only(flags).error


def test_a_bumped_damaged_row_is_mended_by_the_raise(flags, db_path):
    done = []
    work = flags.handler("work")(lambda n: done.append(n))
    work.raise_flag(1)
    plain(db_path, "UPDATE flagsweep_flag SET payload = '{'")
    flags.sweep()
    assert work.raise_flag(1).how == "revived"
    flags.sweep()
    assert done == [1]


# The flag context.


def test_a_handler_that_asks_for_the_flag_gets_its_context(flags, clock):
    seen = []

    @flags.handler(max_attempts=3)
    def work(n, flag):
        seen.append((n, flag.kind, flag.key, flag.attempt, flag.cursor, flag.should_stop()))
        flag.progress({"page": len(seen)})
        assert flag.cursor == {"page": len(seen)}
        raise ValueError("no")

    id = work.using(key="seven").raise_flag(7).id
    for _ in range(3):
        flags.sweep()
        clock.advance(3600)
    assert seen == [
        (7, "work", "seven", 1, None, False),
        (7, "work", "seven", 2, {"page": 1}, False),
        (7, "work", "seven", 2, {"page": 2}, False),
    ]
    assert (only(flags).id, only(flags).cursor) == (id, '{"page":3}')


@pytest.mark.parametrize("cursor", [0, "", None, [1, {"a": None}], "한국어 \0 \ud800", 2**70, 0.1, False])
def test_a_cursor_comes_back_as_it_was(flags, clock, cursor):
    seen = []

    @flags.handler
    def work(flag):
        seen.append(flag.cursor)
        flag.progress(cursor)
        raise Snooze(1)

    work.raise_flag()
    flags.sweep()
    clock.advance(1)
    flags.sweep()
    assert seen == [None, cursor]


@pytest.mark.parametrize("cursor", [object(), float("nan"), {1: 2}, "x" * 40_000])
def test_a_bad_cursor_is_a_failed_attempt(flags, cursor):
    @flags.handler
    def work(flag):
        flag.progress(cursor)

    assert outcome(flags, work) == "again"
    assert "PayloadError" in only(flags).error


def test_progress_inside_the_handlers_own_transaction_commits_with_it(flags, db_path, clock):
    flags.database.execute_sql("CREATE TABLE done (n)")
    flags.database.close()

    @flags.handler
    def work(flag):
        for n in range(flag.cursor or 0, 4):
            with flags.database.atomic():
                flags.database.execute_sql("INSERT INTO done VALUES (?)", (n,))
                flag.progress(n + 1)
                if n == 2 and flag.attempt == 1:
                    raise ValueError("in the middle")

    work.raise_flag()
    assert +flags.sweep() == {"again": 1}
    clock.advance(60)
    assert +flags.sweep() == {"lowered": 1}
    assert plain(db_path, "SELECT n FROM done") == [(0,), (1,), (2,), (3,)]


def test_progress_of_a_flag_that_was_lowered_by_hand_stops_the_handler(flags, db_path):
    reached = []

    @flags.handler
    def work(flag):
        flags.lower("work", flag.key)
        flag.progress(1)
        reached.append(1)

    assert outcome(flags, work) == "lost"
    assert (reached, count(db_path)) == ([], 0)


def test_should_stop_is_true_once_the_sweep_is_told_to_stop(flags):
    seen = []

    @flags.handler
    def work(flag):
        seen.append(flag.should_stop())
        flags.stop()
        seen.append(flag.should_stop())

    work.raise_flag()
    flags.sweep()
    assert seen == [False, True]


# Raising from within.


def test_a_handler_that_raises_its_own_flag_runs_once_more(flags):
    runs = []

    @flags.handler
    def work():
        runs.append(1)
        if len(runs) < 3:
            assert work.raise_flag().how == "bumped"

    work.raise_flag()
    assert +flags.sweep() == {"again": 2, "lowered": 1}
    assert len(runs) == 3


def test_a_handler_that_raises_its_own_flag_and_fails_does_not_spin(flags, clock):
    runs = []

    @flags.handler(max_attempts=3, backoff=Backoff(first=10, factor=2, cap=100, jitter=0))
    def work():
        runs.append(clock.now())
        work.raise_flag()
        raise ValueError("no")

    work.raise_flag()
    waits = []
    for _ in range(4):
        assert +flags.sweep() == {"again": 1}
        waits.append(only(flags).due_at.timestamp() - clock.now() / 1e6)
        clock.advance(waits[-1])
    assert waits == [10, 20, 100, 10]
    assert len(runs) == 4


def test_a_handler_that_raises_its_own_flag_and_snoozes_runs_at_the_earlier_time(flags, clock):
    @flags.handler
    def work():
        work.using(delay=30).raise_flag()
        raise Snooze(60)

    work.raise_flag()
    assert +flags.sweep() == {"snoozed": 1}
    assert only(flags).due_at.timestamp() * 1e6 == clock.now() + 30e6


def test_a_discard_of_a_flag_that_was_raised_meanwhile_runs_again(flags):
    runs = []

    @flags.handler
    def work():
        runs.append(1)
        if len(runs) == 1:
            work.raise_flag()
            raise Discard("not needed")

    work.raise_flag()
    assert +flags.sweep() == {"again": 1, "lowered": 1}


def test_a_handler_that_raises_another_flag_has_it_done_in_the_same_sweep(flags):
    done = []

    @flags.handler
    def first(n):
        second.raise_flag(n + 1)

    @flags.handler(lane="late")
    def second(n):
        done.append(n)

    first.raise_flag(1)
    assert +flags.sweep() == {"lowered": 2}
    assert done == [2]


def test_a_sweep_within_a_handler_does_not_disturb_the_outer_one(flags):
    done = []

    @flags.handler
    def outer():
        inner.raise_flag()
        done.append(+flags.sweep("other"))

    @flags.handler(lane="other")
    def inner():
        done.append("inner")

    outer.raise_flag()
    assert +flags.sweep("default") == {"lowered": 1}
    assert done == ["inner", {"lowered": 1}]


def test_a_flag_that_dies_is_logged_in_one_line(flags, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    raising(flags, ValueError("two\nlines"), max_attempts=1).raise_flag()
    flags.sweep()
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "\n" not in line and "dead" in line

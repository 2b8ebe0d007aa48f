"""``flags.on_failure``: the site hears of the first failed attempt of a flag, and of its death."""

import threading

import pytest

from flagsweep import Discard, FlagSweep, Snooze
from flagsweep.errors import ConfigError
from flagsweep.sweep.notices import Failure


@pytest.fixture
def flags(ready_url):
    flags = FlagSweep(ready_url)
    flags.init()
    yield flags
    flags.connections.close_thread()


def failing(flags, times=3, kind="send", error=ValueError):
    @flags.handler(kind=kind, max_attempts=times, backoff=0, breaker=None)
    def send(user_id=7):
        raise error("refused")

    return send


def told_of(failure):
    return failure.kind, failure.attempt, failure.first, failure.final


def test_the_first_failed_attempt_and_the_death_are_told_and_nothing_between(flags, until):
    told = []
    flags.on_failure(told.append)
    failing(flags, times=3).using(key="user-7").raise_flag()
    until(lambda: flags.sweep()["dead"])
    assert [told_of(each) for each in told] == [("send", 1, True, False), ("send", 3, False, True)]
    assert {each.key for each in told} == {"user-7"}
    assert all(each.error.endswith("ValueError: refused") for each in told)
    assert all(each.fingerprint.startswith("ValueError test_failures.py:send:") for each in told)
    assert len({each.flag for each in told}) == 1


def test_each_of_them_may_have_a_function_of_its_own_or_one_alone(flags, until):
    early, late, only_late, only_early = [], [], [], []
    flags.on_failure(first=early.append, final=late.append)
    flags.on_failure(final=True)(only_late.append)
    flags.on_failure(final=False)(only_early.append)
    failing(flags, times=2).raise_flag()
    until(lambda: flags.sweep()["dead"])
    assert [each.attempt for each in early] == [each.attempt for each in only_early] == [1]
    assert [each.attempt for each in late] == [each.attempt for each in only_late] == [2]


def test_a_flag_that_dies_of_its_first_attempt_is_told_once_and_again_after_a_retry(flags):
    told = []
    flags.on_failure(told.append)
    failing(flags, times=1).raise_flag()
    flags.sweep()
    assert [told_of(each) for each in told] == [("send", 1, True, True)]
    flags.retry()
    flags.sweep()
    assert len(told) == 2


@pytest.mark.parametrize("error", [Snooze, Discard])
def test_what_is_no_failure_is_not_told(flags, error):
    told = []
    flags.on_failure(told.append)

    @flags.handler
    def later():
        raise error(60) if error is Snooze else error("not wanted any more")

    later.raise_flag()
    flags.sweep()
    assert told == []


def test_an_error_of_its_own_harms_nothing_and_shows_no_payload(flags, caplog):
    told = []

    @flags.on_failure
    def pager(failure):
        raise SystemExit("the pager is off")

    flags.on_failure(told.append)
    failing(flags, times=1).raise_flag(user_id="s3cret")
    assert +flags.sweep() == {"dead": 1}
    assert told[0].payload == {"user_id": "s3cret"}
    assert "on_failure" in caplog.text
    assert "s3cret" not in caplog.text
    assert "s3cret" in told[0].key
    assert "s3cret" not in repr(told)
    assert not any(record.exc_info for record in caplog.records)


def test_a_slow_listener_holds_up_no_work(flags, until):
    may_go, began = threading.Event(), threading.Event()

    @flags.on_failure
    def slow(failure):
        began.set()
        assert may_go.wait(30)

    send = failing(flags, times=1)
    send.raise_many([{"user_id": number} for number in range(20)])
    ended = []
    sweeping = threading.Thread(target=lambda: ended.append(flags.sweep()))
    sweeping.start()
    try:
        assert began.wait(30)
        until(lambda: len(flags.find(state="dead")) == 20)
    finally:
        may_go.set()
        sweeping.join(30)
    assert ended


@pytest.mark.parametrize("given", [{"first": False, "final": False}, {"first": 3}, {"final": "page"}])
def test_what_would_never_be_called_is_refused(flags, given):
    with pytest.raises(ConfigError, match="on_failure"):
        flags.on_failure(**given)("no function")


def test_a_failure_shows_no_payload():
    assert "s3cret" not in repr(Failure("send", "k", 1, 1, "error", "ValueError", True, False, {"password": "s3cret"}))

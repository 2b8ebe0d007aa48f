"""What the log gets: what would fill it once a minute, an outage from its first error to its end, and text on one line."""

import logging

import pytest

from flagsweep.logs import Outage, Seldom, describe, headline, printable


def test_what_would_fill_the_log_is_told_once_a_minute():
    seldom = Seldom()
    assert [moment for moment in (0.0, 1.0, 59.9, 60.0, 61.0, 120.0) if seldom.may_tell(moment)] == [0.0, 60.0, 120.0]


def test_what_begins_anew_is_told_whenever_the_last_was():
    seldom = Seldom()
    assert seldom.may_tell(5.0) and not seldom.may_tell(6.0)
    seldom.begin_anew()
    assert seldom.may_tell(7.0)


@pytest.fixture
def passed(monkeypatch):
    """Give `passed(seconds)`: let that much time go by for an outage."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def passed(seconds):
        now[0] += seconds

    return passed


def test_the_waits_of_an_outage_double_up_to_half_a_minute_and_begin_anew_once_it_is_over(passed):
    outage = Outage("the store", "nothing is lost")
    assert [outage.tell(OSError("gone")) for _ in range(7)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    outage.is_back()
    assert outage.tell(OSError("gone")) == 1.0


def test_an_outage_says_since_when_and_how_long_it_was(passed, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    outage = Outage("the store", "nothing is lost", logging.ERROR)
    for _ in range(4):
        outage.tell(OSError("gone"))
        passed(30)
    outage.is_back()
    outage.is_back()
    assert caplog.messages == [
        "the store is away: gone; nothing is lost",
        "the store is away since 60 s: gone; nothing is lost",
        "the store is back after 120 s",
    ]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR, logging.INFO]


def test_an_outage_that_was_not_told_of_ends_without_a_word(passed, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    outage = Outage("the store", "nothing is lost")
    for _ in range(3):
        outage.tell(OSError("gone"))
        outage.is_back()
    assert caplog.messages == ["the store is away: gone; nothing is lost", "the store is back after 0 s"]


def test_what_steers_a_terminal_is_spelled_out():
    assert printable("a\x1b[31mb\nc 안녕") == "a\\x1b[31mb\\nc 안녕"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ExceptionGroup("batch failed", [ValueError("x"), KeyError("y")]),
            "ExceptionGroup: batch failed (2 sub-exceptions): ValueError: x",
        ),
        (
            ExceptionGroup("outer", [ExceptionGroup("inner", [OSError("deep")])]),
            "ExceptionGroup: outer (1 sub-exception): ExceptionGroup: inner (1 sub-exception)",
        ),
        (BaseExceptionGroup("all", [KeyboardInterrupt()]), "BaseExceptionGroup: all (1 sub-exception): KeyboardInterrupt"),
        (ValueError("a | b\n  | c"), "ValueError: a | b"),
    ],
)
@pytest.mark.parametrize("raised", [False, True])
def test_the_headline_of_a_group_is_its_own_text_and_its_first_part(error, expected, raised):
    if raised:
        try:
            raise error
        except BaseException as caught:
            error = caught
    assert headline(describe(error)) == expected

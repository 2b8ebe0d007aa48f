"""Budgets: what they may be written as, and that a day has one, however long it is and wherever its midnight went."""

from datetime import date
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zones import AROUND, HOUR, MINUTE, at

from flagsweep import ConfigError
from flagsweep.gates.budgets import Budget, day, next_day
from flagsweep.gates.wallclock import shown

TOKYO = ZoneInfo("Asia/Tokyo")
NOON = at(2026, 7, 1, 12, zone=TOKYO)
TODAY = date(2026, 7, 1).toordinal()
FIVE = Budget(5)


@pytest.mark.parametrize("text", ["500/d", "500/day", " 500 / D ", Budget(500)])
def test_a_budget_is_a_count_for_a_day(text):
    assert Budget.parse(text) == Budget(500)
    assert str(Budget.parse(text)) == "500/d"


WRONG = "500|500 per day|500/|/d|0/d|-1/d|1.5/d|500/2d|500/24h|500/m|500/days|\uff15/d|1_0/d||1000000001/d|500/d burst 5"


@pytest.mark.parametrize("value", [*WRONG.split("|"), "9" * 5000 + "/d", True, None, 500, b"500/d"], ids=lambda v: repr(v)[:20])
def test_what_is_no_budget_is_refused_with_an_example(value):
    with pytest.raises(ConfigError, match=r"^mails must be .* such as '500/d', got .*rate='10/m'") as caught:
        Budget.parse(value, "mails")
    assert repr(value)[:70] in str(caught.value)


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "5", 10**10, 10**300], ids=lambda v: repr(v)[:20])
def test_a_budget_that_is_no_count_is_refused(count):
    with pytest.raises(ConfigError, match=r"from 1 to 1,000,000,000"):
        Budget(count)


@pytest.mark.parametrize(
    ("zone", "now", "begins", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29), (2026, 3, 30), 23),
        ("Europe/Berlin", (2026, 10, 25), (2026, 10, 26), 25),
        ("America/Havana", (2026, 11, 1), (2026, 11, 2), 25),
        ("Australia/Lord_Howe", (2026, 4, 5), (2026, 4, 6), 24.5),
        ("America/Sao_Paulo", (2018, 11, 3), (2018, 11, 4, 1), 24),
        ("America/Sao_Paulo", (2018, 2, 17), (2018, 2, 18), 25),
        ("America/Toronto", (1919, 3, 30), (1919, 3, 31, 0, 30), 23.5),
        ("Pacific/Apia", (2011, 12, 29), (2011, 12, 31), 24),
    ],
)
def test_a_day_begins_with_its_midnight_or_the_first_time_it_has(zone, now, begins, hours):
    zone = ZoneInfo(zone)
    assert next_day(at(*now, zone=zone), zone) == at(*begins, zone=zone)
    assert next_day(at(*now, zone=zone), zone) - at(*now, zone=zone) == hours * HOUR


@settings(max_examples=40)
@given(AROUND)
def test_the_next_day_begins_at_the_first_minute_that_shows_a_later_one(around):
    zone, now = around
    begins = next(time for time in range(now + MINUTE, now + 50 * HOUR, MINUTE) if day(time, zone) > day(now, zone))
    assert next_day(now, zone) == begins
    assert begins - MINUTE < next_day(now + 1, zone) <= begins


def test_a_day_has_one_budget_and_the_next_one_its_own():
    assert FIVE.take(None, 0, NOON, TOKYO, 3) == (3, TODAY, 3)
    assert FIVE.take(TODAY, 3, NOON, TOKYO, 3) == (2, TODAY, 5)
    assert FIVE.take(TODAY, 5, NOON, TOKYO, 1) == (0, TODAY, 5)
    assert FIVE.opens_at(TODAY, 4, NOON, TOKYO) is None
    midnight = FIVE.opens_at(TODAY, 5, NOON, TOKYO)
    assert midnight == at(2026, 7, 2, zone=TOKYO)
    assert FIVE.take(TODAY, 5, midnight - 1, TOKYO, 9) == (0, TODAY, 5)
    assert FIVE.take(TODAY, 5, midnight, TOKYO, 9) == (5, TODAY + 1, 5)


@given(AROUND, st.lists(st.tuples(st.integers(0, 3 * 60), st.integers(0, 4)), max_size=60))
def test_no_day_ever_gets_more_than_its_budget(around, steps):
    zone, now = around
    granted, stored, used = {}, None, 0
    for minutes, wanted in steps:
        now += minutes * MINUTE
        got, stored, used = FIVE.take(stored, used, now, zone, wanted)
        granted[stored] = granted.get(stored, 0) + got
        assert used <= 5
        opens = FIVE.opens_at(stored, used, now, zone)
        assert opens is None or FIVE.take(stored, used, opens, zone, 1)[0] == 1
    assert max(granted.values(), default=0) <= 5


def test_a_day_that_begins_twice_has_one_budget():
    zone = ZoneInfo("America/St_Johns")
    first = at(2010, 11, 7, 0, 0, 30, zone=zone)
    _, stored, used = FIVE.take(None, 0, first, zone, 5)
    again = first + MINUTE
    assert shown(again, zone).day == 6
    assert FIVE.take(stored, used, again, zone, 5)[0] == 0
    assert FIVE.opens_at(stored, used, again, zone) == at(2010, 11, 8, zone=zone)
    assert FIVE.take(stored, used, at(2010, 11, 7, 12, zone=zone), zone, 5)[0] == 0


@pytest.mark.parametrize("days", [-365, -2, 1, 365])
def test_a_clock_set_wrong_and_right_again_closes_no_longer_than_tomorrow(days):
    _, stored, used = FIVE.take(None, 0, NOON + days * 24 * HOUR, TOKYO, 5)
    opens = FIVE.opens_at(stored, used, NOON, TOKYO)
    assert opens is None or (days == 1 and opens == at(2026, 7, 3, zone=TOKYO))


def test_what_is_given_back_is_there_again_on_its_own_day_only():
    assert FIVE.give_back(TODAY, 5, 2, TODAY) == (TODAY, 3)
    assert FIVE.give_back(TODAY + 1, 5, 2, TODAY) == (TODAY + 1, 5)
    assert FIVE.give_back(TODAY, 1, 2, TODAY) == (TODAY, 0)

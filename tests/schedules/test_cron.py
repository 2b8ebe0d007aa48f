"""When cron expressions fire: Debian's two rules at clock changes, forwards and backwards, and what that costs."""

import copy
from itertools import pairwise

import pytest
from changes_of_zones import DAY, HOUR, MINUTE, NOTABLE, SECOND, at, changed, every_change, oracle, shown
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from flagsweep.schedules import Cron, Every, parse
from flagsweep.schedules.zones import Zone

NEW_YORK = "America/New_York"


def cron(text, zone="UTC"):
    return parse("cron", text, zone)


def fires(text, zone, first, last):
    """Return when a spec fires from the one wall time to the other."""
    low, high = at(first, zone), at(last, zone)
    return [shown(moment, zone)[5:] for moment in cron(text, zone).times(low - 1, high, 100)]


# The rules, by example.


def test_what_is_due_at_a_time_that_the_clock_skips_fires_when_it_has_jumped():
    assert fires("30 2 * * *", NEW_YORK, "2027-03-13 00:00", "2027-03-15 23:00") == [
        "03-13 02:30-05:00",
        "03-14 03:00-04:00",
        "03-15 02:30-04:00",
    ]


def test_what_is_skipped_together_fires_once_and_with_what_is_due_then():
    assert fires("0,30 2,3 * * *", NEW_YORK, "2027-03-14 00:00", "2027-03-14 23:00") == ["03-14 03:00-04:00", "03-14 03:30-04:00"]


def test_what_is_due_at_a_time_that_comes_twice_fires_the_first_time():
    assert fires("30 1 * * *", NEW_YORK, "2026-11-01 00:00", "2026-11-02 23:00") == ["11-01 01:30-04:00", "11-02 01:30-05:00"]


@pytest.mark.parametrize(("text", "step"), [("*/30 * * * *", 30 * MINUTE), ("0 * * * *", HOUR), ("* * * * *", MINUTE)])
@pytest.mark.parametrize("day", ["2026-11-01", "2027-03-14"])
def test_what_fires_in_every_hour_goes_on_through_a_change_of_the_clock(text, step, day):
    found = cron(text, NEW_YORK).times(at(f"{day} 00:00", NEW_YORK), at(f"{day} 08:00", NEW_YORK), 1000)
    assert {later - earlier for earlier, later in pairwise(found)} == {step}


def test_a_minute_with_a_star_at_an_hour_does_not_fire_on_the_day_without_that_hour():
    assert fires("*/30 2 * * *", NEW_YORK, "2027-03-13 12:00", "2027-03-15 02:00") == ["03-15 02:00-04:00"]


def test_a_range_of_all_hours_is_no_star_and_leaves_the_second_pass_out():
    day = ("2026-11-01 01:00", "2026-11-01 02:00")
    assert fires("30 0-23 * * *", NEW_YORK, *day) == ["11-01 01:30-04:00"]
    assert fires("30 * * * *", NEW_YORK, *day) == ["11-01 01:30-04:00", "11-01 01:30-05:00"]


def test_a_day_that_a_zone_leaves_out_is_made_up_for_at_its_end():
    assert fires("0 12 * * *", "Pacific/Apia", "2011-12-29 13:00", "2011-12-31 23:00") == [
        "12-31 00:00+14:00",
        "12-31 12:00+14:00",
    ]
    assert fires("0 */12 * * *", "Pacific/Apia", "2011-12-29 13:00", "2011-12-31 23:00") == [
        "12-31 00:00+14:00",
        "12-31 12:00+14:00",
    ]


def test_both_day_fields_must_match_where_one_begins_with_a_star_else_either():
    def days(text):
        return [shown(moment)[8:10] for moment in cron(text).times(at("2026-06-01") - 1, at("2026-06-30 23:00"), 31)]

    assert days("0 0 13 * FRI") == ["05", "12", "13", "19", "26"]
    assert days("0 0 */13 * MON") == ["01"]
    assert days("0 0 13 * */7") == []
    assert days("0 0 L * *") == ["30"]
    assert days("0 0 LW * 1#2") == ["08", "30"]
    assert days("0 0 * * 5L") == ["26"]
    assert days("0 0 * * 0") == days("0 0 * * 7") == days("@weekly") == ["07", "14", "21", "28"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        (" @Annually ", "0 0 1 1 *"),
        ("  0\t4 * jan-mar  mon\n", "0 4 * JAN-MAR MON"),
    ],
)
def test_the_normal_form_is_five_fields_in_capitals(text, normal):
    assert cron(text) == Cron(normal, "UTC")
    assert cron(normal).text == normal


def test_specs_are_values():
    assert cron("0 4 * * 1") == cron(" 0  4 * * 1") != cron("0 4 * * 1", NEW_YORK)
    assert {cron("0 4 * * 1"): 1}[copy.deepcopy(cron("0 4 * * 1"))] == 1
    assert cron("0 4 * * 1") != parse("every", "7d") != parse("every", "7d", NEW_YORK)
    with pytest.raises(AttributeError):
        cron("0 4 * * 1").text = "* * * * *"


# Its bounds.


def test_an_expression_that_only_fires_in_an_hour_that_never_comes_has_no_next_time():
    assert cron("*/30 2 * 3 SUN#2", NEW_YORK).next(at("2026-01-01")) is None
    assert cron("*/30 2 * 3 SUN#2", NEW_YORK).latest(at("2026-01-01"), at("2008-01-01")) is None


def test_a_rare_day_is_found_across_a_century_without_its_leap_day():
    assert shown(cron("0 0 29 2 */7").next(at("2088-03-01")))[:10] == "2128-02-29"


@pytest.mark.parametrize("text", ["0 0 * * *", "* * * * *"])
def test_times_that_no_calendar_holds_are_answered_and_do_not_overflow(text):
    spec = cron(text, NEW_YORK)
    assert spec.next(10**30) is None
    assert spec.next(-(10**30)) == spec.next(-1) >= 0
    assert spec.latest(-5, -(10**30)) is None
    assert shown(spec.latest(10**30, 0), NEW_YORK)[:10] == "8999-12-31"
    assert spec.times(10**30, 10**31, 5) == []


def test_nothing_lies_between_a_moment_and_itself_or_an_earlier_one():
    spec = cron("* * * * *")
    moment = at("2026-06-01 12:00")
    for until in (moment, moment - DAY):
        assert (spec.count(moment, until), spec.times(moment, until, 9), spec.latest(until, moment)) == (0, [], None)
    assert (spec.count(0, moment, 0), spec.times(0, moment, 0)) == (0, [])


# Against the oracle, at every change.


def check(change, text):
    """Compare each question about the two days around a change with the oracle."""
    spec = cron(text, change.zone)
    low, high = change.moment - DAY - 7, change.moment + DAY + 7
    expected = oracle(spec, low, high)
    assert spec.times(low, high, 10**6) == expected
    assert spec.count(low, high, 10**6) == len(expected)
    assert spec.count(low, high, 5) == min(5, len(expected))
    for moment in {low, high, change.moment, *range(change.moment - 4 * HOUR - 1, change.moment + 4 * HOUR, 25 * MINUTE)}:
        past = [each for each in expected if each <= moment]
        assert spec.latest(moment, low) == (past[-1] if past else None)
        assert spec.next(moment) == next((each for each in expected if each > moment), spec.next(high))


@pytest.mark.long
@settings(max_examples=15)
@given(changed())
def test_next_latest_and_count_say_what_a_look_at_the_clock_in_each_minute_says(case):
    check(*case)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_they_do_so_at_every_change_of_every_zone_from_2015_to_2035(part):
    every = every_change()
    assert len(every) > 1500
    for change, text in every[part::3]:
        check(change, text)


@settings(max_examples=60)
@given(
    st.sampled_from(NOTABLE),
    st.sampled_from(["0 4 * * 1", "*/7 * * * *", "30 2 29 2 *", "0 0 L * 5", "15 */5 1-7 * *", "* 3 1 1 *", "0 0 31 * *"]),
    st.integers(at("2015-01-01"), at("2035-01-01")),
)
def test_forwards_and_backwards_agree_far_from_any_change(zone, text, moment):
    spec = cron(text, zone)
    following = spec.next(moment)
    assert following > moment
    assert spec.latest(following, moment) == following
    assert spec.latest(following - 1, moment) is None
    before = spec.latest(moment, 0)
    assert before <= moment < spec.next(before) == following


# What it costs.


@pytest.fixture
def steps(monkeypatch):
    """Count cronsim's steps and the questions for an offset."""
    taken = []
    for owner, name in ((CronSim, "tick"), (Zone, "offset"), (Zone, "wall"), (Zone, "readings")):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, original=original, **k: (taken.append(1), original(*a, **k))[1])
    return taken


@pytest.mark.parametrize("text", ["* * * * *", "0-59 0-23 * * *", "@daily", "* 3 1 1 *"])
def test_ten_years_of_absence_cost_a_bounded_number_of_steps(steps, text):
    spec, gone, now = cron(text, NEW_YORK), at("2016-05-05"), at("2026-05-05")
    assert spec.latest(now, gone) > spec.next(gone)
    assert len(steps) < 2000
    steps.clear()
    assert spec.count(gone, now, 50) == 50
    assert len(steps) < 10_000


def test_a_year_without_an_occurrence_is_not_walked_beyond_what_is_asked(steps):
    now = at("2026-05-05")
    assert cron("* 3 29 2 *", NEW_YORK).latest(now, now - DAY) is None
    assert len(steps) < 100


def test_counting_periods_takes_no_steps_at_all():
    assert Every("1s").count(0, 10**17, 10**12) == 10**11
    assert Every("1s").latest(10**17 + SECOND // 2, 0) == 10**17

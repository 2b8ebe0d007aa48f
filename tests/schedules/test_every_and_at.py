"""Specs that fire after equal times, and specs that fire once."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from changes_of_zones import DAY, HOUR, SECOND, at
from hypothesis import given
from hypothesis import strategies as st

from flagsweep.config import LONGEST
from flagsweep.schedules import parse

NEW_YORK = "America/New_York"


@pytest.mark.parametrize(
    ("value", "text", "plain"),
    [
        ("10m", "10m", "every 10 minutes"),
        ("90s", "1m30s", "every 1 minute 30 seconds"),
        (" 1H 30m ", "1h30m", "every 1 hour 30 minutes"),
        (90, "1m30s", "every 1 minute 30 seconds"),
        ("90", "1m30s", "every 1 minute 30 seconds"),
        (1, "1s", "every second"),
        (1.5, "1s500ms", "every 1 second 500 milliseconds"),
        ("1w", "7d", "every 7 days"),
        (timedelta(hours=24), "1d", "every day"),
        (timedelta(seconds=1, microseconds=1), "1s1us", "every 1 second 1 microsecond"),
        (LONGEST, "3650d", "every 3650 days"),
    ],
)
def test_a_period_has_one_short_form(value, text, plain):
    spec = parse("every", value)
    assert (spec.text, spec.plain()) == (text, plain)
    assert parse("every", text) == spec


@given(st.integers(SECOND, int(LONGEST) * SECOND))
def test_every_period_keeps_its_microseconds(period):
    spec = parse("every", timedelta(microseconds=period))
    assert spec.period == parse("every", spec.text).period == period


MOMENT = st.integers(0, 4 * 10**15)


@given(st.integers(SECOND, 10**14), MOMENT, MOMENT, st.integers(1, 50))
def test_occurrences_are_the_anchor_and_whole_periods_from_it(period, anchor, after, most):
    spec = parse("every", timedelta(microseconds=period))
    until = after + most * period
    times = spec.times(after, until, 100, anchor)
    assert times == list(range(anchor + -(-(after + 1 - anchor) // period) * period, until + 1, period))
    assert spec.count(after, until, 100, anchor) == len(times) == most
    assert spec.count(until, after, 100, anchor) == 0
    assert spec.latest(until, after, anchor) == times[-1]
    assert spec.latest(times[0] - 1, after, anchor) is None
    assert spec.next(after, anchor) == times[0]


def test_a_period_takes_no_notice_of_a_change_of_the_clock():
    spec = parse("every", "1d", NEW_YORK)
    anchor = at("2027-03-13 12:00", NEW_YORK)
    assert spec.next(anchor, anchor) == anchor + DAY != at("2027-03-14 12:00", NEW_YORK)
    assert spec.lost(anchor) == []
    assert spec.next(10**30) is None


@pytest.mark.parametrize(
    ("value", "text", "moment"),
    [
        ("2026-12-24 18:00", "2026-12-24 18:00", "2026-12-24 18:00-05:00"),
        ("2026-12-24T18:00", "2026-12-24 18:00", "2026-12-24 18:00-05:00"),
        ("2026-12-24 18:00:30", "2026-12-24 18:00:30", "2026-12-24 18:00:30-05:00"),
        (" 2026-12-24t18:00+09 ", "2026-12-24 18:00+09:00", "2026-12-24 18:00+09:00"),
        ("2026-12-24 18:00 -0330", "2026-12-24 18:00-03:30", "2026-12-24 18:00-03:30"),
        ("2026-12-24T18:00:00.000Z", "2026-12-24 18:00+00:00", "2026-12-24 18:00+00:00"),
        (datetime(2026, 12, 24, 18), "2026-12-24 18:00", "2026-12-24 18:00-05:00"),
        (datetime(2026, 12, 24, 18, tzinfo=ZoneInfo("Asia/Seoul")), "2026-12-24 18:00+09:00", "2026-12-24 18:00+09:00"),
        (datetime(2026, 12, 24, 18, tzinfo=timezone(-timedelta(minutes=30))), "2026-12-24 18:00-00:30", "2026-12-24 18:30+00:00"),
    ],
)
def test_a_moment_is_a_wall_time_of_the_zone_or_has_an_offset(value, text, moment):
    spec = parse("at", value, NEW_YORK)
    assert (spec.text, spec.moment) == (text, at(moment))
    assert parse("at", text, NEW_YORK) == spec


@given(st.datetimes(datetime(1970, 1, 2), datetime(8999, 1, 1), timezones=st.sampled_from([None, UTC, ZoneInfo("Asia/Kolkata")])))
def test_every_moment_keeps_its_microseconds(value):
    spec = parse("at", value)
    assert parse("at", spec.text) == spec
    assert spec.moment == (value.replace(tzinfo=value.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )


def test_it_fires_once():
    spec = parse("at", "2026-12-24 18:00")
    moment = at("2026-12-24 18:00")
    assert (spec.next(moment - 1), spec.next(moment)) == (moment, None)
    assert (spec.latest(moment, moment - 1), spec.latest(moment - 1, 0), spec.latest(moment + 1, moment)) == (moment, None, None)
    assert (spec.times(0, moment, 9), spec.count(0, moment), spec.count(0, moment - 1)) == ([moment], 1, 0)


@pytest.mark.parametrize(
    ("text", "moment", "told"),
    [
        ("2027-03-14 02:30", "2027-03-14 03:00-04:00", "on 2027-03-14 there is no 02:30 in America/New_York: it fires at 03:00"),
        (
            "2026-11-01 01:30",
            "2026-11-01 01:30-04:00",
            "on 2026-11-01 01:30 comes twice in America/New_York: it fires the first time",
        ),
    ],
)
def test_a_wall_time_that_is_skipped_or_comes_twice_follows_the_rule_of_cron_and_says_so(text, moment, told):
    spec = parse("at", text, NEW_YORK)
    assert spec.moment == at(moment)
    assert spec.lost(spec.moment - DAY) == [told]
    assert spec.lost(spec.moment) == spec.lost(spec.moment - 61 * DAY) == []
    assert parse("at", f"{text}-05:00", NEW_YORK).lost(spec.moment - DAY) == []


def test_most_wall_times_are_neither():
    assert parse("at", "2027-03-14 03:30", NEW_YORK).lost(at("2027-03-14") - HOUR) == []


def test_a_moment_in_plain_english_has_its_zone_where_that_matters():
    assert parse("at", "2026-12-24 18:00").plain() == "once, on 2026-12-24 at 18:00"
    assert parse("at", "2026-12-24 18:00", NEW_YORK).plain() == "once, on 2026-12-24 at 18:00 in America/New_York"
    assert parse("at", "2026-12-24 18:00+09:00", NEW_YORK).plain() == "once, on 2026-12-24 at 18:00+09:00"

"""What cronsim does that we rely on, or dodge: a new release of it fails here before it fails a site.

We ask it for naive wall times alone. What it does with a zone is here for its rules, which are ours, and for its mistakes, which
are not; docs/schedules.md has both. If a test of a mistake fails, the mistake is mended: then take its row out of the table.
"""

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from changes_of_zones import Endless, Watched
from cronsim import CronSim, CronSimError

NEW_YORK = ZoneInfo("America/New_York")
NAIVE = datetime(2026, 6, 1, 12, 7)


def fires(text, first, last, zone=NEW_YORK):
    begin, end = (datetime.fromisoformat(moment).replace(tzinfo=zone) for moment in (first, last))
    moments = takewhile(lambda moment: moment.astimezone(UTC) <= end.astimezone(UTC), CronSim(text, begin))
    return [f"{moment:%d %H:%M%z}" for moment in moments]


# What we rely on, without a zone.


@pytest.mark.parametrize(
    "text", ["* * * * *", "*/7 3-5 * * *", "0 4 * * 1", "30 2 29 2 *", "0 0 L * 5", "0 0 LW * 1#2", "0 0 13 * 5L"]
)
def test_backwards_yields_what_forwards_does(text):
    forwards = list(islice(CronSim(text, NAIVE), 30))
    backwards = list(islice(CronSim(text, forwards[-1] + timedelta(seconds=1), reverse=True), 30))
    assert backwards == forwards[::-1]


def test_iteration_begins_behind_the_given_second_either_way():
    minute = datetime(2026, 6, 1, 12, 0)
    assert next(CronSim("* * * * *", minute)) == minute + timedelta(minutes=1)
    assert next(CronSim("* * * * *", minute, reverse=True)) == minute - timedelta(minutes=1)
    assert next(CronSim("* * * * *", minute.replace(second=1), reverse=True)) == minute


def test_day_fields_are_joined_by_and_where_one_begins_with_a_star_else_by_or():
    assert [CronSim(f"0 0 {days}", NAIVE).day_and for days in ("13 * FRI", "*/2 * FRI", "13 * *", "*,5 * FRI", "5,* * FRI")] == [
        *(False, True, True),
        *(True, False),
    ]


def test_the_fields_are_sets_that_plain_english_reads():
    fields = CronSim("*/30 9-10 L,LW,3 JAN 1,5L,0#2", NAIVE)
    assert (fields.minutes, fields.hours, fields.months) == ({0, 30}, {9, 10}, {1})
    assert fields.days == {3, CronSim.LAST, CronSim.LAST_WEEKDAY}
    assert fields.weekdays == {1, (5, CronSim.LAST), (0, 2)}


def test_what_never_fires_is_refused_or_ends_after_fifty_years():
    with pytest.raises(CronSimError, match="Bad day-of-month"):
        CronSim("0 0 31 2 *", NAIVE)
    assert next(CronSim("0 0 */31 * MON#5", NAIVE), None) is None


# What we dodge before it is asked.


@pytest.mark.parametrize("text", ["@daily", "5-1 * * * *", "0 0 * * FRI-MON", "0 0 ? * *", "0 0 L-3 * *", "* * * *"])
def test_what_it_does_not_read(text):
    with pytest.raises(CronSimError):
        CronSim(text, NAIVE)


def test_it_reads_a_sixth_field_for_seconds():
    assert next(CronSim("30 * * * * *", NAIVE)) == NAIVE.replace(second=30)


def test_it_reads_a_range_of_one_with_a_step_as_if_it_had_no_end():
    assert CronSim("5-5/20 * * * *", NAIVE).minutes == CronSim("5/20 * * * *", NAIVE).minutes == {5, 25, 45}


def test_it_reads_letters_that_only_become_ascii_as_capitals():
    assert CronSim("0 0 * * \u017fun", NAIVE).weekdays == {0}


# Its rules with a zone, which are ours.


def test_a_skipped_time_fires_when_the_clock_has_jumped():
    assert fires("30 2 * * *", "2027-03-13", "2027-03-15 12:00") == ["13 02:30-0500", "14 03:00-0400", "15 02:30-0400"]


def test_a_repeated_time_fires_once():
    assert fires("30 1 * * *", "2026-11-01", "2026-11-02") == ["01 01:30-0400"]


def test_what_fires_in_every_hour_goes_on_through_the_repeated_hour():
    assert fires("*/30 * * * *", "2026-11-01 00:30", "2026-11-01 02:00")[:4] == [
        *("01 01:00-0400", "01 01:30-0400"),
        *("01 01:00-0500", "01 01:30-0500"),
    ]
    assert fires("0 * * * *", "2026-11-01 00:30", "2026-11-01 02:00") == ["01 01:00-0400", "01 01:00-0500", "01 02:00-0500"]


def test_a_minute_with_a_star_does_not_fire_on_the_day_without_its_hour():
    assert fires("*/30 2 * * *", "2027-03-14", "2027-03-15") == []


# Its mistakes with a zone, for which we ask without.


def test_asked_within_the_second_pass_it_names_the_first_which_is_over():
    second_pass = datetime(2026, 11, 1, 1, 15, tzinfo=NEW_YORK, fold=1)
    assert next(CronSim("30 1 * * *", second_pass)).astimezone(UTC) < second_pass.astimezone(UTC)
    assert next(CronSim("30 1 * * *", second_pass, reverse=True)).day == 31


def test_a_change_by_half_an_hour_costs_it_occurrences():
    lord_howe = ZoneInfo("Australia/Lord_Howe")
    assert fires("*/10 2 * * *", "2027-04-04", "2027-04-04 12:00", lord_howe) == [
        "04 02:30+1030",
        "04 02:40+1030",
        "04 02:50+1030",
    ]


def test_a_day_without_midnight_makes_it_fire_at_a_time_that_is_not_named():
    cairo = ZoneInfo("Africa/Cairo")
    assert fires("*/30 0 * * 5", "2023-04-27", "2023-04-28 12:00", cairo) == ["28 00:00+0200"]
    assert fires("*/30 0 * * *", "2023-04-27 01:00", "2023-04-28 12:00", cairo) == []


@pytest.mark.parametrize(
    ("text", "zone", "moment"),
    [
        ("*/30 2 * * *", "Pacific/Chatham", datetime(2027, 4, 4, 12)),
        ("*/20 * 30 * *", "America/Nuuk", datetime(2024, 3, 31, 12)),
    ],
)
def test_backwards_it_never_returns_in_some_zones(text, zone, moment):
    with pytest.raises(Endless):
        next(Watched(text, moment.replace(tzinfo=ZoneInfo(zone)), reverse=True))
    assert next(Watched(text, moment, reverse=True)) < moment

"""What a cron expression is called in plain English, and what is said of it before a change of the clock."""

from datetime import datetime

import pytest
from changes_of_zones import DAY, at
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from flagsweep.schedules import SpecError, parse

NEW_YORK = "America/New_York"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("* * * * *", "every minute"),
        ("*/10 * * * *", "every 10 minutes"),
        ("0 * * * *", "every hour"),
        ("5 * * * *", "at minute 5 of every hour"),
        ("*/7 * * * *", "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
        ("*/90 * * * *", "every hour"),
        ("0 4 * * 1", "Mondays at 04:00"),
        ("30 7,19 * * *", "every day at 07:30 and 19:30"),
        ("0 0 1 * *", "the 1st of every month at 00:00"),
        ("0 0 1,15,22 * *", "the 1st, 15th and 22nd of every month at 00:00"),
        ("0 0 31 * *", "the 31st of every month where there is one at 00:00"),
        ("0 0 L 1-6 *", "the last day of January to June at 00:00"),
        ("0 0 LW * *", "the last weekday of every month at 00:00"),
        ("0 0 29 2 *", "the 29th of February where there is one at 00:00"),
        ("0 12 * 7,8 *", "every day in July and August at 12:00"),
        ("0 12 * 7 MON-FRI", "Mondays to Fridays in July at 12:00"),
        ("0 0 * * 0,6", "Saturdays and Sundays at 00:00"),
        ("0 0 * * 2#2,5L", "the last Friday and the 2nd Tuesday of every month at 00:00"),
        ("0 0 * * 1#5", "the 5th Monday of every month where there is one at 00:00"),
        ("0 0 13 * FRI", "the 13th of every month and Fridays at 00:00"),
        ("0 0 */15 * MON", "days that are both the 1st, 16th and 31st of every month where there is one and Mondays at 00:00"),
        ("0 9-17 * * 1-5", "every hour from 09:00 to 17:00 on Mondays to Fridays"),
        ("*/15 9-17 * * *", "every 15 minutes from 09:00 to 17:45"),
        ("0 */2 * * *", "every 2 hours from 00:00"),
        ("15 */3 1 * *", "every 3 hours from 00:15 on the 1st of every month"),
        ("0-10 1-3,5 * 12 *", "at minutes 0 to 10 of the hours 1 to 3 and 5 in December"),
    ],
)
def test_in_plain_english(text, told):
    assert parse("cron", text).plain() == told


def _meaning(text):
    """Return the sets that an expression names, and whether a day must be in both of its two; None: any day is."""
    fields = CronSim(text, datetime(2000, 1, 1))
    weekdays = frozenset((day % 7, 0) if isinstance(day, int) else (day[0] % 7, day[1]) for day in fields.weekdays)
    any_number, any_weekday = {*range(1, 32)} <= set(fields.days), {(day, 0) for day in range(7)} <= weekdays
    days = [None if any_number else frozenset(fields.days), None if any_weekday else weekdays]
    if not fields.day_and and None in days:
        days = [None, None]
    return fields.minutes, fields.hours, fields.months, days, fields.day_and or None in days


def _fields(*examples):
    return st.lists(st.sampled_from(examples), min_size=1, max_size=2, unique=True).map(",".join)


TEXTS = st.tuples(
    _fields("*", "0", "5", "*/10", "*/7", "0-5", "30", "59", "1-59/2", "58/1"),
    _fields("*", "0", "9-17", "*/2", "*/5", "22,23", "0-23", "1-23/2", "12"),
    _fields("*", "*", "1", "15", "1-7", "*/2", "31", "L", "LW", "30", "1-31"),
    _fields("*", "*", "1", "2", "6-8", "*/3", "1-12"),
    _fields("*", "*", "1", "0", "7", "1-5", "*/2", "5L", "1#1", "3#5", "0-6"),
).map(" ".join)
SAID: dict[str, tuple] = {}


@pytest.mark.long
@settings(max_examples=120)
@given(TEXTS)
def test_two_expressions_of_different_meaning_are_never_called_the_same(text):
    try:
        plain = parse("cron", text).plain()
    except SpecError as error:
        assert "never fires" in str(error)
        return
    assert SAID.setdefault(plain, _meaning(text)) == _meaning(text)


# What the next change of the clock does.


@pytest.mark.parametrize(
    ("text", "zone", "day", "told"),
    [
        ("30 2 * * *", NEW_YORK, "2027-03-14", ["on 2027-03-14 there is no 02:30 in ZONE: it fires at 03:00"]),
        ("0,30 2 * * *", NEW_YORK, "2027-03-14", ["on 2027-03-14 there is no 02:00 or 02:30 in ZONE: it fires once, at 03:00"]),
        ("*/30 2 * * *", NEW_YORK, "2027-03-14", ["does not fire on 2027-03-14, which has no 02:00 or 02:30 in ZONE"]),
        ("0 */2 * * *", NEW_YORK, "2027-03-14", ["on 2027-03-14 there is no 02:00 in ZONE: it does not fire then"]),
        ("* 2 * * *", NEW_YORK, "2027-03-14", ["does not fire on 2027-03-14, which has no 02:00, 02:01 ... 02:59 in ZONE"]),
        ("30 1 * * *", NEW_YORK, "2026-11-01", ["on 2026-11-01 01:30 comes twice in ZONE: it fires the first time"]),
        ("*/30 1 * * *", NEW_YORK, "2026-11-01", ["on 2026-11-01 01:00 and 01:30 come twice in ZONE: it fires both times"]),
        ("* * * * *", NEW_YORK, "2026-11-01", []),
        ("*/30 * * * *", NEW_YORK, "2027-03-14", []),
        ("0 4 * * *", NEW_YORK, "2027-03-14", []),
        ("30 2 * * 1", NEW_YORK, "2027-03-14", []),
        ("30 2 * * *", "UTC", "2027-03-14", []),
        ("*/30 * * * *", "Australia/Lord_Howe", "2027-04-04", []),
        ("45 * * * *", "Australia/Lord_Howe", "2027-04-04", ["on 2027-04-04 01:45 comes twice in ZONE: it fires both times"]),
        ("0 0 * * *", "America/Havana", "2027-03-14", ["on 2027-03-14 there is no 00:00 in ZONE: it fires at 01:00"]),
        ("@daily", "Pacific/Apia", "2011-12-30", ["on 2011-12-30 there is no 00:00 in ZONE: it fires on 2011-12-31 at 00:00"]),
    ],
)  # fmt: skip
def test_what_a_change_skips_or_repeats_is_told_while_it_is_near(text, zone, day, told):
    told = [sentence.replace("ZONE", zone) for sentence in told]
    spec, day_of_change = parse("cron", text, zone), at(day)
    assert spec.lost(day_of_change - 20 * DAY) == told
    assert spec.lost(day_of_change - 20 * DAY, days=10) == spec.lost(day_of_change + 3 * DAY, days=10) == []


def test_several_changes_are_told_in_their_order():
    told = parse("cron", "30 2 * * *", "Europe/Berlin").lost(at("2027-01-01"), days=365)
    assert [sentence.split()[1] for sentence in told] == ["2027-03-28", "2027-10-31"]

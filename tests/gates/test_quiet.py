"""Quiet hours: what they may be written as, and that they hold to what the wall clock shows, minute by minute."""

from datetime import UTC
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zones import AROUND, HOUR, MINUTE, at

from flagsweep import ConfigError
from flagsweep.gates.quiet import Quiet
from flagsweep.gates.wallclock import shown

NIGHT = Quiet.parse("22:00-07:00")


@pytest.mark.parametrize(
    ("text", "windows", "normal"),
    [
        ("22:00-07:00", [(1320, 420)], "22:00-07:00"),
        (" 9:30 - 10:00,12:00-13:00 ", [(570, 600), (720, 780)], "09:30-10:00, 12:00-13:00"),
        ("00:01-24:00", [(1, 1440)], "00:01-24:00"),
        ("22:00-00:00", [(1320, 0)], "22:00-00:00"),
        ("00:01-00:00", [(1, 0)], "00:01-00:00"),
    ],
)
def test_quiet_hours_are_windows_and_have_a_normal_form(text, windows, normal):
    assert Quiet.parse(text) == Quiet(tuple(windows))
    assert str(Quiet.parse(text)) == normal
    assert Quiet.parse(Quiet.parse(normal)) == Quiet(tuple(windows))


WRONG = """00:00-24:00|07:00-07:00|00:00-00:00|24:00-01:00|24:00-24:00|00:00-12:00,12:00-24:00|12:00-06:00,06:00-12:00|22-7|22:00
22:00-25:00|22:00-24:01|22:60-23:00|22:00-23:75|22:00\u201307:00|22:00-07:00,||,|22:00-07:00-08:00|10pm-7am|22:0-7:00|-1:00-07:00
22:00:00-07:00:00|\uff12\uff12:00-07:00|100:00-07:00|22.00-07.00"""


@pytest.mark.parametrize(
    "value",
    [
        *WRONG.replace("\n", "|").split("|"),
        "9" * 5000 + ":00-07:00",
        "1:00-2:00," * 1000,
        True,
        None,
        22,
        b"22:00-07:00",
        [(1, 2)],
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_window_of_the_day_is_refused_with_an_example(value):
    with pytest.raises(ConfigError, match=r"^silence (must|cannot) be") as caught:
        Quiet.parse(value, "silence")
    assert repr(value)[:70] in str(caught.value)
    assert "22:00-07:00" in str(caught.value) or "pause" in str(caught.value)


def test_no_windows_at_all_are_refused():
    with pytest.raises(ConfigError, match="close one"):
        Quiet(())


def test_the_night_is_closed_from_its_first_microsecond_to_the_morning():
    evening, morning = at(2026, 7, 1, 22), at(2026, 7, 2, 7)
    assert [NIGHT.closed_until(time, UTC) for time in (evening - 1, evening, morning - 1, morning)] == [
        None,
        morning,
        morning,
        None,
    ]
    assert [NIGHT.next_change(time, UTC) for time in (evening - 1, evening, morning)] == [evening, morning, evening + 24 * HOUR]


BERLIN, HAVANA = ZoneInfo("Europe/Berlin"), ZoneInfo("America/Havana")
SPRING, AUTUMN = at(2026, 3, 29, 0, 59), at(2026, 10, 25, 0, 29)  # UTC: 01:59 in Berlin, and 02:29 for the first time


@pytest.mark.parametrize(
    ("text", "now", "changes"),
    [
        ("02:15-02:45", SPRING, [24 * HOUR - 45 * MINUTE + 1 * MINUTE]),  # it does not come on that day
        ("02:30-05:00", SPRING, [1 * MINUTE, 121 * MINUTE]),  # it begins where the hour ends that is left out
        ("01:00-02:30", SPRING, [1 * MINUTE]),  # it ends there
        ("02:00-02:30", AUTUMN, [1 * MINUTE, 31 * MINUTE, 61 * MINUTE]),  # it comes twice
        ("02:45-03:00", AUTUMN, [16 * MINUTE, 31 * MINUTE, 76 * MINUTE, 91 * MINUTE]),
        ("01:00-03:30", AUTUMN, [121 * MINUTE]),
    ],
)
def test_a_window_is_as_long_as_the_clock_makes_it(text, now, changes):
    quiet, time, found = Quiet.parse(text), now, []
    for _ in changes:
        time = quiet.next_change(time, BERLIN)
        found.append(time - now)
    assert found == changes


MINUTE_OF_DAY = st.integers(0, 1439)
ANY_ZONE = st.sampled_from(sorted(available_timezones())).map(ZoneInfo)
QUIET = st.lists(st.tuples(MINUTE_OF_DAY, MINUTE_OF_DAY).filter(lambda window: window[0] != window[1]), min_size=1, max_size=3)


def _within(windows, wall):
    minute = wall.hour * 60 + wall.minute
    return any(start <= minute < end if start < end else minute >= start or minute < end for start, end in windows)


def _holds_to_the_clock(windows, zone, now):
    """Compare with a clock that is looked at every minute."""
    try:
        quiet = Quiet(tuple(windows))
    except ConfigError:
        assert all(_within(windows, shown(at(2026, 1, 1) + m * MINUTE, UTC)) for m in range(1440))
        return
    closed = _within(windows, shown(now, zone))
    minutes = range(now + MINUTE, now + 74 * HOUR, MINUTE)
    change = next((time for time in minutes if _within(windows, shown(time, zone)) != closed), None)
    assert quiet.next_change(now, zone) == change
    assert quiet.closed_until(now, zone) == (change if closed else None)


@pytest.mark.long
@settings(max_examples=60)
@given(QUIET, AROUND)
def test_around_clock_changes_it_is_closed_exactly_while_the_clock_shows_a_time_of_a_window(windows, around):
    _holds_to_the_clock(windows, *around)


@pytest.mark.slow
@settings(max_examples=3000)
@given(
    QUIET,
    st.sampled_from(sorted(available_timezones())).map(ZoneInfo),
    st.integers(at(1972, 1, 1) // MINUTE, at(2060, 1, 1) // MINUTE),
)
def test_in_every_zone_it_is_closed_exactly_while_the_clock_shows_a_time_of_a_window(windows, zone, minute):
    _holds_to_the_clock(windows, zone, minute * MINUTE)

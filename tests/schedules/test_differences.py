"""Where we differ from cronsim asked with a zone, and from croniter: only as the tables of docs/schedules.md say.

A difference that belongs to no row fails here, and so does a row whose example shows no difference any more.
"""

import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from changes_of_zones import DAY, HOUR, MINUTE, SECOND, Endless, Watched, at, changed, changes, every_change, shown
from croniter import CroniterBadDateError, CroniterError, croniter
from hypothesis import given, settings
from hypothesis import strategies as st

import flagsweep
from flagsweep.schedules import SpecError, parse

DOCUMENT = (Path(flagsweep.__file__).parent / "docs" / "schedules.md").read_text("utf-8")
EXAMPLES = re.findall(r"^\| ([a-z ]+) \| `([^`]+)` in ([\w/]+), ([\d-]+) \|", DOCUMENT, re.MULTILINE)
ROWS = {row for row, *_ in EXAMPLES}


def by_cronsim(text, zone, begin, end):
    """Return what cronsim yields from `begin` to `end`, backwards where that is the earlier; None where it never ends."""
    simulated, found = Watched(text, _local(begin, zone), reverse=end < begin), []
    try:
        while min(begin, end) <= (moment := _moment(next(simulated))) <= max(begin, end):
            found.append(moment)
            simulated.steps = 0
    except Endless:
        return None
    return sorted(found)


def by_croniter(text, zone, begin, end):
    """Return what croniter yields from `begin` to `end`; None where one of its own assertions fails."""
    iterated, found = croniter(text, _local(begin, zone)), []
    try:
        while (moment := round(iterated.get_next(float)) * SECOND) <= end:
            found.append(moment)
    except AssertionError:
        return None
    return found


def _local(moment, zone):
    return datetime.fromtimestamp(moment // SECOND, ZoneInfo(zone))


def _moment(local):
    return int(local.timestamp()) * SECOND


# Which row a difference belongs to.


def _is_odd(change):
    """Return whether a change is not by whole hours, or not at one."""
    return bool(change.jump % HOUR or change.wall.minute)


def _skips_a_days_edge(change):
    """Return whether a gap has the first or the last second of a day in it."""
    begin = change.wall.hour * 60 + change.wall.minute
    return change.jump > 0 and (begin == 0 or begin + change.jump // MINUTE >= 1440)


def row_of_cronsim(change, spec, begin):
    if spec.runs_on:
        return "odd change" if _is_odd(change) else "edge of a day" if _skips_a_days_edge(change) else None
    return "second pass" if change.moment <= begin < change.moment - change.jump else None


def row_of_croniter(change, spec, ours, theirs):
    if theirs is None:
        return "gives up"
    differing = set(ours) ^ set(theirs)
    if change.jump > 0:
        return "skipped time" if differing == {change.moment} else None
    if not all(change.covers(moment) for moment in differing):
        return None
    if spec.runs_on:
        return "one pass" if set(theirs) < set(ours) else None
    return "both passes" if set(ours) < set(theirs) else None


def differences(change, text):
    """Yield the row of each difference about one change; None where there is no such row."""
    spec = parse("cron", text, change.zone)
    low, high = change.moment - DAY, change.moment + DAY
    inside = [change.moment + minutes * MINUTE + SECOND for minutes in (-61, -1, 1, 29, 61, 125)]
    for begin, end in [(low, high), (high, low), *((begin, high) for begin in inside), *((begin, low) for begin in inside)]:
        first, last = (begin, end) if begin < end else (end - 1, begin - 1)
        if by_cronsim(text, change.zone, begin, end) != spec.times(first, last, 10**6):
            yield row_of_cronsim(change, spec, begin)
    theirs, ours = by_croniter(text, change.zone, low, high), spec.times(low, high, 10**6)
    if theirs != ours:
        yield row_of_croniter(change, spec, ours, theirs)


@pytest.mark.long
@settings(max_examples=15)
@given(changed())
def test_every_difference_about_a_change_of_the_clock_is_in_the_tables(case):
    assert set(differences(*case)) <= ROWS


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_so_is_every_one_of_every_zone_from_2015_to_2035(part):
    found = set()
    for number, (change, text) in enumerate(every_change()[part::3]):
        rows = set(differences(change, text))
        assert rows <= ROWS, (number, change, text)
        found |= rows
    assert len(found) > 3


@pytest.mark.parametrize(("row", "text", "zone", "day"), EXAMPLES)
def test_the_example_of_each_row_shows_its_difference(row, text, zone, day):
    (change,) = (change for change in changes(zone) if shown(change.moment, zone).startswith(day))
    assert row in set(differences(change, text))


# Without any clock change.

NUMBERS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}


@st.composite
def terms(draw, name):
    low, high = NUMBERS[name]
    first, last = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
    step = draw(st.integers(1, 9))
    return draw(
        st.sampled_from(["*", "*", f"*/{step}", f"{first}", f"{first},{last}", f"{first}-{last}", f"{first}-{last}/{step}"])
    )


def row_of_text(text):
    fields = text.split()
    if any(re.fullmatch(r"(\d+)-\1", field) for field in fields):
        return "range of one"
    days = (fields[2], fields[4])
    return "starred day" if any(day.startswith("*/") for day in days) and "*" not in days else None


@pytest.mark.long
@settings(max_examples=60)
@given(st.tuples(*map(terms, NUMBERS)).map(" ".join))
def test_so_is_every_difference_from_croniter_without_any_change_of_the_clock(text):
    begin = at("2024-01-01 12:07")
    try:
        ours = parse("cron", text).times(begin, begin + 3000 * DAY, 3)
    except SpecError as error:
        assert re.search("never fires|range of one", str(error))
        return
    iterated = croniter(text, _local(begin, "UTC"))
    try:
        theirs = [round(iterated.get_next(float)) * SECOND for _ in ours]
    except CroniterBadDateError:
        theirs = None
    assert theirs == ours or row_of_text(text)


@pytest.mark.parametrize(("row", "text"), re.findall(r"^\| ([a-z ]+) \| `([^`]+)` \|", DOCUMENT, re.MULTILINE))
def test_croniter_still_reads_each_text_of_the_last_table_otherwise(row, text):
    begin = at("2026-06-02 22:30")
    assert _first(lambda: parse("cron", text).next(begin)) != _first(lambda: by_croniter(text, "UTC", begin, begin + 40 * DAY)[0])


def _first(find):
    try:
        return find()
    except (SpecError, CroniterError) as error:
        return type(error)

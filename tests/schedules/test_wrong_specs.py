"""What people write wrong: where the mistake is, and what is said of it."""

from datetime import datetime

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import given, settings
from hypothesis import strategies as st

from flagsweep import ConfigError
from flagsweep.schedules import SpecError, parse

WRONG = [
    # sort, text, position, what the message says
    ("cron", "", 0, "empty"),
    ("cron", "   ", 0, "empty"),
    ("cron", None, None, "must be text"),
    ("cron", 5, None, "must be text"),
    ("cron", b"* * * * *", None, "must be text"),
    ("cron", "* * * *", 7, "without day of week"),
    ("cron", "*/5", 3, "without hour and day of month"),
    ("cron", " * * * ", 6, "3 of five fields"),
    ("cron", "0 0 0 4 * *", 10, "leave the seconds out"),
    ("cron", "0 4 * * 1 root /bin/true now", 10, "leave the command out"),
    ("cron", "60 * * * *", 0, "minute: '60' is not from 0 to 59"),
    ("cron", "0 25 * * *", 2, "hour: '25' is not from 0 to 23"),
    ("cron", "0 0 0 * *", 4, "day of month: '0' is not from 1 to 31"),
    ("cron", "0 0 1,32 * *", 6, "day of month: '32'"),
    ("cron", "* * * 13 *", 6, "month: '13' is not from 1 to 12"),
    ("cron", "0 0 * * 8", 8, "0 and 7 are Sunday"),
    ("cron", "0  4\t* *  1-9", 12, "day of week: '9'"),
    ("cron", "0 4 * * Mo-Fr", 8, "write 'MON'"),
    ("cron", "0 4 * * MON-Fr", 12, "write 'FRI'"),
    ("cron", "0 4 * * monday", 8, "write 'MON'"),
    ("cron", "0 4 * januar *", 6, "write 'JAN'"),
    ("cron", "0 4 * foo *", 6, "JAN to DEC"),
    ("cron", "0 4 * MON *", 6, "no number or name"),
    ("cron", "MON 4 * * *", 0, "no cron expression"),
    ("cron", "0 0 ? * 1", 4, "write '*'"),
    ("cron", "0 0 15W * *", 4, "the weekday nearest"),
    ("cron", "0 0 L-3 * *", 4, "L (the last day)"),
    ("cron", "0 0 * * 1#6", 10, "'6' behind '#'"),
    ("cron", "0 0 * * 9L", 8, "'9' is not from 0 to 7"),
    ("cron", "0 0 * * L", 8, "5L"),
    ("cron", "*/0 * * * *", 2, "step '0'"),
    ("cron", "5/ * * * *", 2, "step ''"),
    ("cron", "*/x * * * *", 2, "step 'X'"),
    ("cron", "*/5-10 * * * *", 2, "step '5-10'"),
    ("cron", "5-5/2 * * * *", 0, "range of one"),
    ("cron", "1,2,,3 * * * *", 4, "nothing beside a comma"),
    ("cron", "1,2, * * * *", 4, "nothing beside a comma"),
    ("cron", "5-1 * * * *", 0, "write '5-59,0-1'"),
    ("cron", "0 22-6 * * *", 2, "write '22-23,0-6'"),
    ("cron", "0 0 * * FRI-MON", 8, "write '5-6,0-1'"),
    ("cron", "0 0 * * FRI-SUN", 8, "write 'FRI-7'"),
    ("cron", "1- * * * *", 2, "'1-' is no number"),
    ("cron", "-5 * * * *", 0, "'-5' is no number"),
    ("cron", "1.5 * * * *", 0, "'1.5' is no number"),
    ("cron", "\u0663 * * * *", 0, "ASCII"),
    ("cron", "* * * * \u017fun", 8, "ASCII"),
    ("cron", "* * * * *\0", 9, "ASCII"),
    ("cron", "* * *\n* *", 5, "ASCII"),
    ("cron", "*," * 100 + "* * * * *", 200, "at most 200"),
    ("cron", "0 0 31 2 *", 4, "never fires"),
    ("cron", "  0  0 30,31 FEB *", 7, "never fires"),
    ("cron", "0 0 */31 * MON#5", 4, "never fires"),
    ("cron", "every 5 minutes", 0, "every '5m'"),
    ("cron", "@every 10s", 0, "every '10s'"),
    ("cron", "@reboot", 0, "nothing fires at a start"),
    ("cron", "@fortnightly", 0, "@daily"),
    ("cron", "CRON_TZ=Asia/Seoul 0 4 * * 1", 0, "the schedule's zone"),
    ("every", "", 0, "empty"),
    ("every", None, None, "a number or a timedelta"),
    ("every", True, None, "a number or a timedelta"),
    ("every", [], None, "a number or a timedelta"),
    ("every", "5 minutes", 2, "write '5m'"),
    ("every", "10min", 2, "write '10m'"),
    ("every", "1h 20 secs", 6, "write '20s'"),
    ("every", "1 month", 2, "'month' in '1 month' is no unit"),
    ("every", "5m30", 4, "has no unit"),
    ("every", "10m and a bit", 4, "'and a bit'"),
    ("every", "soon", 0, "'soon'"),
    ("every", "-5m", 0, "'-5m'"),
    ("every", "\uff11\uff10m", 0, "ASCII"),
    ("every", " 0.5s", 1, "1 second"),
    ("every", "999ms", 0, "1 second"),
    ("every", 0, None, "1 second"),
    ("every", -1, None, "1 second"),
    ("every", float("nan"), None, "ten years"),
    ("every", "1e400", 0, "ten years"),
    ("every", "3651d", 0, "ten years"),
    ("every", 10**400, None, "ten years"),
    ("at", "", 0, "empty"),
    ("at", None, None, "must be text"),
    ("at", 1_800_000_000, None, "must be text"),
    ("at", "tomorrow", 0, "no year of four digits"),
    ("at", "24.12.2026 18:00", 0, "no year of four digits"),
    ("at", "2026-1-5 18:00", 4, "no month of two digits"),
    ("at", "2026-12-24", 10, "no hour of two digits"),
    ("at", "2026-12-24 6pm", 10, "no hour of two digits"),
    ("at", "2026-12-24 18", 10, "no hour of two digits"),
    ("at", "2026-13-24 18:00", 5, "month '13'"),
    ("at", "2026-02-30 18:00", 8, "no day 30"),
    ("at", "2026-12-24 24:00", 11, "hour '24'"),
    ("at", "2026-12-24 18:60", 14, "minute '60'"),
    ("at", "2026-12-24 18:00:60", 17, "second '60'"),
    ("at", "1969-12-31 18:00", 0, "year '1969'"),
    ("at", "2026-12-24 18:00 KST", 17, "a zone's name goes into the zone"),
    ("at", "2026-12-24T18:00+09:00[Asia/Seoul]", 22, "a zone's name goes into the zone"),
    ("at", "2026-12-24 18:00+25:00", 16, "offset '+25:00'"),
    ("at", "2026-12-24 18:00:00.123456789Z", 19, "is not understood"),
]


@pytest.mark.parametrize(("sort", "text", "position", "told"), WRONG, ids=[f"{w[0]}-{w[1]!r}"[:30] for w in WRONG])
def test_a_wrong_spec_is_refused_with_the_place_and_the_fix(sort, text, position, told):
    with pytest.raises(SpecError) as caught:
        parse(sort, text)
    assert told in str(caught.value)
    assert caught.value.position == position
    assert isinstance(caught.value, ConfigError) and len(caught.value.problems) == 1
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("sort", ["", "weekly", "CRON", None, 5, []])
def test_a_sort_that_is_none_is_refused(sort):
    with pytest.raises(SpecError, match="'cron', 'every' or 'at'"):
        parse(sort, "* * * * *")


@settings(max_examples=100)
@given(
    st.sampled_from(["cron", "every", "at"]), st.one_of(st.text(max_size=30), st.text("0123456789*/-,#@LW :.TZ+smh", max_size=30))
)
def test_any_text_is_a_spec_or_refused_with_a_place_within_it(sort, text):
    try:
        spec = parse(sort, text)
    except SpecError as error:
        assert 0 <= error.position <= len(text)
    else:
        assert parse(sort, spec.text) == spec


@pytest.mark.long
@settings(max_examples=100)
@given(st.lists(st.text("0123456789*/-,#LW", min_size=1, max_size=5), min_size=5, max_size=5).map(" ".join))
def test_what_cronsim_refuses_is_refused_and_little_else(text):
    try:
        refused = next(CronSim(text, datetime(2000, 1, 1)), None) is None
    except CronSimError:
        refused = True
    try:
        parse("cron", text)
    except SpecError as error:
        assert refused or "range of one" in str(error) or "L/" in text or "LW/" in text, error
    else:
        assert not refused

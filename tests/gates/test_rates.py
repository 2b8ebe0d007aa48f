"""Rates: what they may be written as, and that no window ever gets more and a greedy taker no less than they say."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagsweep import ConfigError
from flagsweep.config import LONGEST, SECOND
from flagsweep.gates.rates import FINE, Rate

NOW = 1_767_225_600 * SECOND + 123_457
MINUTE, HOUR, DAY, YEAR = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND, 365 * 86_400 * SECOND
YEAR_2200 = 7_258_118_400 * SECOND


@pytest.mark.parametrize(
    ("text", "rate", "normal"),
    [
        ("10/m", (10, MINUTE, 1), "10/m"),
        ("300/min", (300, MINUTE, 5), "300/m"),
        ("5/s", (5, SECOND, 5), "5/s"),
        ("100/h burst 20", (100, HOUR, 20), "100/h burst 20"),
        ("1000/d", (1000, DAY, 1), "1000/d"),
        ("1/week", (1, 7 * DAY, 1), "1/w"),
        ("10/30s", (10, 30 * SECOND, 1), "10/30s"),
        ("10/1h30m", (10, 90 * MINUTE, 1), "10/90m"),
        ("3/250ms", (3, 250_000, 12), "3/250ms"),
        (" 10 / M  BURST 1 ", (10, MINUTE, 1), "10/m"),
        ("1000000/s burst 1", (1_000_000, SECOND, 1), "1000000/s burst 1"),
        ("2/90", (2, 90 * SECOND, 1), "2/90s"),
    ],
)
def test_a_rate_is_a_count_and_a_duration_and_has_a_normal_form(text, rate, normal):
    assert Rate.parse(text) == Rate(*rate)
    assert str(Rate.parse(text)) == normal
    assert Rate.parse(Rate.parse(text)) == Rate(*rate)


WRONG = """
    10 per minute|10/|/m|0/m|-1/m|1.5/m|10/m burst 0|10/m burst -1|10/m burst|10/m 5|10/x|10/0s|10/-5s|10/inf|10/nan|10/m/s
    10|m|ten/m||\uff11\uff10/m|10/\uff11m|10/m burst \uff12|1_0/m|+1/m|1e3/m|10/11y|10/11000d|1000001/s|1/us burst 1000000001
    2/us|burst 5|10/mburst 5|10//m|10/m burst 5 burst 5"""
NO_TEXT = [True, None, 10, 1.5, b"10/m", [], ("10", "m"), Rate]


@pytest.mark.parametrize(
    "value",
    [*WRONG.strip().replace("\n    ", "|").split("|"), "9" * 5000 + "/m", "1/" + "9" * 400 + "w", "9" * 90 + "/m", *NO_TEXT],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_rate_is_refused_with_the_forms_there_are(value):
    with pytest.raises(ConfigError, match=r"^limit .*10/m|^limit cannot be") as caught:
        Rate.parse(value, "limit")
    assert repr(value)[:70] in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_bucket_that_ten_years_would_not_fill_is_refused():
    assert Rate.parse("1/365d burst 10").burst == 10
    with pytest.raises(ConfigError, match="within ten years"):
        Rate.parse("1/365d burst 11")


RATES = st.builds(
    lambda count, length, burst: Rate(count, max(count, length), burst),
    st.integers(1, 5000),
    st.one_of(st.sampled_from([SECOND, MINUTE, HOUR, DAY]), st.integers(1, DAY)),
    st.integers(1, 30),
)


@settings(max_examples=60)
@given(RATES)
def test_the_normal_form_parses_to_the_same_rate(rate):
    assert Rate.parse(str(rate)) == rate


def _interval(rate):
    return Fraction(rate.period, rate.count)


@settings(max_examples=60)
@given(RATES, st.lists(st.tuples(st.floats(0, 3), st.integers(0, 5)), max_size=40), st.integers(0, 10**6))
def test_no_window_gets_more_than_the_burst_and_what_its_time_brings(rate, steps, offset):
    state, now, takes = None, NOW + offset, []
    for intervals, wanted in steps:
        now += int(intervals * _interval(rate))
        granted, state = rate.take(state, now, wanted)
        takes.append((now, granted))
    for first in range(len(takes)):
        total = 0
        for now, granted in takes[first:]:
            total += granted
            window = now + 1 - takes[first][0]
            assert total <= rate.burst + window // _interval(rate)


@settings(max_examples=60)
@given(RATES, st.integers(0, 10**6), st.integers(1, 300))
def test_a_greedy_taker_gets_all_that_the_time_brings(rate, offset, tokens):
    state, began = None, NOW + offset
    now = began
    for _ in range(tokens):
        granted, state = rate.take(state, now, 1)
        assert granted == 1
        now = rate.opens_at(state, now) or now
    assert now - began <= tokens * _interval(rate)
    assert now - began >= int((tokens - rate.burst) * _interval(rate))


@settings(max_examples=60)
@given(RATES, st.lists(st.tuples(st.integers(0, DAY), st.integers(0, 50)), max_size=10))
def test_a_token_is_there_when_it_was_said_to_be_and_not_a_microsecond_before(rate, steps):
    state, now = None, NOW
    for later, wanted in steps:
        now += later
        _, state = rate.take(state, now, wanted)
        at = rate.opens_at(state, now)
        assert rate.take(state, now, 1)[0] == (1 if at is None else 0)
        if at is not None:
            assert [rate.take(state, time, 1)[0] for time in (at - 1, at)] == [0, 1]


@pytest.mark.parametrize("text", ["7/m", "7/m burst 3", "3331/s burst 1", "1499/d", "11/h burst 2"])
def test_what_does_not_come_out_even_does_not_drift(text):
    rate = Rate.parse(text)
    state, now, taken = None, NOW, 0
    while taken < 10_080:
        granted, state = rate.take(state, now, 1)
        taken += granted
        now = rate.opens_at(state, now) or now
    assert now == NOW + (10_080 - rate.burst + 1) * rate.period // rate.count


def test_seven_a_minute_are_seven_in_each_minute_of_a_day():
    rate, state = Rate.parse("7/m"), None
    for minute in range(1440):
        taken, now, end = 0, NOW + minute * MINUTE, NOW + (minute + 1) * MINUTE
        while now is not None and now < end:
            granted, state = rate.take(state, now, 100)
            taken += granted
            now = rate.opens_at(state, now)
        assert taken == 7


@settings(max_examples=60)
@given(RATES, st.integers(0, 40), st.integers(1, 40), st.integers(0, DAY))
def test_what_is_given_back_is_there_again(rate, before, count, later):
    _, state = rate.take(None, NOW, before)
    granted, after = rate.take(state, NOW + later, count)
    restored = rate.give_back(after, granted)
    for time in (NOW + later, NOW + later + rate.period):
        assert rate.take(restored, time, 100)[0] == rate.take(state, time, 100)[0]
        assert rate.opens_at(restored, time) == rate.opens_at(state, time)


@settings(max_examples=60)
@given(RATES, st.sampled_from([-YEAR, -HOUR, YEAR]))
def test_a_clock_set_wrong_and_right_again_closes_for_one_interval_at_the_most(rate, off):
    _, state = rate.take(None, NOW, 1000)
    _, state = rate.take(state, NOW + off, 1000)
    for _ in range(2):
        at = rate.opens_at(state, NOW)
        assert at is None or at - NOW <= _interval(rate) + SECOND
        _, state = rate.take(state, NOW, 0)
    assert rate.take(state, at or NOW, 1)[0] == 1


def test_a_host_whose_clock_is_half_a_second_behind_lets_no_more_through():
    rate, state, granted = Rate.parse("10/s burst 1"), None, 0
    for tick in range(1000):
        for behind in (0, SECOND // 2):
            got, state = rate.take(state, NOW + tick * 10_000 - behind, 1)
            granted += got
    assert granted == 100


def test_a_changed_rate_goes_on_from_the_same_time():
    slow, fast = Rate.parse("1/h"), Rate.parse("3331/s burst 1")
    _, state = slow.take(None, NOW, 1)
    assert abs(slow.opens_at(fast.give_back(fast.take(state, NOW + HOUR, 1)[1], 1), NOW) - NOW - HOUR) <= 1


@pytest.mark.parametrize("text", ["1/365d burst 10", "1000000/s burst 1000000000", "7/m", "4999/h burst 30"])
def test_the_state_fits_a_signed_64_bit_column_until_the_year_2200(text):
    rate = Rate.parse(text)
    granted, state = rate.take(None, YEAR_2200, 10**12)
    assert granted == rate.burst
    assert 0 < state < 2**63
    assert state <= (YEAR_2200 + (LONGEST + 1) * SECOND) * FINE


def test_nothing_wanted_is_nothing_granted():
    rate = Rate.parse("10/m")
    assert rate.take(None, NOW, 0)[0] == rate.take(None, NOW, -5)[0] == 0
    assert rate.opens_at(rate.take(None, NOW, 0)[1], NOW) is None

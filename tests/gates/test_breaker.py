"""The breaker: what closes a gate and what does not, what may probe, and that an outage buries nothing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outages import MAX_ATTEMPTS, Flag, Site

from flagsweep.config import SECOND
from flagsweep.gates.breaker import (
    EXCUSED_FOR,
    FIRST,
    LONGEST,
    MIXED,
    MOST_FRESH,
    OUTAGE_BEGAN,
    OUTAGE_ENDED,
    Breaker,
    Probe,
    closed_until,
    fresh_from,
    may_probe,
    note,
    probing,
    restarted,
    since,
    unanswered,
    why,
)

NOW = 1_767_225_600 * SECOND
HOUR, YEAR = 3600 * SECOND, 365 * 86_400 * SECOND
FRESH = Breaker()


def failing(state, *flags, why="A", now=NOW, threshold=5, attempts=0):
    return note(state, [(flag, why, attempts) for flag in flags], now, threshold)


def closed(now=NOW):
    return failing(FRESH, 1, 2, 3, 4, 5, now=now)[0]


def probed(state, flag, fingerprint, now, fresh=False):
    """Send a probe out and have it end a second later."""
    return note(probing(state, flag, fresh, now), [(flag, fingerprint)], now + SECOND, 5)[0]


# What closes the gate.


def test_different_flags_that_fail_alike_without_a_success_between_close_the_gate():
    state, event = failing(FRESH, 1, 2, 3, 4)
    assert (closed_until(state, NOW), event) == (None, None)
    state, event = failing(state, 5)
    assert (closed_until(state, NOW), event) == (NOW + FIRST, OUTAGE_BEGAN)
    assert (since(state), why(state)) == (NOW, "A")


@pytest.mark.parametrize(
    "outcomes",
    [
        [(1, "A")] * 50,
        [(1, "A"), (2, "A"), (3, "A"), (4, "A")] * 10,
        [(n, "A" if n % 5 else None) for n in range(100)],
        [(n, f"A{n}") for n in range(100)],
    ],
    ids=["one flag", "four flags", "a success between", "each in its own way"],
)
def test_anything_less_leaves_it_open(outcomes):
    state, event = note(FRESH, outcomes, NOW, 5)
    assert (closed_until(state, NOW), event) == (None, None)


def test_faces_of_one_outage_that_take_turns_close_it():
    state, _ = note(FRESH, [(n, "AB"[n % 2]) for n in range(8)], NOW, 5)
    assert closed_until(state, NOW) is None
    assert why(note(state, [(8, "A")], NOW, 5)[0]) == "A"


def test_a_threshold_of_one_closes_at_the_first_failure():
    state, event = failing(FRESH, 1, threshold=1)
    assert (closed_until(state, NOW), event) == (NOW + FIRST, OUTAGE_BEGAN)


def test_a_kind_that_only_succeeds_has_nothing_to_write():
    state, event = note(FRESH, [(n, None) for n in range(100)], NOW, 5)
    assert state is FRESH
    assert (state.text(), event) == (None, None)


# While it is closed.


def test_late_failures_and_late_successes_of_what_was_running_change_nothing():
    state = closed()
    late = [(6, "A"), (7, "B"), (8, None), (9, "A"), (10, None)]
    assert note(state, late, NOW + SECOND, 5) == (state, None)


def test_each_failed_probe_doubles_the_wait_to_a_quarter_of_an_hour_and_is_no_new_outage():
    state, now, waits = closed(), NOW, []
    for flag in range(6, 13):
        now = closed_until(state, now)
        assert may_probe(state, now - 1) != Probe(fresh=False)
        assert may_probe(state, now).fresh is False
        state = probing(state, flag, False, now)
        state, event = failing(state, flag, now=now)
        assert event is None
        waits.append((closed_until(state, now) - now) // SECOND)
    assert waits == [60, 120, 240, 480, 900, 900, 900]
    assert since(state) == NOW


@pytest.mark.parametrize("fresh", [False, True])
def test_a_probe_that_succeeds_opens_the_gate(fresh):
    state = probing(closed(), 6, fresh, NOW + FIRST)
    state, event = note(state, [(6, None)], NOW + FIRST + SECOND, 5)
    assert (closed_until(state, NOW + FIRST), event, since(state), why(state)) == (None, OUTAGE_ENDED, None, None)


def test_a_probe_whose_process_died_holds_nothing_up():
    state = probing(closed(), 6, False, NOW + FIRST)
    assert may_probe(state, NOW + FIRST + SECOND).fresh is True
    assert closed_until(state, NOW + FIRST) == NOW + 3 * FIRST
    assert may_probe(state, NOW + 3 * FIRST).fresh is False


def test_a_long_probe_still_opens_the_gate_when_others_have_set_out_after_it():
    state = closed()
    for number in range(20):
        state = probing(state, 100 + number, False, closed_until(state, NOW + number * LONGEST))
    state, event = note(state, [(100, None)], NOW + 24 * HOUR, 5)
    assert event == OUTAGE_ENDED


def test_a_fresh_flag_may_probe_besides_once_in_ten_seconds_and_makes_no_wait_longer():
    state = closed()
    assert may_probe(state, NOW) is None
    assert fresh_from(state, NOW) == NOW + 10 * SECOND
    assert may_probe(state, NOW + 10 * SECOND) == Probe(fresh=True)
    state = probed(state, 6, "A", NOW + 10 * SECOND, fresh=True)
    assert closed_until(state, NOW) == NOW + FIRST
    assert [may_probe(state, NOW + seconds * SECOND) for seconds in (19, 20)] == [None, Probe(fresh=True, place=0.0)]


def test_few_fresh_flags_are_out_at_a_time():
    state = probing(closed(), 99, False, NOW + FIRST)
    for number in range(MOST_FRESH):
        now = fresh_from(state, NOW + HOUR + number)
        state = probing(state, number, True, now)
    assert state.outage.fresh_from(NOW + 2 * HOUR) > NOW + 20 * HOUR
    state, _ = failing(state, 0, now=NOW + 2 * HOUR)
    assert state.outage.fresh_from(NOW + 2 * HOUR) == NOW + 2 * HOUR


def test_a_probe_that_tells_nothing_lets_another_go_at_once():
    state = unanswered(probing(closed(), 6, False, NOW + FIRST), 6, NOW + FIRST + SECOND)
    assert closed_until(state, NOW + FIRST + SECOND) == NOW + FIRST + SECOND
    assert unanswered(state, 6, NOW) is state
    assert unanswered(FRESH, 6, NOW) is FRESH


def test_probes_come_from_everywhere_and_every_other_is_the_newest():
    state, places = closed(), []
    for number in range(8):
        now = NOW + (number + 1) * HOUR
        places.append(may_probe(state, now).place)
        state = probed(state, number, "A", now)
    assert places == [1, 0, 1, 0.5, 1, 0.25, 1, 0.75]


def test_a_restart_probes_at_once_but_crashes_in_a_row_do_not():
    state = closed()
    for flag in range(10):
        state = probed(state, flag, "A", closed_until(state, NOW + flag * LONGEST))
    last = state.outage.asked
    assert closed_until(restarted(state, last + 5 * SECOND), last + 5 * SECOND) == last + FIRST
    assert closed_until(restarted(state, last + 60 * SECOND), last + 60 * SECOND) == last + 60 * SECOND
    assert restarted(FRESH, NOW) is FRESH


# What is excused.


def test_what_the_first_probe_showed_to_be_poison_closes_no_gate_for_ten_minutes():
    state = probed(closed(), 6, None, NOW + FIRST)
    end = NOW + FIRST + SECOND + EXCUSED_FOR
    assert closed_until(failing(state, *range(10, 99), now=NOW + FIRST + 2 * SECOND)[0], NOW) is None
    assert closed_until(failing(state, *range(10, 99), now=end - SECOND, attempts=3)[0], NOW) is None
    assert closed_until(failing(state, *range(10, 99), now=end, attempts=3)[0], end) is not None
    assert closed_until(failing(state, *range(10, 99), why="B", now=NOW + FIRST + 2 * SECOND)[0], NOW) is not None


def test_poison_among_healthy_flags_is_excused_before_it_ever_closed_the_gate():
    mixed = [outcome for n in range(MIXED) for outcome in ((n, "A"), (100 + n, None))]
    state, _ = note(FRESH, mixed, NOW, 5)
    assert failing(state, *range(500), now=NOW + 60 * SECOND, attempts=1)[1] is None


def test_the_last_successes_before_an_outage_are_no_excuse():
    state, _ = note(FRESH, [outcome for n in range(4) for outcome in ((n, "A"), (100 + n, None))], NOW, 5)
    assert failing(state, 11, 12, 13, 14, 15, now=NOW + SECOND)[1] == OUTAGE_BEGAN


def test_what_is_excused_closes_the_gate_where_new_flags_fail_and_nothing_succeeds():
    state = probed(closed(), 6, None, NOW + FIRST)
    assert failing(state, *range(10, 15), now=NOW + FIRST + 12 * SECOND)[1] == OUTAGE_BEGAN
    state, _ = note(state, [(7, None)], NOW + FIRST + 10 * SECOND, 5)
    assert failing(state, *range(10, 15), now=NOW + FIRST + 12 * SECOND)[1] is None


def test_an_outage_that_was_one_may_come_back_at_once_but_not_for_ever():
    state, now, events = FRESH, NOW, []
    for number in range(4):
        state, event = failing(state, *range(number * 10, number * 10 + 5), now=now, attempts=1)
        events.append(event)
        for flag in range(4):
            now += 120 * SECOND
            state = probed(state, 1000 + flag, "A" if flag < 3 else None, now)
        now += SECOND
    assert events == [OUTAGE_BEGAN, OUTAGE_BEGAN, OUTAGE_BEGAN, None]


def test_nothing_is_remembered_for_ever():
    state = probed(closed(), 6, None, NOW + FIRST)
    assert state.text() is not None
    assert note(state, [(7, None)], NOW + 2 * HOUR, 5)[0].text() is None


# Clocks, folds and text.

STEP = st.one_of(
    st.tuples(st.just("note"), st.integers(1, 12), st.sampled_from(["A", "B", "C", None]), st.integers(0, 2)),
    st.tuples(st.just("probe"), st.integers(1, 12), st.booleans()),
    st.tuples(st.just("restart")),
    st.tuples(st.just("unanswered"), st.integers(1, 12)),
)
DRIFT = st.sampled_from([0, SECOND, 20 * SECOND, HOUR, -SECOND, -HOUR, YEAR, -YEAR])
STEPS = st.lists(st.tuples(STEP, DRIFT), max_size=40)


def _walk(steps, threshold=3):
    """Return the state and the time after steps, through the text each time."""
    state, now = FRESH, NOW
    for (verb, *rest), drift in steps:
        now += drift
        if verb == "note":
            state, _ = note(state, [tuple(rest)], now, threshold)
        elif verb == "probe":
            state = probing(state, *rest, now)
        else:
            state = restarted(state, now) if verb == "restart" else unanswered(state, *rest, now)
        assert Breaker.parse(state.text()) == state
    return state, now


@pytest.mark.long
@settings(max_examples=100)
@given(STEPS, st.sampled_from([0, YEAR, -YEAR, HOUR, -HOUR]))
def test_whatever_the_clock_did_a_probe_may_go_within_a_quarter_of_an_hour_and_opens_the_gate(steps, drift):
    state, now = _walk(steps)
    now += drift
    until = closed_until(state, now)
    assert until is None or now <= until <= now + LONGEST
    assert (fresh_from(state, now) is None) == (until is None)
    if until is not None:
        assert may_probe(state, until).fresh is False
        assert note(probing(state, 50, False, until), [(50, None)], until, 3)[1] == OUTAGE_ENDED


OUTCOME = st.tuples(st.integers(1, 9), st.sampled_from(["A", "B", None]), st.integers(0, 1))


@pytest.mark.long
@settings(max_examples=100)
@given(STEPS, st.lists(OUTCOME, max_size=20), st.integers(0, 20))
def test_two_consumers_noting_one_after_the_other_are_as_one(steps, outcomes, cut):
    state, now = _walk(steps)
    first, _ = note(state, outcomes[:cut], now, 3)
    assert note(first, outcomes[cut:], now, 3)[0] == note(state, outcomes, now, 3)[0]


def test_the_text_stays_short_whatever_fails():
    state = FRESH
    for number in range(1000):
        state, _ = note(state, [(2**62 + number, f"{number % 50}" * 300, 0), (number, "B" * 900, 1)], NOW + number, 40)
        if number % 7 == 0:
            state, _ = note(state, [(1, None)], NOW + number, 40)
        for fresh in (True, False):
            state = probing(state, number, fresh, NOW + number * HOUR)
    assert len(state.text()) < 16_000


def _damaged():
    whole = json.loads(probing(closed(), 6, True, NOW).text())
    for path in ("streak", "known", "answered", "outage"):
        for value in ("x", None if path != "outage" else 5, [[1, 2]], [["A", "b"]], {"why": "A"}, 2**70, 1.5, True):
            yield json.dumps({**whole, path: value})
        yield json.dumps({name: value for name, value in whole.items() if name != path})
    for name in whole["outage"]:
        yield json.dumps({**whole, "outage": {**whole["outage"], name: 1.5}})
    yield json.dumps({**whole, "outage": {**whole["outage"], "wait": 10**15}})
    yield from ("", "{", "null", "[]", "5", '"x"', "{}", "NaN", "[" * 100_000, "9" * 5000, "\ud800")


@pytest.mark.parametrize("text", [pytest.param(text, id=str(number)) for number, text in enumerate(_damaged())])
def test_damaged_text_is_a_fresh_state(text):
    assert Breaker.parse(text) == FRESH


def test_no_text_is_a_fresh_state():
    assert Breaker.parse(None) == Breaker.parse(FRESH.text()) == FRESH


# In virtual time.


def down_for(hours):
    return lambda now: now < hours * HOUR


@pytest.mark.parametrize("threads", [1, 4, 16])
@pytest.mark.parametrize("flags", [5, 8, 50, 200])
def test_an_outage_of_six_hours_buries_no_flag(flags, threads):
    site = Site([Flag(n, 0) for n in range(flags)], down_for(6), threads=threads).run(7 * HOUR)
    assert site.dead() == []
    assert site.done(by=6 * HOUR + LONGEST + 60 * SECOND) == flags
    assert [event for event, _ in site.events] == [OUTAGE_BEGAN, OUTAGE_ENDED]


def test_control_without_a_breaker_it_buries_them_all():
    site = Site([Flag(n, 0) for n in range(200)], down_for(6), threshold=None).run(7 * HOUR)
    assert len(site.dead()) == 200


@pytest.mark.parametrize("threshold", [5, None])
def test_flags_raised_in_an_outage_outlive_it_with_a_breaker_only(threshold):
    site = Site([Flag(n, n * 60 * SECOND) for n in range(360)], down_for(6), threshold).run(7 * HOUR)
    assert (len(site.dead()) == 0) == (threshold == 5)
    assert max(flag.attempts for flag in site.flags) <= (MAX_ATTEMPTS - 3 if threshold else MAX_ATTEMPTS)


@pytest.mark.parametrize("up, every", [(20, 600), (60, 600), (120, 1800)])
def test_a_provider_that_comes_and_goes_buries_no_flag(up, every):
    site = Site([Flag(n, n * 10 * SECOND) for n in range(500)], lambda now: now < 3 * HOUR and now // SECOND % every >= up)
    assert site.run(4 * HOUR).dead() == []
    assert site.done(by=4 * HOUR) == 500


@pytest.mark.long
@pytest.mark.parametrize("block", [1, 10, 50])
def test_ten_percent_of_poison_leaves_the_healthy_nine_tenths_of_their_pace(block):
    def at_the_end(threshold):
        site = Site([Flag(n, 0, n // block % 10 == 9) for n in range(2400)], threshold=threshold, took=SECOND).run(HOUR)
        return max(flag.done for flag in site.flags if not flag.poison)

    assert at_the_end(None) >= 0.9 * at_the_end(5)


@pytest.mark.parametrize("gap", [3, 20, 300])
def test_a_crowd_of_poison_dies_and_holds_up_no_healthy_flag_for_more_than_a_minute(gap):
    poison = [Flag(n, 0, poison=True) for n in range(100)]
    healthy = [Flag(1000 + n, n * gap * SECOND) for n in range(7200 // gap)]
    raised = {flag.id: flag.due for flag in healthy}
    site = Site(poison + healthy).run(3 * HOUR)
    assert len(site.dead()) == 100
    assert max(flag.done - raised[flag.id] for flag in healthy) < 60 * SECOND
    assert len(site.events) < 16


def test_five_bad_addresses_hold_a_password_mail_for_ten_seconds_at_the_most():
    site = Site([Flag(n, 0, poison=True) for n in range(5)] + [Flag(9, 2 * SECOND)]).run(HOUR)
    assert site.flags[-1].done <= 12 * SECOND

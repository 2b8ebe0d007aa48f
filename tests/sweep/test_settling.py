"""Settling, as the table of states says, and what becomes of a flag that was raised while it ran."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verbs import BUMP, HOUR, NOW, Site, claimed, free, picked

from flagsweep import FlagSweep
from flagsweep.config import SECOND
from flagsweep.sweep.claims import Claimed
from flagsweep.sweep.outcomes import Discarded, Failed, Parked, Snoozed


@pytest.fixture
def site(db_path):
    site = Site(db_path)
    yield site
    site.close()


def test_success_lowers_the_flag(site):
    assert site.lower(claimed(site, bumped=False)) == (1, 0)
    assert not site.is_up()


@pytest.mark.parametrize("attempts", [0, 2])
def test_success_of_a_bumped_flag_lets_it_wait_from_scratch_and_due_as_the_raise_says(site, attempts):
    flag = claimed(site, bumped=True, attempts=attempts)
    assert site.store.progress(flag.id, flag.token, "5", atomic=False)
    assert site.lower(flag) == (0, 1)
    row = site.row()
    assert picked(row, "state", "attempts", "due_at", "error", "cursor") == ("waiting", 0, BUMP, None, None)
    assert free(row)


def test_lowering_a_batch_tells_apart_what_is_gone_bumped_and_lost(site):
    for key in "abcd":
        site.raise_(key)
    batch = site.claim()
    site.raise_("b")
    site.flags.lower("work", "c")
    with site.store.connections.write():
        assert site.store.lower([each.id for each in batch], batch[0].token) == (2, 1)
    assert [row["key"] for row in site.ask("SELECT key FROM flagsweep_flag")] == ["b"]


@pytest.mark.parametrize("bumped", [False, True])
@pytest.mark.parametrize(("attempts", "wait"), [(0, 10), (1, 20)])
def test_an_error_counts_the_attempt_and_backs_off_bumped_or_not(site, bumped, attempts, wait):
    flag = claimed(site, bumped, attempts)
    assert site.settle(flag, Failed("no", ValueError()), now=3) == "waiting"
    row = site.row()
    assert picked(row, "attempts", "due_at", "error", "died_at") == (attempts + 1, 3 + wait * SECOND, "no", None)
    assert free(row)


@pytest.mark.parametrize("bumped", [False, True])
def test_retry_after_waits_that_long_bumped_or_not(site, bumped):
    site.settle(claimed(site, bumped), Failed("no", ValueError(), after=77), now=3)
    assert picked(site.row(), "state", "attempts", "due_at") == ("waiting", 1, 3 + 77 * SECOND)


@pytest.mark.parametrize("outcome", [Failed("no", ValueError()), Failed("no", ValueError(), after=5)], ids=["error", "Retry"])
def test_the_last_attempt_buries_the_flag(site, outcome):
    flag = claimed(site, bumped=False, attempts=2)
    assert site.settle(flag, outcome, now=3) == "dead"
    row = site.row()
    assert picked(row, "state", "attempts", "error", "died_at") == ("dead", 3, "no", NOW + 3)
    assert free(row)


@pytest.mark.parametrize("outcome", [Failed("no", ValueError()), Failed("no", ValueError(), final=True)], ids=["last", "final"])
def test_a_bumped_flag_is_not_buried_but_waits_for_the_longest_backoff(site, outcome):
    """So that a handler that raises itself and fails does not spin."""
    flag = claimed(site, bumped=True, attempts=2)
    assert site.settle(flag, outcome, now=3) == "waiting"
    assert picked(site.row(), "attempts", "due_at", "died_at") == (0, 3 + HOUR, None)


def test_an_error_that_is_not_to_be_retried_buries_the_flag_at_once(site):
    assert site.settle(claimed(site, bumped=False), Failed("no", ValueError(), final=True)) == "dead"
    assert site.row()["attempts"] == 1


@pytest.mark.parametrize("attempts", [0, 2])
def test_a_snooze_counts_no_attempt(site, attempts):
    flag = claimed(site, bumped=False, attempts=attempts)
    assert site.settle(flag, Snoozed(30), now=3) == "waiting"
    assert picked(site.row(), "attempts", "due_at") == (attempts, 3 + 30 * SECOND)


@pytest.mark.parametrize(("delay", "due"), [(30, BUMP), (2, 3 + 2 * SECOND)])
def test_a_snooze_of_a_bumped_flag_is_due_at_the_earlier_of_snooze_and_raise(site, delay, due):
    site.settle(claimed(site, bumped=True), Snoozed(delay), now=3)
    assert picked(site.row(), "state", "attempts", "due_at") == ("waiting", 0, due)


@pytest.mark.parametrize("bumped", [False, True])
def test_a_discard_lowers_the_flag_unless_it_was_bumped(site, bumped):
    """The sweep lowers what its handler discarded, as it lowers success, and records why."""
    assert site.lower(claimed(site, bumped)) == ((0, 1) if bumped else (1, 0))
    assert site.is_up() is bumped


def test_a_damaged_flag_is_parked_with_its_reason(site):
    assert site.settle(claimed(site, bumped=False), Parked("its row is odd"), now=3) == "dead"
    assert picked(site.row(), "attempts", "error", "died_at") == (0, "parked: its row is odd", NOW + 3)


@pytest.mark.parametrize("outcome", [Parked("odd"), Discarded("gave up")], ids=["parked", "discarded"])
def test_what_was_to_be_parked_and_is_bumped_waits_for_the_longest_backoff(site, outcome):
    assert site.settle(claimed(site, bumped=True, attempts=1), outcome) == "waiting"
    assert picked(site.row(), "attempts", "due_at") == (0, HOUR)


@pytest.mark.parametrize("bumped", [False, True])
@pytest.mark.parametrize("attempts", [0, 2])
@pytest.mark.parametrize(("now", "bumped_due"), [(3, 3), (HOUR, BUMP)])
def test_a_released_flag_waits_without_an_attempt_and_is_due_at_once(site, bumped, attempts, now, bumped_due):
    flag = claimed(site, bumped, attempts)
    assert site.release(flag, now=now) == 1
    row = site.row()
    assert picked(row, "state", "attempts", "due_at") == ("waiting", attempts, bumped_due if bumped else 0)
    assert free(row)


def test_an_error_is_kept_until_another_takes_its_place(site):
    site.raise_()
    site.fail()
    site.settle(site.claim_one(now=HOUR), Snoozed(1), now=HOUR)
    assert site.row()["error"] == "boom"


@given(st.integers(0, 10**18), st.sampled_from([Failed("x", ValueError()), Snoozed(5), Parked("x")]))
def test_a_plan_is_made_for_any_number_of_attempts(attempts, outcome):
    """A row damaged by hand may claim any number of attempts."""
    handler = FlagSweep(":memory:").handler("work", max_attempts=1000)(lambda: None)
    step = outcome.step(handler, Claimed("work", 1, [0, 1, "k", {}, (attempts, 0, None, 1)]), NOW)
    assert step.due >= NOW

"""Due times that a wrong clock wrote are mended, and no others."""

import pytest
from verbs import HOUR, MINUTE, NOW, Site, picked

from flagsweep.config import SECOND
from flagsweep.sweep.outcomes import Failed, Parked, Snoozed


@pytest.fixture
def site(db_path):
    site = Site(db_path)
    yield site
    site.close()


HORIZON = 10 * 366 * 24 * HOUR


def heal(site, now=0):
    return site.store.heal_clock(NOW + now, NOW + now + HORIZON)


def test_what_a_fast_clock_raised_for_now_is_due_now(site):
    site.raise_(due=2 * HOUR, now=2 * HOUR)
    assert heal(site) == 1
    assert picked(site.row(), "due_at", "raised_at") == (0, 0)


def test_what_was_raised_for_later_stays_so(site):
    site.raise_(due=2 * HOUR)
    assert heal(site) == 0
    assert site.row()["due_at"] == 2 * HOUR


def test_a_backoff_that_a_fast_clock_wrote_is_counted_from_now(site):
    site.raise_()
    site.fail(now=24 * HOUR)
    assert heal(site) == 1
    assert site.row()["due_at"] == 10 * SECOND
    assert heal(site) == 0


def test_a_backoff_within_its_bounds_stays(site):
    site.raise_()
    site.fail()
    assert heal(site) == 0
    assert site.row()["due_at"] == 10 * SECOND


@pytest.mark.parametrize(
    "outcome", [Failed("no", ValueError(), after=24 * 3600), Snoozed(24 * 3600)], ids=["Retry(after)", "Snooze after a failure"]
)
def test_a_wait_that_a_handler_asked_for_may_be_longer_than_any_backoff(site, outcome):
    site.raise_()
    site.fail()
    site.settle(site.claim_one(now=MINUTE), outcome, now=MINUTE)
    assert heal(site, now=MINUTE) == 0
    assert site.row()["due_at"] == MINUTE + 24 * HOUR


def test_a_snooze_that_a_fast_clock_wrote_is_mended_too(site):
    site.raise_()
    site.settle(site.claim_one(now=48 * HOUR), Snoozed(60), now=48 * HOUR)
    assert heal(site) == 1
    assert site.row()["due_at"] == MINUTE


def test_a_delay_that_a_fast_clock_counted_is_counted_from_now(site):
    site.raise_(due=25 * HOUR + MINUTE, now=25 * HOUR)
    assert heal(site) == 1
    assert picked(site.row(), "due_at", "raised_at") == (MINUTE, 0)
    assert heal(site) == 0


def test_a_moment_that_a_clock_a_little_fast_was_told_stays(site):
    site.raise_(due=24 * HOUR, now=MINUTE)
    assert heal(site) == 0
    assert site.row()["due_at"] == 24 * HOUR


def test_what_a_fast_clock_raised_again_when_it_was_due_is_due_now(site):
    site.raise_(due=24 * HOUR, now=24 * HOUR)
    site.raise_(due=48 * HOUR, now=48 * HOUR)
    assert heal(site) == 1
    assert picked(site.row(), "due_at", "raised_at") == (0, 0)


def test_what_a_person_retried_by_a_fast_clock_is_due_now(site):
    site.raise_()
    site.fail()
    assert site.verbs.retry([], NOW + 24 * HOUR) == 1
    assert heal(site) == 1
    assert site.row()["due_at"] == 0


def test_what_a_fast_clock_raised_while_it_ran_is_mended_before_it_has_ended(site):
    site.raise_()
    claimed = site.claim_one()
    site.raise_(due=24 * HOUR, now=24 * HOUR)
    assert heal(site) == 1
    site.store.lower([claimed.id], claimed.token)
    assert picked(site.row(), "state", "due_at") == ("waiting", 0)


def test_what_is_due_later_than_anybody_may_ask_for_is_parked(site):
    site.raise_(due=HORIZON + 1)
    assert heal(site) == 1
    assert site.row()["state"] == "dead"
    assert "parked: its due time" in site.row()["error"]


def test_the_clock_heals_no_claimed_and_no_dead_flag(site):
    for key in ("claimed", "dead"):
        site.raise_(key, due=2 * HOUR, now=2 * HOUR)
    for flag in site.claim(now=2 * HOUR):
        if flag.key == "dead":
            site.settle(flag, Parked("x"))
    before = [site.row("claimed"), site.row("dead")]
    assert heal(site) == 0
    assert [site.row("claimed"), site.row("dead")] == before

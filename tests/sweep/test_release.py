"""What a dead consumer had claimed is free; those to blame are charged."""

import os

import pytest
from verbs import ME, NOW, OTHER, Site, claimed, free, picked

from flagsweep.sweep.claims import Step


@pytest.fixture
def site(db_path):
    site = Site(db_path)
    yield site
    site.close()


def test_what_a_dead_consumer_had_claimed_is_free_and_due_at_once(site):
    for key, due in (("a", -9), ("b", 5), ("theirs", 5)):
        site.raise_(key, due=due)
    site.claim(2, now=5)
    site.claim(1, now=5, consumer=OTHER)
    assert site.store.rescue(ME, (), NOW + 3) == (2, [])
    assert [picked(site.row(key), "state", "attempts", "due_at") for key in "ab"] == [("waiting", 0, -9), ("waiting", 0, 3)]
    assert free(site.row("a"))
    assert site.row("theirs")["state"] == "claimed"


def test_a_rescue_keeps_a_raise_that_came_meanwhile(site):
    flag = claimed(site, bumped=True)
    site.store.rescue(ME, (), NOW + 3)
    row = site.row()
    assert picked(row, "state", "generation", "due_at") == ("waiting", 2, 3)
    assert row["id"] == flag.id


def test_a_rescue_charges_those_to_blame_and_nobody_else(site):
    site.raise_("guilty")
    site.raise_("mate")
    guilty, _ = site.claim()
    step = Step("waiting", 1, NOW, 1, NOW, error="died", suspect=True)
    assert site.store.rescue(ME, [(guilty.id, guilty.token, step)], NOW) == (2, [])
    assert picked(site.row("guilty"), "attempts", "suspect", "error") == (1, 1, "died")
    assert picked(site.row("mate"), "attempts", "suspect", "error") == (0, 0, None)


def test_a_rescue_tells_which_flags_died(site):
    flag = claimed(site, bumped=False)
    step = Step("dead", 3, NOW, 0, NOW, error="crashed", crashed=1)
    assert site.store.rescue(ME, [(flag.id, flag.token, step)], NOW) == (1, [flag.id])
    assert picked(site.row(), "state", "crashes") == ("dead", 1)


def test_a_rescue_strikes_the_consumer_off(site):
    held = []
    consumer = site.store.enlist("run", os.getpid(), "here", NOW, held.append)
    assert (held, [c.id for c in site.store.consumers()]) == ([consumer], [consumer])
    site.store.rescue(consumer, (), NOW)
    assert site.store.consumers() == []


def test_a_consumer_without_a_lease_is_not_entered(site):
    def refuse(_):
        raise RuntimeError("held")

    with pytest.raises(RuntimeError):
        site.store.enlist("run", os.getpid(), "here", NOW, refuse)
    assert site.store.consumers() == []


def test_the_ids_of_consumers_never_repeat(site):
    first = site.store.enlist("sweep", 1, "here", NOW, lambda _: None)
    site.store.strike(first, NOW)
    assert site.store.enlist("sweep", 1, "here", NOW, lambda _: None) > first

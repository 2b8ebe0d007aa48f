"""A claim: what it takes, what it writes, and what waits."""

import pytest
from verbs import HOUR, NOW, OTHER, Site, picked


@pytest.fixture
def site(db_path):
    site = Site(db_path)
    yield site
    site.close()


def keys(claimed):
    return [each.key for each in claimed]


def test_a_claim_takes_the_longest_due_first_and_then_the_lowest_id(site):
    for key, due in (("b", -1), ("late", -5), ("a", -1), ("first", -9)):
        site.raise_(key, due=due)
    assert keys(site.claim(3)) == ["first", "late", "b"]
    assert keys(site.claim(3)) == ["a"]


def test_a_claim_takes_only_what_is_due(site):
    site.raise_("now", due=0)
    site.raise_("later", due=1)
    assert keys(site.claim()) == ["now"]
    assert keys(site.claim(now=1)) == ["later"]


def test_a_claim_takes_one_kind_and_one_priority(site):
    for kind in ("work", "other"):
        for priority in (0, 5):
            site.raise_(f"{kind} {priority}", kind=kind, priority=priority)
    assert keys(site.claim(priority=5)) == ["work 5"]


def test_a_claim_takes_nothing_that_is_claimed_or_dead(site):
    site.die()
    site.raise_("claimed")
    assert keys(site.claim()) == ["claimed"]
    assert site.claim() == []


def test_a_claim_is_written_with_its_token_its_consumer_and_the_generation(site):
    site.raise_()
    site.raise_()
    claimed = site.claim_one(now=7, consumer=OTHER)
    row = site.row()
    assert picked(row, "state", "claim_token", "claimed_by", "claimed_at") == ("claimed", claimed.token, OTHER, NOW + 7)
    assert picked(row, "generation", "claimed_generation", "attempts") == (2, 2, 0)


def test_a_claim_brings_what_its_handler_needs(site):
    site.raise_(due=-5, payload='{"n":"\\ud800"}')
    site.fail()
    first = site.claim_one(now=HOUR)
    with site.store.connections.write():
        site.store.connections.engine.execute_sql("UPDATE flagsweep_flag SET cursor = '[1]', suspect = 1")
    site.release(first)
    claimed = site.claim_one(now=HOUR)
    assert (claimed.kind, claimed.key, claimed.payload) == ("work", "k", {"n": "\ud800"})
    assert (claimed.attempts, claimed.cursor, claimed.suspect, claimed.due_at) == (1, [1], 1, NOW)


def test_every_claim_has_a_token_of_its_own(site):
    for number in range(20):
        site.raise_(f"{number}")
    assert len({each.token for _ in range(20) for each in site.claim(1)}) == 20


def test_the_agenda_has_the_earliest_due_time_of_every_kind_and_priority_that_waits(site):
    for key, kind, priority, due in (
        ("a", "work", 0, 5),
        ("b", "work", 0, 3),
        ("c", "work", -7, 9),
        ("d", "b", 4, 1),
        ("e", "x", 0, 0),
    ):
        site.raise_(key, kind=kind, priority=priority, due=due)
    site.raise_("claimed", kind="work", priority=50)
    site.claim(priority=50)
    expected = [("b", 4, NOW + 1), ("work", -7, NOW + 9), ("work", 0, NOW + 3)]
    assert sorted(site.store.agenda(["work", "b", "none"])) == expected


def test_waiting_kinds_are_those_of_which_a_flag_waits(site):
    for kind in ("b", "a", "b", "c"):
        site.raise_(kind, kind=kind)
    site.claim(kind="c")
    assert site.store.waiting_kinds() == ["a", "b"]

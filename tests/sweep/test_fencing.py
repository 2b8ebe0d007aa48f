"""Who has lost a claim changes nothing any more."""

import pytest
from verbs import ME, NOW, OTHER, Site, claimed

from flagsweep import ClaimLost
from flagsweep.sweep.outcomes import Failed


@pytest.fixture
def site(db_path):
    site = Site(db_path)
    yield site
    site.close()


SETTLE = {
    "lower": lambda site, flag: site.lower(flag) == (0, 0),
    "settle_one": lambda site, flag: site.settle(flag, Failed("no", ValueError())) is None,
    "release": lambda site, flag: site.release(flag) == 0,
    "progress": lambda site, flag: not site.store.progress(flag.id, flag.token, "1", atomic=False),
}


def lose(site, how):
    """Return a claim that was lost."""
    site.raise_(due=-9)
    flag = site.claim_one()
    if how == "rescued":
        site.store.rescue(ME, (), NOW)
    elif how == "claimed by another":
        site.store.rescue(ME, (), NOW)
        site.claim(consumer=OTHER)
    elif how == "claimed again by the same":
        site.release(flag)
        site.claim()
    else:
        site.flags.lower("work", "k")
        site.raise_()
        if how == "lowered, raised and claimed":
            site.claim()
    return flag


LOST = ["rescued", "claimed by another", "claimed again by the same", "lowered and raised", "lowered, raised and claimed"]


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("verb", SETTLE)
def test_who_has_lost_a_claim_changes_nothing_any_more(site, verb, how):
    flag = lose(site, how)
    before = site.row()
    assert SETTLE[verb](site, flag)
    assert site.row() == before


@pytest.mark.parametrize("how", LOST)
def test_who_has_lost_a_claim_cannot_commit_an_atomic_handler(site, how):
    flag = lose(site, how)
    before = site.row()
    db = site.flags.database
    with (
        db.connection_context(),
        pytest.raises(ClaimLost, match=f"flag {flag.id} was lowered by hand, or is no longer"),
        db.atomic(),
    ):
        site.store.settle_within(flag, None)
    assert site.row() == before


def test_a_token_guards_its_own_flags_only(site):
    site.raise_("a")
    site.raise_("b")
    (a,), (b,) = site.claim(1), site.claim(1)
    with site.store.connections.write():
        assert site.store.lower([a.id, b.id], a.token) == (1, 0)
    assert site.row("b")["state"] == "claimed"


def test_two_settlings_of_one_claim_count_once(site):
    flag = claimed(site, bumped=False)
    assert site.lower(flag) == (1, 0)
    assert site.lower(flag) == (0, 0)

"""What people ask for: lower, discard, retry, find, count."""

import json
import sqlite3
import sys

import pytest
from verbs import HOUR, HOW, NOW, Site, bring, picked

from flagsweep import ConfigError
from flagsweep.config import SECOND
from flagsweep.sweep.outcomes import Parked
from flagsweep.sweep.records import Records


@pytest.fixture
def site(db_path):
    site = Site(db_path)
    yield site
    site.close()


@pytest.mark.parametrize("state", HOW)
def test_lowering_by_hand_takes_a_flag_down_in_whatever_state(site, state):
    bring(site, state)
    was = site.row()["state"]
    assert site.flags.lower("work", "k") is True
    assert not site.is_up()
    assert site.history()[-1] == ("lowered by hand", f"was {was}")
    assert site.flags.lower("work", "k") is False


def test_lowering_by_hand_takes_the_very_flag(site):
    site.raise_("a")
    site.raise_("A")
    site.raise_("a", kind="other")
    site.flags.lower("work", "a")
    assert [(flag.kind, flag.key) for flag in site.flags.find()] == [("work", "A"), ("other", "a")]


def test_a_discard_by_an_old_id_cannot_hit_a_newer_flag(site):
    site.die()
    old = site.row()["id"]
    assert site.flags.discard(old) == 1
    site.die()
    assert site.flags.discard(old) == 0
    assert site.row()["state"] == "dead"


def test_a_discard_drops_dead_flags_alone_and_keeps_a_line_of_history(site):
    site.die()
    for key in ("waiting", "claimed"):
        site.raise_(key, due=0 if key == "claimed" else 1)
    site.claim()
    assert site.flags.discard(reason="no such user") == 1
    assert sorted(flag.key for flag in site.flags.find()) == ["claimed", "waiting"]
    assert site.history() == [("discarded", "no such user")]


def test_a_retry_lets_a_dead_flag_wait_from_scratch(site):
    site.die()
    site.ask("UPDATE flagsweep_flag SET crashes = 3, suspect = 1")
    site.clock.advance(7)
    assert site.flags.retry() == 1
    row = site.row()
    assert picked(row, "state", "attempts", "crashes", "suspect", "died_at") == ("waiting", 0, 0, 0, None)
    assert row["due_at"] == 7 * SECOND


def test_a_retry_makes_a_flag_that_backs_off_due_now_and_touches_no_other(site):
    site.raise_()
    site.fail()
    site.raise_("later", due=HOUR)
    site.raise_("claimed")
    site.claim()
    others = [site.row("later"), site.row("claimed")]
    assert site.flags.retry() == 1
    assert picked(site.row(), "attempts", "due_at") == (0, 0)
    assert [site.row("later"), site.row("claimed")] == others


@pytest.mark.parametrize("by", ["id", "ids", "kind", "key", "all"])
@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_retry_and_discard_choose_by_id_kind_and_key(site, verb, by):
    for kind, key in (("work", "a"), ("work", "b"), ("other", "a")):
        site.raise_(key, kind=kind)
        site.settle(site.claim_one(kind=kind), Parked("x"))
    ids = [flag.id for flag in site.flags.find()]
    chosen, expected = {
        "id": ({"id": ids[1]}, 1),
        "ids": ({"id": ids[:2]}, 2),
        "kind": ({"kind": "work"}, 2),
        "key": ({"kind": "work", "key": "a"}, 1),
        "all": ({}, 3),
    }[by]
    assert getattr(site.flags, verb)(**chosen) == expected


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 has no setlimit before Python 3.11")
@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_retry_and_discard_take_more_flags_than_a_statement_takes_variables(site, verb):
    site.handler.raise_many([(n,) for n in range(1, 3101)])
    site.ask("UPDATE flagsweep_flag SET state = 'dead'")
    with site.flags.database.connection_context():
        site.flags.database.connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 3050)
        assert getattr(site.flags, verb)() == 3100


def test_find_meets_all_that_is_given_lowest_id_first(site):
    site.flags.handler("mail", lane="mail")(lambda: None)
    ids = {}
    for kind, key, due in (("work", "a", -1), ("mail", "a", 5), ("nobody", "b", -1), ("work", "b", 5)):
        ids[kind, key] = site.raise_(key, kind=kind, due=due).id
    site.claim()

    def found(**criteria):
        return [flag.id for flag in site.flags.find(**criteria)]

    assert found() == sorted(ids.values())
    assert found(kind="work") == [ids["work", "a"], ids["work", "b"]]
    assert found(key="a", kind="mail") == [ids["mail", "a"]]
    assert found(state="claimed") == [ids["work", "a"]]
    assert found(lane="mail") == [ids["mail", "a"]]
    assert found(lane="-") == [ids["nobody", "b"]]
    assert found(lane="none such") == []
    assert found(due=True) == [ids["nobody", "b"]]
    assert found(state="waiting", due=False) == [ids["mail", "a"], ids["work", "b"]]
    assert found(id=[ids["mail", "a"], 999]) == [ids["mail", "a"]]
    assert found(limit=2) == sorted(ids.values())[:2]
    assert found(limit=0) == []


@pytest.mark.parametrize("bad", [{"state": "up"}, {"limit": -1}, {"limit": "x"}])
def test_a_bad_question_is_refused_by_name(site, bad):
    with pytest.raises(ConfigError, match=f"{next(iter(bad))} must be"):
        site.flags.find(**bad)


def test_status_counts_by_lane_and_shows_what_nobody_handles(site):
    site.flags.handler("mail", lane="mail")(lambda: None)
    site.raise_("due", due=-3 * SECOND)
    site.raise_("later", due=HOUR)
    site.raise_("x", kind="nobody", due=-SECOND)
    site.raise_("y", kind="mail")
    site.claim(kind="mail")
    site.raise_("z", kind="mail")
    site.settle(site.claim_one(kind="mail"), Parked("x"))
    empty = {"waiting": 0, "due": 0, "claimed": 0, "dead": 0, "oldest_due_s": None}
    assert site.flags.status()["lanes"] == {
        "default": {**empty, "waiting": 2, "due": 1, "oldest_due_s": 3.0},
        "mail": {**empty, "claimed": 1, "dead": 1},
        "-": {**empty, "waiting": 1, "due": 1, "oldest_due_s": 1.0},
    }


def test_a_flag_is_shown_as_json_takes_it(site):
    site.raise_()
    (flag,) = site.flags.find()
    shown = json.loads(json.dumps(flag.to_dict()))
    assert (shown["payload"], shown["due_at"], shown["lane"]) == ({"n": 1}, "2026-01-01T00:00:00+00:00", "default")


def test_history_is_kept_until_it_is_pruned(site):
    site.die()
    site.flags.discard()
    records = Records(site.flags.connections)
    assert records.prune({"discarded": 1.0}, 10, NOW + SECOND) == 0
    assert records.prune({"discarded": 1.0}, 10, NOW + SECOND + 1) == 1
    assert site.history() == []

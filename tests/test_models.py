"""The site's verbs, case by case as docs/states tells them: what a raise does, and what a verb leaves behind."""

import json
import sqlite3
from contextlib import closing

import pytest
from peewee import SqliteDatabase
from rig import plain
from verbs import HOUR, HOW, MINUTE, NOW, Site, bring, free, picked

from flagsweep import DatabaseAway, FlagSweep, NotReady
from flagsweep.config import SECOND
from flagsweep.databases.raising import Terms
from flagsweep.sweep.outcomes import Parked, Snoozed


@pytest.fixture
def site(db_path):
    site = Site(db_path)
    yield site
    site.close()


def test_a_new_flag_waits_and_is_due_as_its_raise_says(site):
    raised = site.raise_(due=MINUTE, now=5, priority=7)
    row = site.row()
    assert raised == (row["id"], "new")
    assert picked(row, "state", "due_at", "raised_at", "priority", "generation", "attempts") == ("waiting", MINUTE, 5, 7, 1, 0)
    assert free(row)


@pytest.mark.parametrize("state", HOW)
def test_every_raise_writes_the_row_and_bumps_its_generation_whatever_its_state(site, state):
    bring(site, state)
    before = site.row()
    raised = site.raise_(now=99, due=99, payload='{"n":2}')
    after = site.row()
    assert raised == (before["id"], HOW[state])
    assert after["generation"] == before["generation"] + 1
    assert picked(after, "raised_at", "payload") == (99, '{"n":2}')


@pytest.mark.parametrize("state", HOW)
def test_raise_many_does_to_a_flag_what_raise_does(tmp_path, state):
    rows = []
    for many in (False, True):
        site = Site(tmp_path / f"{many}.db")
        bring(site, state)
        if many:
            chunk = json.dumps([["k", '{"n":3}']])
            assert site.verbs.raise_many("work", [chunk], Terms(5, NOW + 70, NOW + 60)) == {HOW[state]: 1}
        else:
            site.raise_(due=70, now=60, payload='{"n":3}', priority=5)
        rows.append({name: value for name, value in site.row().items() if name != "claim_token"})
        site.close()
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("old", "new"), [(50, 10), (10, 50), (10, 10)])
def test_raised_again_while_it_waits_the_earlier_due_time_wins(site, old, new):
    site.raise_(due=old)
    site.raise_(due=new)
    assert site.row()["due_at"] == min(old, new)


@pytest.mark.parametrize("new", [1, 2 * HOUR])
def test_raised_again_while_it_backs_off_the_backoff_stays(site, new):
    site.raise_()
    site.fail()
    site.raise_(due=new)
    assert picked(site.row(), "state", "attempts", "due_at", "error") == ("waiting", 1, 10 * SECOND, "boom")


def test_a_flag_that_snoozes_takes_the_earlier_due_time(site):
    """No attempt was counted, so it does not back off: new work need not wait for a snooze."""
    site.raise_()
    site.settle(site.claim_one(), Snoozed(3600))
    site.raise_(due=5)
    assert site.row()["due_at"] == 5


@pytest.mark.parametrize("new", [-50, 70, HOUR])
def test_the_first_raise_while_it_runs_decides_when_it_runs_again(site, new):
    site.raise_()
    site.claim()
    site.raise_(due=new)
    assert picked(site.row(), "state", "due_at") == ("claimed", new)


@pytest.mark.parametrize(("first", "second"), [(50, 10), (10, 50)])
def test_of_two_raises_while_it_runs_the_earlier_due_time_wins(site, first, second):
    site.raise_(due=-5)
    site.claim()
    site.raise_(due=first)
    site.raise_(due=second)
    assert site.row()["due_at"] == min(first, second)


def test_a_raise_revives_a_dead_flag_from_scratch(site):
    site.die()
    site.raise_(due=HOUR)
    row = site.row()
    assert picked(row, "state", "attempts", "crashes", "suspect", "died_at", "due_at") == ("waiting", 0, 0, 0, None, HOUR)


@pytest.mark.parametrize(
    ("state", "old", "new", "expected"),
    [
        ("waiting", 5, 1, 5),
        ("waiting", 1, 5, 5),
        ("claimed", 5, 1, 1),
        ("dead", 5, 1, 1),
    ],
)
def test_the_higher_priority_wins_while_it_waits_and_the_new_one_when_it_runs_or_is_dead(site, state, old, new, expected):
    site.raise_(priority=old)
    if state != "waiting":
        claimed = site.claim_one(priority=old)
    if state == "dead":
        site.settle(claimed, Parked("x"))
    site.raise_(priority=new)
    assert site.row()["priority"] == expected


def test_ids_never_repeat(site):
    first = site.raise_("a").id
    site.verbs.lower_one("work", "a", NOW)
    assert site.raise_("a").id > first


def test_a_raise_rolls_back_with_the_sites_transaction(site):
    site.raise_("old")
    before = site.row("old")
    with site.flags.database.connection_context(), site.flags.database.atomic() as transaction:
        site.raise_("new")
        site.raise_("old")
        site.handler.raise_many([(1,), (2,)])
        transaction.rollback()
    assert site.ask("SELECT key FROM flagsweep_flag") == [{"key": "old"}]
    assert site.row("old") == before


def test_a_raise_commits_with_the_sites_transaction_and_is_seen_by_nobody_before(site):
    with site.flags.database.connection_context(), site.flags.database.atomic():
        site.raise_()
        assert not site.is_up()
    assert site.is_up()


def test_a_raise_within_a_savepoint_that_is_rolled_back_is_gone_alone(site):
    with site.flags.database.connection_context(), site.flags.database.atomic():
        site.raise_("kept")
        with site.flags.database.atomic() as savepoint:
            site.raise_("gone")
            savepoint.rollback()
    assert (site.is_up("kept"), site.is_up("gone")) == (True, False)


VERBS = {
    "raise": lambda site: site.handler.raise_flag(1),
    "raise_many": lambda site: site.handler.raise_many([(1,)]),
    "find": lambda site: site.flags.find(),
    "status": lambda site: site.flags.status(),
    "retry": lambda site: site.flags.retry(kind="work"),
    "discard": lambda site: site.flags.discard(kind="work"),
    "lower": lambda site: site.flags.lower("work", "k"),
    "sweep": lambda site: site.flags.sweep(),
}


WRITING = [verb for verb in VERBS if verb not in ("find", "status", "sweep")]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_a_verb_leaves_the_connection_as_it_found_it(site, verb, is_open):
    db = site.flags.database
    if is_open:
        db.connect()
    before = db._state.conn
    VERBS[verb](site)
    assert db._state.conn is before
    assert (db.is_closed(), site.store.connections.engine.is_closed()) == (not is_open, True)


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_a_verb_that_fails_leaves_the_connection_as_it_found_it(site, is_open):
    site.ask("DROP TABLE flagsweep_flag")
    if is_open:
        site.flags.database.connect()
    for verb in WRITING:
        with pytest.raises(NotReady):
            VERBS[verb](site)
    assert site.flags.database.is_closed() is not is_open


@pytest.mark.parametrize("own", [False, True], ids=["path", "the site's own database"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_database_that_is_not_there_is_named_by_its_absolute_path_and_not_made(tmp_path, monkeypatch, own, verb):
    site = Site.__new__(Site)
    monkeypatch.chdir(tmp_path)
    site.flags = FlagSweep(SqliteDatabase("site.db") if own else "site.db")
    site.handler = site.flags.handler("work")(lambda n: None)
    monkeypatch.chdir("/")
    with pytest.raises(NotReady, match=f"no database {tmp_path}/site.db: run 'flagsweep init'"):
        VERBS[verb](site)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_database_without_tables_is_named_with_the_command(db_path, verb):
    sqlite3.connect(db_path).close()
    db_path.touch()
    site = Site.__new__(Site)
    site.flags = FlagSweep(db_path)
    site.handler = site.flags.handler("work")(lambda n: None)
    with pytest.raises(NotReady, match=f"{db_path}.*run 'flagsweep init'"):
        VERBS[verb](site)


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_that_is_no_database_is_told_as_such(db_path, verb):
    db_path.write_bytes(b"no database at all. " * 100)
    site = Site.__new__(Site)
    site.flags = FlagSweep(db_path)
    site.handler = site.flags.handler("work")(lambda n: None)
    with pytest.raises(NotReady, match=f"{db_path}.*is no SQLite database: check the path"):
        VERBS[verb](site)


@pytest.mark.parametrize("verb", WRITING)
def test_a_database_that_somebody_else_holds_is_told_as_such(db_path, verb):
    FlagSweep(db_path).init()
    site = Site.__new__(Site)
    site.flags = FlagSweep(SqliteDatabase(db_path, timeout=0))
    site.handler = site.flags.handler("work")(lambda n: None)
    site.handler.raise_flag(-1)
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead', died_at = 1")
    with closing(sqlite3.connect(db_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseAway, match=f"{db_path}: database is locked"):
            VERBS[verb](site)
    VERBS[verb](site)

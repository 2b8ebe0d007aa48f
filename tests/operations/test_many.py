"""Verbs over many flags: in short transactions, between which the site finds its turn, on every database."""

import os
import re
import signal
import sqlite3
import sys
import threading
import time
from contextlib import closing

import pytest
from clients import at_once
from peewee import BooleanField, Model
from rig import count, plain

from flagsweep import FlagSweep
from flagsweep.config import SECOND
from flagsweep.databases import pages
from flagsweep.models import Flag
from flagsweep.sweep.records import Records

pytestmark = pytest.mark.long

MANY = 4500


@pytest.fixture
def flags(flags_anywhere):
    flags_anywhere.handler("work", max_attempts=1)(lambda n: None)
    return flags_anywhere


def bury(flags, client, many=MANY):
    """Have many dead flags, as quickly as can be."""
    flags.handlers["work"].raise_many([{"n": n} for n in range(many)])
    client.ask("UPDATE flagsweep_flag SET state = 'dead', died_at = 1, attempts = 8")


def transactions(flags, monkeypatch):
    """Return a list that gets, for each page, how many ids it was for."""
    sizes, page = [], pages._Run._in_a_page

    def noted(run, ids):
        sizes.append(len(ids))
        return page(run, ids)

    monkeypatch.setattr(pages._Run, "_in_a_page", noted)
    return sizes


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_many_are_done_in_short_transactions_and_each_once(flags, client, monkeypatch, verb):
    bury(flags, client)
    pages, told = transactions(flags, monkeypatch), []
    assert getattr(flags, verb)(kind="work", progress=told.append) == MANY
    assert len(pages) > 2 and sum(pages) == MANY and max(pages) <= 2000
    assert told == sorted(told) and told[-1] == MANY
    left = client.ask("SELECT count(*) FROM flagsweep_flag WHERE state = 'waiting' AND attempts = 0")[0][0]
    lines = client.ask("SELECT count(*), count(DISTINCT flag) FROM flagsweep_history WHERE event = 'discarded'")[0]
    assert (left, lines) == ((MANY, (0, 0)) if verb == "retry" else (0, (MANY, MANY)))
    assert getattr(flags, verb)() == 0


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_within_a_transaction_of_the_caller_all_is_a_part_of_that_one(flags, client, verb):
    bury(flags, client, 3000)
    with pytest.raises(ZeroDivisionError), flags.database.connection_context(), flags.database.atomic():
        assert getattr(flags, verb)() == 3000
        raise ZeroDivisionError
    assert client.ask("SELECT count(*) FROM flagsweep_flag WHERE state = 'dead'") == [(3000,)]
    assert client.ask("SELECT count(*) FROM flagsweep_history") == [(0,)]


def test_two_that_discard_at_once_both_end_and_each_flag_has_one_line(flags, client):
    """On MySQL, whose transactions read what was there when they began, too."""
    bury(flags, client)
    done = at_once(flags, flags.discard, lambda: flags.discard(kind="work"))
    assert sum(done) == MANY
    assert client.ask("SELECT count(*), count(DISTINCT flag) FROM flagsweep_history") == [(MANY, MANY)]


def test_two_that_discard_within_transactions_of_their_own_end(flags, client):
    bury(flags, client, 300)

    def within():
        with flags.database.connection_context(), flags.database.atomic():
            return flags.discard()

    assert sum(at_once(flags, within, within)) == 300
    assert client.ask("SELECT count(DISTINCT flag) FROM flagsweep_history") == [(300,)]


def test_what_ends_it_between_two_transactions_leaves_the_rest_for_the_next_call(flags, client):
    bury(flags, client)

    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flags.discard(progress=stop)
    gone = client.ask("SELECT count(*) FROM flagsweep_history")[0][0]
    assert 0 < gone < MANY
    assert client.ask("SELECT count(*) FROM flagsweep_flag") == [(MANY - gone,)]
    assert flags.discard() == MANY - gone


@pytest.mark.parametrize("url", ["postgresql", "mysql"], indirect=True)
@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_what_an_open_transaction_holds_is_left_out_and_waited_for_by_nobody(flags, client, verb):
    bury(flags, client, 100)
    held = client.ask("SELECT min(id) FROM flagsweep_flag")[0][0]
    client.ask("BEGIN")
    client.ask("UPDATE flagsweep_flag SET priority = 1 WHERE id = ?", held)
    assert getattr(flags, verb)() == 99
    client.ask("COMMIT")
    assert getattr(flags, verb)() == 1


@pytest.mark.parametrize("atomic", [False, True])
def test_an_own_row_is_lowered_with_its_flag_and_a_table_that_is_gone_hinders_no_other(flags, client, atomic):
    class Visitor(Model):
        owed = BooleanField(default=True)

        class Meta:
            database = flags.database
            table_name = "visitor"

    class Ghost(Visitor):
        class Meta:
            table_name = "ghost"

    with flags.database.connection_context():
        Visitor.create_table()
        Visitor.insert_many([{"owed": True}] * 3).execute()
    flags.when(Visitor.owed, kind="visit", max_attempts=1)(lambda row: 1 / 0)
    ghosts = flags.when(Ghost.owed, kind="ghost", max_attempts=1)(lambda row: None)
    assert flags.sweep(lane="default")["dead"] == 3
    ghosts.raise_flag(1)
    client.ask("UPDATE flagsweep_flag SET state = 'dead', died_at = 1")
    if atomic:
        with flags.database.connection_context(), flags.database.atomic():
            assert flags.discard() == 4
    else:
        assert flags.discard() == 4
    assert client.ask("SELECT count(*) FROM visitor WHERE owed") == [(0,)]
    assert (flags.find(), client.ask("SELECT count(*) FROM flagsweep_history WHERE event = 'discarded'")) == ([], [(4,)])


def test_chores_over_many_are_done_in_short_transactions(flags, client, monkeypatch):
    flags.handlers["work"].raise_many([{"n": n} for n in range(MANY)])
    ahead, now = 10**15, flags.clock.now()
    client.ask("UPDATE flagsweep_flag SET due_at = due_at + ?, raised_at = raised_at + ?", ahead, ahead)
    pages = transactions(flags, monkeypatch)
    assert flags.store.heal_clock(now, now + 10**16) == MANY
    assert len(pages) > 2
    flags.connections.close_engine()
    client.ask("UPDATE flagsweep_flag SET state = 'claimed', claimed_by = 77, claim_token = 1, claimed_generation = generation")
    pages.clear()
    assert flags.store.release_orphans(now) == MANY
    assert len(pages) > 2
    client.ask("UPDATE flagsweep_flag SET state = 'dead', died_at = 1")
    assert flags.discard() == MANY
    assert Records(flags.connections).prune({"discarded": 0.0}, MANY, now + SECOND) == MANY
    assert client.ask("SELECT count(*) FROM flagsweep_history") == [(0,)]
    flags.connections.close_engine()


@pytest.mark.parametrize("url", ["postgresql", "mysql"], indirect=True)
def test_a_flag_that_the_site_holds_keeps_no_claims_of_the_dead_from_being_freed(flags, client):
    flags.handlers["work"].raise_many([{"n": n} for n in range(20)])
    client.ask("UPDATE flagsweep_flag SET state = 'claimed', claimed_by = 77, claim_token = 1, claimed_generation = generation")
    held = client.ask("SELECT min(id) FROM flagsweep_flag")[0][0]
    client.ask("BEGIN")
    client.ask("UPDATE flagsweep_flag SET priority = 0, generation = generation + 1 WHERE id = ?", held)
    assert flags.store.release_orphans(flags.clock.now()) == 19
    client.ask("COMMIT")
    assert flags.store.release_orphans(flags.clock.now()) == 1
    flags.connections.close_engine()


@pytest.mark.parametrize("verb", ["retry", "discard"])
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_site_finds_its_turn_while_many_are_done(flags, client, db_path, verb):
    """Its longest wait is a small part of what the whole takes: in one transaction it would be all of it."""
    bury(flags, client, 30_000)
    plain(db_path, "CREATE TABLE shop (n INTEGER)")
    took, over = [], threading.Event()

    def insert():
        with closing(sqlite3.connect(db_path, isolation_level=None, timeout=20)) as site:
            while not over.wait(0.005):
                began = time.monotonic()
                site.execute("INSERT INTO shop VALUES (1)")
                took.append(time.monotonic() - began)

    site = threading.Thread(target=insert)
    site.start()
    began = time.monotonic()
    assert getattr(flags, verb)(kind="work") == 30_000
    whole = time.monotonic() - began
    over.set()
    site.join()
    assert len(took) > 10 and max(took) < whole / 3


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("how", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow), "SIGKILL"])
def test_a_command_that_is_stopped_says_how_far_it_came_and_the_next_goes_on(flags, client, db_path, spawn, env, until, how):
    bury(flags, client, 40_000)
    child = spawn(
        *(sys.executable, "-m", "flagsweep", "discard", "--kind", "work", "--yes"),
        env={**env, "FLAGSWEEP_DATABASE": str(db_path)},
    )
    until(lambda: count(db_path, "flagsweep_history") > 0)
    os.kill(child.pid, getattr(signal, how))
    code, gone = child.wait(20), count(db_path, "flagsweep_history")
    assert 0 < gone < 40_000 and count(db_path) == 40_000 - gone
    if how == "SIGKILL":
        assert code == -signal.SIGKILL
    else:
        assert code == 1
        said = child.log.read_text()
        assert f"stopped by {how}: {gone:,} of 40000 flags are discarded; the same command goes on" in said
    assert flags.discard(kind="work") == 40_000 - gone


def test_retry_reads_the_dead_of_a_kind_through_their_index(tmp_path):
    flags = FlagSweep(tmp_path / "site.db")
    flags.init()
    where = [Flag.state == "dead", Flag.kind == "work", Flag.id > 7]
    with flags.connections.borrowed() as db:
        sql, parameters = Flag.select(Flag.id).where(*where).order_by(Flag.id).limit(10).bind(db).sql()
        steps = [row[3] for row in db.execute_sql(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()]
    assert len(steps) == 1 and re.search(r"flagsweep_dead \(kind=\? AND (row)?id>\?\)", steps[0])

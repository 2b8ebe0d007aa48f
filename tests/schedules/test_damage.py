"""What goes wrong with one schedule hinders no other: rows that a hand has damaged, flags that a site's transaction holds."""

import time
from itertools import product

import pytest
from clients import at_once
from rig import NEW_YEAR
from sites import DAY, HOUR, MINUTE, fire

from flagsweep.config import SECOND
from flagsweep.models import Schedule

GARBAGE = ("'x'", "-1", "4611686018427387904", "1.5", "9e999", "CAST(X'ff' AS TEXT)", "X'00ff'")
COLUMNS = sorted(set(Schedule._meta.fields) - {"name"})


def others(site):
    """Have two more schedules of every hour, whose names come before and after ``work``."""
    for name in ("aaa", "zzz"):
        site.declare(name).cron("0 * * * *", name=name)


@pytest.mark.long
def test_garbage_in_any_column_hinders_no_other_schedule(site, client):
    """Nor does anybody wait for a time that has passed and stays: that would be a thousand looks a second."""
    site.handler.cron("0 * * * *", missed="all")
    others(site)
    site.sweep()
    whole = {name: value for name, value in site.row().__data__.items() if name != "name"}
    firing, taken = site.flags._duties().firing(), set()
    for column, garbage in product(COLUMNS, GARBAGE):
        site.set(**whole)
        try:
            client.ask(f"UPDATE flagsweep_schedule SET {column} = {garbage} WHERE name = 'work'")
        except Exception:  # The database does not take it: each driver says so in its own way.
            continue
        taken.add(column)
        site.bump()
        site.clock.advance(HOUR)
        assert {kind for _, kind in firing.fire()} >= {"aaa", "zzz"}, (column, garbage)
        firing.fire()
        assert firing.next_at(site.clock.now()) > site.clock.now() + 0.1 * SECOND, (column, garbage)
    site.flags.connections.close_engine()
    assert taken == set(COLUMNS)


@pytest.mark.parametrize("damage", ["{", "null", "7", '"x"', "[[1]]"])
def test_a_consumer_starts_although_what_a_hand_changed_is_not_known_any_more(site, damage):
    site.handler.cron("0 * * * *")
    site.sweep()
    site.set(changed=damage)
    site.begin()
    site.handler.cron("30 * * * *")
    assert site.sweep(HOUR // 2) == [] and site.sweep(HOUR) == [("01:30", 0)]


def test_a_flag_that_a_sites_transaction_holds_holds_up_no_other_schedule(site, client):
    if site.flags.connections.dialect.one_writer:
        pytest.skip("there is one writer: who holds it holds all")
    site.handler.cron("0 * * * *")
    others(site)
    site.sweep()
    site.clock.advance(HOUR)
    firing = site.flags._duties().firing()
    client.ask("BEGIN")
    client.ask(
        "INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) VALUES ('work', '{}', '{}', ?, ?)", NEW_YEAR, NEW_YEAR
    )
    began = time.monotonic()
    assert {kind for _, kind in firing.fire()} == {"aaa", "zzz"}
    assert time.monotonic() - began < 3
    assert firing.next_at(site.clock.now()) > site.clock.now()
    client.ask("COMMIT")
    site.clock.advance(MINUTE)
    assert firing.fire() == {(0, "work")}
    site.flags.connections.close_engine()
    assert site.sweep() == [("01:00", 0)] * 3


@pytest.mark.parametrize("changes", [{"missed": "skip"}, {"arguments": {"n": 7}}, {"tz": "UTC", "cap": 5}])
def test_what_is_due_is_not_forgotten_where_the_code_changes_something_else(site, changes):
    """Nobody was there at four; the deploy at five changes what is to be done, not when."""
    site.handler.cron("0 4 * * *", grace="2h")
    site.sweep()
    site.begin()
    site.handler.cron("0 4 * * *", grace="2h", **changes)
    assert site.sweep(5 * HOUR) == [("04:00", 0)]


def test_a_consumer_starts_although_a_hand_has_damaged_what_the_code_changes(site):
    site.handler.cron("0 * * * *")
    others(site)
    site.sweep()
    site.set(zone="Mars/Olympus", last_at=NEW_YEAR, changed='["zone"]')
    site.begin()
    others(site)
    site.handler.cron("30 * * * *")
    assert site.sweep(HOUR) == [("01:00", 0)] * 2


def test_a_spec_that_a_hand_has_changed_stays_with_its_sort(site):
    site.handler.cron("0 4 * * *")
    site.sweep()
    site.set(spec="0 5 * * *", changed='["spec"]', next_at=NEW_YEAR + 5 * HOUR * SECOND)
    site.begin()
    site.handler.every("1h")
    assert site.sweep() == [] and (site.row().sort, site.row().spec) == ("cron", "0 5 * * *")
    assert site.sweep(5 * HOUR) == [("05:00", 0)]


def test_consumers_that_start_at_once_declare_each_schedule_once(site):
    for number in range(20):
        site.handler.every("1h", name=f"s{number}", arguments={"n": number})
    starts = at_once(site.flags, *[site.flags._duties().firing] * 6)
    assert len(starts) == 6 and len(site.rows()) == 20


@pytest.mark.parametrize("back", [90, HOUR, DAY])
def test_a_moment_that_has_fired_does_not_fire_again_where_the_clock_is_set_back(site, back):
    site.handler.at("2026-01-01 09:00")
    site.sweep()
    assert site.sweep(9 * HOUR) == [("09:00", 0)]
    site.clock.advance(-back)
    site.begin()
    site.handler.at("2026-01-01 09:00")
    assert [site.sweep(step) for step in (0, back, MINUTE, 3 * DAY)] == [[], [], [], []]
    assert site.rows() == []


def test_all_that_is_not_caught_up_is_told_of(site):
    site.handler.cron("* * * * *", missed="all", cap=1000)
    site.sweep()
    site.clock.advance(1500 * MINUTE)
    fire(site.flags)
    assert (site.row().skipped, len(site.flags.find(limit=None))) == (500, 1000)

"""A schedule is a row that raises an ordinary flag at its times: each once, whoever fires, and what was missed by its policy."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from clients import at_once
from rig import NEW_YEAR, only
from sites import DAY, HOUR, MINUTE, fire

from flagsweep import ConfigError, FlagSweep, SignatureError
from flagsweep.config import SECOND


def test_a_schedule_fires_at_its_times_and_its_handler_is_told_for_which(site):
    site.handler.cron("*/10 * * * *", tz="Asia/Seoul")
    assert site.sweep() == [], "a schedule that is new does not owe its past"
    assert site.sweep(9 * MINUTE) == []
    assert site.sweep(MINUTE) == [("09:10", 0)]
    assert site.ran[0][2].tzinfo.key == "Asia/Seoul"
    assert site.sweep(1) == [] and site.sweep(10 * MINUTE) == [("09:20", 0)]
    assert site.flags.find() == []
    row = site.row()
    assert (row.outcome, row.next_at) == ("succeeded", NEW_YEAR + 30 * MINUTE * SECOND)


def test_every_counts_from_its_start_and_does_not_drift(site):
    site.handler.every("10m")
    site.sweep(7)
    assert site.sweep(10 * MINUTE + 3) == [("00:10", 0)]
    assert site.row().next_at == NEW_YEAR + (7 + 20 * MINUTE) * SECOND


def test_once_fires_one_time_and_is_gone(site):
    site.handler.at(datetime(2026, 1, 1, 9, tzinfo=UTC), arguments={"n": 5})
    site.sweep()
    assert site.sweep(9 * HOUR) == [("09:00", 0)] and site.ran[0][1] == 5
    assert (site.row().next_at, site.row().outcome) == (None, "succeeded")
    site.begin()
    site.handler.at(datetime(2026, 1, 1, 9, tzinfo=UTC), arguments={"n": 5})
    assert site.sweep(9 * HOUR) == []
    assert [site.sweep(2 * DAY), site.sweep(HOUR)] == [[], []] and site.rows() == [], "its moment has passed"


# What was missed.


@pytest.mark.parametrize(
    ("plan", "late", "runs", "skipped"),
    [
        ({"missed": "once"}, 30, [("03:00", 2)], 0),
        ({"missed": "skip"}, 30, [("03:00", 0)], 2),
        ({"missed": "skip"}, 90, [], 3),
        ({"missed": "skip", "grace": "2m"}, 90, [("03:00", 0)], 2),
        ({"missed": "all"}, 30, [("01:00", 0), ("02:00", 0), ("03:00", 0)], 0),
        ({"missed": "all", "cap": 2}, 30, [("02:00", 0), ("03:00", 0)], 1),
    ],
)
def test_what_nobody_was_there_for_is_caught_up_as_the_policy_says(site, client, plan, late, runs, skipped):
    site.handler.cron("0 * * * *", **plan)
    site.sweep()
    assert site.sweep(3 * HOUR + late) == runs
    lines = client.ask("SELECT reason FROM flagsweep_history WHERE event = 'skipped'")
    assert lines == ([(f"{skipped} times of the schedule work were not run: missed='{plan['missed']}'",)] if skipped else [])
    assert site.row().skipped == skipped
    assert site.sweep() == []


def test_occurrences_add_up_until_a_run_that_began_after_them_has_succeeded(site):
    site.handler.cron("0 * * * *")
    work, tries = site.handler.function, iter([True, False])

    def fails_once(n=0, flag=None):
        work(n, flag)
        if next(tries, False):
            raise ValueError("no")

    site.handler.function = fails_once
    site.sweep()
    assert site.sweep(2 * HOUR) == [("02:00", 1)]
    assert site.sweep(3 * HOUR) == [("05:00", 4)], "01:00 to 05:00, all but the last"
    assert site.sweep(HOUR) == [("06:00", 0)]


@pytest.mark.parametrize("atomic", [False, True])
def test_an_occurrence_that_comes_while_its_flag_runs_runs_once_more_and_stands_for_itself(site, atomic):
    handler = site.declare("slow", atomic=atomic)
    handler.cron("0 * * * *", name="slow")
    other = FlagSweep(site.flags.settings.database, clock=site.clock, state_dir=site.flags.settings.state_dir)
    site.sweep()
    run, once = handler.function, iter([True])

    def while_it_fires(n=0, flag=None):
        run(n, flag)
        if next(once, False):
            site.clock.advance(2 * HOUR)
            if atomic and site.flags.connections.dialect.one_writer:
                return
            fire(other)

    handler.function = while_it_fires
    if atomic and site.flags.connections.dialect.one_writer:
        pytest.skip("an atomic handler holds the only writer")
    assert site.sweep(HOUR) == [("01:00", 0), ("03:00", 1)]


def test_a_raise_by_hand_meets_the_flag_of_the_schedule_and_leaves_what_that_wrote(site):
    site.handler.cron("0 * * * *")
    site.sweep()
    site.clock.advance(HOUR)
    fire(site.flags)
    site.handler.raise_flag()
    flag = only(site.flags)
    assert (flag.generation, flag.schedule, flag.missed) == (2, "work", 0)
    assert site.sweep() == [("01:00", 0)]
    site.handler.raise_flag()
    assert site.sweep() == [(None, 0)]


def test_a_night_that_died_does_not_end_all_nights(site):
    handler = site.declare("nightly", max_attempts=1)
    handler.cron("0 4 * * *", name="nightly")
    run = handler.function
    handler.function = lambda n=0, flag=None: 1 / 0
    site.sweep()
    site.sweep(5 * HOUR)
    assert only(site.flags).state == "dead" and site.row("nightly").outcome == "dead"
    handler.function = run
    assert site.sweep(DAY) == [("04:00", 1)]


def test_occurrences_of_what_is_not_unique_are_flags_of_their_own(site):
    site.declare("log", unique=False).cron("0 * * * *", name="hourly", missed="all")
    site.sweep()
    site.clock.advance(2 * HOUR)
    fire(site.flags)
    assert [flag.key for flag in site.flags.find()] == [f"@hourly/2026-01-01T0{hour}:00:00+00:00" for hour in (1, 2)]


# Several consumers.


@pytest.mark.long
def test_an_occurrence_is_fired_by_one_of_many(site):
    site.handler.cron("* * * * *", missed="all")
    site.sweep()
    firings = [site.flags._duties().firing() for _ in range(4)]
    for _ in range(20):
        site.clock.advance(MINUTE)
        at_once(site.flags, *[firing.fire for firing in firings])
    site.flags.connections.close_engine()
    flags = site.flags.find()
    assert len(flags) == 20 and {flag.generation for flag in flags} == {1}


# A wrong clock.


@pytest.mark.long
@pytest.mark.parametrize("jump", [90, HOUR, DAY])
def test_what_a_clock_that_was_ahead_has_fired_is_not_fired_again(site, jump):
    site.handler.cron("*/10 * * * *", missed="all", cap=1000)
    site.sweep()
    seen = [moment for moment, _ in site.sweep(30 * MINUTE)] + [moment for moment, _ in site.sweep(jump)]
    site.clock.advance(-jump)
    site.flags._duties().firing().mend()
    for _ in range(jump // (10 * MINUTE) + 2):
        seen += [moment for moment, _ in site.sweep(10 * MINUTE)]
    fired = [intended for _, _, intended, _ in site.ran]
    assert len(set(seen)) == min(len(seen), 144) and fired


def test_of_a_clock_that_was_years_ahead_nothing_is_believed(site):
    site.handler.cron("0 * * * *")
    site.sweep()
    site.sweep(10 * 365 * DAY)
    site.clock.advance(-10 * 365 * DAY)
    assert site.sweep() == []
    assert site.sweep(HOUR) == [("01:00", 0)]


# Declared in code, changed by hand.


def test_what_changed_in_the_code_is_written_over_and_what_is_declared_no_more_goes(site):
    site.handler.cron("0 * * * *")
    site.declare("other").every("1h", name="other")
    site.sweep()
    site.begin()
    site.handler.cron("30 * * * *", missed="skip")
    assert site.sweep(30 * MINUTE) == [], "what is new in the code owes no past"
    (row,) = site.rows()
    assert (row.spec, row.missed, row.next_at) == ("30 * * * *", "skip", NEW_YEAR + 90 * MINUTE * SECOND)


def test_another_application_on_the_database_leaves_its_schedules_alone(site):
    site.handler.cron("0 * * * *")
    site.sweep()
    site.set(module="another.application")
    site.begin()
    site.sweep(HOUR)
    assert site.row() is not None and site.ran, "and fires it where it has a handler of that kind"


def test_what_moved_to_another_module_belongs_to_that_from_the_next_start_on(site):
    """Else it would stay for ever once it is taken out there, and an application that loads the old module would take it out."""
    site.handler.cron("0 * * * *")
    site.sweep()
    site.set(module="work.of.old", changed='["missed"]', missed="skip")
    site.begin()
    site.handler.cron("0 * * * *")
    assert site.sweep(HOUR) == [("01:00", 0)], "nothing else has changed"
    assert (site.row().module, site.row().missed) == (__name__, "skip")
    site.begin()
    site.sweep()
    assert site.row() is None


def test_a_schedule_without_a_handler_does_not_fire_and_says_so(site, caplog):
    site.declare("gone").cron("0 * * * *", name="gone")
    site.sweep()
    site.set("gone", module="another.application")
    site.begin()
    assert site.sweep(HOUR) == [] and site.flags.find() == []
    assert "the schedule gone is due and does not fire: no handler here has the kind gone" in caplog.text
    assert site.row("gone").next_at == NEW_YEAR + HOUR * SECOND


@pytest.mark.parametrize(
    "damage", [{"spec": "every day"}, {"sort": "x"}, {"zone": "Mars/Olympus"}, {"missed": "twice"}, {"payload": "{"}, {"cap": -1}]
)
def test_a_row_that_was_damaged_by_hand_fires_nothing_and_hinders_no_other(site, damage, caplog):
    site.handler.cron("0 * * * *")
    site.declare("other").cron("0 * * * *", name="other")
    site.sweep()
    site.set("work", **damage)
    site.sweep(HOUR)
    assert ("other", 0) in [(kind, n) for kind, n, _, _ in site.ran]
    assert len(site.ran) == 1 and ("payload" in damage or "work cannot be" in caplog.text)


def test_two_schedules_may_not_have_one_name(site):
    site.handler.every("1h")
    with pytest.raises(ConfigError, match="there is a schedule 'work' already: give this one another name="):
        site.handler.cron("0 * * * *")
    site.handler.cron("0 * * * *", name="second", arguments=(2,))
    assert len(list(site.flags._handlers.schedules)) == 2


@pytest.mark.parametrize(
    ("declare", "error", "told"),
    [
        (lambda site: site.handler.every("often"), ConfigError, "every"),
        (lambda site: site.handler.cron("60 * * * *"), ConfigError, "minute"),
        (lambda site: site.handler.cron("0 0 31 2 *"), ConfigError, "never"),
        (lambda site: site.handler.cron("0 * * * *", missed="twice"), ConfigError, "missed must be 'once', 'skip' or 'all'"),
        (lambda site: site.handler.cron("0 * * * *", cap=0), ConfigError, "cap must be a whole number from 1 to 1000"),
        (lambda site: site.handler.cron("0 * * * *", tz="Asia/Soul"), ConfigError, "Asia/Seoul"),
        (lambda site: site.handler.every("1h", arguments={"m": 1}), SignatureError, "unexpected keyword argument 'm'"),
        (lambda site: site.handler.every("1h", name="a b"), ConfigError, "a schedule's name must be"),
        (lambda site: site.flags.every("1h")(lambda: None), ConfigError, "stands above @flags.handler"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_declared(site, declare, error, told):
    with pytest.raises(error, match=told):
        declare(site)
    assert list(site.flags._handlers.schedules) == []


def test_the_decorators_stand_above_the_handler(site):
    @site.flags.every("1h")
    @site.flags.cron("0 4 * * 1", tz="Asia/Seoul", name="weekly")
    @site.flags.handler()
    def report():
        pass

    site.sweep()
    assert [(row.name, row.kind, row.spec, row.zone) for row in site.rows()] == [
        ("report", "report", "1h", "UTC"),
        ("weekly", "report", "0 4 * * 1", "Asia/Seoul"),
    ]
    assert {row.module for row in site.rows()} == {__name__}, "which may be loaded in one application and not in another"
    assert timedelta(hours=1) and threading


def test_the_setting_says_the_zone_where_the_schedule_does_not(site):
    site.begin(timezone="Europe/Berlin")
    site.handler.cron("0 4 * * *")
    site.sweep()
    assert site.row().next_at == NEW_YEAR + 3 * HOUR * SECOND


def test_who_changes_a_schedule_in_a_long_transaction_holds_up_nobody(site, client):
    """A number that is counted up would be locked by it, and every consumer that starts would wait."""
    site.handler.cron("0 * * * *")
    site.sweep()
    if site.flags.connections.dialect.one_writer:
        pytest.skip("with one writer everybody waits for a long transaction")
    with site.flags.database.connection_context(), site.flags.database.atomic():
        site.flags.schedules.pause("work")
        other = site.begin()
        site.handler.cron("0 * * * *")
        site.handler.every("1h", name="new")
        assert other.sweep() == {}
    assert site.row().paused_at is not None and site.row("new") is not None

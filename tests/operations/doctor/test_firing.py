"""What is found of schedules that do not fire, or not as they say."""

from contextlib import closing

import pytest
from examined import count_runs, found
from rig import FakeClock, plain

from flagsweep import FlagSweep
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.terms import RUN

DAY = 86_400


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def site(flags, db_path, clock):
    site = FlagSweep(db_path, clock=clock)
    site.handler("work")(lambda n=0: None)
    yield site
    site.connections.close_engine()


def test_a_schedule_with_a_time_to_come_is_well(site, clock):
    assert found(site, "firing").text == "there are no schedules"
    site.schedules.add("hourly", "work", cron="0 * * * *")
    assert found(site, "firing").level == "ok"


def test_a_pause_without_an_end_is_told_once_it_may_be_forgotten(site, clock):
    site.schedules.add("hourly", "work", cron="0 * * * *")
    site.pause(schedule="hourly", reason="audit", by="ada")
    clock.advance(6 * DAY)
    assert found(site, "firing").level == "ok"
    clock.advance(2 * DAY)
    finding = found(site, "firing")
    assert finding.level == "warn" and "(8 d) by ada, without an end: audit" in finding.text
    assert finding.fix == "'flagsweep schedule resume hourly'"


def test_a_pause_that_ends_by_itself_is_meant(site, clock):
    site.schedules.add("hourly", "work", cron="0 * * * *")
    site.pause(schedule="hourly", until="30d")
    clock.advance(9 * DAY)
    assert found(site, "firing").level == "ok"


def test_a_day_that_never_comes_is_told_though_a_hand_wrote_it(site, db_path):
    site.schedules.add("monthly", "work", cron="0 4 28 2 *")
    plain(db_path, "UPDATE flagsweep_schedule SET spec = '0 4 30 2 *'")
    finding = found(site, "schedule rows")
    assert finding.level == "warn" and "never fires" in finding.text


def test_one_without_a_time_to_come_is_told(site, db_path):
    site.schedules.add("hourly", "work", cron="0 * * * *")
    plain(db_path, "UPDATE flagsweep_schedule SET next_at = NULL")
    finding = found(site, "firing")
    assert finding.level == "warn" and "hourly: it has no time to come" in finding.text and "schedule reset hourly" in finding.fix


def test_a_moment_that_has_passed_without_a_flag_is_told(site, db_path):
    site.schedules.add("once", "work", at="2033-01-01T00:00")
    plain(db_path, "UPDATE flagsweep_schedule SET next_at = NULL")
    assert "its one moment" in found(site, "firing").text


def test_a_time_that_is_years_away_is_told(site, clock):
    site.schedules.add("leap", "work", cron="0 0 29 2 *")
    finding = found(site, "firing")
    assert finding.level == "warn" and "-02-29 00:00:00 UTC, in " in finding.text
    assert finding.fix.startswith("'flagsweep schedule edit leap --cron ...'")


def test_one_that_is_due_and_that_nobody_fires_is_told(site, clock):
    site.schedules.add("hourly", "work", cron="0 * * * *")
    clock.advance(2 * 3600)
    finding = found(site, "firing")
    assert finding.level == "warn" and "nobody fires it" in finding.text and "start 'flagsweep run'" in finding.fix
    with closing(Enlisted(site._duties(), RUN)):
        assert "it may hang" in found(site, "firing").fix


def test_one_whose_times_are_all_skipped_is_told(site, clock):
    site.schedules.add("often", "work", every="10m", missed="skip", grace="30s")
    for _ in range(5):
        clock.advance(1030)  # As where cron calls a sweep now and then.
        site.sweep()
    finding = found(site, "firing")
    assert (
        finding.level == "warn"
        and "often: it has never fired" in finding.text
        and "more than its grace of 30 s late" in finding.text
    )
    assert "missed='once'" in finding.fix


@pytest.mark.parametrize(("missed", "said"), [("once", "it runs without a pause"), ("all", "its flags pile up")])
def test_one_that_comes_again_before_its_run_has_ended_is_told(site, clock, missed, said):
    site.schedules.add("often", "work", every="5m", missed=missed)
    count_runs(site, "work", 4, 720)
    clock.advance(60)
    finding = found(site, "firing")
    assert (
        finding.level == "warn"
        and "a run takes 12 min on average, and it comes every 5 min" in finding.text
        and said in finding.text
    )


def test_many_are_told_with_how_many_more_there_are(site, clock):
    for number in range(14):
        site.schedules.add(f"hourly-{number}", "work", cron="0 * * * *")
    clock.advance(2 * 3600)
    findings = [each for each in site.doctor() if each.what == "firing"]
    assert len(findings) == 11 and "4 more schedules" in findings[-1].text

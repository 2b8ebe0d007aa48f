"""What is found of schedules and counts."""

import pytest
from examined import found
from rig import FakeClock, plain

from flagsweep import FlagSweep
from flagsweep.operations.doctor.finding import Finding


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(flags, db_path, clock):
    """Give `make(*kinds)`: a site with handlers of these kinds."""

    def make(*kinds):
        site = FlagSweep(db_path, clock=clock)
        for kind in kinds:
            site.handler(kind)(lambda n=0: None)
        return site

    return make


def test_where_there_are_no_schedules_nothing_is_wrong_with_them(flags):
    assert found(flags, "schedules") == Finding("ok", "schedules", "there are none")
    assert {found(flags, what).level for what in ("schedule rows", "clock changes", "shared flags", "counts")} == {"ok"}


def test_a_schedule_that_is_due_and_has_no_handler_is_told(make, clock):
    make("work").schedules.add("hourly", "work", cron="0 * * * *")
    assert "1, each with a handler" in found(make("work"), "schedules").text
    assert "not known which have a handler" in found(make(), "schedules").text
    other = make("other")
    assert "another application seems to serve them" in found(other, "schedules").text
    clock.advance(3630)
    finding = found(other, "schedules")
    assert finding.level == "warn" and "hourly (kind work)" in finding.text and "register a handler" in finding.fix


def test_a_damaged_schedule_is_told_with_what_is_wrong(make, db_path):
    site = make("work")
    for name in ("good", "bad"):
        site.schedules.add(name, "work", every="1h")
    plain(db_path, "UPDATE flagsweep_schedule SET missed = 'twice' WHERE name = 'bad'")
    finding = found(site, "schedule rows")
    assert finding.level == "warn" and finding.text.startswith("bad cannot fire: missed must be 'once'")
    assert found(site, "clock changes").level == "ok"


def test_schedules_that_lose_or_repeat_times_at_the_next_clock_change_are_told(make, clock):
    site = make("work")
    site.schedules.add("nightly", "work", cron="30 2 * * *", tz="Europe/Berlin")
    site.schedules.add("hourly", "work", cron="0 * * * *", tz="Europe/Berlin", arguments=(1,))
    assert found(site, "clock changes").level == "ok"
    clock.advance(30 * 86400)
    finding = found(site, "clock changes")
    assert (finding.level, finding.text) == (
        "warn",
        "nightly: on 2026-03-29 there is no 02:30 in Europe/Berlin: it fires at 03:00",
    )


def test_schedules_that_share_a_flag_are_told(make):
    site = make("work", "other")
    for name, kind, plan in (("a", "work", {}), ("b", "work", {}), ("c", "other", {}), ("d", "work", {"missed": "all"})):
        site.schedules.add(name, kind, every="1h", **plan)
    finding = found(site, "shared flags")
    assert finding.level == "warn" and finding.text.endswith("one run: a and b")
    site.schedules.edit("b", arguments={"n": 2})
    assert found(site, "shared flags").level == "ok"


def test_counts_that_nobody_thins_out_are_told(make, clock):
    site = make("work")
    site.handlers["work"].raise_flag()
    site.sweep()
    assert "kept since 2026-01-01" in found(site, "counts").text
    clock.advance(15 * 86400)
    assert found(site, "counts").level == "ok"
    clock.advance(60)
    finding = found(site, "counts")
    assert finding.level == "warn" and "longer than 14 days" in finding.text and "flagsweep run" in finding.fix

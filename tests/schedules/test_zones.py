"""Which zones there are, what is said of others, and how changes of the clock are found."""

import zoneinfo

import pytest
from changes_of_zones import DAY, NOTABLE, at, changes, every_zone

from flagsweep.schedules import SpecError, parse
from flagsweep.schedules import zones as module
from flagsweep.schedules.zones import zone_of


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Asia/Soul", "did you mean 'Asia/Seoul'"),
        ("Europe/Berln", "did you mean 'Europe/Berlin'"),
        ("asia/seoul", "did you mean 'Asia/Seoul'"),
        ("seoul", "did you mean 'Asia/Seoul'"),
        ("New York", "did you mean 'America/New_York'"),
        ("KST", "used in Asia/Pyongyang, Asia/Seoul"),
        ("CST", "and 4"),
        ("../../etc/passwd", "use an IANA name"),
        ("/etc/localtime", "use an IANA name"),
        ("localtime", "another time on every host"),
        ("Factory", "another time on every host"),
        ("posix/Europe/Berlin", "is not known"),
        ("right/UTC", "is not known"),
        ("utc+9", "use an IANA name"),
        ("", "use an IANA name"),
        ("a\0b", "use an IANA name"),
        ("\udcff", "use an IANA name"),
        ("x" * 5000, "use an IANA name"),
        (None, "must be an IANA name"),
        (9, "must be an IANA name"),
    ],
)
def test_what_is_no_zone_is_refused_with_the_nearest_that_is(name, told):
    with pytest.raises(SpecError, match="zone ") as caught:
        parse("cron", "* * * * *", name)
    assert told in str(caught.value)
    assert caught.value.position is None
    assert len(str(caught.value)) < 300


@pytest.fixture
def forget():
    """Have zones be looked up anew, now and behind the test."""

    def forget():
        zone_of.cache_clear()
        module._names.cache_clear()
        zoneinfo.ZoneInfo.clear_cache()

    forget()
    yield forget
    zoneinfo.reset_tzpath()
    forget()


def test_the_package_tzdata_stands_in_for_the_systems_zones(forget):
    zoneinfo.reset_tzpath(to=())
    assert parse("cron", "30 2 * * *", "America/New_York").next(at("2027-03-14 06:00")) == at("2027-03-14 03:00-04:00")


def test_without_any_zones_utc_works_and_others_are_refused_with_that_reason(forget, monkeypatch):
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    assert parse("cron", "0 4 * * *").next(at("2026-06-01")) == at("2026-06-01 04:00")
    with pytest.raises(SpecError, match="this system has no zone database; install the package tzdata"):
        parse("cron", "* * * * *", "Europe/Berlin")


def _all_changes(name):
    zone, found, moment = zone_of(name), [], at("2015-01-01")
    while (moment := zone.change(moment, at("2036-01-01"))) is not None:
        found.append(moment)
    return found


def check(name):
    zone, known = zone_of(name), changes(name)
    assert [change.moment for change in known] == _all_changes(name)
    for change in known:
        assert (zone.offset(change.moment - 1), zone.offset(change.moment)) == (change.before, change.before + change.jump)
        assert zone.last_change(change.moment - 5 * DAY, change.moment + 5 * DAY) == change.moment
        assert zone.last_change(change.moment, change.moment + 5 * DAY) is None
        assert zone.change(change.moment - 5 * DAY, change.moment - 1) is None


@pytest.mark.parametrize("name", ["UTC", "America/New_York", "Africa/Casablanca", "Antarctica/Casey"])
def test_each_change_of_the_clock_is_found_to_the_second(name):
    check(name)


@pytest.mark.slow
def test_each_change_of_every_zone_is_found_to_the_second():
    names = {*NOTABLE, *every_zone().values()}
    assert len(names) > 50
    for name in names:
        check(name)

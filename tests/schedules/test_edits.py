"""While a consumer runs, what is done with schedules elsewhere takes effect within a second, on every database."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from work import running

from flagsweep import FlagSweep

SOON = 1.0  # seconds


@pytest.fixture
def runs():
    """Return when which run of a kind began, and for which time."""
    return []


@pytest.fixture
def site(url, tmp_path, runs, until):
    """Give another program's FlagSweep, beside a consumer that runs."""
    flags, other = (FlagSweep(url, state_dir=str(tmp_path / "state"), threads=2) for _ in range(2))
    for each in (flags, other):
        each.handler("work")(lambda n, flag=None: runs.append((n, datetime.now(UTC), flag.intended)))
    flags.init()
    assert other.schedules.list() == []
    with running(flags, until):
        yield other
    other.connections.close_thread()
    flags.connections.close_thread()


def soon():
    """Return a moment to come, far enough for a statement or two on a busy machine."""
    return datetime.now(UTC) + timedelta(seconds=0.7)


def fires_in_time(n, at, runs, until):
    """Wait until the first run with this argument, which is to begin at a moment, has begun."""
    until(lambda: datetime.now(UTC) >= at)
    assert until(lambda: [run[1:] for run in runs if run[0] == n], limit=SOON)[0][0] >= at


@pytest.mark.long
def test_a_schedule_that_is_added_fires_at_its_time(site, runs, until):
    at = soon()
    site.schedules.add("added", "work", at=at, arguments=(1,))
    fires_in_time(1, at, runs, until)


@pytest.mark.long
def test_a_schedule_that_is_edited_to_fire_soon_does_so(site, runs, until):
    site.schedules.add("edited", "work", cron="0 4 1 1 *", arguments=(1,))
    at = soon()
    site.schedules.edit("edited", at=at, arguments=(2,))
    fires_in_time(2, at, runs, until)
    assert [n for n, *_ in runs] == [2]


def test_a_schedule_that_is_run_now_runs_now(site, runs, until):
    site.schedules.add("now", "work", cron="0 4 1 1 *", arguments=(1,))
    site.schedules.run_now("now")
    until(lambda: runs, limit=SOON)
    assert runs[0][0] == 1
    until(lambda: site.schedules.list()[0].outcome == "succeeded")


@pytest.mark.long
def test_a_schedule_that_is_paused_stops_and_goes_on_when_it_is_resumed(site, runs, until):
    site.schedules.add("paused", "work", every="1s", arguments=(1,))
    until(lambda: runs)
    site.schedules.pause("paused")
    paused, seen = time.time() + SOON, len(runs)
    at = datetime.now(UTC) + timedelta(seconds=2.2)
    site.schedules.add("beside", "work", at=at, arguments=(2,))
    fires_in_time(2, at, runs, until)
    assert all(began.timestamp() < paused for n, began, _ in runs if n == 1) and len(runs) <= seen + 2
    before = len(runs)
    site.schedules.resume("paused")
    until(lambda: len(runs) > before, limit=SOON)  # What it missed is due at once.

"""What is found of settings and options that take away from each other."""

from contextlib import closing

import pytest
from examined import count_runs, found
from rig import FakeClock

from flagsweep import FlagSweep
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.terms import RUN
from flagsweep.operations.doctor.settings import LOOKS


@pytest.fixture
def site(make):
    """Give `site(settings, **options)`: a site with the handler ``send`` of these options in the lane ``mail``."""

    def site(settings=None, **options):
        flags = make(clock=FakeClock(), **(settings or {}))
        flags.handler("send", lane="mail", **options)(lambda number: None)
        return flags

    return site


def with_a_run(flags, seconds):
    """Have a run of so many seconds be counted a minute ago."""
    count_runs(flags, "send", 1, seconds)
    flags.clock.advance(60)
    return flags


def test_what_is_said_by_default_is_no_fight(site):
    assert found(with_a_run(site(), 1), "settings").level == "ok"


@pytest.mark.parametrize(
    ("settings", "options", "said", "fix"),
    [
        ({"lanes": {"mial": 4}}, {}, "lanes names mial, and no handler is in such a lane", "did you mean 'mail'?"),
        ({"tasks": {"nowhere": 4}}, {}, "tasks names nowhere, and no handler", "handlers are in mail"),
        ({"tasks": {"mail": 4}}, {}, "tasks names mail, where no handler is async", "lanes={...}"),
        ({"promise": {"mial": "1m"}}, {}, "promise names mial", "did you mean 'mail'?"),
        ({"promise": {"mail": "1m"}}, {"rate": "2/h"}, "promises 60 s, and the rate 2/h", "promise less"),
        ({"promise": {"mail": "10s"}, "watch": "off"}, {}, "looked for once a minute", "leave watch out"),
        ({"keep_history": {"succeeded": 0}}, {"result": True}, "gone within minutes", "keep_history="),
        ({"history_rows": 0}, {"result": True}, "history_rows is 0", "some thousands"),
        ({}, {"expires": "1h", "quiet": "22:00-07:00"}, "its quiet hours last 9 h", "a longer expires"),
        ({}, {"expires": "5s"}, "its first retry comes after 10 s: there is none", "a shorter backoff"),
        ({"sweepers": 3}, {}, "on a SQLite file one consumer sweeps", "more threads"),
        ({"nudge": "on"}, {}, "no shared queue to nudge through", "queue='redis://...'"),
    ],
    ids=str,
)
def test_what_takes_away_from_each_other_is_told_with_the_way_out(site, settings, options, said, fix):
    finding = found(site(settings, **options), "settings")
    assert finding.level == "warn" and said in finding.text and fix in finding.fix


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"promise": {"*": "1m"}, "lanes": {"mail": 2}}, {"rate": "2/m"}),
        ({"promise": {"mail": "1m"}}, {"quiet": "22:00-07:00"}),
        ({}, {"expires": "12h", "quiet": "22:00-07:00", "result": True}),
        ({}, {"expires": "5s", "max_attempts": 1}),
    ],
    ids=str,
)
def test_what_goes_together_is_not_told(site, settings, options):
    assert found(site(settings, **options), "settings").level == "ok"


def test_runs_that_outlast_the_time_to_stop_are_told(site):
    finding = found(with_a_run(site(), 40), "settings")
    assert finding.level == "warn" and "a run of send took 40 s" in finding.text and "shutdown_timeout='60s'" in finding.fix


def test_runs_that_are_taken_for_hanging_are_told(site):
    finding = found(with_a_run(site({"stuck_after": 30, "shutdown_timeout": 60}), 40), "settings")
    assert finding.level == "warn" and "the consumer ends itself" in finding.text and "stuck_after='120s'" in finding.fix


def test_a_long_atomic_handler_beside_sqlite_is_told(site):
    finding = found(with_a_run(site(atomic=True), 4), "settings")
    assert finding.level == "warn" and "SQLite's only writer" in finding.text


def test_a_consumer_beside_a_site_that_sweeps_inline_is_told(site, db_path):
    flags = site()
    with closing(Enlisted(flags._duties(), RUN)):
        inline = FlagSweep(db_path, mode="inline")
        assert "mode is 'inline'" in found(inline, "settings").text
        embedded = FlagSweep(db_path, mode="embedded")
        assert "mode is 'embedded'" in found(embedded, "company").text
    flags.connections.close_engine()


def test_a_queue_that_nobody_nudges_is_told_where_the_database_is_silent(mysql_url, redis_url, tmp_path):
    secret = "a secret of sixteen characters"
    flags = FlagSweep(mysql_url, state_dir=str(tmp_path), queue=redis_url, queue_key=secret, nudge="off")
    flags.init()
    flags.handler("send")(lambda number: None)
    assert "seen once a second" in found(flags, "settings").text
    flags.connections.close_thread()


def test_each_look_has_a_case_here():
    names = {"_stop_time", "_stuck", "_lanes_without_kinds", "_tasks_of_threads", "_promises", "_results", "_expiry", "_atomic"}
    assert {look.__name__ for look in LOOKS} == names | {"_of_no_use"}

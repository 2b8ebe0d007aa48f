"""Crash tests: a site's handler is killed at each step in a child process, and what became of its effects is told."""

import asyncio
import functools
import time

import pytest
from peewee import IntegerField, Model

from flagsweep import ConfigError, FlagSweep, FlagSweepError, Retry
from flagsweep.testing import CrashTest, FakeClock, crash_points, fresh

pytestmark = pytest.mark.long

AROUND = ["before_handler", "after_handler", "before_commit", "after_commit"]


@pytest.fixture
def site(db_path):
    """Return a site's FlagSweep, in a fresh database, as the fixture flags gives it."""
    with fresh(FlagSweep(f"sqlite:///{db_path}")) as flags:
        yield flags


@pytest.fixture
def crash_at(site):
    return CrashTest(site)


@pytest.fixture
def box(tmp_path):
    """Return a mailbox: a folder with a file for each mail."""
    folder = tmp_path / "box"
    folder.mkdir()
    return folder


@pytest.fixture
def mails(box):
    return lambda: len(list(box.iterdir()))


def post(box):
    (box / str(time.time_ns())).touch()


def first_line(handler):
    return int(next(point for point in crash_points(handler) if point.startswith("line")).split()[1])


def test_a_mail_that_is_sent_and_then_noted_is_repeated_or_lost_by_where_the_crash_comes(site, crash_at, box, mails):
    noted = box.parent / "noted"

    @site.handler
    def send_then_note(user_id):
        if not noted.exists():
            post(box)
            noted.touch()

    @site.handler
    def note_then_send(user_id):
        if not noted.exists():
            noted.touch()
            post(box)

    reset = functools.partial(noted.unlink, missing_ok=True)
    reports = {r.point: r for r in crash_at.every_point(send_then_note, user_id=17, effects=mails, reset=reset)}
    line = first_line(send_then_note)
    assert list(reports) == ["before_handler", f"line {line}", f"line {line + 1}", f"line {line + 2}", *AROUND[1:]]
    assert [point for point, r in reports.items() if not r.once] == [f"line {line + 2}"]
    assert reports[f"line {line + 2}"].repeated == ["effect"]
    expected = f"killed before line {line + 2} of test_crashing.py: noted.touch(): effect repeated (2 times)"
    assert str(reports[f"line {line + 2}"]) == expected
    reports = {r.point: r for r in crash_at.every_point(note_then_send, user_id=17, effects=mails, reset=reset)}
    assert [r.lost for r in reports.values() if not r.once] == [["effect"]]


def test_after_an_effect_is_the_worst_moment_wherever_the_effect_takes_place(site, crash_at, box, mails):
    @site.handler
    def send_all(count):
        for _ in range(count):
            post(box)

    report = crash_at("after_effect", send_all, 1, effects=mails)
    assert (report.reached, report.repeated, report.effects) == (True, ["effect"], {"effect": 2})
    assert crash_at("after_effect", send_all, count=0, effects=mails).reached is False


@pytest.mark.parametrize("point", AROUND)
def test_a_crash_around_a_handler_repeats_what_is_not_committed_and_loses_nothing(site, crash_at, box, mails, point):
    @site.handler
    def send(user_id):
        post(box)

    report = crash_at(point, send, user_id=17, effects=mails)
    assert report.reached and not report.lost
    assert bool(report.repeated) == (point in ("after_handler", "before_commit")), str(report)


def test_an_atomic_handlers_writes_take_effect_once_wherever_it_crashes(site, crash_at, box, mails):
    class Sum(Model):
        n = IntegerField()

        class Meta:
            database = site.database

    with site.database.connection_context():
        site.database.create_tables([Sum])

    @site.handler(atomic=True)
    def book(n):
        Sum.create(n=n)
        post(box)

    def effects():
        with site.database.connection_context():
            return {"rows": Sum.select().count(), "mails": mails()}

    reports = {report.point: report for report in crash_at.every_point(book, 1, effects=effects)}
    assert set(AROUND) < set(reports)
    assert all(report.effects["rows"] == 1 for report in reports.values())
    assert {point for point, report in reports.items() if report.repeated} == {"after_handler", "before_commit"}
    with pytest.raises(AssertionError, match="book is not safe from crashes") as told:
        crash_at.assert_once(book, 1, effects=effects)
    assert "  killed before the handler: rows once, mails once" in str(told.value)
    assert "! killed when the handler was done: rows once, mails repeated (2 times)" in str(told.value)


def test_the_lines_of_what_a_handler_calls_count_where_they_are_named(site, crash_at, box, mails):
    def deliver():
        post(box)
        return len("sent")

    @site.handler
    def send(user_id):
        deliver()

    before, body, *inner = crash_points(send, within=[deliver])[:4]
    assert before == "before_handler" and body.startswith("line ") and inner[1] == f"line {int(inner[0].split()[1]) + 1}"
    report = crash_at(inner[1], send, user_id=1, effects=mails, within=[deliver])
    assert report.reached and report.repeated


def test_leaving_a_with_block_is_a_point_of_its_own(site, crash_at, box, mails):
    @site.handler
    def send(user_id):
        with open(box.parent / "noted", "w"):
            post(box)

    again = next(point for point in crash_points(send) if point.endswith("again"))
    report = crash_at(again, send, user_id=1, effects=mails)
    assert report.reached and report.repeated and ", the second time: with open" in str(report)


def test_backoffs_are_waited_for_on_a_clock_of_its_own(site, crash_at, box, mails):
    tried = box.parent / "tried"

    @site.handler(backoff="1h")
    def send(user_id):
        if not tried.exists():
            tried.touch()
            raise Retry("not yet")
        post(box)

    report = crash_at("after_commit", send, user_id=1, effects=mails)
    assert report.reached and report.once
    assert not isinstance(site.clock, FakeClock)


def test_a_flag_that_is_not_done_in_the_end_is_told_of(site, crash_at, mails):
    @site.handler(max_attempts=2)
    def send(user_id):
        raise OSError("no mail server")

    report = crash_at("before_handler", send, user_id=1, effects=mails)
    assert not report.once and report.lost
    assert "the flag is not done: OSError: no mail server" in str(report)
    with pytest.raises(AssertionError, match="flag 1 of send is up already"):
        crash_at("before_handler", send, user_id=1, effects=mails)


def test_an_effect_in_the_memory_of_a_process_is_never_taken_for_one_that_was_kept(site, crash_at):
    sent = []

    @site.handler
    def send(user_id):
        sent.append(user_id)

    assert crash_at("after_commit", send, user_id=1, effects=lambda: len(sent)).lost
    with pytest.raises(AssertionError, match="must be counted outside of the process"):
        crash_at.assert_once(send, user_id=1, effects=lambda: len(sent))


def test_what_cannot_be_meant_is_refused(site, crash_at, mails, tmp_path):
    @site.handler
    def send(user_id): ...

    @FlagSweep(tmp_path / "other.db").handler
    def other(user_id): ...

    with pytest.raises(ConfigError, match="send has no point 'line 1'; it has after_effect, before_handler, line "):
        crash_at("line 1", send, user_id=1, effects=mails)
    with pytest.raises(ConfigError, match="is of another FlagSweep"):
        crash_at("before_handler", other, user_id=1, effects=mails)
    with site.database.atomic(), pytest.raises(FlagSweepError, match="leave it before crash_at"):
        crash_at("before_handler", send, user_id=1, effects=mails)


def test_an_async_handler_is_killed_at_each_of_its_lines_and_around_them(site, crash_at, box, mails):
    @site.handler
    async def send(user_id):
        await asyncio.sleep(0)
        post(box)
        await asyncio.sleep(0)

    reports = {report.point: report for report in crash_at.every_point(send, 1, effects=mails)}
    line = first_line(send)
    assert list(reports) == ["before_handler", *(f"line {n}" for n in range(line, line + 3)), *AROUND[1:]]
    assert [point for point, report in reports.items() if report.repeated] == [f"line {line + 2}", *AROUND[1:3]]
    assert not any(report.lost for report in reports.values())
    assert crash_at("after_effect", send, 1, effects=mails).repeated


def test_a_handler_that_does_not_run_at_all_is_not_taken_for_a_safe_one(site, crash_at, mails):
    @site.handler(debounce="1h")
    def send(user_id): ...

    with pytest.raises(AssertionError, match="send did not run at all"):
        crash_at.assert_once(send, user_id=1, effects=mails)


def test_a_child_that_fails_by_itself_is_no_crash(site, crash_at, monkeypatch, capfd):
    @site.handler
    def send(user_id): ...

    def broken():
        raise RuntimeError("not here")

    monkeypatch.setattr(site, "sweep", broken)
    with pytest.raises(AssertionError, match="ended with 70: its error is on stderr"):
        crash_at("before_handler", send, user_id=1, effects=lambda: 0)
    assert "RuntimeError: not here" in capfd.readouterr().err

"""Why something does not run: each reason, on each database."""

import json
import os
import re
import sys
import threading
import types
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from clients import Client
from rig import NEW_YEAR, fill, idle, plain

from flagsweep import ConfigError, Discard, FlagSweep, Retry, Snooze
from flagsweep.cli import cli
from flagsweep.config import SECOND
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.terms import RUN
from flagsweep.operations.why.page import PAGE, page
from flagsweep.operations.why.reasons import TABLE


@pytest.fixture
def flags(flags_anywhere):
    flags_anywhere.database.connect(reuse_if_open=True)
    return flags_anywhere


@pytest.fixture
def running(flags):
    """Give flags with a consumer that lives, and has just said what it sweeps."""
    enlisted = Enlisted(flags._duties(), RUN)
    flags.me = enlisted.id
    tick(flags)
    yield flags
    enlisted.close()


def tick(flags, lane="default", swept=0.0, kinds=("work",), **more):
    now = flags.clock.now()
    said = {"swept_at": now - int(swept * SECOND), "running": 0, "threads": 2, "kinds": list(kinds), **more}
    flags.store.tick(flags.me, json.dumps({lane: said}), now)


def code(flags, *what, **named):
    return flags.why(*what, **named).code


def codes(found):
    return [found.code, *(each.code for each in found.also)]


def claim(flags, many, consumer):
    with flags.store.connections.write():
        flags.store.claim("work", 0, many, consumer, flags.clock.now())
    flags.connections.close_engine()


@contextmanager
def sweeping(flags, until):
    """Sweep in a thread, whose handlers wait for `flags.go` after they have begun."""
    thread = threading.Thread(target=lambda: (flags.sweep(), flags.connections.close_thread()))
    thread.start()
    try:
        until(lambda: flags.began)
        yield
    finally:
        flags.go.set()
        thread.join(20)


def blocking(flags, kind="work", **options):
    """Return a handler that says when it has begun, and waits."""
    flags.go, flags.began = threading.Event(), []

    @flags.handler(kind, **options)
    def wait(n):
        flags.began.append(n)
        flags.go.wait(20)

    return wait


# A flag that waits.


def test_a_flag_for_later_is_not_due_until_its_time(flags):
    flag = idle(flags).using(delay="2h").raise_flag(1).id
    found = flags.why(flag)
    assert codes(found) == ["not-due", "no-consumer"]
    assert re.match(r"It is not due before .*, in 2 h\.", found.text)
    assert (found.until.timestamp() - flags.clock.now() / SECOND, found.ok) == (7200, True)
    assert found.last.startswith("it was raised at ")


def test_a_failed_flag_backs_off_after_the_error_that_it_names(flags):
    fail = flags.handler("work", max_attempts=3, backoff=600)(lambda n: 1 / n)
    flag = fail.raise_flag(0).id
    flags.sweep()
    flags.clock.advance(60)
    found = flags.why(flag)
    assert codes(found) == ["backing-off", "between-sweeps"]
    assert re.match(r"Attempt 1 of 3 failed at \S+, 60 s ago \(ZeroDivisionError: division by zero\)", found.text)
    assert "tried again at" in found.text and "in 9 min" in found.text
    assert found.command == f"flagsweep retry {flag}"


def test_a_snoozed_flag_says_that_its_handler_asked_for_later(flags):
    @flags.handler("work")
    def later(n):
        raise Snooze("10m")

    flag = later.raise_flag(1).id
    flags.sweep()
    assert codes(flags.why(flag)) == ["snoozed", "between-sweeps"]


def test_a_flag_that_expired_before_it_began_says_so(running):
    flag = idle(running, expires="1m").raise_flag(1).id
    running.clock.advance(61)
    tick(running)
    assert codes(running.why(flag))[0] == "expired-waiting"


PAUSES = {
    "all-paused": ({}, "Everything is paused by ann since", "flagsweep resume --all"),
    "lane-paused": ({"lane": "default"}, "Lane default is paused by ann since", "flagsweep resume --lane default"),
    "kind-paused": ({"kind": "work"}, "work is paused by ann since", "flagsweep resume work"),
}


@pytest.mark.parametrize("pause", PAUSES)
def test_a_pause_says_by_whom_since_when_and_until_when(running, pause):
    what, text, command = PAUSES[pause]
    flag = idle(running).raise_flag(1).id
    running.pause(**what, by="ann", reason="moving house", until="2h")
    running.clock.advance(120)
    tick(running)
    for found in (running.why(flag), running.why("work"), running.why(lane="default"), running.why()):
        assert found.code == pause
        assert text in found.text and "2 min ago, until " in found.text and "in 118 min" in found.text
        assert "The reason given: moving house." in found.text
        assert (found.command, found.until.timestamp()) == (command, NEW_YEAR / SECOND + 7200)
    assert running.why(lane="default").what == "lane default"


def test_a_database_that_was_moved_away_is_not_to_be_resumed(running, tmp_path):
    flag = idle(running).raise_flag(1).id
    running.store.connections.engine.connect(reuse_if_open=True)
    with running.store.connections.write() as db:
        said = json.dumps({"to": "postgresql://db/new", "state": "moved"})
        running.connections.dialect.note_fact(db, "move:to", said, NEW_YEAR)
    running.connections.close_engine()
    running.pause(by="ann", reason="was moved to postgresql://db/new at 2026-01-01 00:00:00 UTC")
    for found in (running.why(flag), running.why("work"), running.why()):
        assert (found.code, found.command) == ("moved", "flagsweep move --to postgresql://db/new")
        assert "it was moved to postgresql://db/new" in found.text and "resume" not in found.command
        assert "all-paused" not in codes(found)


def test_a_database_that_was_restored_says_so_and_who_must_confirm_it(flags, db_path):
    if flags.path is None:
        pytest.skip("a server's backup is put back by the server")
    flag = idle(flags).raise_flag(1).id
    plain(db_path, "PRAGMA wal_checkpoint(TRUNCATE)")
    backup = db_path.read_bytes()
    flags.sweep()
    flags.connections.close_thread()
    for name in (db_path, *db_path.parent.glob("site.db-*")):
        name.unlink()
    db_path.write_bytes(backup)
    flags.sweep()
    for found in (flags.why(flag), flags.why("work"), flags.why()):
        assert (found.code, found.command) == ("restored", "flagsweep confirm")
        assert "this database was restored from a backup" in found.text
        assert "all-paused" not in codes(found) and "paused" not in codes(found)
    flags.confirm()
    assert "restored" not in codes(flags.why(flag))


def test_a_pause_that_ends_before_a_flag_is_due_is_not_in_its_way(running):
    flag = idle(running).using(delay="3h").raise_flag(1).id
    running.pause(until="2h")
    assert codes(running.why(flag)) == ["not-due"]
    running.pause(until="4h")
    assert codes(running.why(flag)) == ["not-due", "all-paused"]


def test_a_paused_kind_of_which_nothing_is_up_says_so_first(running):
    idle(running)
    running.pause("work", by="ann")
    assert codes(running.why("work")) == ["kind-paused", "nothing-up"]
    assert codes(running.why()) == ["paused"]


def test_a_handler_that_asked_for_all_to_wait_is_quoted(running):
    @running.handler("work")
    def busy(n):
        raise Retry("5m", "429", all=True)

    busy.raise_flag(1)
    running.sweep()
    flag = busy.raise_flag(2).id
    found = running.why(flag)
    assert found.code == "asked-to-wait" and "work waits until" in found.text and "429" in found.text


def test_quiet_hours_say_when_they_end(running):
    flag = idle(running, quiet="22:00-07:00").raise_flag(1).id
    found = running.why(flag)
    assert found.code == "quiet-hours" and "22:00-07:00" in found.text
    assert found.until.hour == 7


def test_a_breaker_says_what_failed_and_when_the_next_probe_goes(running):
    away = running.handler("work", breaker=2)(lambda n: 1 / 0)
    away.raise_many([(n,) for n in range(3)])
    running.sweep()
    flag = away.raise_flag(9).id
    found = running.why(flag)
    assert found.code == "breaker" and "ZeroDivisionError" in found.text and "the next goes at" in found.text


def test_a_breaker_does_not_say_that_the_next_may_go_at_once_where_its_probe_waits(running, client):
    began = []

    @running.handler("work", breaker=2, backoff=600, max_attempts=9)
    def away(n):
        began.append(n)
        raise ValueError("away")

    away.raise_many([(n,) for n in range(3)])
    running.sweep()
    client.ask("UPDATE flagsweep_flag SET attempts = 1, settled_at = ?, due_at = ?", NEW_YEAR, NEW_YEAR)
    running.clock.advance(15)
    found = running.why("work")
    assert found.code == "breaker" and "the next goes at" in found.text and "in 15 s" in found.text
    assert (found.until.timestamp(), found.command) == (NEW_YEAR / SECOND + 30, "flagsweep retry --kind work")
    assert running.retry(kind="work") == 3
    assert "the next may go at once" in running.why("work").text
    before = len(began)
    running.sweep()
    assert len(began) == before + 1, "it was tried at once"


@pytest.mark.parametrize(("option", "text"), [("rate", "2/h"), ("budget", "2/d")])
def test_a_limit_that_is_used_up_says_when_the_next_starts(running, option, text):
    work = idle(running, **{option: text if option == "budget" else "2/h burst 2"})
    work.raise_many([(n,) for n in range(3)])
    running.sweep()
    (left,) = running.find()
    found = running.why(left.id)
    assert found.code == option and text in found.text and found.until is not None


def test_a_limit_of_what_runs_at_the_same_time_says_how_many_run(running):
    idle(running, limit=1).raise_many([(1,), (2,)])
    claim(running, 1, running.me)
    (waiting,) = running.find(state="waiting")
    found = running.why(waiting.id)
    assert found.code == "limit" and "No more than 1 of work" in found.text


# Who should do it.


def test_a_kind_without_a_handler_names_who_had_one_and_the_nearest_name(running, ready_url, tmp_path):
    idle(running, "send_mail")
    running.store.note_served({"send_mial": json.dumps({"app": "shop.work", "host": "web1", "lane": "mail"})}, NEW_YEAR)
    other = FlagSweep(ready_url, clock=running.clock, state_dir=str(tmp_path / "state"))
    flag = idle(other, "send_mial").raise_flag(1).id
    other.connections.close_thread()
    found = running.why(flag)
    assert found.code == "no-handler"
    assert "shop.work on web1 had one, and was last seen with it" in found.text
    assert "The nearest kinds with a handler: send_mail." in found.text
    assert "aliases=['send_mial'] of the handler 'send_mail'" in found.change
    assert found.command == ""
    running.clock.advance(40)
    tick(running, kinds=["send_mail"])
    assert running.why().code == "no-handler" and running.why().text.count("send_mial") == 1


def test_nobody_sweeping_says_who_was_last_and_since_when(flags):
    flag = idle(flags).raise_flag(1).id
    assert flags.why(flag).code == "no-consumer"
    Enlisted(flags._duties(), RUN).close()
    flags.clock.advance(720)
    for found in (flags.why(flag), flags.why()):
        assert found.code == "no-consumer"
        assert re.search(r"the last \(pid \d+ on .*\) was stopped at .*, 12 min ago", found.text)
        assert (found.since.timestamp(), found.command) == (NEW_YEAR / SECOND, "flagsweep run")


def test_a_site_that_cron_sweeps_waits_for_the_next_sweep(flags):
    work = idle(flags)
    flags.sweep()
    flags.clock.advance(240)
    flag = work.raise_flag(1).id
    found = flags.why(flag)
    assert found.code == "between-sweeps" and "4 min ago" in found.text
    flags.clock.advance(3600)
    assert flags.why(flag).code == "no-consumer"


def test_a_consumer_that_lives_and_does_not_tick_hangs(running):
    flag = idle(running).raise_flag(1).id
    running.clock.advance(200)
    for found in (running.why(flag), running.why()):
        assert found.code == "consumer-silent" and "has not said for 3 min that it goes on" in found.text


LOCKER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(600)
"""


def test_a_consumer_that_cannot_write_is_not_to_be_killed_for_whom_it_waits(running, spawn, until):
    if running.path is None:
        pytest.skip("a server has many writers")
    idle(running).raise_flag(1)
    running.clock.advance(200)
    thief = spawn(sys.executable, "-c", LOCKER, running.path)
    until(lambda: "locked" in thief.log.read_text())
    for found in (running.why(), running.why("work")):
        assert codes(found)[:2] == ["open-transaction", "consumer-cannot-write"]
        assert f"(pid {thief.pid}" in found.text and f"kill {thief.pid}" in found.change
        assert found.command == "flagsweep doctor"
        assert codes(found).count("open-transaction") == 1 and "consumer-silent" not in codes(found)
        assert str(os.getpid()) not in found.change and "kill" not in found.also[0].change
    thief.kill()
    thief.wait()
    assert running.why().code == "consumer-silent"


def test_a_lane_that_its_consumer_does_not_sweep_is_named(running):
    flag = idle(running).raise_flag(1).id
    running.clock.advance(600)
    tick(running, swept=300)
    for found in (running.why(flag), running.why(), running.why(lane="default")):
        assert found.code == "lane-not-swept" and "does not sweep lane default" in found.text and "5 min ago" in found.text


def test_a_consumer_that_began_before_the_code_had_the_handler_is_to_be_started_again(running):
    flag = idle(running, "fresh").raise_flag(1).id
    found = running.why(flag)
    assert found.code == "consumer-without-handler" and f"consumer {running.me} (pid " in found.text
    assert (found.command, f"kill {os.getpid()}:" in found.change) == ("flagsweep run", True)


# Whose turn it is.


def test_a_busy_lane_says_what_it_does_since_when_and_how_long_that_takes(running, until):
    work = blocking(running)
    work.raise_many([(1,), (2,)])
    with sweeping(running, until):
        until(lambda: len(running.began) == 2)
        running.clock.advance(90)
        tick(running, running=2)
        flag = work.raise_flag(3).id
        found = running.why(flag)
        assert found.code == "lane-busy"
        assert "its 2 threads have work in hand, the longest with work (flag 1) since" in found.text
        assert "90 s ago" in found.text and "none has ended within a day" in found.text
        assert found.command == "flagsweep lane default --threads 4"
        runs = running.why(1)
        assert runs.code == "running" and "has it in hand since" in runs.text and "on " in runs.text
    assert "usually it takes less than" in running.why(running.find()[0].id).text if running.find() else True


def test_a_flag_behind_others_counts_them_and_tells_the_pace(running):
    work = idle(running)
    work.raise_many([(n,) for n in range(30)])
    running.sweep()
    work.raise_many([(n,) for n in range(30)])
    last = running.find()[-1]
    found = running.why(last.id)
    assert found.code == "behind-others"
    assert "behind 29 flags of lane default, which does 6.0 a minute: at the present pace that takes 5 min" in found.text
    first = running.find(limit=1)[0]
    assert running.why(first.id).code == "any-moment"
    work.using(priority=9).raise_flag(99)
    assert "behind 1 flag of" in running.why(first.id).text


def test_what_has_waited_for_no_reason_that_can_be_seen_is_said_to(running):
    flag = idle(running).raise_flag(1).id
    running.clock.advance(100)
    tick(running)
    for found in (running.why(flag), running.why()):
        assert found.code == "unexplained" and f"consumer {running.me} (pid " in found.text


def test_a_suspect_waits_alone(running, client):
    flag = idle(running).raise_flag(1).id
    client.ask("UPDATE flagsweep_flag SET suspect = 1, crashes = 1, attempts = 1, settled_at = ?", NEW_YEAR)
    found = running.why(flag)
    assert found.code == "suspect" and "Its process died once while it ran" in found.text


# Who has it.


def test_a_flag_that_is_claimed_ahead_waits_for_a_thread(running):
    flag = idle(running).raise_flag(1).id
    claim(running, 1, running.me)
    found = running.why(flag)
    assert found.code == "claimed-ahead" and f"consumer {running.me} (pid " in found.text


def test_a_claim_of_a_dead_consumer_is_named(running, client):
    flag = idle(running).raise_flag(1).id
    claim(running, 1, 4711)
    found = running.why(flag)
    assert found.code == "claimed-by-dead-consumer" and "consumer 4711, which is not entered any more" in found.text
    client.ask(
        "INSERT INTO flagsweep_consumer (mode, pid, host, started_at, comebacks) VALUES ('run', 1, 'web9', ?, 0)", NEW_YEAR
    )
    ((id,),) = client.ask("SELECT max(id) FROM flagsweep_consumer")
    client.ask("UPDATE flagsweep_flag SET claimed_by = ?", id)
    assert f"consumer {id} (pid 1 on web9), which has died" in running.why(flag).text
    assert "dead-consumer" in codes(running.why())


def test_an_open_transaction_of_somebody_else_is_named(running, ready_url):
    flag = idle(running).raise_flag(1).id
    other = Client(ready_url)
    try:
        other.ask("BEGIN IMMEDIATE" if ready_url.startswith("sqlite") else "BEGIN")
        other.ask("UPDATE flagsweep_flag SET priority = 1 WHERE id = ?", flag)
        found = running.why(flag)
        assert found.code == "open-transaction" and "since" in found.text
        assert re.search(r"pid \d+|session \d+", found.text), found.text
        assert re.search(r"kill \d+|pg_terminate_backend\(\d+\)|KILL \d+", found.change), found.change
        if ready_url.startswith("sqlite"):
            assert "open-transaction" in codes(running.why())
        other.ask("ROLLBACK")
        assert running.why(flag).code == "any-moment"
    finally:
        other.close()


# Dead, and gone.


def test_a_dead_flag_names_its_error_and_the_command_that_retries_it(running):
    fail = running.handler("work", max_attempts=1)(lambda n: 1 / n)
    flag = fail.raise_flag(0).id
    running.sweep()
    running.clock.advance(1200)
    tick(running)
    found = running.why(flag)
    assert (found.code, found.command) == ("dead", f"flagsweep retry {flag}")
    assert "1 of 1, failed" in found.text and "20 min ago: ZeroDivisionError: division by zero" in found.text
    kind = running.why("work")
    assert kind.code == "dead-of-kind" and "ZeroDivisionError" in kind.text
    site = running.why()
    assert codes(site) == ["failing", "died-lately"]
    assert "1 flag of work died within a day, most with ZeroDivisionError" in site.also[0].text


def test_what_is_done_is_told_with_its_time_where_successes_are_kept(flags):
    kept = idle(flags, "kept", history=True)
    flag = kept.raise_flag(n=7).id
    flags.sweep()
    flags.clock.advance(60)
    for found in (flags.why(flag), flags.why("kept", '{"n": 7}'), flags.why("kept", {"n": 7})):
        assert found.code == "done" and "60 s ago" in found.text and found.ok


def test_what_is_done_and_of_which_nothing_is_kept_was_up_once(flags):
    flag = idle(flags).raise_flag(n=7).id
    flags.sweep()
    assert code(flags, flag) == "gone"
    found = flags.why("work", {"n": 7})
    assert found.code == "done-or-never-raised" and "1 of work were done" in found.text


def test_what_was_discarded_expired_or_taken_down_says_so_and_why(flags):
    @flags.handler("work", expires="1m")
    def work(n):
        if n == 1:
            raise Discard("no such user")

    ids = [work.raise_flag(1).id]
    flags.sweep()
    ids.append(work.raise_flag(2).id)
    flags.clock.advance(90)
    flags.sweep()
    ids.append(work.raise_flag(3).id)
    flags.lower("work", '{"n":3}')
    assert [code(flags, id) for id in ids] == ["discarded", "expired", "lowered-by-hand"]
    assert "no such user" in flags.why("work", {"n": 1}).text
    assert "it was waiting" in flags.why(ids[2]).text


def test_what_was_never_raised_names_what_is_near_and_the_database(flags):
    idle(flags).raise_flag(n=17)
    found = flags.why("work", {"n": 18})
    assert found.code == "never-raised" and flags.connections.where in found.text
    assert """Near to it are up: '{"n":17}'.""" in found.text
    found = flags.why(99)
    assert found.code == "never-raised" and "the newest that was ever given is 1" in found.text


def test_what_is_raised_and_not_committed_yet_names_who_may_have_raised_it(flags, ready_url):
    idle(flags).raise_flag(1)
    other = Client(ready_url)
    try:
        other.ask("BEGIN IMMEDIATE" if ready_url.startswith("sqlite") else "BEGIN")
        raised = "INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) VALUES ('work', 'x', '{}', 1, 1)"
        other.ask(raised)
        found = flags.why("work", "x")
        assert found.code == "never-raised" and "is open, in which it may be" in found.text.replace(
            "has a transaction open", "is open,"
        )
        other.ask("ROLLBACK")
    finally:
        other.close()


def test_a_name_that_nothing_has_names_the_nearest(flags):
    idle(flags, "send_mail", lane="mail")
    found = flags.why("send_mial")
    assert found.code == "unknown-name" and "Near to it are: send_mail." in found.text
    assert code(flags, lane="male") == code(flags, schedule="nightly") == "unknown-name"


def test_a_name_is_a_kind_then_a_lane_then_a_schedule(flags):
    idle(flags, "mail", lane="mail").every("1h", name="mail")
    idle(flags, "other", lane="post").every("1h", name="hourly")
    flags.sweep()
    assert flags.why("mail").what == "kind mail"
    assert flags.why("post").what == "lane post"
    assert flags.why("hourly").what == flags.why(schedule="hourly").what == "schedule hourly"
    assert flags.why(lane="mail").what == "lane mail"
    assert flags.why(schedule="mail").what == "schedule mail"


def test_more_than_one_thing_is_refused(flags):
    for named in ({"what": 1, "lane": "mail"}, {"what": 1, "key": "x"}, {"what": 1.5}, {"lane": "a", "schedule": "b"}):
        with pytest.raises(ConfigError):
            flags.why(**named)


# A schedule.


@pytest.fixture
def hourly(running):
    idle(running).every("1h", name="hourly")
    running.sweep()
    tick(running)
    return running


def test_a_schedule_says_when_it_fires_next(hourly):
    found = hourly.why("hourly")
    assert found.code == "schedule-not-due" and found.until is not None and "every hour" in found.text


def test_a_paused_schedule_says_by_whom(hourly):
    hourly.pause(schedule="hourly", by="ann", reason="moving")
    for found in (hourly.why("hourly"), hourly.why()):
        assert found.code == "schedule-paused" and "paused by ann" in found.text and "moving" in found.text
        assert found.command == "flagsweep schedule resume hourly"


def test_a_schedule_behind_a_pause_names_that(hourly):
    hourly.pause("work", by="ann")
    hourly.clock.advance(7200)
    tick(hourly)
    found = hourly.why("hourly")
    assert found.code == "schedule-behind-a-pause" and "kind work, by ann" in found.text
    assert found.command == "flagsweep resume work"


def test_a_schedule_that_nobody_fires_says_so(hourly):
    hourly.clock.advance(7200)
    tick(hourly)
    assert code(hourly, "hourly") == code(hourly) == "schedule-overdue"


def test_a_schedule_whose_kind_has_no_handler_says_so(hourly, ready_url, tmp_path):
    hourly.clock.advance(7200)
    tick(hourly, kinds=["wrok"])
    other = FlagSweep(ready_url, clock=hourly.clock, state_dir=str(tmp_path / "state"))
    idle(other, "wrok")
    found = other.why("hourly")
    other.connections.close_thread()
    assert found.code == "schedule-without-handler" and "The nearest kinds with a handler: wrok." in found.text


def test_a_schedule_that_never_fires_or_is_damaged_says_so(hourly, client):
    client.ask("UPDATE flagsweep_schedule SET next_at = NULL")
    assert code(hourly, "hourly") == "schedule-never-fires"
    client.ask("UPDATE flagsweep_schedule SET spec = 'often'")
    for found in (hourly.why("hourly"), hourly.why()):
        assert found.code == "schedule-damaged" and "often" in found.text


def test_a_schedule_whose_next_time_is_years_away_is_told_in_the_days_of_doctor(running):
    idle(running)
    running.schedules.add("leap", "work", cron="0 0 29 2 1#5")
    for found in (running.why("leap"), running.why()):
        assert found.code == "schedule-far-off" and "2028-02-29, in 789 days" in found.text
        assert found.command == 'flagsweep schedule edit leap --cron "..."'
        assert "it has never fired by itself" in found.text and "by hand" not in found.text
    assert any("in 789 days" in each.text for each in running.doctor())
    running.schedules.run_now("leap")
    running.sweep()
    assert re.search(
        "it has never fired by itself; by hand it was run, and that ended at .*: succeeded", running.why("leap").text
    )


def test_a_schedule_that_has_fired_its_one_time_is_nothing_to_look_at(running):
    idle(running).at("2026-01-01T01:00Z", name="once")
    running.sweep()
    running.clock.advance(3601)
    running.sweep()
    tick(running)
    assert running.why("once").code == "schedule-never-fires"
    assert codes(running.why()) == ["all-well"]


# The site, and the database.


def test_all_is_well_where_a_consumer_sweeps_and_nothing_waits(running):
    found = running.why()
    assert (found.code, found.ok, found.also) == ("all-well", True, ())
    assert found.text == f"All is well: {found.text[13:].split(' sweeps')[0]} sweeps, and nothing is due."


def test_a_database_that_nobody_has_used_may_be_the_wrong_one(flags):
    idle(flags)
    found = flags.why()
    assert codes(found) == ["unused-database", "no-consumer"] and flags.connections.where in found.text


def test_a_database_without_tables_or_with_old_ones_says_so(url, tmp_path):
    flags = FlagSweep(url, state_dir=str(tmp_path))
    assert code(flags) == code(flags, 17) == code(flags, "work") == "wrong-database"
    assert flags.why().command == "flagsweep init"
    flags.init()
    client = Client(url)
    for version, expected in ((3, "old-tables"), (99, "new-tables")):
        client.ask("UPDATE flagsweep_schema SET version = ? WHERE version >= 3 AND version <> 3", version + 1000)
        client.ask("DELETE FROM flagsweep_schema WHERE version > 3")
        if version > 3:
            client.ask("INSERT INTO flagsweep_schema (version, applied_at) VALUES (?, 1)", version)
        assert code(flags) == expected
    client.close()
    flags.connections.close_thread()


def test_a_full_disk_is_the_first_that_is_said(small_disk):
    flags = FlagSweep(small_disk / "site.db", threads=1)
    flags.init()
    flag = idle(flags).raise_flag(1).id
    fill(small_disk)
    assert code(flags) == "disk-full" and "nothing can be raised" in flags.why().text
    assert "disk-full" in codes(flags.why(flag))
    with open(small_disk / "filler", "r+b") as file:
        file.truncate(file.seek(0, 2) - 128 * 1024)
    found = flags.why()
    assert found.code == "disk-full" and re.search(r"nearly full \(\d+ KiB are left\)", found.text)
    assert "raises and sweeps fail once that is used" in found.text and "nothing can be raised" not in found.text
    (small_disk / "filler").unlink()
    flags.connections.close_thread()


def test_a_kind_of_which_every_run_fails_is_told_with_its_error(running):
    send = running.handler("work", backoff=3600)(lambda n: 1 / 0)
    send.raise_flag(1)
    running.sweep()
    running.clock.advance(60)
    tick(running)
    found = running.why()
    assert found.code == "failing"
    assert re.match(
        r"work fails: 1 attempt within an hour, and none succeeded; the last, flag 1 at .* ZeroDivisionError", found.text
    )


def test_the_time_of_a_retry_is_not_told_as_that_of_a_failure(running):
    send = running.handler("work", backoff=3600)(lambda n: 1 / 0)
    flag = send.raise_flag(1).id
    running.sweep()
    running.clock.advance(300)
    running.retry(flag)
    running.clock.advance(10)
    tick(running)
    assert "the last, flag 1 at" in running.why().text and "5 min ago: ZeroDivisionError" in running.why().text
    assert re.match("it waits from scratch since .*, 10 s ago, after it had failed: ZeroDivisionError", running.why(flag).last)


@pytest.fixture
def module(running, client, tmp_path, monkeypatch):
    """Give the module of a handler whose file is changed a minute after the consumer has started."""
    module, path = types.ModuleType("site_of_why"), tmp_path / "site_of_why.py"
    path.write_text("def fail(n):\n    1 / 0\n\n\ndef work(n):\n    pass\n")
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    module.__file__ = str(path)
    os.utime(path, (NEW_YEAR // SECOND + 60,) * 2)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    client.ask("UPDATE flagsweep_consumer SET app = 'site_of_why'")
    return module


def test_a_consumer_that_runs_the_code_of_before_it_was_mended_is_named_first(running, module):
    flag = running.handler("work", max_attempts=1)(module.fail).raise_flag(1).id
    running.sweep()
    assert codes(running.why(flag)) == ["dead"]
    running.clock.advance(120)
    tick(running)
    for found, besides in ((running.why(flag), "dead"), (running.why("work"), "dead-of-kind"), (running.why(), "failing")):
        assert (found.code, found.command, besides in codes(found)) == ("older-code", "flagsweep run", True)
        assert re.search(rf"\(pid {os.getpid()} on .*\) runs since .*, 2 min ago with the code of that time", found.text)
        assert "site_of_why.py was changed at" in found.text and "60 s ago" in found.text
        assert f"kill {os.getpid()}:" in found.change and codes(found).count("older-code") == 1
    assert "start the consumer anew" in running.why().also[0].change


def test_a_consumer_that_runs_older_code_of_what_does_not_fail_is_told_besides(running, module):
    flag = running.handler("work")(module.work).raise_flag(1).id
    assert codes(running.why(flag)) == ["any-moment"]
    running.sweep()
    assert codes(running.why()) == ["all-well"]
    running.clock.advance(120)
    tick(running)
    assert codes(running.why()) == ["all-well", "older-code"] and running.why().ok


def test_a_database_that_does_not_answer_is_the_reason(tmp_path):
    found = FlagSweep("postgresql://nobody@127.0.0.1:1/none").why(17)
    assert found.code == "database-away" and "127.0.0.1" in found.text


def test_a_user_who_may_only_read_gets_an_answer(postgres_url, tmp_path):
    flags = FlagSweep(postgres_url, state_dir=str(tmp_path))
    flags.init()
    flag = idle(flags).raise_flag(1).id
    flags.connections.close_thread()
    client, name = Client(postgres_url), f"flagsweep_reader_{os.getpid()}"
    client.ask(f"CREATE ROLE {name} LOGIN")
    for sql in (f"GRANT USAGE ON SCHEMA public TO {name}", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}"):
        client.ask(sql)
    try:
        reader = FlagSweep(re.sub("//.*?@", f"//{name}@", postgres_url), state_dir=str(tmp_path))
        assert [reader.why(what).code for what in (flag, "work", None, 99)] == ["no-consumer"] * 3 + ["never-raised"]
        reader.connections.close_thread()
    finally:
        for sql in (f"DROP OWNED BY {name}", f"DROP ROLE {name}"):
            client.ask(sql)
        client.close()


def test_json_takes_every_answer(running):
    idle(running).raise_flag(1)
    running.pause("work")
    told = json.loads(json.dumps(running.why().to_dict()))
    assert told["code"] == "kind-paused" and told["since"] and isinstance(told["also"], list)


DAMAGE = (
    "UPDATE flagsweep_flag SET due_at = 'soon'",
    "UPDATE flagsweep_flag SET payload = x'ff'",
    "UPDATE flagsweep_flag SET settled_at = 'then', attempts = 'x', error = x'ff', due_at = 9000000000000000",
    "UPDATE flagsweep_flag SET raised_at = 'then', expires_at = 'never', suspect = 'x', bucket = x'ff', schedule = x'fe'",
    "UPDATE flagsweep_flag SET state = 'dead', died_at = 'then', error = x'ff', died_as = x'ff', attempts = 'x'",
    "UPDATE flagsweep_flag SET state = 'claimed', claimed_by = 'x', claimed_at = 'x', claimed_generation = 'y'",
    "UPDATE flagsweep_flag SET priority = 'high', due_at = 1",
    "UPDATE flagsweep_consumer SET ticked_at = 'x', lanes = '[', started_at = 'y'",
    "INSERT INTO flagsweep_fact (name, value, at) VALUES ('left', '[', 'x'), ('swept', '7', 'x'), ('kind:work', '{', 'x')",
    "UPDATE flagsweep_schedule SET next_at = 'x', paused_at = 'y', fired_at = 'z', kind = x'ff', outcome = x'fe'",
    "INSERT INTO flagsweep_gate (sort, name, bucket, paused_at, paused_by, breaker) VALUES ('kind', 'work', '', 'x', x'ff', '{')",
    "INSERT INTO flagsweep_history (at, flag, kind, key, event, reason) VALUES ('x', 99, 'work', x'ff', 'dead', x'ff')",
)


@pytest.mark.parametrize("number", range(len(DAMAGE)))
def test_rows_that_a_hand_has_damaged_make_no_answer_fail(make, db_path, number):
    flags = make()
    work = idle(flags, rate="1/h", per="n")
    work.every("1h", name="hourly", arguments=(1,))
    flag = work.raise_flag(1).id
    flags.schedules.add("nightly", "work", every="1h", arguments=(2,))
    with closing(Enlisted(flags._duties(), RUN)):
        plain(db_path, DAMAGE[number])
        for what in (None, flag, "work", "hourly", "nightly", "default", 99):
            assert json.dumps(flags.why(what).to_dict())
        assert flags.why("work", '{"n":1}').code and flags.why(lane="default").code
    flags.connections.close_thread()


def test_a_damaged_row_is_named(running, db_path):
    if running.path is None:
        pytest.skip("a server takes no such row")
    flag = idle(running).raise_flag(1).id
    plain(db_path, "UPDATE flagsweep_flag SET due_at = 'soon'")
    found = running.why(flag)
    assert found.code == "damaged" and "its due time is 'soon'" in found.text


# What it costs.


class Steps:
    """Count the steps of SQLite's machine."""

    def __init__(self, connection):
        self.count, self.connection = 0, connection

    def __enter__(self):
        def step():
            self.count += 1

        self.connection.set_progress_handler(step, 100)
        return self

    def __exit__(self, *_):
        self.connection.set_progress_handler(None, 1)


@pytest.mark.long
def test_an_answer_costs_hardly_more_beside_many_flags_than_beside_few(make):
    flags = make()
    work, other = idle(flags), idle(flags, "other")
    flags.database.connect(reuse_if_open=True)

    def fill(start, many):
        """Put flags up of which half are dead and a quarter is due."""
        for handler in (work, other):
            handler.raise_many([(n,) for n in range(start, start + many)])
        sql = "UPDATE flagsweep_flag SET {} WHERE id % 4 = {} AND json_extract(key, '$.n') >= ?"
        for left in (0, 1):
            dead = f"state = 'dead', died_at = {NEW_YEAR}, died_as = 'E ' || id % 10, error = 'E'"
            flags.database.execute_sql(sql.format(dead, left), (start,))
        flags.database.execute_sql(sql.format(f"due_at = due_at + {SECOND} * 3600", 2), (start,))

    def cost(*what, **named):
        with Steps(flags.database.connection()) as steps:
            assert flags.why(*what, **named).code
        return steps.count

    asked = [((), {}), ((3,), {}), (("work",), {}), ((), {"lane": "default"}), (("work", {"n": -1}), {}), ((10**9,), {})]
    fill(0, 400)
    few = [cost(*what, **named) for what, named in asked]
    fill(1000, 20_000)
    many = [cost(*what, **named) for what, named in asked]
    for (what, named), before, after in zip(asked, few, many, strict=True):
        assert after <= 3 * before + 300, (what, named, before, after)


@pytest.mark.long
def test_what_is_due_before_a_flag_is_counted_no_further_than_anybody_wants_to_know(running):
    work = idle(running)
    work.raise_many([(n,) for n in range(10_050)])
    tick(running)
    last = running.find(limit=None)[-1]
    assert "behind more than 10,000 flags of lane default" in running.why(last.id).text


# The list.


def test_the_page_of_all_reasons_is_as_it_is_made():
    assert PAGE.read_text(encoding="utf-8") == page(), "make docs"


def test_every_reason_has_a_code_of_its_own_a_sentence_and_a_test():
    listed = [reason for group in TABLE.values() for reason in group]
    assert len({reason.code for reason in listed}) == len(listed)
    tests = Path(__file__).read_text(encoding="utf-8")
    for reason in listed:
        assert reason.meaning and reason.says.endswith((".", "?")), reason.code
        assert f'"{reason.code}"' in tests or reason.code in ("rate", "budget"), reason.code


def test_every_command_that_is_named_is_there():
    listed = [reason for group in TABLE.values() for reason in group]
    named = {reason.command for reason in listed if reason.command}
    named |= {
        each for reason in listed for text in (reason.says, reason.cure) for each in re.findall(r"'(flagsweep [a-z ]+)'", text)
    }
    for command in named:
        program, name, *more = command.split()
        assert program == "flagsweep" and name in cli.commands, command
        found = cli.commands[name]
        if name == "schedule":
            found = found.commands[more[0]]
        options = {option for parameter in found.params for option in parameter.opts}
        assert {word for word in more if word.startswith("--")} <= options, command

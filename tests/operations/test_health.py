"""Whether all is well: who sweeps, what breaks a promise, what died lately."""

import json
from contextlib import suppress

import pytest
from rig import NEW_YEAR, idle, plain

from flagsweep import ConfigError, FlagSweep
from flagsweep.config import SECOND
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.terms import RUN
from flagsweep.models import Schedule
from flagsweep.testing import FakeClock


@pytest.fixture
def flags_here(ready_url, tmp_path):
    flags = FlagSweep(ready_url, clock=FakeClock(NEW_YEAR), promise={"mail": "1m"}, state_dir=str(tmp_path / "state"))
    flags.init()
    yield flags
    flags.connections.close_thread()


@pytest.fixture
def running(flags_here):
    """Give flags with a consumer that has just ticked."""
    enlisted = Enlisted(flags_here._duties(), RUN)
    flags_here.me = enlisted.id
    tick(flags_here)
    yield flags_here
    enlisted.close()


def tick(flags, swept=0.0, running=0, **more):
    """Have the consumer tick; its lane was swept so many seconds ago."""
    now = flags.clock.now()
    lane = {"swept_at": now - int(swept * SECOND), "running": running, "threads": 2, "kinds": ["send"], **more}
    flags.store.tick(flags.me, json.dumps({"mail": lane}), now)


def told(health, name):
    """Return level and text of the one point of that name."""
    (point,) = [point for point in health.points if point.name == name]
    return point.level, point.text


def test_all_is_well_where_a_consumer_ticks_and_nothing_waits(running):
    running.clock.advance(12)
    health = running.check()
    who = f"consumer {running.me} (pid "
    assert (health.level, health.code) == ("ok", 0)
    assert health.line.startswith(f"FLAGSWEEP OK - {who}") and "ticked 12 s ago" in health.line
    assert health.line.endswith("nothing is due; none died for 24 h")
    assert json.loads(json.dumps(health.to_dict()))["level"] == "ok"


def test_nobody_sweeping_is_critical_and_says_since_when_and_how_the_last_one_ended(flags_here):
    assert told(flags_here.check(), "consumer") == ("critical", "no consumer runs")
    Enlisted(flags_here._duties(), RUN).close()
    flags_here.clock.advance(300)
    health = flags_here.check()
    assert told(health, "consumer") == ("critical", "no consumer runs, for 5 min (it was stopped)")
    assert health.code == 2 and "(start 'flagsweep run')" in health.line
    assert flags_here.check(needs_consumer=False).level == "ok"


def test_a_site_that_is_swept_by_cron_needs_no_consumer_while_it_is(flags_here):
    flags_here.sweep()
    flags_here.clock.advance(120)
    assert told(flags_here.check(), "consumer") == ("ok", "swept 2 min ago by 'flagsweep sweep'")
    flags_here.clock.advance(3600)
    assert flags_here.check().level == "critical"


def test_a_consumer_that_lives_and_does_not_tick_hangs(running):
    running.clock.advance(140)
    assert running.check().level == "ok"
    running.clock.advance(20)
    level, text = told(running.check(), "consumer")
    assert level == "critical" and "lives, and has not ticked for 3 min" in text


def test_a_lane_that_is_not_swept_is_critical_unless_its_handlers_run(running):
    running.clock.advance(600)
    tick(running, swept=200)
    assert told(running.check(), "swept") == ("critical", "lane mail is not swept, though its consumer lives")
    tick(running, swept=200, running=1)
    assert running.check().level == "ok"
    tick(running, swept=30)
    assert running.check().level == "ok"


def test_a_lane_that_has_never_been_swept_gets_its_time_to_begin(running):
    tick(running, swept_at=None)
    assert running.check().level == "ok"
    running.clock.advance(400)
    tick(running, swept_at=None)
    assert running.check().level == "critical"


def test_a_broken_promise_is_critical_and_a_wait_that_nobody_has_promised_to_end_a_warning(running):
    send, tidy = idle(running, "send", lane="mail"), idle(running, "tidy", lane="slow")
    send.raise_flag(1)
    running.clock.advance(61)
    tick(running)
    assert told(running.check(), "due") == ("critical", "lane mail: send waits for 61 s, promised are 60 s")
    running.sweep()
    tidy.raise_flag(1)
    running.clock.advance(3601)
    tick(running, kinds=["send", "tidy"])
    assert told(running.check(), "due") == ("warning", "lane slow: tidy waits for 60 min, nothing is promised")


def test_a_pause_is_told_and_is_a_warning_once_what_waits_behind_it_breaks_its_promise(running):
    idle(running, "send", lane="mail").raise_flag(1)
    running.pause(lane="mail", by="ann", reason="moves")
    health = running.check()
    assert (health.level, told(health, "paused")) == ("ok", ("ok", "paused: lane mail"))
    running.clock.advance(61)
    tick(running)
    health = running.check()
    assert told(health, "due")[0] == health.level == "warning"
    assert "lane mail paused by ann: moves" in health.line and "('flagsweep resume --lane mail')" in health.line


def test_a_kind_that_no_consumer_serves_is_named(running):
    idle(running, "gone").raise_flag(1)
    running.clock.advance(20)
    assert running.check().level == "ok"
    running.clock.advance(20)
    level, text = told(running.check(), "swept")
    assert (level, text) == ("warning", "no consumer has a handler for gone, whose flags are due")


def test_the_lane_of_a_kind_without_a_handler_here_is_what_its_consumer_says(running, ready_url, tmp_path):
    idle(running, "send", lane="mail").raise_flag(1)
    other = FlagSweep(ready_url, clock=running.clock, promise={"mail": "1m"}, state_dir=str(tmp_path / "state"))
    running.clock.advance(61)
    tick(running)
    assert told(other.check(), "due") == ("critical", "lane mail: send waits for 61 s, promised are 60 s")
    other.connections.close_thread()


def test_what_died_lately_is_a_warning_by_kind_and_cause(running):
    fail = running.handler("send", lane="mail", max_attempts=1)(lambda n: 1 / (n - 5))
    other = running.handler("other", lane="mail", max_attempts=1)(lambda: [].pop())
    fail.raise_flag(5), other.raise_flag(), fail.using(key="again").raise_flag(5)
    running.sweep()
    running.clock.advance(100)
    tick(running, kinds=["send", "other"])
    health = running.check()
    assert told(health, "dead") == ("warning", "3 died within 24 h: send, other")
    groups = [(group["kind"], group["died_as"].split()[0], group["count"], group["more"]) for group in health.dead]
    assert groups == [("send", "ZeroDivisionError", 2, False), ("other", "IndexError", 1, False)]
    assert running.check(dead_since=50).level == "ok"
    assert "died" not in running.check(dead_since=0).line
    running.retry(kind="send"), running.discard(kind="other")
    assert running.check().level == "ok"


def test_the_dead_of_before_and_those_that_a_hand_has_killed_count_on_sqlite(make, db_path):
    flags = make(clock=FakeClock(NEW_YEAR))
    idle(flags, "send").raise_flag(1)
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead', died_at = ?", NEW_YEAR)
    assert told(flags.check(needs_consumer=False), "dead") == ("warning", "1 died within 24 h: send")


def test_damage_by_hand_makes_no_answer_fail(make, db_path):
    flags = make(clock=FakeClock(NEW_YEAR))
    work = idle(flags, "send")
    ids = [work.raise_flag(n).id for n in range(4)]
    plain(db_path, "UPDATE flagsweep_flag SET due_at = 'soon' WHERE id = ?", ids[0])
    dead = "UPDATE flagsweep_flag SET state = 'dead', died_at = ?, kind = CAST(? AS TEXT), died_as = ? WHERE id = ?"
    plain(db_path, dead, "lately", b"\xff\xfe", b"\xff", ids[1])
    plain(db_path, dead, NEW_YEAR, "a", b"\x00\x01", ids[2])
    entered = "INSERT INTO flagsweep_consumer (mode, pid, host, started_at, ticked_at, lanes) VALUES ('run', 'x', 'h', ?, ?, ?)"
    for lanes in ("{", "[]", '{"mail": 5}', '{"mail": {"kinds": 7, "swept_at": "x"}}', "9" * 5000):
        plain(db_path, entered, "then", "now", lanes)
    plain(db_path, "INSERT INTO flagsweep_fact (name, value, at) VALUES ('left', '[', 'x')")
    health = flags.check()
    assert health.code == 2 and "no consumer runs" in health.line
    assert json.dumps(health.to_dict())


def test_a_database_that_does_not_answer_is_critical(tmp_path):
    health = FlagSweep(tmp_path / "gone.db").check()
    assert (health.level, health.code) == ("critical", 2)
    assert "there is no database" in health.line


def test_what_is_no_duration_is_refused(flags):
    with pytest.raises(ConfigError, match="dead_since must be seconds"):
        flags.check(dead_since="lately")


def test_a_provider_that_is_away_is_a_warning_with_what_its_flags_fail_of(running):
    @running.handler("send", lane="mail")
    def send(n):
        raise ConnectionRefusedError(111, "Connection refused")

    for number in range(6):
        send.raise_flag(number)
    running.sweep()
    tick(running)
    health = running.check()
    level, text = told(health, "provider")
    assert level == health.level == "warning"
    assert text.startswith("send waits for its provider since 00:00 UTC: ConnectionRefusedError test_health.py:send:")
    assert "('flagsweep why send')" in health.line and not [each for each in health.points if each.name == "failing"]
    running.clock.advance(86_400)
    tick(running)
    assert "since 2026-01-01 00:00 UTC" in running.check().line
    for flag in running.find():
        running.lower(flag.kind, flag.key)
    assert not [each for each in running.check().points if each.name == "provider"]


def test_a_kind_that_only_fails_is_a_warning_though_it_has_no_breaker(running):
    fail = running.handler("send", lane="mail", breaker=None)(lambda n: 1 / (n - 7))
    for number in range(4):
        fail.using(key=f"{number}").raise_flag(7)
    running.sweep()
    tick(running)
    assert running.check().level == "ok"
    fail.using(key="fifth").raise_flag(7)
    running.sweep()
    health = running.check()
    assert told(health, "failing") == ("warning", "each of 5 runs of send within the hour failed")
    assert health.level == "warning" and "('flagsweep why send')" in health.line
    fail.raise_flag(1)
    running.sweep(force=True)
    assert running.check().level == "ok"


def test_a_schedule_without_a_time_to_come_and_one_that_nobody_fires_are_warnings(running):
    idle(running, "send", lane="mail")
    running.schedules.add("hourly", "send", cron="0 * * * *")
    running.schedules.add("leap", "send", cron="0 0 29 2 *")
    assert running.check().level == "ok"
    running.clock.advance(3600 + 179)
    tick(running)
    assert running.check().level == "ok"
    running.clock.advance(2)
    assert told(running.check(), "schedules") == ("warning", "due, and nobody fires it: schedule hourly")
    with running.connections.write() as db:
        Schedule.update(next_at=None).where(Schedule.name == "hourly").execute(db)
    health = running.check()
    assert told(health, "schedules") == ("warning", "never fires again: schedule hourly")
    assert health.level == "warning" and "('flagsweep doctor')" in health.line
    running.pause(schedule="hourly")
    assert running.check().level == "ok"


def test_a_pause_that_keeps_a_schedule_from_firing_is_a_warning_after_an_hour(running):
    idle(running, "send", lane="mail")
    running.schedules.add("hourly", "send", cron="0 * * * *")
    running.pause(lane="mail", by="ann")
    running.clock.advance(2 * 3600 - 1)
    tick(running)
    assert running.check().level == "ok"
    running.clock.advance(2)
    level, text = told(health := running.check(), "schedules")
    assert (level, text) == ("warning", "schedule hourly is due since 01:00 UTC, and waits: lane mail paused by ann")
    assert "('flagsweep resume --lane mail')" in health.line
    running.resume(lane="mail")
    running.pause(lane="mail", until="1d")
    assert running.check().level == "ok"


def test_a_forgotten_pause_is_a_warning_that_says_since_when(running):
    idle(running, "post", lane="post").raise_flag(1)
    running.clock.advance(60)
    running.pause(lane="post", by="root", reason="moving")
    running.clock.advance(3500)
    tick(running, kinds=["post"])
    health = running.check()
    assert health.level == "ok" and "paused: lane post" in health.line
    running.clock.advance(50)
    level, text = told(health := running.check(), "due")
    assert level == "warning" and text.endswith("nothing is promised: lane post paused by root: moving since 00:01 UTC")
    assert "('flagsweep resume --lane post')" in health.line


def test_a_full_disk_is_critical(small_disk):
    flags = FlagSweep(small_disk / "site.db")
    flags.init()
    assert flags.check(needs_consumer=False).level == "ok"
    with (small_disk / "fill").open("wb", buffering=0) as fill, suppress(OSError):
        while True:
            fill.write(bytes(4096))
    health = flags.check(needs_consumer=False)
    assert (health.level, health.code) == ("critical", 2)
    assert f"0 KiB are free on the disk of {small_disk}" in health.line and "('flagsweep doctor')" in health.line
    flags.connections.close_thread()


def test_schedules_that_a_hand_has_damaged_make_no_answer_fail(make, db_path):
    flags = make(clock=FakeClock(NEW_YEAR))
    idle(flags, "send")
    for name in ("one", "two", "three", "four"):
        flags.schedules.add(name, "send", cron="0 * * * *")
    flags.clock.advance(86_400)
    plain(db_path, "UPDATE flagsweep_schedule SET next_at = 'soon' WHERE name = 'one'")
    plain(db_path, "UPDATE flagsweep_schedule SET next_at = 1.5, kind = x'ff' WHERE name = 'two'")
    plain(db_path, "UPDATE flagsweep_schedule SET paused_at = 'x', paused_until = 'y' WHERE name = 'three'")
    assert told(flags.check(needs_consumer=False), "schedules") == ("warning", "due, and nobody fires it: schedule four, three")

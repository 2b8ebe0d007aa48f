"""What the logger `flagsweep` says: enough to follow a consumer by, no payloads, and never a traceback a second."""

import logging
import threading

import pytest
from peewee import BooleanField, CharField, Model, SqliteDatabase
from rig import plain

from flagsweep import Discard, FlagSweep, Retry, Snooze

SECRET = "hunter2"


@pytest.fixture
def lines(caplog):
    """Give `lines(level)`: what was logged at that level or above, a line for each record, and forget it."""
    caplog.set_level(logging.DEBUG, "flagsweep")

    def lines(level=logging.INFO):
        said = [record.getMessage() for record in caplog.records if record.levelno >= level and record.name == "flagsweep"]
        assert not any(record.exc_info for record in caplog.records), "a traceback"
        caplog.clear()
        return said

    return lines


@pytest.fixture
def consume(until):
    """Give `consume(flags)`: run the consumer in a thread until the test ends."""
    running = []

    def consume(flags):
        thread = threading.Thread(target=flags.run)
        running.append((flags, thread))
        thread.start()
        until(lambda: any(each["alive"] for each in flags.status()["consumers"]))
        return thread

    yield consume
    for flags, thread in running:
        flags.stop()
        thread.join(10)


# One line per sweep.


def test_a_sweep_that_did_something_is_one_line_with_its_counts(flags, lines):
    @flags.handler
    def work(n):
        if n == 0:
            raise Snooze(60)

    work.raise_many([(n,) for n in range(1000)])
    flags.sweep()
    (line,) = lines()
    assert line in ("swept default: 999 lowered, 1 snoozed", "swept default: 1 snoozed, 999 lowered")


def test_a_sweep_that_did_nothing_is_silent(flags, lines):
    flags.handler("work")(lambda: None).using(delay=60).raise_flag()
    lines()
    for _ in range(3):
        flags.sweep()
    assert lines(logging.DEBUG) == []


def test_lanes_that_did_nothing_are_silent(flags, lines):
    flags.handler("work", lane="one")(lambda: None).raise_flag()
    flags.handler("idle", lane="two")(lambda: None)
    flags.sweep()
    assert lines() == ["swept one: 1 lowered"]


# One line per attempt that failed.


def test_an_attempt_that_failed_is_one_line_with_the_error_and_no_traceback(flags, lines, clock):
    @flags.handler(max_attempts=2, backoff=60)
    def work():
        raise LookupError("no user 7")

    id = work.raise_flag().id
    flags.sweep()
    clock.advance(60)
    flags.sweep()
    assert lines(logging.WARNING) == [
        f"work (flag {id}) attempt 1 failed, again in 60 s: LookupError: no user 7",
        f"work (flag {id}) attempt 2 failed, dead: LookupError: no user 7",
    ]


def test_each_failed_attempt_has_its_line(flags, lines):
    @flags.handler(breaker=None)
    def work(n):
        raise ValueError(n)

    work.raise_many([(n,) for n in range(50)])
    flags.sweep()
    assert len(lines(logging.WARNING)) == 50


def test_what_a_handler_chooses_is_told_calmly(flags, lines):
    outcomes = [Snooze(60), Discard("the account is gone"), Retry(after=60, reason="their server is closed")]

    @flags.handler(priority=0)
    def work(n):
        raise outcomes[n]

    ids = [work.raise_flag(n).id for n in range(3)]
    flags.sweep()
    said = lines()
    assert f"work (flag {ids[1]}) discarded: the account is gone" in said
    assert f"work (flag {ids[2]}) attempt 1 failed, again in 60 s: their server is closed" in said
    assert not any(f"flag {ids[0]})" in line for line in said)


def test_a_damaged_row_is_one_line(flags, db_path, lines):
    flags.handler("work")(lambda: None).raise_flag()
    plain(db_path, "UPDATE flagsweep_flag SET payload = '{'")
    flags.sweep()
    (line,) = lines(logging.WARNING)
    assert "work (flag 1)" in line and "dead" in line and "malformed JSON" in line


# What must not be said.


@pytest.mark.parametrize(
    "outcome", [None, ValueError("no"), Snooze(5), Discard("no"), Retry(5), SystemExit(1)], ids=lambda each: type(each).__name__
)
@pytest.mark.parametrize("attempts", [1, 8])
def test_payloads_are_never_logged(flags, lines, outcome, attempts):
    @flags.handler(max_attempts=attempts)
    def work(password, flag):
        flag.progress(password)
        if outcome:
            raise outcome

    flags.on_dead(lambda *death: None)
    work.raise_flag(SECRET)
    work.raise_many([{"password": SECRET + "!"}])
    flags.sweep()
    flags.retry()
    flags.discard()
    assert SECRET not in "\n".join(lines(logging.DEBUG))


def test_neither_an_error_in_on_dead_nor_damage_shows_a_payload(flags, db_path, caplog):
    def failing(*death):
        raise ValueError("the pager is off")

    flags.on_dead(failing)
    work = flags.handler("work", max_attempts=1)(lambda password: 1 / 0)
    work.raise_flag(SECRET)
    work.raise_flag(SECRET + "!")
    plain(db_path, "UPDATE flagsweep_flag SET payload = payload || '}' WHERE id = 2")
    flags.sweep()
    assert "the pager is off" in caplog.text
    assert SECRET not in caplog.text


EVIL = "a\nflagsweep INFO swept default: 1 lowered\r\x1b[2J\x07\u2028\u202e"


def is_one_harmless_line(text):
    return text.isprintable()


@pytest.mark.parametrize(
    "error",
    [
        lambda: ValueError(EVIL),
        lambda: Retry(5, reason=EVIL),
        lambda: Discard(EVIL),
        lambda: type(EVIL.replace("\n", "\x1b"), (Exception,), {})("no"),
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, EVIL),
    ],
)
def test_control_characters_in_an_error_do_not_break_its_line(flags, lines, error):
    @flags.handler
    def work():
        raise error()

    work.raise_flag()
    flags.sweep()
    assert all(is_one_harmless_line(line) for line in lines(logging.DEBUG))


def test_control_characters_in_a_key_do_not_break_a_line(db_path, clock, lines):
    class Named(Model):
        name = CharField(primary_key=True)
        owed = BooleanField(default=True)

    flags = FlagSweep(SqliteDatabase(db_path), clock=clock)
    flags.init()
    with flags.database.bind_ctx([Named]):
        flags.database.create_tables([Named])
        Named.insert(name=EVIL).execute()

        @flags.when(Named.owed)
        def work(row):
            raise ValueError("no")

        flags.sweep()
    flags.database.close()
    said = lines(logging.DEBUG)
    assert any("attempt 1 failed" in line for line in said)
    assert all(is_one_harmless_line(line) for line in said)


def test_a_kind_without_a_handler_is_named_on_one_harmless_line(flags, db_path, lines, consume, until):
    flags.handler("work")(lambda: None).raise_flag()
    flags.handlers["work"].using(key="other").raise_flag()
    plain(db_path, "UPDATE flagsweep_flag SET kind = ? WHERE id = 1", EVIL)
    plain(db_path, "UPDATE flagsweep_flag SET kind = CAST(x'ff' AS TEXT) WHERE id = 2")
    plain(db_path, "UPDATE flagsweep_flag SET due_at = 1")
    consume(flags)
    said = []
    until(lambda: said.extend(lines()) or any("without a handler wait" in line for line in said))
    assert all(is_one_harmless_line(line) for line in said)


def test_a_condition_that_cannot_be_asked_is_one_harmless_line(flags, lines):
    class Row(Model):
        owed = BooleanField()

    broken = []

    @flags.when(lambda: broken[0]() if broken else Row.owed)
    def work(row): ...

    def fail():
        raise ValueError(EVIL)

    broken.append(fail)
    flags.sweep()
    (line,) = lines(logging.WARNING)
    assert is_one_harmless_line(line) and "work" in line


# The consumer.


def test_a_consumer_says_what_it_sweeps_how_and_under_which_lease(flags, db_path, lines, consume, until):
    flags.handler("send", lane="mail")(lambda: None)
    flags.handler("thank", lane="mail")(lambda: None)
    flags.handler("report", lane="slow")(lambda: None)
    consume(flags)
    id = flags.status()["consumers"][0]["id"]
    said = []
    until(lambda: said.extend(lines()) or any("lane slow" in line for line in said))
    (banner,) = [line for line in said if "flagsweep sweeps" in line]
    assert str(db_path) in banner and "queue in memory" in banner and f"lease {id}" in banner
    assert "lane mail, 2 threads: send, thank" in said
    assert "lane slow, 2 threads: report" in said


def test_an_idle_consumer_is_silent(flags, lines, consume, until):
    done = []
    flags.handler("work")(lambda: done.append(1)).raise_flag()
    consume(flags)
    until(lambda: not flags.find() and done)
    until(lambda: any("swept default: 1 lowered" in line for line in lines()))
    until(lambda: lines(logging.INFO) == [], limit=1)
    assert lines(logging.INFO) == []


def test_a_consumer_that_stops_says_so(flags, lines, consume, until):
    flags.handler("work")(lambda: None)
    thread = consume(flags)
    flags.stop()
    thread.join(10)
    said = lines()
    assert said[-1] == "stopped"
    assert any(line.startswith("stopping (stop() was called)") for line in said)


def test_the_root_logger_is_left_alone(flags):
    before = list(logging.getLogger().handlers), logging.getLogger().level
    flags.handler("work")(lambda: None).raise_flag()
    flags.sweep()
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before
    assert logging.getLogger("flagsweep").handlers == []

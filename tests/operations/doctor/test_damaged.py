"""Rows that a hand has damaged, whichever column it was, make no check fail: each is told as what it is, or left out."""

import sqlite3
from contextlib import closing

import pytest
from examined import count_runs
from rig import FakeClock

from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.terms import RUN
from flagsweep.operations.doctor.examine import examine

TABLES = ("consumer", "schedule", "gate", "count", "fact", "flag", "hold")


@pytest.fixture
def busy(make):
    """Give a site with something in each table."""
    flags = make(clock=FakeClock(), promise={"mail": "1m"})
    send = flags.handler("send", lane="mail", atomic=True, result=True, rate="10/m")(lambda number: None)
    flags.handler("work")(lambda: None)
    flags.schedules.add("hourly", "work", cron="0 * * * *", missed="skip")
    flags.pause(kind="send")
    flags.resume(kind="send")
    flags.set_threads("mail", 3)
    with closing(Enlisted(flags._duties(), RUN)) as consumer:
        for minute in range(6):
            count_runs(flags, "send", 12, 10)
            send.raise_many([(minute * 100 + number,) for number in range(60)])
            flags.clock.advance(60)
        flags.store.tick(consumer.id, "{}", flags.clock.now())
        flags.store.note_served(flags._duties().served(), flags.clock.now())
        yield flags
    flags.connections.close_engine()


@pytest.mark.long
@pytest.mark.parametrize("value", ["x", 2**62, -1, "[1]"])
@pytest.mark.parametrize("table", TABLES)
def test_no_damaged_column_makes_a_check_fail(busy, db_path, table, value):
    with closing(sqlite3.connect(db_path, isolation_level=None)) as hand:
        columns = [row[1] for row in hand.execute(f"PRAGMA table_info(flagsweep_{table})")]
        saved = hand.execute(f"SELECT * FROM flagsweep_{table}").fetchall()
        for column in columns:
            try:
                hand.execute(f"UPDATE flagsweep_{table} SET {column} = ?", (value,))
            except sqlite3.Error:  # What the table does not let through.
                continue
            broken = [finding for finding in examine(busy) if "could not be checked" in finding.text]
            assert not broken, (column, broken)
            hand.execute(f"DELETE FROM flagsweep_{table}")
            hand.executemany(f"INSERT INTO flagsweep_{table} VALUES ({', '.join('?' * len(columns))})", saved)

"""What happened, newest first, on every database."""

import re
from datetime import timedelta

import pytest
from playhouse.test_utils import count_queries

from flagsweep import ConfigError
from flagsweep.config import SECOND, utc
from flagsweep.operations import history as of_history

INSERT = "INSERT INTO flagsweep_history (at, flag, kind, key, event, reason) VALUES (?, ?, ?, ?, ?, ?)"


@pytest.fixture
def flags(flags_anywhere, client):
    """Return a site with forty lines, one a minute, of two kinds and two events, the oldest first."""
    now = flags_anywhere.clock.now()
    for n in range(40):
        kind, event = ("send", "bill")[n % 2], ("failed", "dead")[n % 4 == 3]
        client.ask(INSERT, now - (40 - n) * 60 * SECOND, n // 4 + 1, kind, f"k{n % 5}", event, f"line {n}")
    return flags_anywhere


def numbers(found):
    return [int(line.reason.split()[1]) for line in found]


def test_the_newest_comes_first_and_the_limit_is_kept(flags):
    assert numbers(flags.history(limit=3)) == [39, 38, 37]
    assert numbers(flags.history(limit=None)) == [*reversed(range(40))]
    (line,) = flags.history(limit=1)
    assert (line.at, line.flag, line.kind, line.key) == (utc(flags.clock.now()) - timedelta(minutes=1), 10, "bill", "k4")
    assert line.to_dict()["at"] == line.at.isoformat() and (line.event, line.attempt, line.took_s) == ("dead", None, None)


@pytest.mark.parametrize(
    ("wanted", "meets"),
    [
        ({"kind": "send"}, lambda n: n % 2 == 0),
        ({"kind": "send", "event": "dead"}, lambda n: False),
        ({"kind": "bill", "event": "failed"}, lambda n: n % 4 == 1),
        ({"event": "dead"}, lambda n: n % 4 == 3),
        ({"key": "k2"}, lambda n: n % 5 == 2),
        ({"kind": "bill", "key": "k2"}, lambda n: n % 5 == 2 and n % 2),
        ({"flag": 3}, lambda n: n // 4 == 2),
        ({"flag": 3, "event": "dead"}, lambda n: n == 11),
        ({"since": "10m"}, lambda n: n >= 30),
        ({"until": 600, "event": "dead"}, lambda n: n < 30 and n % 4 == 3),
        ({"since": "20m", "until": "10m", "kind": "send"}, lambda n: 20 <= n < 30 and n % 2 == 0),
    ],
)
def test_it_is_narrowed(flags, wanted, meets):
    found = flags.history(**wanted)
    assert numbers(found) == [n for n in reversed(range(40)) if meets(n)] and found.looked_until is None


def test_what_no_index_has_is_looked_for_among_so_many_lines_and_that_is_said(flags, monkeypatch):
    monkeypatch.setattr(of_history, "LOOK", 10)
    found = flags.history(key="k2")
    assert numbers(found) == [37, 32] and found.looked_until == utc(flags.clock.now()) - timedelta(minutes=11)
    assert numbers(flags.history(kind="bill", event="dead", limit=None)) == [n for n in reversed(range(40)) if n % 4 == 3]
    assert numbers(flags.history(key="k2", until=found.looked_until)) == [27, 22]
    assert flags.history(key="k2", limit=2).looked_until is None, "there is as much as was asked for"


def test_a_real_failure_is_told_with_its_attempt_and_how_long_it_took(flags_anywhere):
    flags_anywhere.handler("work", max_attempts=1)(lambda: 1 / 0)
    raised = flags_anywhere.handlers["work"].raise_flag()
    flags_anywhere.sweep()
    (line,) = flags_anywhere.history(flag=raised.id)
    assert (
        (line.event, line.attempt, line.kind) == ("dead", 1, "work") and line.took_s >= 0 and "ZeroDivisionError" in line.reason
    )


@pytest.mark.parametrize(
    ("wanted", "told"),
    [({"event": "gone"}, "failed, dead"), ({"since": "soon"}, "since"), ({"limit": -1}, "limit")],
)
def test_what_cannot_be_meant_is_refused(flags_anywhere, wanted, told):
    with pytest.raises(ConfigError, match=told):
        flags_anywhere.history(**wanted)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({}, "flagsweep_history_at"),
        ({"key": "k2"}, "flagsweep_history_at"),
        ({"kind": "bill"}, "flagsweep_history_kind"),
        ({"kind": "bill", "key": "k2"}, "flagsweep_history_kind"),
        ({"event": "dead"}, "flagsweep_history_event"),
        ({"kind": "bill", "event": "dead"}, "flagsweep_history_(event|kind)"),
        ({"flag": 3}, "flagsweep_history_flag"),
    ],
)
def test_each_question_goes_by_its_index(flags, wanted, index, plans):
    with count_queries() as counter:
        flags.history(since="1d", **wanted)
    for plan in plans(counter):
        assert len([step for step in plan if "flagsweep_history" in step]) == 1
        assert any(re.search(f"USING (COVERING )?INDEX {index}", step) for step in plan), plan


@pytest.fixture
def plans(flags):
    """Give how SQLite carries out each question to the history."""

    def plans(counter):
        asked = [record.msg for record in counter._handler.queries]
        asked = [(text, values) for text, values in asked if 'FROM "flagsweep_history"' in text]
        assert asked
        with flags.database.connection_context():
            explain = [flags.database.execute_sql("EXPLAIN QUERY PLAN " + text, values).fetchall() for text, values in asked]
        return [[row[3] for row in rows] for rows in explain]

    return plans


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_rows_damaged_by_hand_are_shown(flags, client):
    client.ask("UPDATE flagsweep_history SET at = 'then', took = 'long', kind = x'ff' WHERE flag = 10")
    found = flags.history(limit=None)
    assert len(found) == 40 and found[0].at is None and found[0].took_s is None

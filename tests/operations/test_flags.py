"""What people do about flags: find, retry, discard, lower."""

import sqlite3
from datetime import UTC, datetime

import pytest
from rig import NEW_YEAR, Oops, count, idle, plain

from flagsweep import ConfigError, Snooze
from flagsweep.config import SECOND


def test_find_shows_a_flag_whole(flags):
    work = idle(flags, lane="mail", priority=3)
    id = work.using(delay=60, key="k").raise_flag(1).id
    (flag,) = flags.find()
    assert (flag.id, flag.kind, flag.key, flag.payload, flag.state) == (id, "work", "k", {"n": 1}, "waiting")
    assert (flag.lane, flag.priority, flag.attempts, flag.crashes, flag.generation) == ("mail", 3, 0, 0, 1)
    assert flag.due_at == datetime.fromtimestamp(NEW_YEAR / SECOND + 60, UTC)
    assert flag.raised_at == datetime.fromtimestamp(NEW_YEAR / SECOND, UTC)
    assert (flag.error, flag.cursor, flag.claimed_by, flag.claimed_at, flag.died_at) == (None,) * 5
    assert flag.to_dict()["due_at"] == "2026-01-01T00:01:00+00:00"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [1, 2, 3, 4]),
        ({"kind": "work"}, [1, 2, 3]),
        ({"kind": "none"}, []),
        ({"state": "dead"}, [1]),
        ({"state": "waiting", "kind": "work"}, [2, 3]),
        ({"key": "k2"}, [2]),
        ({"lane": "mail"}, [4]),
        ({"lane": "-"}, []),
        ({"lane": "none"}, []),
        ({"id": 3}, [3]),
        ({"id": [4, 2, 99]}, [2, 4]),
        ({"id": []}, []),
        ({"due": True}, [2, 4]),
        ({"due": False}, [1, 3]),
        ({"limit": 2}, [1, 2]),
        ({"limit": 0}, []),
        ({"limit": None}, [1, 2, 3, 4]),
        ({"kind": "work", "state": "dead", "key": "k2"}, []),
    ],
    ids=str,
)
def test_find_meets_all_that_is_given(flags, conditions, expected):
    def work(n):
        raise ValueError("no")

    work = flags.handler(max_attempts=1)(work)
    other = idle(flags, "other", lane="mail")
    ids = {1: work.using(key="k1").raise_flag(1).id}
    flags.sweep()
    ids[2] = work.using(key="k2").raise_flag(2).id
    ids[3] = work.using(key="k3", delay=60).raise_flag(3).id
    ids[4] = other.raise_flag(4).id
    names = {id: name for name, id in ids.items()}
    if "id" in conditions:
        given = conditions["id"]
        conditions = {"id": ids[given] if isinstance(given, int) else [ids.get(name, 10**6) for name in given]}
    assert [names[flag.id] for flag in flags.find(**conditions)] == expected


@pytest.mark.parametrize("conditions", [{"state": "lost"}, {"limit": -1}, {"limit": "5"}], ids=str)
def test_find_refuses_what_cannot_be_meant(flags, conditions):
    with pytest.raises(ConfigError):
        flags.find(**conditions)


@pytest.fixture
def mixed(flags, clock):
    """Return flags of the kind `work`: 0 is dead, 1 backs off, 2 waits, 3 snoozes; and a dead one of the kind `other`: 4."""

    def perform(n):
        if n == 3:
            raise Snooze(60)
        raise ValueError("no")

    work = flags.handler("work", max_attempts=2)(perform)
    other = flags.handler("other", max_attempts=1)(perform)
    flags.ids = {0: work.raise_flag(0).id, 4: other.raise_flag(4).id}
    flags.sweep()
    clock.advance(20)
    flags.sweep()
    flags.ids |= {n: work.raise_flag(n).id for n in (1, 3)}
    flags.sweep()
    flags.ids[2] = work.raise_flag(2).id
    return flags


def states(flags):
    return {flag.payload["n"]: flag.state for flag in flags.find()}


def test_retry_lets_dead_flags_and_those_that_back_off_be_due_now(mixed, clock):
    assert states(mixed) == {0: "dead", 1: "waiting", 2: "waiting", 3: "waiting", 4: "dead"}
    assert mixed.retry() == 3
    flags = {flag.payload["n"]: flag for flag in mixed.find()}
    assert {flag.state for flag in flags.values()} == {"waiting"}
    assert [flags[n].attempts for n in range(5)] == [0] * 5
    assert {n for n, flag in flags.items() if flag.due_at.timestamp() * SECOND <= clock.now()} == {0, 1, 2, 4}


def test_retry_takes_an_id_ids_a_kind_or_a_key(mixed):
    assert mixed.retry(id=mixed.ids[0]) == 1
    assert mixed.retry(id=[mixed.ids[4], 10**6]) == 1
    assert mixed.retry(kind="work", key='{"n":1}') == 1
    assert mixed.retry(kind="none") == 0
    assert mixed.retry(id=mixed.ids[2]) == 0


def test_discard_drops_dead_flags_alone_and_keeps_the_reason(mixed, db_path):
    assert mixed.discard(kind="work", reason="they left") == 1
    assert states(mixed) == {1: "waiting", 2: "waiting", 3: "waiting", 4: "dead"}
    assert mixed.discard(id=mixed.ids[2]) == 0
    assert mixed.discard() == 1
    assert plain(db_path, "SELECT kind, event, reason FROM flagsweep_history WHERE event = 'discarded'") == [
        ("work", "discarded", "they left"),
        ("other", "discarded", "by hand"),
    ]


@pytest.mark.long
def test_thousands_of_dead_flags_are_retried_or_discarded_together(flags, db_path):
    idle(flags).raise_many([(n,) for n in range(3000)])
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead', died_at = 0")
    flags.database.connect()
    if hasattr(sqlite3.Connection, "setlimit"):
        flags.database.connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 3000)
    assert flags.retry() == 3000
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead', died_at = 0")
    assert flags.discard() == 3000
    assert (count(db_path), count(db_path, "flagsweep_history")) == (0, 3000)


def test_lower_takes_a_flag_down_whatever_its_state(mixed, db_path):
    for n in (0, 1, 2):
        assert mixed.lower("work", f'{{"n":{n}}}') is True
        assert mixed.lower("work", f'{{"n":{n}}}') is False
    assert sorted(states(mixed)) == [3, 4]
    assert {reason for (reason,) in plain(db_path, "SELECT reason FROM flagsweep_history WHERE event = 'lowered by hand'")} == {
        "was dead",
        "was waiting",
    }


def test_lower_of_a_running_flag_lets_its_handler_end_and_counts_it_lost(flags, db_path):
    done = []

    @flags.handler
    def work():
        assert flags.lower("work", "{}")
        done.append(1)

    work.raise_flag()
    assert flags.sweep() == {"lost": 1}
    assert (done, count(db_path)) == ([1], 0)


def test_a_flag_that_was_lowered_and_raised_anew_while_its_handler_ran_is_run(flags):
    runs = []

    @flags.handler
    def work():
        runs.append(1)
        if len(runs) == 1:
            flags.lower("work", "{}")
            assert work.raise_flag().how == "new"

    work.raise_flag()
    assert flags.sweep() == {"lost": 1, "lowered": 1}
    assert len(runs) == 2


def test_what_a_person_does_joins_the_transaction_that_is_open(flags):
    work = idle(flags)
    work.raise_flag()
    with pytest.raises(Oops), flags.database.atomic():
        flags.lower("work", "{}")
        assert flags.find() == []
        raise Oops
    assert len(flags.find()) == 1

"""Claiming by bucket: it is fair, it is complete, and it costs what it may."""

import itertools
import threading
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagsweep import FlagSweep
from flagsweep.databases.buckets import EVERY, turns
from flagsweep.databases.mysql import buckets as mysql
from flagsweep.databases.opening import open_connections
from flagsweep.databases.postgresql import buckets as postgresql
from flagsweep.databases.sqlite import buckets as sqlite
from flagsweep.databases.way import FORCED

NOW, FUTURE = 10_000, 10**15
MISSES = 31
"""A token by whose chance none of a look's first 31 flags is kept for the oldest."""


class Place:
    """Hold one connection of ours to a database."""

    def __init__(self, url):
        self.connections = open_connections(url)
        self.db, self.dialect = self.connections.engine, self.connections.dialect
        self.name = self.dialect.name.lower()
        self.mark = "?" if self.name == "sqlite" else "%s"

    def fill(self, rows, kind="mail", priority=0):
        """Put flags up: (bucket, due_at) of each; keys are numbers."""
        rows, number = iter(rows), self.ask("SELECT coalesce(max(id), 0) FROM flagsweep_flag")[0][0]
        columns = "kind, key, payload, priority, due_at, raised_at, bucket"
        columns = columns.replace("key", "`key`") if self.name == "mysql" else columns
        with self.db.atomic():
            while chunk := list(itertools.islice(rows, 2000)):
                one, values = "(" + ", ".join([self.mark] * 7) + ")", []
                for bucket, due in chunk:
                    number += 1
                    values += (kind, str(number), f'{{"user_id":{number}}}', priority, due, 1000, bucket)
                self.db.execute_sql(f"INSERT INTO flagsweep_flag ({columns}) VALUES " + ", ".join([one] * len(chunk)), values)

    def ask(self, sql, parameters=()):
        return self.db.execute_sql(sql, parameters).fetchall()

    def analyze(self):
        self.ask("ANALYZE TABLE flagsweep_flag") if self.name == "mysql" else self.db.execute_sql("ANALYZE flagsweep_flag")

    def claim(self, limit, token, now, start=None, closed=(), consumer=1):
        with self.dialect.transaction(self.db, True):
            return self.dialect.claim_by_bucket(self.db, "mail", 0, limit, consumer, token, now, start, closed)

    def plain(self, limit, token, now):
        with self.dialect.transaction(self.db, True):
            return self.dialect.claim(self.db, "mail", 0, limit, 1, token, now)

    def lower(self, rows, token):
        with self.dialect.transaction(self.db, False):
            return self.dialect.lower(self.db, [row[1] for row in rows], token)

    def close(self):
        self.db.close()


@pytest.fixture
def place(url):
    FlagSweep(url).init()
    place = Place(url)
    yield place
    place.close()


def bucket_of(row):
    return None if row[4] is None else row[4][9]


def buckets(rows):
    return Counter(map(bucket_of, rows))


def drain(place, limit=1000, closed=(), now=NOW, start=None):
    """Return all rows that come until none does."""
    found = []
    token = 0
    while True:
        rows, start = place.claim(limit, token := token + 1, now, start, closed)
        assert len(rows) <= limit
        if not rows:
            return found
        found += rows


def test_every_bucket_has_its_turn_before_any_has_its_share_twice(place):
    place.fill((f"b{n % 1000:04d}", n // 1000) for n in range(10_000))
    seen: Counter[str] = Counter()
    start = None
    for token in range(1, 7):
        rows, start = place.claim(200, token * 32 + MISSES, NOW, start)
        seen += buckets(rows)
    assert len(seen) == 1000
    assert sum(seen.values()) == 1200
    assert sum(min(count, 2) for count in seen.values()) >= 1200 - 6 * 16  # A few are the oldest ones, of whatever bucket.


@pytest.mark.parametrize("limit", [2, 8, 100, 1000])
@pytest.mark.parametrize("fresh", ["a", "z"])
def test_a_flood_does_not_delay_a_fresh_bucket(place, limit, fresh):
    place.fill([("flood", 1000)] * 3000)
    rows, start = place.claim(limit, MISSES, NOW)
    assert buckets(rows) == {"flood": limit}
    place.fill([(fresh, 9000)])
    rows, start = place.claim(limit, 32 + MISSES, NOW, start)
    assert buckets(rows) == {"flood": limit - 1, fresh: 1}


def test_one_flag_a_look_goes_round(place):
    place.fill([("a", 1)] * 10 + [("b", 2)] * 10 + [("c", 3)])
    start, turn = None, []
    for token in range(6):
        rows, start = place.claim(1, token * 32 + MISSES, NOW, start)
        turn += buckets(rows)
    assert turn == ["a", "b", "c", "a", "b", "a"]


def test_two_floods_share_what_small_buckets_leave(place):
    place.fill([("old", 1)] * 2000 + [("young", 2)] * 2000 + [(f"s{n}", 3) for n in range(100)])
    rows, _ = place.claim(1000, MISSES, NOW)
    counts = buckets(rows)
    assert len(rows) == 1000
    assert sum(count for bucket, count in counts.items() if bucket[0] == "s") == 100
    assert min(counts["old"], counts["young"]) >= 200  # MySQL shares by pages, and evens out over looks.


def test_a_lone_bucket_gets_all_there_is_room_for(place):
    place.fill([("only", 1)] * 1500)
    assert [len(place.claim(1000, token, NOW)[0]) for token in (1, 2, 3)] == [1000, 500, 0]


def test_closed_buckets_are_skipped_whatever_there_is_of_them(place):
    place.fill([("flood", 1)] * 3000 + [(f"b{n:03d}", 2) for n in range(400)])
    closed = ["flood", "nobody", *(f"b{n:03d}" for n in range(0, 400, 2))]
    for limit in (1, 7, 1000):
        rows, _ = place.claim(limit, 32 * limit, NOW, None, closed)
        assert len(rows) == min(limit, 200 - (limit == 7) - 8 * (limit == 1000))
        assert not buckets(rows).keys() & set(closed)
    assert place.claim(1000, 5, NOW, None, ["flood", *(f"b{n:03d}" for n in range(400))])[0] == []


def test_flags_without_a_bucket_are_claimed_beside_floods_that_go_on(place):
    place.fill([("a", 1000)] * 30 + [(None, 1001)] * 3 + [("b", 1002)] * 300)
    found: Counter[str | None] = Counter()
    start = None
    for token in range(1, 200):
        rows, start = place.claim(2, token, NOW, start)
        found += buckets(rows)
        place.lower(rows, token)
        place.fill([(bucket_of(rows[0]), 2000)])
        if found[None] == 3:
            return
    raise AssertionError(found)


def test_flags_of_the_future_of_other_kinds_and_of_other_priorities_stay(place):
    place.fill([("a", 1), ("a", NOW), ("a", NOW + 1), ("b", FUTURE)])
    place.fill([("a", 1)], kind="other")
    place.fill([("a", 1)], priority=5)
    assert [(bucket_of(row), row[0]) for row in drain(place, 1)] == [("a", 1), ("a", NOW)]


def test_a_fresh_bucket_among_very_many_of_the_future_is_found_in_so_many_looks(place):
    place.fill((f"b{n:04d}", FUTURE) for n in range(2000))
    place.fill([("flood", 1)] * 1000 + [("b0999+", 2)])
    start = None
    for token in range(30):
        rows, start = place.claim(8, token * 32 + MISSES, NOW, start)
        assert len(rows) == 8
        if "b0999+" in buckets(rows):
            return
    raise AssertionError("never")


def test_rows_are_as_a_plain_claim_has_them(place):
    place.fill([("x", 7), (None, 8)])
    (first, second), _ = place.claim(10, 5, NOW)
    with place.dialect.transaction(place.db, False):
        place.dialect.release(place.db, [first[1], second[1]], 5, NOW)
    plain = place.plain(10, 6, NOW)
    assert [list(first), list(second)] == [list(row) for row in plain] and [*map(bucket_of, plain)] == ["x", None]


names = st.sampled_from(["", "a", "A", "a ", "a'\"\\", "ü", "\U0001f600", "z" * 200, "0", None])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(names, st.integers(0, 12)), max_size=60), st.integers(1, 20), st.sets(names), names)
def test_all_that_is_due_and_open_comes_once_and_nothing_else(place, flags, limit, closed, start):
    place.db.execute_sql("DELETE FROM flagsweep_flag")
    place.fill(flags)
    shut = [name for name in closed if name is not None]
    rows = drain(place, limit, shut, now=9, start=start)
    assert len({row[1] for row in rows}) == len(rows)
    wanted = Counter(name for name, due in flags if due <= 9 and name not in shut)
    got = buckets(rows)
    if shut:  # Flags without a bucket wait behind those of closed ones.
        assert got.pop(None, 0) <= wanted.pop(None, 0)
    assert got == wanted


def test_a_flag_that_is_due_before_all_that_wait_is_found_in_a_while(place):
    place.fill([("flood", 1000 + n) for n in range(2000)])
    start = None
    for token in range(60):
        rows, start = place.claim(8, token * 32 + MISSES, NOW, start)
        if token == 5:
            place.fill([("late", 1)])
        if "late" in buckets(rows):
            return
    raise AssertionError("never")


# Several at once.


@pytest.mark.parametrize("flood", [True, False])
def test_consumers_at_once_take_every_flag_and_none_twice(place, url, flood):
    place.fill((("flood" if flood and n % 2 else f"b{n % 97}"), 1 + n // 200) for n in range(3000))
    taken: list[int] = []
    failed: list[Exception] = []

    def consume(consumer):
        mine = Place(url)
        try:
            start = None
            for look in range(300):
                rows, start = mine.claim(50, consumer * 1000 + look, NOW, start, consumer=consumer)
                taken.extend(row[1] for row in rows)
                if not rows and not mine.ask("SELECT 1 FROM flagsweep_flag WHERE state = 'waiting' LIMIT 1"):
                    return
        except Exception as error:
            failed.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=consume, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(taken) == len(set(taken)) == 3000


def test_flags_that_somebody_holds_are_passed_and_not_waited_for(place, url):
    if place.name == "sqlite":
        pytest.skip("SQLite locks no rows")
    place.fill([("a", 1)] * 30 + [("b", 2)] * 30)
    site = Place(url)
    with site.db.atomic():
        held = {row[0] for row in site.ask("SELECT id FROM flagsweep_flag WHERE due_at = 1 ORDER BY id LIMIT 5 FOR UPDATE")}
        began, found, start = time.monotonic(), [], None
        for token in range(1, 30):
            rows, start = place.claim(10, token, NOW, start)
            found += rows
        assert time.monotonic() - began < 5
        ids = {row[1] for row in found}
        assert len(held) == 5 and not held & ids
        assert len(ids) == 55
    site.close()


# Plans, on tables that are empty, full of one bucket, of one kind without buckets; analyzed or not.


@pytest.fixture(params=["empty", "one bucket", "no buckets", "many"])
def planned(request, place):
    filled = {"empty": None, "one bucket": lambda n: "flood", "no buckets": lambda n: None, "many": lambda n: f"b{n % 500}"}
    if fill := filled[request.param]:
        place.fill((fill(n), 1000 + n // 10) for n in range(5000))
        place.fill([("fresh", 5000)])
    return place


@pytest.mark.parametrize("analyzed", [False, True])
def test_plans_read_one_range_of_the_right_index(planned, analyzed):
    if analyzed:
        planned.analyze()
    plans = {"sqlite": sqlite_plans, "postgresql": postgresql_plans, "mysql": mysql_plans}[planned.name](planned)
    if planned.name == "postgresql" and analyzed and not planned.ask("SELECT 1 FROM flagsweep_flag LIMIT 1"):
        pytest.skip("PostgreSQL reads a table whole that it knows to be empty, for a plain claim, too")
    assert {name: used for name, used in plans.items() if "flagsweep_waiting" in used} == {"OLDEST": plans["OLDEST"]}
    walks = "flagsweep_claimed" if planned.name == "mysql" else "flagsweep_bucket"
    assert [name for name, used in plans.items() if walks in used] == [name for name in plans if name in ("WALK", "TAKE", "PAGE")]
    assert "filesort" not in plans["OLDEST"] + plans.get("PAGE", "")


def sqlite_plans(place):
    named = dict.fromkeys(
        ("kind", "priority", "now", "most", "first", "before", "visits", "closed", "token", "consumer", "share")
    )
    named |= {"buckets": "[]", "ids": "[]"} | FORCED.named(NOW)
    texts = {name: getattr(sqlite, name) for name in ("OLDEST", "WALK", "TAKE", "TAKE_THESE", "CLAIMED_BUCKETS")}
    plans = {}
    for name, text in texts.items():
        values = (1, 1) if "?" in text else named
        plans[name] = "\n".join(row[3] for row in place.ask("EXPLAIN QUERY PLAN " + text, values))
        assert "SCAN flag" not in plans[name] and "TEMP B-TREE" not in plans[name]
    return plans


def postgresql_plans(place):
    named = {"kind": "mail", "priority": 0, "now": NOW, "most": 9, "first": "", "before": None, "visits": 200}
    named |= {"low": 0, "closed": [], "token": 1, "consumer": 1, "buckets": ["fresh", "a"], "share": 1, "ids": [1, 2, 3]}
    named |= FORCED.named(NOW)
    texts = {name: getattr(postgresql, name) for name in ("OLDEST", "WALK", "TAKE", "TAKE_THESE")}
    return {name: "\n".join(row[0] for row in place.ask("EXPLAIN " + text, named)) for name, text in texts.items()}


def mysql_plans(place):
    page = place.dialect.sql[mysql.PAGE.replace("{since}", ">")]
    where = (b"mail", 0, b"a")
    plans = {"OLDEST": place.ask("EXPLAIN " + place.dialect.sql[mysql.OLDEST], (b"mail", 0, NOW, *FORCED.values(NOW), 9))}
    plans["PAGE"] = place.ask("EXPLAIN " + page, (*where, 100))
    plans["HOLD_DUE"] = place.ask("EXPLAIN " + place.dialect.sql[mysql.HOLD_DUE], ((1, 2, 3), NOW))
    return {name: " ".join(f"{row[5]} {row[-1]}" for row in plan) for name, plan in plans.items()}


# The walk itself.


def stepper(ready):
    """Return a step over buckets that are ready, or not."""

    def step(first, before, most, visits):
        found = [name for name in sorted(ready) if name >= first and (before is None or name < before)][:visits]
        seen = [(nth, name, ready[name]) for nth, name in enumerate(found, 1) if ready[name] or nth == visits]
        return seen[:most]

    return step


@given(
    st.dictionaries(st.text("abc", max_size=3), st.booleans(), max_size=30),
    st.integers(1, 9),
    st.integers(2, 12) | st.just(EVERY),
)
def test_whatever_is_ready_has_its_turn_in_a_round_of_looks(ready, most, visits):
    start, seen = None, set()
    for _ in range(len(ready) + 2):
        found, start = turns(stepper(ready), start, most, visits)
        assert len(found) == len(set(found)) <= most
        assert all(ready[name] for name in found)
        seen.update(found)
    assert seen == {name for name in ready if ready[name]}

"""A shared queue: its stores keep nudges and locks alike, nobody needs it, and nothing that comes out of it is trusted."""

import contextlib
import gc
import json
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial

import psutil
import pytest
from huey.exceptions import TaskLockedException
from hypothesis import given
from hypothesis import strategies as st
from work import Work, command, running

from flagsweep import ConfigError, FlagSweep
from flagsweep.queues.client import Refused, Seal, SharedQueue, check, passwords, read_keys
from flagsweep.queues.courier import Courier, Outage
from flagsweep.queues.storage import KEPT, LARGEST, RedisQueue, SqliteQueue, is_free, opener
from flagsweep.sweep.lane import Lane, group_of

KEY = "a key that only tests have"
STORES = ["sqlite", "redis", "postgresql"]


@pytest.fixture(params=STORES)
def url(request, tmp_path):
    """Return the URL of an empty store, of each sort in turn."""
    return url_of(request, request.param, tmp_path)


def url_of(request, store, tmp_path):
    if store == "sqlite":
        return f"sqlite:///{tmp_path}/queue.db"
    return request.getfixturevalue("redis_url" if store == "redis" else "postgres_url")


@pytest.fixture
def connect(url):
    """Give `connect(name="q", token="t")`: one more client of the store."""
    clients = []

    def connect(name="q", token="t", patience=2.0):
        clients.append(opener(url, check(url), token)(name, patience))
        return clients[-1]

    yield connect
    for client in clients:
        client.disconnect()


@pytest.fixture
def never():
    return threading.Event()


# What every store does.


def test_a_nudge_is_taken_once_by_whoever_sweeps_its_lane(connect, never):
    site, one, other = connect(), connect(), connect()
    site.post("mail", b"first")
    site.post("mail", b"second")
    site.post("slow", b"third")
    assert sorted(one.take(["mail"], 0.01, never)) == [b"first", b"second"]
    assert one.take(["mail"], 0.01, never) == []
    assert other.take(["slow", "mail"], 0.01, never) == [b"third"]


def test_a_nudge_reaches_no_other_database(connect, never):
    connect("one").post("mail", b"message")
    assert connect("other").take(["mail"], 0.01, never) == []
    assert connect("one").take(["mail"], 0.01, never) == [b"message"]


def test_whoever_waits_is_woken_by_a_nudge(connect, never):
    taken = []
    waiting = threading.Thread(target=lambda: taken.extend(connect().take(["mail"], 1.0, never)))
    waiting.start()
    connect().post("mail", b"message")
    waiting.join(10)
    assert taken == [b"message"]


def test_whoever_waits_goes_on_at_once_when_told_to(connect, until):
    done, woken = threading.Event(), []

    def wait():
        client = connect(patience=65.0)
        for _ in range(3):  # The first wake-up may be the one of a nudge.
            client.take(["mail"], 60.0, done)
            if done.is_set():
                woken.append(True)
                return

    waiting = threading.Thread(target=wait)
    waiting.start()
    done.set()
    connect().wake()
    until(lambda: woken, limit=5)
    waiting.join(5)


def test_nudges_that_nobody_takes_do_not_pile_up(connect, never):
    site = connect()
    for number in range(KEPT + 30):
        site.post("mail", b"%d" % number)
    taken = connect().take(["mail"], 0.01, never)
    assert 1 <= len(taken) <= KEPT and b"%d" % (KEPT + 29) in taken


def test_a_lock_is_one_owners_until_it_is_let_go(connect):
    one, other = connect(), connect()
    assert one.hold("sweep:mail:0", "1", 30)
    assert not other.hold("sweep:mail:0", "2", 30)
    assert other.hold("sweep:slow:0", "2", 30)
    other.let_go("sweep:mail:0", "2")
    assert not other.hold("sweep:mail:0", "2", 30), "only its owner lets it go"
    assert one.hold("sweep:mail:0", "1", 30), "holding it again renews it"
    one.let_go("sweep:mail:0", "1")
    assert other.hold("sweep:mail:0", "2", 30)
    assert not one.hold("sweep:mail:0", "1", 30)


def test_a_lock_that_nobody_renews_is_free(connect, until):
    one, other = connect(), connect()
    assert one.hold("sweep:mail:0", "1", 0.05)
    until(lambda: other.hold("sweep:mail:0", "2", 30))
    assert not one.hold("sweep:mail:0", "1", 30)


def test_of_several_that_reach_for_a_lock_one_has_it(connect):
    clients = [connect() for _ in range(4)]
    for round in range(10):
        start, got = threading.Barrier(4), []

        def reach(number, client, start=start, got=got, round=round):
            start.wait(10)
            with contextlib.suppress(sqlite3.OperationalError):
                if client.hold(f"sweep:{round}:0", str(number), 30):
                    got.append(number)

        threads = [threading.Thread(target=reach, args=each) for each in enumerate(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(got) == 1


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"2", b"2 soon", b"2 nan", b"2 99999999999", b"2 1000.0"])
def test_a_lock_that_is_garbage_too_old_or_from_the_far_future_is_free(value):
    assert is_free(value, "1", 1000.5)


def test_a_lock_held_by_another_is_not_free():
    assert not is_free(b"2 1003.0", "1", 1000.5) and is_free(b"2 1003.0", "2", 1000.5)


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_several_processes_that_open_an_empty_store_at_once_all_can(request, store, tmp_path, env):
    url = url_of(request, store, tmp_path)
    code = (
        "import sys; from flagsweep.queues.storage import opener; from flagsweep.queues.client import check\n"
        "store = opener(sys.argv[1], check(sys.argv[1]), 't')('q', 5.0); store.post('mail', b'm'); store.disconnect()"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, url], env=env, cwd=tmp_path) for _ in range(3)]
    assert [child.wait(30) for child in children] == [0] * 3


# What may be believed.

NOW = 1_767_225_600_000_000
KEYS = [b"the key that signs", b"the key before it"]


def test_a_seal_opens_what_it_has_closed():
    assert Seal(KEYS, "q").open(Seal(KEYS, "q").close("mail", NOW), NOW) == "mail"


def test_while_keys_change_the_old_one_is_accepted_and_the_new_one_signs():
    old, both, new = Seal(KEYS[1:], "q"), Seal(KEYS, "q"), Seal(KEYS[:1], "q")
    assert both.open(old.close("mail", NOW), NOW) == new.open(both.close("mail", NOW), NOW) == "mail"
    with pytest.raises(Refused, match="not signed with our key"):
        new.open(old.close("mail", NOW), NOW)


def test_a_message_for_another_database_is_refused():
    with pytest.raises(Refused, match="not signed with our key"):
        Seal(KEYS, "q").open(Seal(KEYS, "other").close("mail", NOW), NOW)


def test_a_message_counts_for_a_minute():
    seal = Seal(KEYS, "q")
    message = seal.close("mail", NOW)
    assert seal.open(message, NOW + 60_000_000) == "mail"
    with pytest.raises(Refused, match="too old"):
        seal.open(message, NOW + 61_000_000)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"17", b'{"sweep": "mail"}', b'{"sweep": "mail", "until": []}', b"[" * 4000])
def test_what_is_signed_and_says_nothing_is_refused_too(body):
    seal = Seal(KEYS, "q")
    with pytest.raises(Refused, match="no nudge"):
        seal.open(seal._sign(KEYS[0], body) + b" " + body, NOW)


def test_any_change_to_a_message_is_seen():
    seal = Seal(KEYS, "q")
    message = seal.close("mail", NOW)
    for place in range(len(message)):
        changed = message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]
        with pytest.raises(Refused):
            seal.open(changed, NOW)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    with pytest.raises(Refused):
        Seal(KEYS, "q").open(data, NOW)


def test_what_is_too_large_is_refused_before_anything_reads_it(monkeypatch):
    seal = Seal(KEYS, "q")
    body = json.dumps({"sweep": "mail", "until": NOW, "more": "x" * LARGEST}).encode()
    message = seal._sign(KEYS[0], body) + b" " + body
    monkeypatch.setattr(seal, "_sign", None)
    with pytest.raises(Refused, match="too large"):
        seal.open(message, NOW)


class Bomb:
    """Make a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def garbage(path, count):
    """Yield messages of every bad sort, pickle bombs among them."""
    bomb = pickle.dumps(Bomb(path))
    forged = Seal([b"a key of somebody else's"], "q").close("work", NOW)
    sorts = [bomb, forged, b"garbage", b"\x00\xff" * 50, b'{"sweep": "default"}', b"x" * (LARGEST + 1), b"0" * 64 + b" " + bomb]
    for number in range(count):
        yield sorts[number % len(sorts)] + b"%d" % number


def flood(store, lane, messages):
    """Put messages into a store past everything that would keep their number down."""
    if isinstance(store, RedisQueue):
        return store.conn.lpush(store._nudges(lane), *messages)
    rows = [(f"{store.name}.{lane}", message) for message in messages]
    mark, table = ("?", "task") if isinstance(store, SqliteQueue) else ("%s", store.table_task)
    with store.db(commit=True) as cursor:
        cursor.executemany(f"insert into {table} (queue, data) values ({mark}, {mark})", rows)


@pytest.fixture
def make(db_path, tmp_path):
    """Give `make(url, **settings)`: a site with its tables, whose raises nudge."""
    made = []

    def make(url, **settings):
        settings = {"queue": url, "queue_key": KEY, "nudge": "on", **settings}
        made.append(Work(db_path, tmp_path / "journal", **settings).prepare())
        return made[-1]

    yield make
    for work in made:
        work.flags.queue.stop()
        work.flags.queue._nudges.close()
        work.close()


@pytest.fixture
def patient(monkeypatch):
    """Let sweeps wait for their locks as long as a busy machine takes."""
    monkeypatch.setattr(SharedQueue, "ANSWER", 10.0)
    monkeypatch.setattr(SharedQueue, "PATIENCE", 5.0)


def client_of(work):
    """Return one more client of the store of a site."""
    return work.flags.queue._open(2.0)


def test_ten_thousand_messages_of_garbage_are_dropped_and_none_is_executed(url, make, tmp_path, until, caplog):
    work = make(url, watch="off")
    store = client_of(work)
    try:
        flood(store, "default", list(garbage(tmp_path / "exploded", 10_000)))
        with running(work.flags, until):
            listener = work.flags.queue._listener
            until(lambda: listener.dropped.total() == 10_000)
            work.raise_("work", 1)
            until(work.is_idle)
    finally:
        store.disconnect()
    assert not (tmp_path / "exploded").exists()
    assert len([r for r in caplog.records if "dropped" in r.getMessage()]) == 1


# Nudges.


def test_a_raise_nudges_a_consumer_that_sees_no_commit_itself(url, make, until):
    work = make(url, watch="off")
    with running(work.flags, until):
        until(work.is_idle)
        for number in range(3):
            work.raise_("work", number)
            work.raise_("mail", number)
            until(work.is_idle)
        work.raise_many("slow", range(5))
        until(work.is_idle)


def test_what_another_process_raises_nudges_too_although_that_ends_at_once(url, make, until, spawn, db_path):
    work = make(url, watch="off")
    code = (
        "import sys; from flagsweep import FlagSweep\n"
        "flags = FlagSweep(sys.argv[1], queue=sys.argv[2], queue_key=sys.argv[3], nudge='on')\n"
        "@flags.handler(kind='work')\ndef work(n, do='ok'): pass\n"
        "work.raise_flag(n=1)\n"
    )
    with running(work.flags, until):
        until(work.is_idle)
        # It has 0.2 s to send it, which a busy machine may not give it.
        raising = partial(spawn, sys.executable, "-c", code, db_path, url, KEY)
        until(lambda: raising().wait(30) == 0 and "work:1" in work.journal.flags("end"), limit=30)


def test_a_consumer_leaves_the_nudges_of_lanes_that_it_does_not_sweep(url, make, until, never):
    work = make(url)
    store, asked, mine = client_of(work), [], {"mail"}
    try:
        work.flags.queue.listen(["default", "mail"], asked.append, mine.__contains__)
        work.flags.nudge("default")
        work.flags.nudge("mail")
        until(lambda: asked)
        mine.add("default")
        until(lambda: len(asked) == 2)
        assert asked == ["mail", "default"]
    finally:
        store.disconnect()


@pytest.fixture
def quiet(make, tmp_path, monkeypatch):
    """Return a site beside a SQLite queue, and the list of lanes for which nudges were posted."""
    posted = []
    post = SqliteQueue.post
    monkeypatch.setattr(SqliteQueue, "post", lambda store, lane, message: (posted.append(lane), post(store, lane, message)))
    return make(f"sqlite:///{tmp_path}/queue.db"), posted


def test_a_nudge_leaves_after_the_commit_and_not_before(quiet, until):
    work, posted = quiet
    with work.flags.database.connection_context():
        with work.flags.database.atomic():
            with work.flags.database.atomic():
                work.raise_("work", 1)
            work.flags.queue._nudges.flush(1)
            assert posted == []
        until(lambda: posted == ["default"])


def test_what_is_rolled_back_nudges_nobody(quiet):
    work, posted = quiet
    with work.flags.database.connection_context(), work.flags.database.atomic() as transaction:
        work.raise_("work", 1)
        transaction.rollback()
    work.flags.queue._nudges.flush(1)
    assert posted == []


def test_a_flag_that_is_due_later_nudges_nobody(quiet):
    work, posted = quiet
    work.work.using(delay="5m").raise_flag(n=1)
    work.work.using(delay=60).raise_many([{"n": 2}])
    work.flags.queue._nudges.flush(1)
    assert posted == []


def test_a_transaction_of_many_raises_nudges_each_lane_once(quiet, until):
    work, posted = quiet
    with work.flags.database.connection_context(), work.flags.database.atomic():
        for number in range(200):
            work.raise_("work", number)
            work.raise_("mail", number)
    work.flags.queue._nudges.flush(5)
    until(lambda: len(posted) == 2)
    assert sorted(posted) == ["default", "mail"]


def test_a_storm_of_raises_sends_few_nudges(quiet):
    work, posted = quiet
    with work.flags.database.connection_context():
        began = time.monotonic()
        for number in range(1000):
            work.work.raise_flag(n=number % 10)
        took = time.monotonic() - began
    work.flags.queue._nudges.flush(5)
    assert 1 <= len(posted) <= took / 0.005 + 2


def test_a_raise_within_manual_commit_or_a_leaked_transaction_is_only_not_nudged(quiet):
    work, _ = quiet
    db = work.flags.database
    with db.connection_context(), db.manual_commit():
        db.begin()
        work.raise_("work", 1)
        db.commit()
    assert work.up().keys() == {"work:1"}


def test_a_raise_succeeds_whatever_becomes_of_its_nudge(quiet, monkeypatch):
    work, _ = quiet
    for owner, broken in (
        (Courier, "send"),
        (SharedQueue, "_post"),
        (SharedQueue, "name"),
        (type(work.flags.database), "after_commit"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, broken, lambda *_: 1 / 0)
            patch.setattr(Courier, "REST", 0.0)
            with work.flags.database.connection_context(), work.flags.database.atomic():
                work.raise_("work", broken)
            work.flags.queue._nudges.flush(1)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: 1 / 0)
    work.raise_("work", "no thread")
    assert len(work.up()) == 5


def test_nobody_is_nudged_where_that_is_off_or_the_database_tells_by_itself(make, tmp_path):
    for nudge in ("off", "auto"):
        work = make(f"sqlite:///{tmp_path}/queue.db", nudge=nudge)
        work.raise_("work", 1)
        assert work.flags.queue._nudges._thread is None and not work.flags.queue._nudgers


# The courier.


class Store:
    """Stand in for a store: it is what the courier hands to its jobs."""

    opened = closed = 0

    def open(self):
        self.opened += 1
        return self

    def disconnect(self):
        self.closed += 1


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def courier(store):
    courier = Courier(store.open, Outage("the store"), idle=0.05, budget=0.5)
    yield courier
    courier.close()


def test_a_courier_brings_back_what_was_asked(courier, store):
    assert courier.ask(lambda given: given) is store


def test_a_courier_without_work_closes_its_connection_and_ends(courier, store, until):
    courier.ask(lambda given: given)
    until(lambda: store.closed == 1 and courier._thread is None)
    assert courier.ask(lambda given: given) is store and store.opened == 2


def test_after_a_failure_a_courier_rests(courier, store, monkeypatch):
    tried = []
    assert courier.ask(lambda _: tried.append(1) or 1 / 0) is None, "a new connection that fails is not tried twice"
    assert courier.ask(lambda _: tried.append(2)) is None
    courier.send(lambda _: tried.append(3))
    courier.flush(1)
    assert tried == [1]
    monkeypatch.setattr(courier, "_rests_until", 0.0)
    assert courier.ask(lambda given: given) is store


def test_a_connection_that_was_cut_is_made_anew_without_a_rest(courier, store):
    courier.ask(lambda given: given)
    tried = []
    assert courier.ask(lambda _: tried.append(1) or (1 / 0 if len(tried) == 1 else "done")) == "done"
    assert (store.opened, store.closed) == (2, 1) and courier.ask(lambda given: given) is store


def test_nobody_waits_for_a_store_that_does_not_answer(courier, until):
    gate, done = threading.Event(), []
    try:
        assert courier.ask(lambda _: gate.wait(30)) is None, "given up, while the store still thinks"
        assert courier.ask(lambda _: done.append(1)) is None
        courier.send(lambda _: done.append(2))
    finally:
        gate.set()
    courier.flush(5)
    assert done == []


def test_a_courier_that_gets_no_thread_tries_again_later(courier, store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: 1 / 0)
        assert courier.ask(lambda given: given) is None
        courier.send(lambda given: given)
    monkeypatch.setattr(courier, "_rests_until", 0.0)
    assert courier.ask(lambda given: given) is store


def test_what_is_sent_twice_under_one_key_is_done_once(courier):
    gate, done = threading.Event(), []
    courier.send(lambda _: gate.wait(30))
    for number in range(100):
        courier.send(lambda _, number=number: done.append(number), key="mail")
    gate.set()
    courier.flush(5)
    assert done in ([0], [0, 1]), "the first may have been taken up at once"


def test_an_outage_is_told_once_a_minute_and_its_end_once(courier, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "flagsweep")
    for _ in range(50):
        courier.ask(lambda _: 1 / 0)
        monkeypatch.setattr(courier, "_rests_until", 0.0)
    courier.ask(lambda _: None)
    courier.ask(lambda _: None)
    told = [record.getMessage().split(":")[0] for record in caplog.records]
    assert told == ["the queue the store is away", "the queue the store is back after 0 s"]


def test_a_fork_begins_anew_and_leaves_the_parents_connection_alone(url, make, tmp_path, until):
    work = make(url, watch="off")
    work.raise_("work", 1)
    work.flags.queue._nudges.flush(5)
    code = os.fork()
    if code == 0:
        try:
            work.raise_("work", 2)
            work.flags.queue._nudges.flush(5)
        finally:
            os._exit(0)
    os.waitpid(code, 0)
    work.raise_("work", 3)
    work.flags.queue._nudges.flush(5)
    store = client_of(work)
    try:
        taken = store.take(["default"], 0.01, threading.Event())
    finally:
        store.disconnect()
    assert [work.flags.queue.seal().open(message, work.flags.clock.now()) for message in taken] == ["default"] * 3


# The lock across hosts.


def lock_of(work):
    """Return the name under which the lane `default` of a site is locked."""
    kinds = [kind for kind, handler in work.flags.handlers.items() if handler.lane == "default"]
    return f"sweep:{group_of('default', kinds)}:0"


def test_a_lane_that_another_host_sweeps_is_swept_here_once_that_is_done(url, make, until, patient):
    work = make(url)
    other = client_of(work)
    try:
        with running(work.flags, until):
            until(work.is_idle)
            until(lambda: other.hold(lock_of(work), "99", 30))
            work.raise_("work", 1)
            work.raise_("mail", 1)
            until(lambda: work.journal.flags("end") == ["mail:1"])
            assert work.up()["work:1"].state == "waiting"
            other.let_go(lock_of(work), "99")
            until(work.is_idle)
    finally:
        other.disconnect()


def test_a_lock_is_renewed_while_its_sweep_lasts_and_free_afterwards(make, until, tmp_path, monkeypatch, patient):
    monkeypatch.setattr(SharedQueue, "LOCK", 1.5)
    work = make(f"sqlite:///{tmp_path}/queue.db")
    other = client_of(work)
    try:
        with running(work.flags, until):
            work.raise_("work", 1, do="wait", gate=str(tmp_path / "gate"))
            until(lambda: work.journal.flags("start"))
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                assert not other.hold(lock_of(work), "99", 30), "nobody renewed it"
                time.sleep(0.05)
            (tmp_path / "gate").touch()
            until(work.is_idle)
            until(lambda: other.hold(lock_of(work), "99", 30))
    finally:
        other.disconnect()


def test_a_dead_consumers_locks_are_freed_for_it(url, make, patient):
    work = make(url)
    store = client_of(work)
    try:
        assert store.hold("sweep:default:0", "17", 30) and store.hold("sweep:mail:1", "18", 30)
        work.flags.queue.forget(17, ["default", "mail"], slots=2)
        work.flags.queue._locks.flush(5)
        assert store.hold("sweep:default:0", "1", 30)
        assert not store.hold("sweep:mail:1", "1", 30)
    finally:
        store.disconnect()


def test_a_lane_has_as_many_locks_as_it_has_slots(url, make, patient):
    work = make(url)
    queue = work.flags.queue
    with queue.lock("mail", 1, slots=2), queue.lock("mail", 2, slots=2), queue.lock("slow", 3):
        for slots, lane in ((2, "mail"), (1, "slow")):
            with pytest.raises(TaskLockedException), queue.lock(lane, 4, slots):
                pass
    with queue.lock("mail", 4, slots=2):
        pass


# Faults: whatever becomes of the store, flags are raised and swept.


def goes_on(work, until, numbers):
    """Raise a flag each, and see each done."""
    for number in numbers:
        work.raise_("work", number)
    until(lambda: {f"work:{number}" for number in numbers} <= set(work.journal.flags("end")))


@pytest.fixture
def impatient(monkeypatch):
    """Let a courier try again soon after a failure."""
    monkeypatch.setattr(Courier, "REST", 0.3)


def test_a_wiped_redis_changes_nothing(redis_url, make, until, impatient, patient):
    redis = pytest.importorskip("redis")
    work = make(redis_url)
    with running(work.flags, until), redis.Redis.from_url(redis_url) as client:
        for round in range(10):
            client.flushdb()
            client.script_flush()
            goes_on(work, until, range(10 * round, 10 * round + 10))
        assert work.flags.queue._outage.since is None, "nothing failed: scripts and keys are made anew"


def test_a_redis_that_is_killed_frozen_and_restarted_changes_nothing(private_redis, make, until, impatient, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    queue = private_redis.url
    work = make(queue)
    with running(work.flags, until):
        goes_on(work, until, range(10))
        private_redis.freeze()
        goes_on(work, until, range(10, 20))
        private_redis.thaw()
        goes_on(work, until, range(20, 30))
        private_redis.kill()
        goes_on(work, until, range(30, 40))
        private_redis.start()
        until(lambda: work.flags.queue._outage.since is None)
        goes_on(work, until, range(40, 50))
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("the queue")]
    assert len([line for line in told if "away" in line]) == 1, told
    assert not [r for r in caplog.records if r.exc_info]


def test_a_consumer_starts_without_its_redis_and_finds_it_later(private_redis, make, until, impatient):
    private_redis.kill()
    work = make(private_redis.url, watch="poll", poll_every=0.2)
    with running(work.flags, until):
        goes_on(work, until, range(5))
        private_redis.start()
        until(lambda: work.flags.queue._outage.since is None)
        goes_on(work, until, range(5, 10))


def test_a_consumer_stops_at_once_although_its_redis_is_frozen(private_redis, make, until, db_path, tmp_path, spawn):
    work = make(private_redis.url)
    child = spawn(*command("run", (db_path, tmp_path / "journal"), queue=private_redis.url, queue_key=KEY))
    goes_on(work, until, [1])
    private_redis.freeze()
    child.terminate()
    assert child.wait(5) == 0, child.log.read_text()
    assert "stopped" in child.log.read_text() and "Traceback" not in child.log.read_text()
    private_redis.thaw()


def test_a_queue_on_postgresql_whose_connections_are_cut_and_tables_dropped_comes_back(postgres_url, make, until, impatient):
    psycopg = pytest.importorskip("psycopg")
    work = make(postgres_url)
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with running(work.flags, until), psycopg.connect(postgres_url, autocommit=True) as db:
        goes_on(work, until, range(5))
        for round in range(3):
            db.execute(f"SELECT pg_terminate_backend(pid) {others}")
            goes_on(work, until, range(5 * round + 5, 5 * round + 10))
        db.execute("DROP SCHEMA public CASCADE")
        db.execute("CREATE SCHEMA public")
        goes_on(work, until, range(20, 25))
        until(lambda: work.flags.queue._outage.since is None)
        until(lambda: db.execute("SELECT to_regclass('flagsweep_queue_task')").fetchone()[0])


def delete(path):
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def scribble(path):
    path.write_bytes(os.urandom(40_000))


def make_a_folder(path):
    for _ in range(1000):  # Whoever uses the file may make it anew in between.
        delete(path)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return
    raise AssertionError(f"{path} is made anew again and again")


def drop_the_tables(path):
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
        db.executescript("DROP TABLE task; DROP TABLE kv")


def forbid_writing(path):
    path.chmod(0o400)
    path.parent.chmod(0o500)


@pytest.mark.parametrize("harm", [delete, scribble, make_a_folder, drop_the_tables, forbid_writing])
def test_a_queue_file_that_is_harmed_changes_nothing(make, tmp_path, until, impatient, harm, caplog):
    folder = tmp_path / "queue"
    folder.mkdir()
    work = make(f"sqlite:///{folder}/queue.db")
    try:
        with running(work.flags, until):
            goes_on(work, until, range(5))
            harm(folder / "queue.db")
            goes_on(work, until, range(5, 15))
    finally:
        folder.chmod(0o700)
    assert not [r for r in caplog.records if r.exc_info]
    assert len([r for r in caplog.records if "is away" in r.getMessage()]) <= 1


def test_a_damaged_queue_file_is_not_left_open(tmp_path):
    """Many tries in vain would use up the process's files: an error's frames hold what they opened until garbage is collected."""
    scribble(tmp_path / "queue.db")
    store = SqliteQueue("q", tmp_path / "queue.db", 0.2)
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(sqlite3.DatabaseError):
                store.hold("sweep:mail:0", "1", 5)
            store.disconnect()
            assert not [file for file in psutil.Process().open_files() if "queue.db" in file.path]
    finally:
        gc.enable()


def test_a_queue_file_that_was_deleted_is_made_anew_and_used_by_all(make, tmp_path, until, impatient):
    work = make(f"sqlite:///{tmp_path}/queue.db", watch="off")
    with running(work.flags, until):
        goes_on(work, until, [1])
        delete(tmp_path / "queue.db")
        until(lambda: work.raise_("work", 2) or "work:2" in work.journal.flags("end"), every=0.1)
        assert (tmp_path / "queue.db").exists()


def test_a_queue_file_that_somebody_locks_holds_up_no_sweep(make, tmp_path, until, impatient):
    work = make(f"sqlite:///{tmp_path}/queue.db")
    with running(work.flags, until):
        goes_on(work, until, [1])
        with contextlib.closing(sqlite3.connect(tmp_path / "queue.db", isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            goes_on(work, until, range(2, 12))


# What is set, and what is shown.


def test_the_key_beside_a_sqlite_queue_is_made_once_and_for_its_owner_alone(tmp_path):
    queue = tmp_path / "queue.db"
    found = []
    threads = [threading.Thread(target=lambda: found.append(read_keys((), queue))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4 and all(keys == found[0] for keys in found) and len(found[0][0]) >= 32
    assert (tmp_path / "queue.db-key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["queue.db-key"]


def test_the_queue_file_is_its_owners_alone(tmp_path):
    store = SqliteQueue("q", tmp_path / "queue.db", 1.0)
    store.post("mail", b"message")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    store.disconnect()


def test_no_key_is_made_where_everybody_can_write(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="everybody can write into"):
        read_keys((), tmp_path / "queue.db")
    assert read_keys([KEY], tmp_path / "queue.db") == [KEY.encode()]


def test_a_valkey_is_spoken_to_like_a_redis(redis_url, never):
    url = redis_url.replace("redis", "valkey", 1)
    store = opener(url, check(url), "t")("q", 2.0)
    store.post("mail", b"message")
    assert store.take(["mail"], 0.01, never) == [b"message"]
    store.disconnect()
    store = RedisQueue("q", "redis://valkey.example/0", 1.0, "t")
    assert store.pool.connection_kwargs["host"] == "valkey.example"


def test_a_queue_in_the_sites_own_database_or_beside_one_in_memory_is_refused(db_path):
    with pytest.raises(ConfigError, match="the queue needs a file of its own"):
        FlagSweep(db_path, queue=f"sqlite:///{db_path}")
    with pytest.raises(ConfigError, match="a database in memory"):
        FlagSweep(":memory:", queue=f"sqlite:///{db_path}")


def test_nudges_of_eight_hours_are_one_sweep(url, make, until, monkeypatch):
    work = make(url, watch="off")
    sweeps, sweep = [], Lane.sweep
    monkeypatch.setattr(Lane, "sweep", lambda lane, *more: (sweeps.append(lane.name), sweep(lane, *more))[1])
    store = client_of(work)
    try:
        message = work.flags.queue.seal().close("default", work.flags.clock.now())
        flood(store, "default", [message] * 3000)
        with running(work.flags, until):
            until(lambda: work.flags.queue._listener and not store.take(["default"], 0.01, threading.Event()))
            work.raise_("mail", 1)
            until(work.is_idle)
    finally:
        store.disconnect()
    assert sweeps.count("default") <= 6, "one at the start, one of Huey's minute, one for a batch of nudges"


def test_a_file_of_keys_has_one_on_each_line(tmp_path):
    file = tmp_path / "key"
    file.write_text("the key that signs\n\nthe key before it\n")
    file.chmod(0o640)
    assert read_keys([f"file:{file}"], None) == KEYS
    assert read_keys([f"file:{file}", "and a third key, as text"], None) == [*KEYS, b"and a third key, as text"]


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        ("long enough to be a key", 0o644, "chmod 600"),
        ("long enough to be a key", 0o620, "chmod 600"),
        ("short", 0o600, "16"),
        ("", 0o600, "16"),
    ],
)
def test_a_file_of_keys_that_protects_nothing_is_refused(tmp_path, content, mode, told):
    file = tmp_path / "key"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=told) as caught:
        read_keys([f"file:{file}"], None)
    assert "long enough" not in str(caught.value)


def test_a_consumer_without_its_key_does_not_start(make, tmp_path):
    work = make(f"sqlite:///{tmp_path}/queue.db", queue_key=f"file:{tmp_path}/gone")
    with pytest.raises(ConfigError, match=r"the queue's key .*/gone cannot be read"):
        work.flags.run()


@pytest.mark.parametrize("queue", ["redis://user:s3cret@127.0.0.1:1/0", "postgresql://user:s3cret@127.0.0.1:1/name"])
def test_no_password_and_no_key_is_shown(make, queue, until, caplog):
    caplog.set_level(logging.DEBUG)
    work = make(queue)
    with running(work.flags, until):
        goes_on(work, until, [1])
        until(lambda: "is away" in caplog.text)
    assert "127.0.0.1" in caplog.text
    for shown in (caplog.text, repr(work.flags.settings), str(work.flags.status()), work.flags.queue.where):
        assert "s3cret" not in shown and KEY not in shown


def test_an_error_of_the_store_shows_no_password(caplog):
    outage = Outage("the store", passwords("redis://u:p%40ss@host/0?password=w0rd"))
    outage.tell(OSError("cannot connect with p@ss, p%40ss or w0rd\nat all"))
    assert caplog.messages == ["the queue the store is away: cannot connect with ***, *** or *** at all; sweeps go on without it"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"queue": "redis://u:s3cret@host/0"}, "needs a queue_key"),
        ({"queue": "postgresql://u:s3cret@host/name"}, "needs a queue_key"),
        ({"queue": "redis://u:s3cret@host:port/0", "queue_key": KEY}, "cannot be read as a URL"),
        ({"queue": "ftp://u:s3cret@host"}, "queue must be 'memory'"),
    ],
)
def test_a_queue_that_cannot_be_is_refused_without_its_password(db_path, settings, told):
    with pytest.raises(ConfigError, match=told) as caught:
        FlagSweep(db_path, **settings)
    assert "s3cret" not in str(caught.value)


def test_a_queue_without_its_driver_is_refused_with_the_command(db_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package redis: pip install 'flagsweep\[redis\]'"):
        FlagSweep(db_path, queue="redis://host/0", queue_key=KEY)


def test_the_queue_in_memory_loads_nothing_of_a_shared_one(db_path, env):
    code = (
        "import sys, flagsweep; flags = flagsweep.FlagSweep(sys.argv[1]); flags.init(); flags.handler('work')(lambda: None)\n"
        "flags.handlers['work'].raise_flag(); flags.sweep()\n"
        "assert not {'flagsweep.queues.client', 'flagsweep.queues.storage'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(db_path)], env=env, check=True, timeout=30)


def test_two_databases_have_queues_of_different_names_and_one_by_two_names_has_one(tmp_path):
    names = []
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    for file in ("a.db", "b.db", "link.db"):
        flags = FlagSweep(tmp_path / file, queue=f"sqlite:///{tmp_path}/queue.db")
        if file != "link.db":
            flags.init()
        names.append(flags.queue.name())
    assert names[0] != names[1] and names[0] == names[2]


def test_a_killed_consumers_lock_is_free_as_soon_as_it_is_rescued(
    url, make, until, spawn, db_path, tmp_path, monkeypatch, patient
):
    monkeypatch.setattr(SharedQueue, "LOCK", 50.0)
    work = make(url)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from flagsweep.queues.client import SharedQueue; SharedQueue.LOCK = 50.0\n"
        "import work; work.main('run', *sys.argv[2:])"
    )
    settings = json.dumps({"queue": url, "queue_key": KEY})
    child = spawn(sys.executable, "-c", code, os.path.dirname(os.path.dirname(__file__)), db_path, tmp_path / "journal", settings)
    work.raise_("work", 1, do="hang_once")
    until(lambda: work.journal.flags("start"))
    store = client_of(work)
    try:
        assert not store.hold(lock_of(work), "99", 30)
    finally:
        store.disconnect()
    child.kill()
    child.wait(10)
    with running(work.flags, until):
        until(lambda: "work:1" in work.journal.flags("end"))

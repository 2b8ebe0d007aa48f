"""What every store of a shared queue does alike."""

import contextlib
import sqlite3
import subprocess
import sys
import threading

import pytest
from queue_rig import url_of

from flagsweep.queues.storage import KEPT, is_free


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


@pytest.mark.long
@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def test_several_processes_that_open_an_empty_store_at_once_all_can(request, store, tmp_path, env):
    url = url_of(request, store, tmp_path)
    code = (
        "import sys; from flagsweep.queues.opening import file_of, opener\n"
        "store = opener(sys.argv[1], file_of(sys.argv[1]), 't')('q', 5.0); store.post('mail', b'm'); store.disconnect()"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, url], env=env, cwd=tmp_path) for _ in range(3)]
    assert [child.wait(30) for child in children] == [0] * 3

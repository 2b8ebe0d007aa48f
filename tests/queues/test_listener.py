"""The listener: it drops what nobody has signed, heeds the lanes that are swept here, and asks once for many nudges."""

import threading

import pytest
from queue_rig import client_of, flood, garbage
from work import running

from flagsweep.sweep.lane import Lane


@pytest.mark.long
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


@pytest.mark.long
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


def test_nudges_of_eight_hours_are_one_sweep(url, make, until, monkeypatch):
    work = make(url, watch="off")
    sweeps, sweep = [], Lane.sweep
    monkeypatch.setattr(Lane, "sweep", lambda lane, *more: (sweeps.append(lane.name), sweep(lane, *more))[1])
    store = client_of(work)
    try:
        message = work.flags.queue.place.seal().close("default", work.flags.clock.now())
        flood(store, "default", [message] * 3000)
        with running(work.flags, until):
            until(lambda: work.flags.queue._listener and not store.take(["default"], 0.01, threading.Event()))
            work.raise_("mail", 1)
            until(work.is_idle)
    finally:
        store.disconnect()
    assert sweeps.count("default") <= 6, "one at the start, one of Huey's minute, one for a batch of nudges"

"""The courier: whoever needs the store waits for nothing that takes long."""

import logging
import os
import threading

import pytest
from queue_rig import client_of

from flagsweep.logs import Outage
from flagsweep.queues.courier import Courier


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
    courier = Courier(store.open, Outage("the store", "sweeps go on"), idle=0.05, budget=0.5)
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


@pytest.mark.long
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
    assert told == ["the store is away", "the store is back after 0 s"]


def test_a_fork_begins_anew_and_leaves_the_parents_connection_alone(url, make, tmp_path, until):
    work = make(url, watch="off")
    work.raise_("work", 1)
    work.flags.queue._postman.flush(5)
    code = os.fork()
    if code == 0:
        try:
            work.raise_("work", 2)
            work.flags.queue._postman.flush(5)
        finally:
            os._exit(0)
    os.waitpid(code, 0)
    work.raise_("work", 3)
    work.flags.queue._postman.flush(5)
    store = client_of(work)
    try:
        taken = store.take(["default"], 0.01, threading.Event())
    finally:
        store.disconnect()
    assert [work.flags.queue.place.seal().open(message, work.flags.clock.now()) for message in taken] == ["default"] * 3

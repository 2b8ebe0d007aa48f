"""A store of each sort in turn, its clients, and a site beside it."""

import threading

import pytest
from queue_rig import KEY, url_of
from work import Work

from flagsweep.queues.client import SharedQueue
from flagsweep.queues.courier import Courier
from flagsweep.queues.opening import file_of, opener
from flagsweep.queues.place import Place

STORES = ["sqlite", *(pytest.param(store, marks=pytest.mark.servers) for store in ("redis", "postgresql"))]


@pytest.fixture(params=STORES)
def url(request, tmp_path):
    """Return the URL of an empty store, of each sort in turn."""
    return url_of(request, request.param, tmp_path)


@pytest.fixture
def connect(url):
    """Give `connect(name="q", token="t")`: one more client of the store."""
    clients = []

    def connect(name="q", token="t", patience=2.0):
        clients.append(opener(url, file_of(url), token)(name, patience))
        return clients[-1]

    yield connect
    for client in clients:
        client.disconnect()


@pytest.fixture
def never():
    return threading.Event()


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
        work.flags.queue._postman.close()
        work.close()


@pytest.fixture
def patient(monkeypatch):
    """Let sweeps wait for their locks as long as a busy machine takes."""
    monkeypatch.setattr(SharedQueue, "ANSWER", 10.0)
    monkeypatch.setattr(Place, "PATIENCE", 5.0)


@pytest.fixture
def impatient(monkeypatch):
    """Let a courier try again soon after a failure."""
    monkeypatch.setattr(Courier, "REST", 0.3)

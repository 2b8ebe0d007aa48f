"""What is wanted of a lane where two of its sweeps attend, since Huey's lock failed: neither takes what the other waits for."""

import threading

import pytest

from flagsweep.sweep.demand import Demand


@pytest.fixture
def demand():
    return Demand()


@pytest.fixture
def lingering(demand, until):
    """Have a sweep linger in a thread; return what linger() returned to it."""
    returned = []
    thread = threading.Thread(target=lambda: returned.append(demand.linger(lambda: False)), daemon=True)
    thread.start()
    until(lambda: demand.lingers)
    yield returned
    demand.end()
    thread.join(5)
    assert not thread.is_alive()


def test_only_one_sweep_of_a_lane_lingers(demand, lingering, until):
    assert demand.linger(lambda: False) is False
    demand.call()
    until(lambda: lingering == [True])
    assert not demand.lingers and demand.linger(lambda: True) is True


def test_what_another_has_read_is_not_missed(demand):
    seen = demand.posts
    demand.post()
    assert demand.read(seen, None) and demand.read(seen, None)
    assert not demand.read(demand.posts, 0)


def test_a_sweep_that_lingers_ends_with_its_lane_though_another_has_begun_a_turn_since(demand, lingering, until):
    demand.end()
    demand.sate()
    until(lambda: lingering == [True])
    assert demand.linger(lambda: False) is True, "nobody lingers once the lane has stopped"

"""The pacer: transactions that are short, whatever a flag costs, and a share of the time for the site."""

import time

import pytest

from flagsweep.databases import pacer
from flagsweep.databases.pacer import Pacer


class Hours:
    """A clock that goes on when it is told, and when somebody sleeps."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def hours(monkeypatch):
    hours = Hours()
    monkeypatch.setattr(pacer, "time", hours)
    assert pacer.time is not time
    return hours


@pytest.mark.parametrize("cost", [1e-6, 2e-5, 6e-5, 3e-4])
def test_a_transaction_lasts_less_than_eight_milliseconds_whatever_a_flag_costs(hours, cost):
    """A site that asks after 1, 3 and 8 ms then finds its turn."""
    paced, lasted, began_at, busy = Pacer(0.35, 1000), [], hours.now, 0.0
    for _ in range(50):
        paced.turn()
        began, flags = hours.now, paced.batch
        hours.now += 0.0005 + cost * flags
        busy += hours.now - began
        lasted.append(hours.now - began)
        paced.ended(began, flags)
    assert max(lasted[1:]) < 0.008
    assert busy / (hours.now - began_at) <= 0.36
    assert paced.batch == 1000 or lasted[-1] > 0.003, "and no shorter than it must"


def test_who_sweeps_flat_out_waits_for_nobody(hours):
    paced = Pacer(1.0, 1000)
    began = hours.now
    for _ in range(10):
        paced.turn()
        paced.ended(hours.now - 0.5, 1000)
    assert (hours.now, paced.batch) == (began, 1000)

"""A site with one handler, on a clock that is turned by hand."""

import pytest

from flagsweep import FlagSweep
from flagsweep.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def flags(db_path, clock):
    flags = FlagSweep(db_path, clock=clock)
    flags.init()
    return flags


@pytest.fixture
def send(flags):
    @flags.handler
    def send(user_id, text="hello"):
        send.done.append(user_id)

    send.done = []
    return send

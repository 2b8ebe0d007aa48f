"""A FlagSweep to examine, with one handler."""

import pytest

from flagsweep import FlagSweep


@pytest.fixture
def flags(db_path):
    flags = FlagSweep(db_path)
    flags.init()
    flags.handler("send")(lambda user_id: None)
    return flags

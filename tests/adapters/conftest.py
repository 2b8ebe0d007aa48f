"""A site with rows of its own, on a clock that stands still."""

import pytest
from own_rows import MODELS
from peewee import SqliteDatabase
from rig import FakeClock, let_go

from flagsweep import FlagSweep


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def flags(db_path, clock):
    flags = FlagSweep(SqliteDatabase(db_path), clock=clock, threads=2)
    flags.init()
    with flags.database.bind_ctx(MODELS), flags.database:
        flags.database.create_tables(MODELS)
    flags.database.bind(MODELS)
    yield flags
    flags.database.close()
    let_go(db_path.parent)

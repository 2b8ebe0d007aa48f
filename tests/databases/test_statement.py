"""A statement's text stands apart from who executes it: a raise goes over a connection that is not ours, in its transaction."""

import sqlite3
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from flagsweep import FlagSweep
from flagsweep.config import SECOND
from flagsweep.databases.raising import Terms
from flagsweep.payloads import Item
from flagsweep.testing import FakeClock

NOW = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC
ITEM, TERMS = Item('{"n":1}', '{"n":1}'), Terms(0, NOW, NOW)
PLACES = ("sqlite", "postgres_url", "mysql_url")


@pytest.fixture(params=PLACES)
def url(request, db_path):
    return f"sqlite:///{db_path}" if request.param == "sqlite" else request.getfixturevalue(request.param)


@pytest.fixture
def flags(ready_url, tmp_path):
    flags = FlagSweep(ready_url, clock=FakeClock(NOW), state_dir=tmp_path / "state")
    flags.init()
    flags.handler("work")(lambda n: None)
    yield flags
    flags.connections.close_thread()


@pytest.fixture
def plain(url):
    """Return a connection of the driver's own, in a transaction, as another library would have it."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    elif url.startswith("postgres"):
        import psycopg

        connection = psycopg.connect(url)
    else:
        import pymysql

        parts = urlsplit(url)
        connection = pymysql.connect(host=parts.hostname, port=parts.port, user=parts.username, database=parts.path[1:])
    with closing(connection):
        yield connection


def over(connection):
    """Return what executes a text on a plain connection."""

    def execute(sql, parameters):
        cursor = connection.cursor()
        cursor.execute(sql, parameters)
        return cursor

    return execute


def row(flag):
    return flag.kind, flag.key, flag.payload, flag.state, flag.priority, flag.due_at, flag.raised_at


def test_the_text_of_a_raise_raises_the_very_flag_over_a_plain_connection(flags, plain):
    flags.handlers["work"].raise_flag(1)
    (ours,) = [row(flag) for flag in flags.find()]
    flags.lower("work", ours[1])
    statement = flags.connections.dialect.raising("work", ITEM, TERMS)
    plain.cursor().execute(statement.sql, statement.parameters)
    assert flags.find() == [], "not committed yet"
    plain.commit()
    assert [row(flag) for flag in flags.find()] == [ours]
    assert flags.sweep() == {"lowered": 1}


def test_a_raise_over_a_plain_connection_is_undone_with_its_transaction(flags, plain):
    flags.connections.dialect.raise_over(over(plain), "work", ITEM, TERMS)
    plain.rollback()
    assert flags.find() == []


def test_a_raise_over_a_plain_connection_says_what_it_did(flags, plain):
    dialect, done = flags.connections.dialect, []
    for _ in range(2):
        done.append(dialect.raise_over(over(plain), "work", ITEM, TERMS))
        plain.commit()
    (flag,) = flags.find()
    assert done == [(flag.id, "new", 1), (flag.id, "coalesced", 2)]


def test_a_claim_is_lowered_over_a_plain_connection(flags, plain):
    flags.handlers["work"].raise_flag(1)
    store = flags.store
    with store.connections.write():
        (claimed,) = store.claim("work", 0, 10, 1, NOW)
    statement = flags.connections.dialect.lowering([claimed.id], claimed.token)
    assert statement.on(over(plain)).rowcount == 1
    plain.commit()
    assert flags.find() == []

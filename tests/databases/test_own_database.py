"""The site's own Peewee database."""

import logging
import sqlite3
from functools import partial

import pytest
from peewee import DatabaseProxy, SqliteDatabase
from playhouse.pool import PooledSqliteDatabase
from rig import plain

from flagsweep import FlagSweep


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_sites_database_begins_its_transactions_immediately_and_the_log_says_so(db_path, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    site = SqliteDatabase(db_path)
    FlagSweep(site).init()
    assert "now begin IMMEDIATE" in caplog.text and str(db_path) in caplog.text
    with site.atomic(), pytest.raises(sqlite3.OperationalError, match="locked"):
        plain(db_path, "BEGIN IMMEDIATE", timeout=0)
    site.close()
    caplog.clear()
    FlagSweep(site)
    assert caplog.text == ""


def test_a_lock_type_that_the_site_chose_stays(db_path, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    site = SqliteDatabase(db_path, lock_type="DEFERRED")
    FlagSweep(site)
    assert (site._lock_type, caplog.text) == ("DEFERRED", "")


class Mine(SqliteDatabase):
    """A database class of the site's own, with a `_connect` of its own."""

    def _connect(self):
        connection = super()._connect()
        connection.create_function("one", 0, lambda: 1)
        return connection


@pytest.mark.parametrize("kind", [SqliteDatabase, partial(PooledSqliteDatabase, check_same_thread=False), Mine])
def test_kinds_of_peewee_databases_that_work(db_path, kind):
    site = kind(db_path)
    flags = FlagSweep(site)
    assert flags.database is site
    flags.init()

    @flags.handler(atomic=True)
    def work(n):
        site.execute_sql("SELECT 1")
        if n == 3:
            raise ValueError("no")

    work.raise_many([(n,) for n in range(20)])
    assert flags.sweep() == {"lowered": 19, "again": 1}
    getattr(site, "close_all", site.close)()


def test_a_proxy_stands_for_the_database_that_it_was_given(db_path):
    proxy, site = DatabaseProxy(), SqliteDatabase(db_path)
    proxy.initialize(site)
    flags = FlagSweep(proxy)
    assert flags.database is site
    flags.init()
    flags.handler("work")(lambda: None).raise_flag()
    assert flags.sweep() == {"lowered": 1}


def test_a_relative_name_is_the_same_file_for_the_site_and_for_us(tmp_path):
    site = SqliteDatabase("site.db")
    flags = FlagSweep(site)
    flags.init()
    flags.handler("work")(lambda: None).raise_flag()
    assert flags.sweep() == {"lowered": 1}
    assert (tmp_path / "site.db").exists()

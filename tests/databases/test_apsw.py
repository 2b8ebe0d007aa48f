"""A SQLite file through APSW, which brings a SQLite library of its own. The conformance suite runs over it, too."""

import asyncio
import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import apsw
import pytest
from peewee import SqliteDatabase
from playhouse import apsw_ext
from rig import let_go

from flagsweep import ConfigError, DatabaseAway, FlagSweep
from flagsweep.databases.sqlite import opening as databases

HOLD = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def site(tmp_path):
    yield apsw_ext.APSWDatabase(str(tmp_path / "site.db"), timeout=0.1)
    let_go(tmp_path)


def test_a_sites_own_apsw_database_raises_and_is_swept(site):
    flags, seen = FlagSweep(site, threads=2), []
    flags.init()

    class Visitor(apsw_ext.Model):
        owed = apsw_ext.BooleanField(default=True)
        since = apsw_ext.DateTimeField(null=True)

        class Meta:
            database = site

    site.create_tables([Visitor])
    Visitor.create()
    flags.when(Visitor.owed, kind="visit")(lambda row: seen.append(row.id))
    flags.handler("plain")(lambda n: seen.append(n))

    @flags.handler("exact", atomic=True)
    def exact(n):
        Visitor.create(owed=False)
        if n:
            raise ValueError("no")

    with pytest.raises(ZeroDivisionError), site.atomic():
        flags.handlers["plain"].raise_flag(7)
        raise ZeroDivisionError
    flags.handlers["plain"].raise_many([{"n": n} for n in range(100, 110)])
    exact.raise_flag(0)
    exact.raise_flag(1)
    assert flags.sweep() == {"lowered": 12, "again": 1}
    assert sorted(seen) == [1, *range(100, 110)]
    assert (Visitor.select().count(), Visitor.select().where(Visitor.owed).count()) == (2, 0)
    site.close()


def test_two_libraries_in_one_process_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="two SQLite libraries in one process drop each other's locks"):
        FlagSweep(SqliteDatabase(tmp_path / "site.db"), driver="apsw")
    with pytest.raises(ConfigError, match="driver must be 'sqlite3' or 'apsw'"):
        FlagSweep(tmp_path / "site.db", driver="other")


def test_a_raise_over_pythons_library_beside_our_apsw_is_refused(tmp_path):
    """As Django, SQLAlchemy or sqlite3 would open the file: said at once, said later, or said with the raise."""
    refused = pytest.raises(ConfigError, match=r"two SQLite libraries in one process.*3\.51\.3")
    with closing(sqlite3.connect(tmp_path / "site.db")) as theirs:
        with refused:
            FlagSweep(tmp_path / "site.db", driver="apsw", connection=theirs)
        flags = FlagSweep(tmp_path / "site.db", driver="apsw")
        flags.init()
        work = flags.handler("work")(lambda: None)
        with refused:
            flags.configure(connection=theirs)
        assert flags.connection is None
        with refused:
            work.using(connection=theirs).raise_flag()
        with refused:
            asyncio.run(work.using(connection=theirs).araise_flag())
    assert work.using(connection=flags.database).raise_flag().how == "new"
    flags.connections.close_thread()


def test_a_raise_over_a_sites_other_apsw_database_is_none_through_another_library(site):
    flags = FlagSweep(site.database, driver="apsw", connection=site)
    flags.init()
    assert flags.handler("work")(lambda: None).raise_flag().how == "new"
    site.close()


def test_without_apsw_the_error_says_what_to_install(db_path, monkeypatch):
    databases.apsw_database.cache_clear()
    monkeypatch.setitem(sys.modules, "apsw", None)
    monkeypatch.delitem(sys.modules, "playhouse.apsw_ext")
    with pytest.raises(ConfigError, match=r"pip install 'flagsweep\[apsw\]'"):
        FlagSweep(db_path, driver="apsw")


def test_a_locked_file_is_away_and_back_again(site, tmp_path):
    flags = FlagSweep(site, shutdown_timeout=0)
    flags.init()
    flags.connections.engine._timeout = 0.05
    flags.handler("work")(lambda n: None).raise_flag(1)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "site.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DatabaseAway, match="another program holds the database"):
            flags.handlers["work"].raise_flag(2)
        with pytest.raises(DatabaseAway):
            flags.sweep()
    finally:
        holder.communicate("")
    assert flags.sweep() == {"lowered": 1}


def test_doctor_advises_apsw_only_where_it_may_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr("flagsweep.databases.library.sqlite3.sqlite_version", "3.40.1")
    with closing(sqlite3.connect(tmp_path / "site.db")) as theirs:
        flags = FlagSweep(tmp_path / "site.db", connection=theirs)
        flags.init()
        assert re.match(r"use a Python.*3\.51\.3 .*keep backups", fix_of_sqlite(flags))
    site = SqliteDatabase(tmp_path / "own.db")
    flags = FlagSweep(site)
    flags.init()
    assert "playhouse.apsw_ext.APSWDatabase" in fix_of_sqlite(flags)
    site.close()


def fix_of_sqlite(flags):
    (finding,) = [each for each in flags.doctor() if each.what == "SQLite"]
    return finding.fix


def test_doctor_looks_at_the_library_in_use_and_names_apsw_as_the_fix(tmp_path, monkeypatch):
    here, there = FlagSweep(tmp_path / "here.db"), FlagSweep(tmp_path / "there.db", driver="apsw")
    for flags in (here, there):
        flags.init()
    monkeypatch.setattr("flagsweep.databases.library.sqlite3.sqlite_version", "3.40.1")
    (finding,) = [each for each in here.doctor() if each.what == "SQLite"]
    assert finding.level == "warn" and "pip install 'flagsweep[apsw]' and driver='apsw'" in finding.fix
    (finding,) = [each for each in there.doctor() if each.what == "SQLite"]
    assert (finding.level, finding.text) == ("ok", apsw.sqlite_lib_version())

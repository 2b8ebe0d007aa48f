"""The tables: made once, beside the site's own, and what they refuse."""

import sqlite3
import sys
from contextlib import closing

import pytest
from verbs import Site

from flagsweep import FlagSweep, NotReady


@pytest.fixture
def site(db_path):
    site = Site(db_path)
    yield site
    site.close()


def test_init_creates_the_tables_once_and_puts_the_file_into_wal_mode(db_path):
    flags = FlagSweep(db_path)
    assert (flags.init(), flags.init(), FlagSweep(db_path).init()) == (True, False, False)
    with closing(sqlite3.connect(db_path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert {"flagsweep_flag", "flagsweep_consumer", "flagsweep_history", "flagsweep_schema"} <= tables
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_init_keeps_flags_and_the_sites_own_tables(site):
    site.raise_()
    site.ask("CREATE TABLE person (id INTEGER)")
    site.flags.init()
    assert site.is_up()
    assert site.ask("SELECT * FROM person") == []


def test_init_in_a_folder_that_is_not_there_names_the_file(tmp_path):
    with pytest.raises(NotReady, match=f"{tmp_path}/gone/site.db cannot be created: No such file or directory"):
        FlagSweep(tmp_path / "gone" / "site.db").init()


INIT = """
import os, sys, time
from flagsweep import FlagSweep
me, peers, rounds = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(rounds):
    open(f"ready-{number}-{me}", "w").close()
    while not all(os.path.exists(f"ready-{number}-{peer}") for peer in range(peers)):
        time.sleep(0)
    print(number, FlagSweep(f"{number}.db").init())
"""


@pytest.mark.long
def test_many_processes_may_init_at_once(tmp_path, spawn, until):
    peers, rounds = 3, 12
    children = [spawn(sys.executable, "-c", INIT, me, peers, rounds) for me in range(peers)]
    codes = lambda: [child.poll() for child in children]  # noqa: E731
    until(lambda: None not in codes() or any(codes()), limit=30)
    told = [child.log.read_text() for child in children]
    assert codes() == [0] * peers, told
    created = sorted(line.split()[0] for text in told for line in text.splitlines() if line.endswith("True"))
    assert created == sorted(str(number) for number in range(rounds)), told


@pytest.mark.parametrize("verb", ["init", "sweep", "run"])
def test_a_schema_newer_than_the_code_is_refused(site, verb):
    site.ask("INSERT INTO flagsweep_schema (version, applied_at) VALUES (99, 0)")
    with pytest.raises(NotReady, match=r"have version 99, this flagsweep knows \d+: install a newer flagsweep"):
        getattr(site.flags, verb)()
    assert site.store.connections.engine.is_closed()


def test_a_state_that_is_none_cannot_be_written(site):
    site.raise_()
    with pytest.raises(sqlite3.IntegrityError):
        site.ask("UPDATE flagsweep_flag SET state = 'lowered'")


def test_one_kind_and_key_is_one_row(site):
    site.raise_()
    with pytest.raises(sqlite3.IntegrityError):
        site.ask("INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) VALUES ('work', 'k', '{}', 0, 0)")

"""What is found of who holds SQLite's writer, and of who reads for so long that the log grows."""

import os
import sqlite3
import sys
from contextlib import closing

import pytest
from examined import found
from rig import plain

from flagsweep.operations.doctor import holders, processes
from flagsweep.operations.doctor.processes import Process

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
for statement in sys.argv[2:]:
    db.execute(statement).fetchall()
print("holding", flush=True)
sys.stdin.read()
"""
READ = ("BEGIN", "SELECT * FROM flagsweep_flag")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Look for a quarter of a second, where it would be five."""
    monkeypatch.setattr(holders, "LONG", 0.1)
    monkeypatch.setattr(holders, "TOO_LONG", 0.25)


@pytest.fixture
def hold(spawn, until, db_path):
    """Give `hold(*statements)`: another program that has carried them out, and leaves them so."""

    def hold(*statements):
        child = spawn(sys.executable, "-c", HOLD, db_path, *statements, stdin=-1)
        until(lambda: b"holding" in child.log.read_bytes())
        return child

    yield hold


def test_nobody_holds_the_writer_of_an_idle_database(flags):
    assert found(flags, "writer").level == "ok"


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_another_program_that_holds_the_writer_is_named_with_its_pid(flags, db_path, hold, journal):
    plain(db_path, f"PRAGMA journal_mode = {journal}")
    child = hold("BEGIN IMMEDIATE")
    finding = found(flags, "writer")
    assert finding.level == "fail" and "held for at least 0." in finding.text and f"(pid {child.pid} of " in finding.text
    assert os.path.basename(sys.executable) in finding.text and f"kill {child.pid}" in finding.fix


def test_who_shuts_everybody_out_is_named_though_the_database_cannot_be_read(flags, db_path, hold, monkeypatch):
    flags.connections.engine._timeout = 0.1
    child = hold("PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "UPDATE flagsweep_schema SET version = version")
    assert found(flags, "database").level == "fail"
    finding = found(flags, "writer")
    assert finding.level == "fail" and f"pid {child.pid}" in finding.text


def test_a_writer_that_lets_go_in_time_is_no_finding(flags, hold, monkeypatch):
    child = hold("BEGIN IMMEDIATE")
    monkeypatch.setattr(holders.time, "sleep", lambda seconds: child.communicate())
    assert found(flags, "writer").level == "ok"


def test_commits_between_two_looks_show_that_it_changes_hands(flags, hold, monkeypatch, db_path):
    hold("BEGIN IMMEDIATE")
    commits = iter(range(1000))
    monkeypatch.setattr(holders, "_commit", lambda patient: next(commits))
    assert found(flags, "writer").level == "ok"


def test_this_very_process_is_told_to_commit_first(flags, db_path):
    with closing(sqlite3.connect(db_path, isolation_level=None)) as own:
        own.execute("BEGIN IMMEDIATE")
        finding = found(flags, "writer")
        own.execute("ROLLBACK")
    assert f"(pid {os.getpid()}, this very process," in finding.text and "what this process has open" in finding.fix


def test_a_holder_of_whom_the_kernel_says_nothing_is_found_and_who_has_the_file_open_is_told(flags, hold, monkeypatch, tmp_path):
    child = hold("BEGIN IMMEDIATE")
    monkeypatch.setattr("flagsweep.databases.sqlite.holders.LOCKS", tmp_path / "no such file")
    finding = found(flags, "writer")
    assert (
        finding.level == "fail"
        and "says nothing here" in finding.text
        and f"it is open in {Process.of(child.pid)}" in finding.text
    )


def test_of_a_process_that_cannot_be_looked_at_it_is_said_so(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "PROC", tmp_path)
    assert str(Process.of(4711)) == "pid 4711 (its name cannot be read: call doctor as root, or as its user)"


def test_a_long_command_line_is_cut():
    assert len(Process.of(os.getpid()).command) <= processes.LONGEST


def test_who_keeps_the_log_from_being_written_back_is_named(flags, db_path, hold, monkeypatch):
    child = hold(*READ)
    monkeypatch.setattr(holders, "SHORT_LOG", 0)
    with flags.database.connection_context():
        flags.handlers["send"].raise_flag(1)
        finding = found(flags, "write-ahead log")
    assert finding.level == "warn" and f"pid {child.pid}" in finding.text and f"kill {child.pid}" in finding.fix


def test_a_log_that_is_never_written_back_is_a_risk_though_nobody_reads_just_now(flags, monkeypatch):
    monkeypatch.setattr(holders, "LONG_LOG", 0)
    with flags.database.connection_context():
        flags.handlers["send"].raise_flag(1)
        finding = found(flags, "write-ahead log")
    assert finding.level == "warn" and "look for a program" in finding.fix

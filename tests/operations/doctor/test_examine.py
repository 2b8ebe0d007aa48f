"""Examining asks all that can be asked, changes nothing, and a check that breaks stops no other."""

import os
from contextlib import closing

import peewee
import pytest
from examined import found
from peewee import SqliteDatabase

from flagsweep import FlagSweep
from flagsweep.operations.doctor.examine import examine
from flagsweep.sweep.claims import Store


def test_a_fresh_database_has_nothing_to_mend_but_an_old_sqlite(flags):
    findings = examine(flags)
    assert {finding.what for finding in findings if finding.level != "ok"} <= {"SQLite"}
    assert all(finding.fix for finding in findings if finding.level != "ok")
    assert len(findings) >= 15


def test_flags_doctor_is_what_examine_finds(flags):
    assert [finding.what for finding in flags.doctor()] == [finding.what for finding in examine(flags)]


def test_examining_changes_nothing(flags, db_path):
    flags.handlers["send"].raise_flag(1)
    with closing(SqliteDatabase(db_path)) as other:
        before = other.execute_sql("PRAGMA data_version").fetchone(), sorted(os.listdir(db_path.parent))
        examine(flags)
        assert (other.execute_sql("PRAGMA data_version").fetchone(), sorted(os.listdir(db_path.parent))) == before


def test_a_database_in_memory_is_examined_without_its_files():
    flags = FlagSweep(":memory:")
    with flags.database.connection_context():
        flags.init()
        findings = examine(flags)
    assert "fail" not in {finding.level for finding in findings}
    assert not {"file system", "folder", "consumer"} & {finding.what for finding in findings}


@pytest.mark.parametrize("error", [peewee.OperationalError("disk I/O error"), KeyError("x"), PermissionError(13, "denied")])
def test_a_check_that_breaks_is_a_finding_and_stops_no_other(flags, monkeypatch, error):
    def broken(self, last):
        raise error

    monkeypatch.setattr(Store, "damaged", broken)
    finding = found(flags, "rows")
    assert finding.level == "fail" and finding.fix and "could not be checked" in finding.text
    assert found(flags, "raise times").level == "ok"

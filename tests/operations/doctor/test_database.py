"""What is found of the database: whether it can be reached, and how it is opened."""

import pytest
from examined import found
from peewee import SqliteDatabase
from rig import plain

from flagsweep import FlagSweep
from flagsweep.operations.doctor import database
from flagsweep.operations.doctor.examine import examine
from flagsweep.operations.doctor.finding import Finding


def test_a_missing_database_is_named_with_its_path_and_not_created(db_path):
    finding = found(FlagSweep(SqliteDatabase(db_path)), "database")
    assert finding == Finding(
        "fail", "database", f"there is no database {db_path}", "run 'flagsweep init' once, or mend the path"
    )
    assert not db_path.exists()


def test_a_missing_folder_is_no_more_than_a_missing_database(tmp_path):
    findings = examine(FlagSweep(tmp_path / "nowhere" / "site.db"))
    assert [finding.what for finding in findings if finding.level == "fail"] == ["database"]


def test_a_file_that_is_no_database_is_called_so(db_path):
    db_path.write_text("Dear diary, " * 1000)
    finding = found(FlagSweep(db_path), "database")
    assert (finding.level, finding.fix) == ("fail", "the file is no SQLite database: check the path")


def test_a_read_only_database_fails(flags, db_path, monkeypatch):
    monkeypatch.setattr(database.os, "access", lambda path, mode: path != db_path)
    assert found(flags, "database").level == "fail"


def test_missing_tables_fail_and_what_needs_them_is_not_asked(db_path):
    plain(db_path, "CREATE TABLE person (id INTEGER PRIMARY KEY)")
    findings = examine(FlagSweep(db_path))
    assert [finding.what for finding in findings if finding.level == "fail"] == ["schema"]
    assert "flagsweep init" in found(FlagSweep(db_path), "schema").fix
    assert "dead flags" not in {finding.what for finding in findings}


def test_tables_newer_than_the_code_fail(flags, db_path):
    plain(db_path, "INSERT INTO flagsweep_schema VALUES (99, 1)")
    finding = found(flags, "schema")
    assert (finding.level, finding.fix) == ("fail", "install a newer flagsweep") and "99" in finding.text


def test_a_journal_other_than_wal_is_a_risk(flags, db_path):
    plain(db_path, "PRAGMA journal_mode = DELETE")
    finding = found(flags, "journal")
    assert finding.level == "warn" and finding.text.startswith("delete")


@pytest.mark.parametrize(("mode", "level"), [(0, "fail"), (1, "warn"), (2, "ok"), (3, "ok")])
def test_the_sites_own_commits_should_reach_the_disk(flags, db_path, mode, level):
    own = FlagSweep(SqliteDatabase(db_path, pragmas={"synchronous": mode}))
    assert found(own, "synchronous").level == level


@pytest.mark.parametrize(("given", "level"), [("DEFERRED", "warn"), ("IMMEDIATE", "ok"), (None, "ok")])
def test_a_site_that_begins_deferred_transactions_is_told(flags, db_path, given, level):
    assert found(FlagSweep(SqliteDatabase(db_path, lock_type=given)), "lock type").level == level

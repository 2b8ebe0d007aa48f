"""What doctor finds: each check once where all is well, and once where it is not."""

import os
import shutil
from contextlib import closing

import peewee
import pytest
from peewee import BooleanField, Model, SqliteDatabase, TextField
from rig import FakeClock, plain

from flagsweep import FlagSweep
from flagsweep.config import Clock
from flagsweep.consumer.membership import Enlisted
from flagsweep.operations.doctor import examine as doctor
from flagsweep.operations.doctor.examine import Finding, examine
from flagsweep.sweep.claims import Store


@pytest.fixture
def flags(db_path):
    flags = FlagSweep(db_path)
    flags.init()
    flags.handler("send")(lambda user_id: None)
    return flags


def found(flags, what):
    """Return the only finding about something."""
    (finding,) = [finding for finding in examine(flags) if finding.what == what]
    return finding


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


# Is it there?


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
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: path != db_path)
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


# The machine, files and folders.


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 34, 1), "fail"), ((3, 35, 0), "warn"), ((3, 51, 2), "warn"), ((3, 51, 3), "ok"), ((3, 53, 0), "ok")],
)
def test_sqlite_must_know_returning_and_should_not_have_the_wal_reset_bug(flags, monkeypatch, version, level):
    monkeypatch.setattr(doctor.sqlite3, "sqlite_version", ".".join(map(str, version)))
    assert doctor.sqlite(doctor.Patient(flags)).level == level


def test_a_clock_that_was_never_set_fails(flags):
    flags.clock.now = lambda: 1_000_000
    finding = found(flags, "clock")
    assert finding.level == "fail" and "1970-01-01" in finding.text


@pytest.mark.parametrize(
    ("kind", "level"),
    [("ext4", "ok"), ("nfs4", "fail"), ("cifs", "fail"), ("fuse.sshfs", "fail"), ("fuseblk", "warn"), ("tmpfs", "warn")],
)
def test_a_networks_file_system_fails_and_an_unknown_one_is_a_risk(flags, monkeypatch, kind, level):
    monkeypatch.setattr(doctor, "file_system", lambda path: kind)
    assert found(flags, "file system").level == level


@pytest.mark.parametrize(("mode", "fix"), [(0o777, "chmod o-w"), (0o1777, "a folder of its own")])
def test_a_folder_that_anybody_may_write_to_is_a_risk(flags, db_path, mode, fix):
    db_path.parent.chmod(mode)
    try:
        finding = found(flags, "folder")
        assert finding.level == "warn" and fix in finding.fix
    finally:
        db_path.parent.chmod(0o700)


def test_a_folder_that_sqlite_cannot_write_to_fails(flags, db_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: path != db_path.parent)
    assert found(flags, "folder").level == "fail"


def test_little_disk_space_is_a_risk(flags, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, 63 << 20))
    finding = found(flags, "disk space")
    assert (finding.level, finding.text) == ("warn", "63 MiB are free")


def test_a_log_that_is_never_written_back_is_a_risk(flags, monkeypatch):
    monkeypatch.setattr(doctor, "LONG_LOG", 0)
    with flags.database.connection_context():
        flags.handlers["send"].raise_flag(1)
        assert found(flags, "write-ahead log").level == "warn"


# How the database is opened.


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


# Who sweeps.


def test_flags_that_are_due_while_nobody_sweeps_are_told(flags):
    assert found(flags, "consumer") == Finding("ok", "consumer", "none runs, and nothing is due")
    flags.handlers["send"].raise_flag(1)
    finding = found(flags, "consumer")
    assert finding.level == "warn" and "due: 1" in finding.text and "flagsweep run" in finding.fix


def test_the_running_consumer_is_named(flags, db_path):
    with closing(Enlisted(flags.store, db_path, Clock(), "run")):
        finding = found(flags, "consumer")
        assert finding.level == "ok" and f"pid {os.getpid()}" in finding.text
    flags.store.close_engine()


def test_a_consumer_whose_life_this_user_cannot_see_is_not_called_dead(flags, monkeypatch):
    consumer = {"id": 1, "mode": "run", "pid": 1, "host": "h", "started_at": "2026-01-01T00:00:00+00:00", "alive": None}
    monkeypatch.setattr(flags, "status", lambda: {"lanes": {}, "consumers": [consumer]})
    assert found(flags, "consumer").level == "warn"
    assert found(flags, "dead consumers").level == "ok"


def test_what_a_dead_consumer_left_is_told_with_its_crash_report(flags, db_path):
    with closing(Enlisted(flags.store, db_path, Clock(), "sweep")):
        pass
    flags.store.close_engine()
    plain(db_path, "INSERT INTO flagsweep_consumer (id, mode, pid, host, started_at) VALUES (77, 'run', 4711, 'h', 1)")
    report = db_path.parent / "site.db.flagsweep" / "crash-77.txt"
    report.write_text("Fatal Python error: Segmentation fault")
    finding = found(flags, "dead consumers")
    assert finding.level == "warn" and "77 (pid 4711)" in finding.text and str(report) in finding.text


# The flags themselves.


def test_flags_of_a_kind_without_handler_are_counted(flags, db_path):
    flags.handler("gone")(lambda: None).raise_flag()
    finding = found(FlagSweep(db_path), "kinds")
    assert finding.level == "ok" and "not checked" in finding.text
    other = FlagSweep(db_path)
    other.handler("send")(lambda user_id: None)
    assert "another application seems to serve them" in found(other, "kinds").text
    plain(db_path, "UPDATE flagsweep_flag SET due_at = 1 WHERE kind = 'gone'")
    finding = found(other, "kinds")
    assert finding.level == "warn" and "gone; flags that wait for one: 1" in finding.text
    other.handler("new", aliases="gone")(lambda: None)
    assert found(other, "kinds").level == "ok"


def test_dead_flags_are_counted(flags, db_path):
    flags.handlers["send"].raise_many([(1,), (2,)])
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead'")
    finding = found(flags, "dead flags")
    assert finding.level == "warn" and finding.text.startswith("2,")


def test_damaged_rows_are_named(flags, db_path):
    flags.handlers["send"].raise_many([(1,), (2,), (3,), (4,)])
    plain(db_path, "UPDATE flagsweep_flag SET due_at = 'soon' WHERE id = 2")
    plain(db_path, "UPDATE flagsweep_flag SET payload = '{' WHERE id = 3")
    plain(db_path, "UPDATE flagsweep_flag SET payload = x'ff' WHERE id = 4")
    finding = found(flags, "rows")
    assert finding.level == "warn" and "flag 2, 3, 4" in finding.text


def test_a_raise_by_a_clock_that_goes_wrong_is_told(db_path):
    clock = FakeClock()
    flags = FlagSweep(db_path, clock=clock)
    flags.init()
    clock.advance(86400)
    flags.handler("send")(lambda: None).raise_flag()
    clock.advance(-86400)
    finding = found(flags, "raise times")
    assert finding.level == "warn" and "2026-01-02" in finding.text and "2026-01-01" in finding.text


class TestOwnRows:
    @pytest.fixture
    def Order(self, flags):
        class Order(Model):
            paid = BooleanField(default=True)
            receipt_sent = BooleanField(default=False)
            cancelled_at = TextField(null=True)

            class Meta:
                database = flags.database

        with flags.database.connection_context():
            flags.database.create_tables([Order])
        return Order

    @pytest.mark.parametrize(
        "condition",
        [
            lambda order: order.paid,
            lambda order: order.cancelled_at,
            lambda order: order.paid & ~order.receipt_sent,
            lambda order: (order.paid == True) & order.cancelled_at.is_null(),  # noqa: E712
        ],
        ids=["Boolean", "timestamp", "condition", "condition with a parameter"],
    )
    def test_a_condition_without_an_index_is_told_and_the_suggested_index_serves_it(self, flags, db_path, Order, condition):
        flags.when(condition(Order), kind="handle")(lambda order: None)
        finding = found(flags, "own rows")
        assert finding.level == "warn" and "the whole table order" in finding.text
        plain(db_path, finding.fix)
        assert found(flags, "own rows").level == "ok"

    def test_a_missing_table_is_told(self, flags, Order):
        with flags.database.connection_context():
            Order.drop_table()
        flags.when(Order.paid, kind="handle")(lambda order: None)
        assert "there is no table order" in found(flags, "own rows").text


@pytest.mark.parametrize("error", [peewee.OperationalError("disk I/O error"), KeyError("x"), PermissionError(13, "denied")])
def test_a_check_that_breaks_is_a_finding_and_stops_no_other(flags, monkeypatch, error):
    def broken(self, last):
        raise error

    monkeypatch.setattr(Store, "damaged", broken)
    finding = found(flags, "rows")
    assert finding.level == "fail" and finding.fix and "could not be checked" in finding.text
    assert found(flags, "raise times").level == "ok"

"""What is found of the machine: its SQLite, its clock, the disk."""

import shutil

import pytest
from examined import found

from flagsweep.databases import library
from flagsweep.operations.doctor import machine
from flagsweep.operations.doctor.patient import Patient


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 34, 1), "fail"), ((3, 35, 0), "warn"), ((3, 51, 2), "warn"), ((3, 51, 3), "ok"), ((3, 53, 0), "ok")],
)
def test_sqlite_must_know_returning_and_should_not_have_the_wal_reset_bug(flags, monkeypatch, version, level):
    monkeypatch.setattr(library.sqlite3, "sqlite_version", ".".join(map(str, version)))
    assert machine.sqlite(Patient(flags)).level == level


def test_a_clock_that_was_never_set_fails(flags):
    flags.clock.now = lambda: 1_000_000
    finding = found(flags, "clock")
    assert finding.level == "fail" and "1970-01-01" in finding.text


@pytest.mark.parametrize(
    ("kind", "level"),
    [("ext4", "ok"), ("nfs4", "fail"), ("cifs", "fail"), ("fuse.sshfs", "fail"), ("fuseblk", "warn"), ("tmpfs", "warn")],
)
def test_a_networks_file_system_fails_and_an_unknown_one_is_a_risk(flags, monkeypatch, kind, level):
    monkeypatch.setattr(machine, "file_system", lambda path: kind)
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
    monkeypatch.setattr(machine.os, "access", lambda path, mode: path != db_path.parent)
    assert found(flags, "folder").level == "fail"


def test_little_disk_space_is_a_risk(flags, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, 63 << 20))
    finding = found(flags, "disk space")
    assert (finding.level, finding.text) == ("warn", "63 MiB are free")

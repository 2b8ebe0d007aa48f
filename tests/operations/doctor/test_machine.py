"""What is found of the machine: its SQLite, its clock, the disk."""

import shutil
from contextlib import suppress
from types import SimpleNamespace

import pytest
from examined import found

from flagsweep import FlagSweep
from flagsweep.databases import library
from flagsweep.operations import disk
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
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, 63 << 20))
    finding = found(flags, "disk space")
    assert (finding.level, finding.text) == ("warn", "63 MiB are free")


def test_a_full_disk_fails_whatever_else_can_be_asked(small_disk):
    flags = FlagSweep(small_disk / "site.db")
    flags.init()
    flags.connections.close_thread()
    assert found(flags, "disk space").level == "warn"
    with (small_disk / "fill").open("wb", buffering=0) as fill, suppress(OSError):
        while True:
            fill.write(bytes(4096))
    finding = found(flags, "disk space")
    assert finding.level == "fail" and f"0 KiB are free on the disk of {small_disk}" in finding.text
    assert f"'du -xah {small_disk} | sort -h | tail'" in finding.fix
    flags.connections.close_thread()


def test_a_disk_that_takes_no_more_files_fails(flags, monkeypatch):
    monkeypatch.setattr(disk.os, "statvfs", lambda path: SimpleNamespace(f_files=100, f_favail=0))
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1 << 36))
    assert "no more files" in found(flags, "disk space").text

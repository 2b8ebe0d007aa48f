"""The machine: its SQLite, its clock, and the disk that the database's file is on."""

from __future__ import annotations

import os
import stat

from ...config import SECOND
from ...consumer.wakeups import LOCAL, file_system
from ...databases.library import NEWER, is_apsw, version_of
from ..disk import LITTLE, NOTHING, room_on
from .finding import Finding, as_date
from .patient import Check, Patient

FIRST_YEAR = 1_704_067_200 * SECOND
"""2024-01-01: a clock that shows less has never been set."""
RETURNING = (3, 35, 0)
WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))
"""First and last SQLite that may damage a database in WAL mode: https://sqlite.org/wal.html#walresetbug."""
NETWORK = ("nfs", "cifs", "smb", "afs", "ceph", "glusterfs", "lustre", "ncpfs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs")


def sqlite(patient: Patient) -> Finding:
    """Check the version of SQLite that our connections go through."""
    name = version_of(patient.store.connections.engine)
    version = tuple(map(int, name.split(".")))
    if version < RETURNING:
        return Finding("fail", "SQLite", f"{name} is too old: flagsweep needs 3.35", "use a Python that has a newer SQLite")
    first, last = WAL_RESET_BUG
    if first <= version <= last:
        text = f"{name} has the WAL-reset bug, which damages a database in rare cases (two writers at one instant)"
        return Finding("warn", "SQLite", text, f"{_newer(patient)}; keep backups until then")
    return Finding("ok", "SQLite", name)


def _newer(patient: Patient) -> str:
    """Return how this site comes by a newer SQLite: one process must not open a file through two libraries."""
    if is_apsw(patient.store.connections.engine):
        return "pip install --upgrade apsw"
    if patient.site.connection is not None:
        return f"use {NEWER} (driver='apsw' does not go with the site's own connection)"
    if not isinstance(patient.site.settings.database, (str, os.PathLike)):
        return "pip install 'flagsweep[apsw]' and have the site use playhouse.apsw_ext.APSWDatabase, which brings a newer one"
    return "pip install 'flagsweep[apsw]' and driver='apsw', which brings a newer one"


def clock(patient: Patient) -> Finding:
    """Check that the clock has been set at all."""
    if patient.now < FIRST_YEAR:
        text = f"it is {as_date(patient.now)} by this machine's clock"
        return Finding("fail", "clock", text, "set the clock: flags are not due until the time they were raised for")
    return Finding("ok", "clock", as_date(patient.now))


MACHINE: list[Check] = [sqlite, clock]


def file_system_kind(patient: Patient) -> Finding:
    """Check that the file system has the locks and the shared memory that SQLite needs."""
    kind = file_system(patient.path.resolve())
    if kind.startswith(NETWORK):
        text = f"{kind} is a network's: SQLite's log does not work there, and the database will be damaged"
        return Finding("fail", "file system", text, "move the database to a local disk")
    if kind == "tmpfs":
        return Finding("warn", "file system", "tmpfs: a restart of this machine deletes the database", "move it to a disk")
    if kind not in LOCAL:
        text = f"{kind} is not known to have working locks, and commits are seen by polling there"
        return Finding("warn", "file system", text, "move the database to a local disk, such as one with ext4 or xfs")
    return Finding("ok", "file system", kind)


def folder(patient: Patient) -> Finding:
    """Check that SQLite can put its log beside the database, and that strangers cannot."""
    place = patient.path.parent
    if not os.access(place, os.W_OK | os.X_OK):
        text = f"{place} is not writable for this user: SQLite keeps its log beside the database"
        return Finding("fail", "folder", text, "mend its rights, or use the user that owns it")
    for path in (place, patient.path):
        if path.exists() and path.stat().st_mode & stat.S_IWOTH:
            text = f"anybody on this machine may write to {path}"
            fix = "give the database a folder of its own" if path.stat().st_mode & stat.S_ISVTX else f"chmod o-w {path}"
            return Finding("warn", "folder", text, fix)
    return Finding("ok", "folder", f"{place} is writable, for its owner and group alone")


def disk_space(patient: Patient) -> Finding:
    """Check that there is room for the database to grow, and to make files."""
    room = room_on(patient.path.parent)
    level = {NOTHING: "fail", LITTLE: "warn"}.get(room.is_left, "ok")
    return Finding(level, "disk space", room.text, room.fix)


FILES: list[Check] = [file_system_kind, folder, disk_space]

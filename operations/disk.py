"""The disk that a database's file is on: how much room is left, and what shows who has taken it."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
LITTLE_SPACE = 64 * MIB
NO_SPACE = 4 * MIB
"""Bytes: SQLite's log alone grows to so much before it is written back, and what is raised and done goes into it."""

ENOUGH, LITTLE, NOTHING = "enough", "little", "nothing"


@dataclass(frozen=True)
class Room:
    """Tell how much room a disk has.

    :ivar is_left: ``enough``, ``little`` or ``nothing``.
    :ivar fix: what makes room; empty where there is enough.
    """

    is_left: str
    text: str
    fix: str = ""


def room_on(place: Path) -> Room:
    """Return how much room is left on the disk of a folder.

    :raises OSError: where there is no such folder.
    """
    free = shutil.disk_usage(place).free
    if hasattr(os, "statvfs") and (disk := os.statvfs(place)).f_files and not disk.f_favail:
        fix = "delete some that nobody needs: SQLite cannot make its log, nor a consumer its notes"
        return Room(NOTHING, f"no more files can be made in {place}", fix)
    if free < NO_SPACE:
        text = f"the disk is full, {free // 1024} KiB are free on the disk of {place}: raises and sweeps fail there, or soon will"
        return Room(NOTHING, text, f"free some space, '{largest(place)}' shows what takes it; what waits goes on by itself")
    if free < LITTLE_SPACE:
        fix = f"free some space, '{largest(place)}' shows what takes it: on a full disk every raise fails"
        return Room(LITTLE, f"{free // MIB} MiB are free", fix)
    return Room(ENOUGH, f"{free / 1024 / MIB:.1f} GiB are free")


def largest(place: Path) -> str:
    """Return the command that shows the largest files and folders on the disk of a folder, and of no other."""
    return f"du -xah {shlex.quote(str(mount_of(place)))} | sort -h | tail"


def mount_of(place: Path) -> Path:
    """Return the folder at which the disk of a folder is mounted."""
    path = place.resolve()
    return next((each for each in (path, *path.parents) if os.path.ismount(each)), path)

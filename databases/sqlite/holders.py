"""SQLite: who holds the locks of a file, as Linux tells everybody in ``/proc/locks``. The file itself is not opened for it:
to close it again would drop the locks that this process has on it.

The bytes: https://sqlite.org/walformat.html#locks and https://sqlite.org/src/file/src/os.h.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

LOCKS = Path("/proc/locks")
WAL_WRITE = range(120, 121)
"""The byte of ``-shm`` that is the writer's in WAL mode."""
WAL_READ = range(123, 128)
"""Those of who reads a snapshot: behind the oldest nothing of the log is written over."""
WRITE = range(0x40000000, 0x40000002)
"""The bytes of the file that are the writer's without WAL: pending and reserved. Behind them are the readers'."""
SHARED = range(0x40000002, 0x40000200)


class Holders(NamedTuple):
    """Name who holds locks, by process id; 0 is somebody of whom the kernel says none."""

    writers: frozenset[int]
    readers: frozenset[int]


class _Lock(NamedTuple):
    pid: int
    writes: bool
    bytes: range


def holders(file: Path) -> Holders | None:
    """Return who holds the writer, and who reads; None where this system does not tell.

    Of processes in another container, or on another host, the kernel says nothing here.
    """
    try:
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return None
    path = file.resolve()
    on_file, on_index = (list(_locks_on(lines, each)) for each in (path, Path(f"{path}-shm")))
    writers = _who(on_index, WAL_WRITE, True) | _who(on_file, WRITE, True) | _who(on_file, SHARED, True)
    readers = _who(on_index, WAL_READ, False) if on_index else _who(on_file, SHARED, False)
    return Holders(writers, readers - writers)


def _locks_on(lines: Iterable[str], path: Path) -> Iterator[_Lock]:
    """Yield the locks that are held on a file, without those that are waited for."""
    try:
        found = path.stat()
    except OSError:
        return
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in lines:
        fields = line.split()
        if len(fields) == 8 and fields[5] == place:  # One that waits has an arrow, and so a field more.
            last = 2**63 if fields[7] == "EOF" else int(fields[7])
            yield _Lock(max(0, int(fields[4])), fields[3] == "WRITE", range(int(fields[6]), last + 1))


def _who(locks: Iterable[_Lock], those: range, writes: bool) -> frozenset[int]:
    return frozenset(
        lock.pid for lock in locks if lock.writes is writes and lock.bytes[0] < those.stop and lock.bytes[-1] >= those.start
    )

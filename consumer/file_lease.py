"""Who lives: the lease that the kernel holds for a consumer.

Beside ``site.db`` stands the folder ``site.db.flagsweep`` with the file ``lease``: byte 0 belongs to the one ``run``, byte N
to the consumer with id N. The kernel drops a lock with its process, so a killed consumer's claims are free at once, and a
slow, living one is never taken for dead.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from ..databases.forks import at_fork
from ..databases.identity import is_at
from ..databases.state_folder import made_for, opened, out_of_reach
from ..errors import LeaseHeld, NotReady

try:
    import fcntl
except ImportError:  # Windows can raise flags, not run them.
    fcntl = None  # type: ignore[assignment]

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of Linux on 64 bits: type, whence, start, length, pid
RUN = 0
"""The byte of the one consumer that is a ``run``."""


class Lease:
    """Hold bytes of the lease file.

    On Linux the lock belongs to the open file (OFD): a plain ``lockf`` would be dropped as soon as anything in this process opens
    and closes the same file, and granted twice within one process. Elsewhere ``lockf`` has to do, and the leases of one process
    keep out of each other's way: each asks the others, and none closes the file before the last.
    """

    def __init__(self, folder: Path):
        if fcntl is None:
            raise NotReady("this system has no file locks (fcntl): flags can be raised here, sweep them on Linux or macOS")
        self.path = folder / "lease"
        self._held: set[int] = set()
        self._others: list[int] = []
        try:
            made_for(folder, Path(str(folder).removesuffix(".flagsweep")))
            self._fd = opened(self.path)
        except OSError as error:
            raise out_of_reach(folder, error) from error
        _open.add(self)

    def take(self, byte: int) -> None:
        """Lock one byte.

        :raises LeaseHeld: where another consumer has it.
        """
        if (not _of_open_file() and self._is_held_here(byte)) or not self._lock(byte):
            raise LeaseHeld(f"byte {byte} of {self.path} is locked by another consumer")
        self._held.add(byte)

    def give_up(self, byte: int) -> None:
        """Unlock one byte."""
        if byte in self._held:
            self._held.discard(byte)
            self._unlock(byte)

    def is_held(self, byte: int) -> bool:
        """Return whether another consumer, in whatever process, holds this byte."""
        if _of_open_file():
            answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
            return _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK
        if byte in self._held or self._is_held_here(byte):
            return byte not in self._held
        if not self._lock(byte):
            return True
        self._unlock(byte)
        return False

    def is_dead(self, byte: int) -> bool:
        """Return whether the consumer that had this byte is gone: the kernel drops a lock with its process."""
        return not self.is_held(byte)

    def _is_held_here(self, byte: int) -> bool:
        return any(byte in other._held for other in self._siblings())

    def _siblings(self) -> list[Lease]:
        return [other for other in list(_open) if other is not self and other.path == self.path]

    def _lock(self, byte: int) -> bool:
        try:
            if _of_open_file():
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
            else:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, byte: int) -> None:
        if _of_open_file():
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0))
        else:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)

    def is_intact(self) -> bool:
        """Return whether the file that is locked still is the one at its path."""
        return is_at(self._fd, self.path)

    def close(self) -> None:
        """Give up all that is held."""
        _open.discard(self)
        files, self._others = [*self._others, *([self._fd] if self._fd >= 0 else [])], []
        heir = next(iter(self._siblings()), None)
        if heir is None or _of_open_file():
            for file in files:
                os.close(file)
        else:
            for byte in self._held:
                self._unlock(byte)
            heir._others += files
        self._held.clear()
        self._fd = -1


def _of_open_file() -> bool:
    """Return whether a lock can belong to the open file, as on Linux, instead of the process."""
    return hasattr(fcntl, "F_OFD_SETLK")


# A forked child shares the locks of its parent and would keep them alive: it closes its copies. A module's state, since the
# kernel's is the process's, too.
_open: set[Lease] = set()


def _close_all() -> None:
    for lease in list(_open):
        lease.close()


at_fork(in_child=_close_all)

"""Who lives and what they run: the lease that the kernel holds for a consumer, and the black box that outlives its death.

Beside ``site.db`` stands the folder ``site.db.flagsweep`` with the file ``lease``: byte 0 belongs to the one ``run``, byte N
to the consumer with id N. The kernel drops a lock with its process, so a killed consumer's claims are free at once, and a
slow, living one is never taken for dead.
"""

from __future__ import annotations

import faulthandler
import hashlib
import mmap
import os
import re
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..errors import LeaseHeld, NotReady

try:
    import fcntl
except ImportError:  # Windows can raise flags, not run them.
    fcntl = None  # type: ignore[assignment]

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of Linux on 64 bits: type, whence, start, length, pid
RUN = 0
"""The byte of the one consumer that is a ``run``."""


def folder_of(database: Path) -> Path:
    """Return the folder beside a database file. A link leads to the same one, or two consumers could run on one file."""
    return Path(f"{database.resolve()}.flagsweep")


def folder_on_host(where: str, state_dir: str | os.PathLike[str] = "") -> Path:
    """Return the folder for what consumers of a database server note on this host, made for this user alone.

    :param where: what tells the database from every other.
    :param state_dir: the folder to make it in; by default below the user's home.
    :raises NotReady: where it cannot be made, or strangers may write to it.
    """
    base = Path(state_dir or os.environ.get("XDG_STATE_HOME") or "~/.local/state")
    folder = base / ("" if state_dir else "flagsweep") / hashlib.sha256(where.encode()).hexdigest()[:16]
    try:
        folder = folder.expanduser()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, RuntimeError) as error:  # A user without a home, too.
        raise NotReady(
            f"{folder}, for a consumer's notes, cannot be made: {error}; "
            "set state_dir (FLAGSWEEP_STATE_DIR) to a folder of its user"
        ) from error
    if found.st_mode & 0o022 or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise NotReady(
            f"{folder}, for a consumer's notes, belongs to {_user(found.st_uid)} or can be written by others: "
            "set state_dir (FLAGSWEEP_STATE_DIR) to another"
        )
    return folder


def _user(uid: int) -> str:
    """Return the name of a user, or its number where it has none."""
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"user {uid}"


def opened(path: Path, flags: int = 0) -> int:
    """Open a file of a consumer's, made where it is missing, and return its descriptor. No link is followed.

    What root makes is given to who owns the folder: whose database it is must be able to go on without root.
    """
    safe = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | safe | flags, 0o600)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        owner = os.stat(path.parent)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def _made_for(folder: Path, database: Path) -> None:
    """Make the folder beside a database, as its owner's also where root makes it."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        with suppress(FileNotFoundError):
            owner = database.stat()
            os.chown(folder, owner.st_uid, owner.st_gid)


def _out_of_reach(folder: Path, error: OSError) -> NotReady:
    """Return the error of a folder that this user may not use, saying whose it is and what mends that."""
    database = Path(str(folder).removesuffix(".flagsweep"))
    why = f"{folder}, where consumers keep their leases, cannot be used: {error.strerror}"
    try:
        theirs, ours = _user(folder.stat().st_uid), _user(database.stat().st_uid)
    except OSError:
        return NotReady(f"{why}; run flagsweep as the user who owns the database")
    if theirs == ours:
        return NotReady(f"{why}; it belongs to {theirs}, as the database does: run flagsweep as that user")
    return NotReady(f"{why}; it belongs to {theirs}, and the database to {ours}: 'chown -R {ours} {folder}' mends it")


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
            _made_for(folder, Path(str(folder).removesuffix(".flagsweep")))
            self._fd = opened(self.path)
        except OSError as error:
            raise _out_of_reach(folder, error) from error
        _open.add(self)

    def take(self, byte: int) -> None:
        """Lock one byte.

        :raises LeaseHeld: where another consumer has it.
        """
        if (not _of_open_file() and self._is_held_here(byte)) or not self._lock(byte):
            raise LeaseHeld(f"byte {byte} of {self.path} is locked by another consumer")
        self._held.add(byte)

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
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)

    def is_intact(self) -> bool:
        """Return whether the file that is locked still is the one at its path."""
        with suppress(OSError):
            mine, there = os.fstat(self._fd), os.stat(self.path)
            return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
        return False

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


def _after_fork() -> None:
    for lease in list(_open):
        lease.close()
    for box in list(_boxes):
        box.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Running(NamedTuple):
    """Name a flag that was running when its process died."""

    flag: int
    token: int
    thread: int


class BlackBox:
    """Keep what each thread runs, in memory that the kernel keeps when the process dies.

    Shared memory and not ``pwrite``: a write to a file costs nine times more. A slot holds flag, token and thread.

    :param slots: how many threads there may be.
    """

    SLOTS = 1024
    _WIDTH = 3  # flag, token, thread

    def __init__(self, folder: Path, consumer: int, slots: int = SLOTS):
        self._create(folder / f"box-{consumer}", bytes(8 * (1 + slots * self._WIDTH)))
        self._free = list(range(slots - 1, -1, -1))
        self._lock = threading.Lock()
        _boxes.add(self)

    def _create(self, path: Path, content: bytes) -> None:
        with open(opened(path, os.O_TRUNC), "r+b") as file:
            file.write(content)  # Not truncate(): the first write into a hole is a SIGBUS where the disk is full.
            file.flush()
            self._map = mmap.mmap(file.fileno(), len(content))
        self.path = path
        self.cells = memoryview(self._map).cast("q")

    def slot(self) -> int:
        """Reserve a slot for the calling thread; return the index of its first cell."""
        with self._lock:
            first = 1 + self._free.pop() * self._WIDTH
        self.cells[first + 2] = threading.get_ident()
        return first

    def free(self, first: int) -> None:
        """Give a slot back."""
        with self._lock:
            self.cells[first] = 0
            self._free.append((first - 1) // self._WIDTH)

    def is_empty(self) -> bool:
        """Return whether no thread runs a flag."""
        return not any(self.cells[first] for first in range(1, len(self.cells) - 1, self._WIDTH))

    def mark_clean(self) -> None:
        """Say that this process is about to end on purpose: whoever rescues charges nobody. Safe within a signal handler."""
        with suppress(ValueError):  # Removed already: it has ended well.
            self.cells[0] = 1

    def move(self, consumer: int) -> None:
        """Go on under another consumer's id, in a new file where whoever took this one for dead has deleted it."""
        path = self.path.with_name(f"box-{consumer}")
        try:
            self.path = self.path.rename(path)
        except FileNotFoundError:
            self._create(path, bytes(self._map))

    def remove(self) -> None:
        """Close the memory and delete the file."""
        self.forget()
        with suppress(OSError):
            self.path.unlink()

    def forget(self) -> None:
        """Close the memory; the file stays."""
        _boxes.discard(self)
        self.cells.release()
        with suppress(BufferError):
            self._map.close()

    @staticmethod
    def is_there(folder: Path, consumer: int) -> bool:
        """Return whether a consumer has, or had, its box in this folder."""
        return (folder / f"box-{consumer}").exists()

    @classmethod
    def read(cls, folder: Path, consumer: int) -> tuple[bool, list[Running]]:
        """Return whether a dead consumer ended on purpose, and what it was running.

        :raises FileNotFoundError: where nothing is known: it ran on another host.
        """
        try:
            cells = memoryview((folder / f"box-{consumer}").read_bytes()).cast("q")
        except FileNotFoundError:
            raise
        except (OSError, TypeError):
            return False, []
        slots = range(1, len(cells) - cls._WIDTH + 1, cls._WIDTH)
        return cells[0] == 1, [Running(cells[i], cells[i + 1], cells[i + 2]) for i in slots if cells[i]]


_boxes: set[BlackBox] = set()


class CrashLog:
    """Let ``faulthandler`` write the name of the thread that crashes the process into a file beside the black box."""

    def __init__(self, folder: Path, consumer: int):
        self._create(folder / f"crash-{consumer}.txt")

    def _create(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = os.fdopen(opened(path, os.O_TRUNC), "r+b")
        faulthandler.enable(self._file)  # With all threads: Python names the crashing one only then.

    def move(self, consumer: int) -> None:
        """Go on under another consumer's id."""
        before, path = self._file, self.path
        self._create(path.with_name(f"crash-{consumer}.txt"))
        before.close()
        path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Stop writing and delete the file."""
        faulthandler.disable()
        self._file.close()
        with suppress(OSError):
            self.path.unlink()

    @staticmethod
    def read(folder: Path, consumer: int) -> tuple[int | None, str]:
        """Return the crashed thread's ident, or None where no crash was recorded, and the report about that thread."""
        try:
            text = (folder / f"crash-{consumer}.txt").read_text(errors="replace")
        except OSError:
            return None, ""
        found = re.search(r"^Current thread 0x([0-9a-f]+).*?(?=^$|\Z)", text, re.MULTILINE | re.DOTALL)
        if found is None:
            return None, text
        return int(found.group(1), 16), f"{text.partition(chr(10))[0]}\n{found.group()}"


def crash_stack() -> Any:
    """Give the calling thread a stack on which its own crash can be reported; keep what is returned as long as the thread lives.

    Python does that for the main thread alone: in any other a stack overflow ends the process without a record.
    """
    if sys.platform != "linux":
        return None
    try:
        import ctypes
    except ImportError:
        return None

    class Stack(ctypes.Structure):  # stack_t of Linux
        _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    memory = ctypes.create_string_buffer(65_536)
    ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(ctypes.addressof(memory), 0, len(memory))), None)
    return memory


def leftovers(folder: Path, consumer: int) -> Iterator[Path]:
    """Yield the files that a dead consumer left."""
    yield folder / f"box-{consumer}"
    yield folder / f"crash-{consumer}.txt"

"""The black box: what each thread of a consumer runs, written down where it outlives the death of the process."""

from __future__ import annotations

import mmap
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..databases.forks import at_fork
from ..databases.state_folder import opened


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
        return not any(self.cells[1 : len(self.cells) - 1 : self._WIDTH])

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


def _forget_all() -> None:
    """In a forked child: the memory is the parent's."""
    for box in list(_boxes):
        box.forget()


at_fork(in_child=_forget_all)


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

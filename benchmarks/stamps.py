"""Times written by one process and read by another, without a file event that could wake anybody."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

VARIABLE = "BENCH_STAMPS"
SLOTS = 4096


class Stamps:
    """An array of CLOCK_MONOTONIC nanoseconds in shared memory; that clock is one for the whole machine."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            self.path.write_bytes(bytes(8 * SLOTS))
        with self.path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * SLOTS)
        self._times = memoryview(self._map).cast("q")

    def set_now(self, slot: int) -> None:
        self._times[slot] = time.monotonic_ns()

    def get(self, slot: int) -> int:
        """Return the nanoseconds of a slot, 0 where nothing was written yet."""
        return self._times[slot]

    def wait_for(self, slot: int, seconds: float) -> int:
        """Return the nanoseconds of a slot as soon as it is written; TimeoutError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not self._times[slot]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"slot {slot} was not stamped within {seconds} s")
            time.sleep(0.002)
        return self._times[slot]


def from_environment() -> Stamps:
    """Return the stamps that the process which started this one reads."""
    return Stamps(os.environ[VARIABLE])

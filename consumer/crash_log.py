"""The crash log: which thread was running when a process crashed, as Python's ``faulthandler`` tells it."""

from __future__ import annotations

import faulthandler
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from ..databases.state_folder import opened


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


def leftovers(folder: Path, consumer: int) -> Iterator[Path]:
    """Yield the files that a dead consumer left."""
    yield folder / f"box-{consumer}"
    yield folder / f"crash-{consumer}.txt"

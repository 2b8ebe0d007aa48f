"""Processes of this host, as ``/proc`` tells of them: a pid alone says nothing to who has to decide what to do with it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ...config import SECOND
from ...databases.state_folder import user_name
from .finding import as_date

PROC = Path("/proc")
LONGEST = 80
"""Characters of a command line that are shown."""


@dataclass(frozen=True)
class Process:
    """Tell of a process what this user may see of it.

    :ivar command: its command line, cut; None where that cannot be read.
    :ivar user: whose it is, and ``started``, when, in microseconds UTC; None where that cannot be told.
    """

    pid: int
    command: str | None
    user: str | None
    started: int | None

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return what can be told of a process, which may have ended."""
        return cls(pid, _command(pid), _user(pid), _started(pid))

    def __str__(self) -> str:
        here = ", this very process," if self.pid == os.getpid() else ""
        if self.command is None:
            return f"pid {self.pid}{here} (its name cannot be read: call doctor as root, or as its user)"
        whose = f" of {self.user}" if self.user else ""
        since = f", running since {as_date(self.started)}" if self.started else ""
        return f"{self.command} (pid {self.pid}{here}{whose}{since})"


def _command(pid: int) -> str | None:
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="backslashreplace").split("\0")
        line = " ".join(word for word in words if word) or (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return None
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def _user(pid: int) -> str | None:
    try:
        return user_name((PROC / str(pid)).stat().st_uid)
    except OSError:
        return None


def _started(pid: int) -> int | None:
    """Return when it began: the kernel tells that in ticks since its own start."""
    try:
        ticks = int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
        lines = (PROC / "stat").read_text().splitlines()
        boot = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
        return int((boot + ticks / os.sysconf("SC_CLK_TCK")) * SECOND)
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def that_have_open(path: Path) -> tuple[list[int], int]:
    """Return the processes that have a file open, and how many others there are of which this user may not see that."""
    having, hidden = [], 0
    for pid in sorted(int(name) for name in os.listdir(PROC) if name.isdigit()) if sys.platform == "linux" else ():
        try:
            links = [os.readlink(link.path) for link in os.scandir(PROC / str(pid) / "fd")]
        except PermissionError:
            hidden += 1
        except OSError:  # It has just ended, or has closed the file.
            continue
        else:
            having += [pid] if str(path) in links else []
    return having, hidden

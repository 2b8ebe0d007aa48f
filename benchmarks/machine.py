"""Facts about the machine and the disk that belong beside every figure."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from importlib import metadata
from pathlib import Path


def facts(folder: Path) -> dict[str, object]:
    """Return what the figures depend on; rates are per second, measured in `folder`."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "huey": metadata.version("huey"),
        "peewee": metadata.version("peewee"),
        "file system": _file_system(folder),
        "fdatasync per second": round(fdatasync_rate(folder)),
        "load average": os.getloadavg()[0],
    }


def fdatasync_rate(folder: Path, times: int = 1000) -> float:
    """Return how many writes of one 4 KiB page, each with its own fdatasync, the disk under `folder` does a second."""
    path = folder / "fdatasync"
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        start = time.perf_counter()
        for _ in range(times):
            os.pwrite(file, b"f" * 4096, 0)
            getattr(os, "fdatasync", os.fsync)(file)
        return times / (time.perf_counter() - start)
    finally:
        os.close(file)
        path.unlink()


def _processor() -> str:
    lines = _lines("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    """Return the type of the file system that holds the folder: the mount with the longest matching path."""
    mounts = (line.split() for line in _lines("/proc/mounts"))
    holding = [(len(mount[1]), mount[2]) for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    return max(holding)[1] if holding else "unknown"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []

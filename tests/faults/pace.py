"""The yardstick: how fast this machine is just now, by what an undisturbed consumer needs from its start to its first job.

The bounds in seconds of the fault suite are meant for a machine on which that takes ``REFERENCE``. Where it takes longer, they
are as many times longer: what they ask is a ratio to this, of the same run.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REFERENCE = 0.3
"""Seconds: what faults.md measured when the bounds were set (0.24 to 0.30)."""
STARTS = 5


def measured():
    """Return the median of some starts, in seconds."""
    return statistics.median(started() for _ in range(STARTS))


def started():
    """Return the seconds from the start of a consumer to its first job."""
    from worse import Worse, command

    with tempfile.TemporaryDirectory() as folder:
        database, journal = Path(folder) / "site.db", Path(folder) / "journal"
        site = Worse(database, journal).prepare()
        site.raise_("work", 1)
        began = time.monotonic()
        child = subprocess.Popen(command("run", database, journal), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not (starts := [event.at for event in site.journal.events("start")]):
                assert child.poll() is None and time.monotonic() - began < 60, "the yardstick's consumer did not start"
                time.sleep(0.005)
        finally:
            child.kill()
            child.wait()
            site.close()
    return starts[0] - began


def slower(seconds):
    """Return how many times slower than the reference a machine is; never less than 1: no bound is made tighter."""
    return max(1.0, seconds / REFERENCE)


def of_this_run():
    """Return the yardstick of this run, measured once for all of its processes."""
    if "FLAGSWEEP_FAULTS_PACE" not in os.environ:
        os.environ["FLAGSWEEP_FAULTS_PACE"] = f"{measured():.3f}"
    return float(os.environ["FLAGSWEEP_FAULTS_PACE"])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    print(f"{measured():.3f}")

"""Run the fault suite, render its table, and say by the exit code whether all was met.

``python tests/faults/run.py ci`` or ``nightly``, or ``short`` for a look; what follows goes to pytest, such as ``-k f16``.
With ``-k`` or another choice the table is written beside the results and docs/faults.md stays as it is.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pace

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

UNTIMED = ("f2", "f4", "f13", "f14", "f16", "f17", "f19", "f22", "f26", "f27", "f30", "f31", "f33", "f34", "f36", "f41")
"""The rows that ask for no speed, or for one that leaves much room: two of them run at a time."""


def main(size, *more):
    results = Path(os.environ.get("FLAGSWEEP_FAULTS_RESULTS") or ROOT / "build" / "faults")
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    environ = {**os.environ, "FLAGSWEEP_FAULTS": size, "FLAGSWEEP_FAULTS_RESULTS": str(results)}
    environ["FLAGSWEEP_FAULTS_PACE"] = str(pace.of_this_run())
    environ.setdefault("FLAGSWEEP_SEED", str(int.from_bytes(os.urandom(4), "big") % 10**9))
    untimed = " or ".join([*(f"test_{row}_" for row in UNTIMED), "test_controls"])
    # The others one after the other: criteria in seconds mean a machine that does nothing else.
    parts = [more] if more else [("-k", f"not ({untimed})"), ("-k", untimed, "-n", "2", "--dist", "worksteal")]
    codes = [tested(environ, *part) for part in parts]
    table = results / "faults.md" if more else ROOT / "docs" / "faults.md"
    rendered = subprocess.run([sys.executable, HERE / "table.py", results, table], cwd=ROOT, env=environ, check=False)
    print(f"the table is in {table}")
    return max(codes) or rendered.returncode


def tested(environ, *more):
    options = ["-m", "faults", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=1800", "--durations=0", "--durations-min=1"]
    return subprocess.run([sys.executable, "-m", "pytest", HERE, *options, *more], cwd=ROOT, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ["ci"])))

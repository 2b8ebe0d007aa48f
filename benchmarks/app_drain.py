"""What each side of `drain-before` runs: for each line of input, a path and a count, it drains and writes a line of figures."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import in_process
import work

import flagsweep


def main() -> None:
    """Say which flagsweep this is, and drain until the input ends."""
    _say(flagsweep.__file__)
    for line in sys.stdin:
        path, count = json.loads(line)
        _say(drain(Path(path), count))


def drain(path: Path, count: int) -> tuple[float, float]:
    """Return the flags a second, and the microseconds of processor time of each."""
    with work.flagsweep_on(path) as flags:
        work.noop_handler(flags).raise_many({"user_id": n} for n in range(count))
        before = time.process_time()
        seconds = in_process.sweep_seconds(flags, count)
        return count / seconds, 1e6 * (time.process_time() - before) / count


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()

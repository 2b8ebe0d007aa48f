"""What a commit of before did: this checkout and that one drain in turn, each in a process of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from measure import Plan, Row, Samples, Skipped, alternate, ratio_at_least, row_of

import flagsweep

HERE = Path(__file__).resolve().parent
BEFORE = "c87550d392fcd12a36aecda73a3bd7779adf0683"
"""The last commit without schedules and gates."""


class Drained(NamedTuple):
    """Flags a second, and microseconds of processor time of each."""

    rate: float
    cpu: float


def drain_before(plan: Plan) -> list[Row]:
    """Flags a second of a kind that uses no gate, beside those of a commit that had none."""
    count = plan.size(30_000, 5_000)
    source, here = _tree_of(plan.before, plan.folder / "before"), Path(flagsweep.__file__).parent
    with _drainer(source, {"PYTHONPATH": str(source.parent)}) as old, _drainer(here, {}) as new:
        for drain in (old, new):
            drain(plan.new_file("drain"), count)
        sides = {side: partial(_on_new_file, plan, drain, count) for side, drain in (("now", new), (plan.before[:7], old))}
        taken = alternate(sides, plan.size(25, 3))
    rate, cpu = (
        Samples({side: [getattr(each, name) for each in runs] for side, runs in taken.items()}) for name in Drained._fields
    )
    return [
        row_of(f"drain of {count:,} no-op flags, now and before", "/s", rate, *sides, ratio_at_least(0.95)),
        row_of("processor time of a flag", "us", cpu, *sides),
    ]


def _on_new_file(plan: Plan, drain: Any, count: int) -> Drained:
    return drain(plan.new_file("drain"), count)


def _tree_of(commit: str, folder: Path) -> Path:
    """Return the package as it was at a commit, put into a folder of its own."""
    try:
        done = subprocess.run(["git", "-C", HERE.parent, "archive", commit], capture_output=True, check=False)
    except FileNotFoundError:
        raise Skipped("git is not installed, and the commit of before cannot be had") from None
    if done.returncode:
        raise Skipped(f"the history here does not have {commit[:7]}: {done.stderr.decode(errors='replace').strip()}")
    source = folder / "flagsweep"
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tree:
        tree.extractall(source, filter="data")
    return source


@contextmanager
def _drainer(source: Path, environment: Mapping[str, str]) -> Iterator[Any]:
    """Yield what drains so many flags of a new file in a process that has the flagsweep of a folder."""
    command = [sys.executable, str(HERE / "app_drain.py")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, **environment}, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        found = _answer(process.stdout)
        if Path(found).parent != source:
            raise RuntimeError(f"the process was to import the flagsweep of {source}, but has {found}")
        yield partial(_drain, process.stdin, process.stdout)


def _drain(orders: IO[str], answers: IO[str], path: Path, count: int) -> Drained:
    print(json.dumps([str(path), count]), file=orders, flush=True)
    return Drained(*_answer(answers))


def _answer(answers: IO[str]) -> Any:
    if not (line := answers.readline()):
        raise RuntimeError("a process that drains ended before its time")
    return json.loads(line)

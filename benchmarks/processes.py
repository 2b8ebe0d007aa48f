"""Consumers as processes of their own: started, watched through /proc, ended by their id."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import hueys
import stamps
from measure import Skipped

HERE = Path(__file__).resolve().parent
NOT_SHIPPED = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "benchmarks", "tests", "*.db*")


class Consumer:
    """A running consumer; figures come from /proc, so Linux only."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, started_ns: int) -> None:
        self.pid = process.pid
        self.started_ns = started_ns
        self._process = process
        self._log = log

    def cpu_seconds(self) -> float:
        """Return the CPU time of all threads so far; schedstat counts nanoseconds where stat counts 10 ms ticks."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def resident_mib(self) -> float:
        """Return VmRSS."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def must_live(self) -> None:
        """Raise with the end of its log if the consumer has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the consumer ended with code {self._process.returncode}:\n{self.last_words()}")

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def wait_for_stamp(self, marks: stamps.Stamps, slot: int, seconds: float = 30) -> int:
        """Return the nanoseconds stamped into the slot; raise with the end of the log if that does not happen."""
        try:
            return marks.wait_for(slot, seconds)
        except TimeoutError as error:
            self.must_live()
            raise RuntimeError(f"{error}; its log ends:\n{self.last_words()}") from error

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not within 15 s."""
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def flagsweep_run(
    database: Path, marks: stamps.Stamps, python: str = sys.executable, app: str = "app_flagsweep"
) -> Iterator[Consumer]:
    """Run `flagsweep run` on the database file until the block ends."""
    with flagsweep_at({"FLAGSWEEP_DATABASE": f"sqlite:///{database}"}, marks, python, app) as consumer:
        yield consumer


@contextmanager
def flagsweep_at(
    settings: Mapping[str, str], marks: stamps.Stamps, python: str = sys.executable, app: str = "app_flagsweep"
) -> Iterator[Consumer]:
    """Run `flagsweep run` with these variables of its environment until the block ends."""
    command = [python, "-m", "flagsweep", "--app", f"{app}:flags", "run"]
    with _running(command, marks, settings) as consumer:
        yield consumer


@contextmanager
def huey_consumer(storage: str, marks: stamps.Stamps, python: str = sys.executable) -> Iterator[Consumer]:
    """Run `huey_consumer`, its options at their defaults, until the block ends; `storage` as in hueys.py."""
    command = [python, "-m", "huey.bin.huey_consumer", "app_huey.huey", "--quiet"]
    with _running(command, marks, {hueys.VARIABLE: storage}) as consumer:
        yield consumer


@contextmanager
def _running(command: list[str], marks: stamps.Stamps, settings: Mapping[str, str]) -> Iterator[Consumer]:
    log = marks.path.parent / "consumer.log"
    own = {"PYTHONPATH": str(HERE), stamps.VARIABLE: str(marks.path), **settings}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAGSWEEP_")} | own
    with log.open("ab") as output:
        started_ns = time.monotonic_ns()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=log.parent)
    consumer = Consumer(process, log, started_ns)
    try:
        yield consumer
    finally:
        consumer.stop()


def runtime_python(folder: Path) -> str:
    """Return the Python of a venv with the checkout and its run-time packages only, made in `folder` once.

    What else is installed beside Huey costs memory and start-up: it imports redis and psycopg where it finds them.
    """
    environment = folder / "runtime"
    python = environment / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(environment)])
        source = shutil.copytree(HERE.parent, folder / "source", ignore=NOT_SHIPPED)
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(source)])
    return str(python)


def python_with(folder: Path, package: str) -> str:
    """Return the Python of a venv that holds one package and what that needs, made in `folder` once."""
    environment = folder / f"with-{package}"
    python = environment / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(environment)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package])
    return str(python)


def _run(command: list[str]) -> None:
    """Run a command of the set-up; what it needs may be missing here, which skips the benchmark."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"{' '.join(command[1:4])} failed: {done.stderr.strip()[-500:]}")

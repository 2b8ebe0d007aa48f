"""The processes of a show: each with its own log, each ended by its own pid."""

import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Child:
    """Run one Python program of the demo; what it prints goes to a log file."""

    def __init__(self, name: str, log: Path, home: Path, *arguments: str):
        self.name = name
        self.log = log
        with open(log, "ab") as output:
            # A session of its own: Ctrl-C reaches the demo alone, which then ends its children in good order.
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def kill(self):
        """End it with SIGKILL: it gets no chance to tidy up."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self, patience: float = 10) -> int:
        """Ask it to end with SIGTERM, kill it if it does not within `patience` seconds, and return its exit code."""
        self._process.terminate()
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Children:
    """Start children, and see to it that none outlives the `with` block.

    :param folder: where their logs are kept.
    :param home: where they are started.
    """

    def __init__(self, folder: Path, home: Path = HERE):
        self._folder = folder
        self._home = home
        self._started: list[Child] = []

    def start(self, name: str, *arguments: str) -> Child:
        """Start a child; its log is appended to NAME.log in the folder."""
        child = Child(name, self._folder / f"{name}.log", self._home, *arguments)
        self._started.append(child)
        return child

    def __enter__(self):
        return self

    def __exit__(self, *error):
        was = signal.signal(signal.SIGINT, signal.SIG_IGN)  # A second Ctrl-C must not leave one behind.
        for child in self._started:
            if child.exit_code is None:
                child.stop(patience=3)
        signal.signal(signal.SIGINT, was)

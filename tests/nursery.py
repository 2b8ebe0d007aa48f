"""A process that has imported everything and forks consumers on request: to import takes longest.

It reads one JSON list a line, ``[database, journal, log, settings]``, and answers with the pid of a consumer that has stopped
itself, so that a tracer can be put on it. How one has ended stands in the file LOG.code then.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

from work import main


def consumer(database, journal, log, settings):
    """Stop; once continued, be a consumer; never return."""
    try:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
        os.kill(os.getpid(), signal.SIGSTOP)
        main("run", database, journal, json.dumps(settings))
    except SystemExit as end:
        print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def serve():
    for line in sys.stdin:
        arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            consumer(*arguments)
        os.waitpid(pid, os.WUNTRACED)
        threading.Thread(target=reap, args=(pid, arguments[2]), daemon=True).start()
        print(pid, flush=True)


def reap(pid, log):
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    Path(f"{log}.new").write_text(str(code))
    os.rename(f"{log}.new", f"{log}.code")


class Nursery:
    """The other side: start consumers, some under strace with a fault, and wait for their end."""

    def __init__(self, env):
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._asking = threading.Lock()

    def start(self, database, journal, log, fault=None, **settings):
        """Return a consumer that runs by now, with this fault injected (as strace's ``-e inject=`` takes it)."""
        with self._asking:
            self._process.stdin.write(json.dumps([str(database), str(journal), str(log), settings]) + "\n")
            pid = int(self._process.stdout.readline())
        child = Child(pid, log)
        if fault:
            child.trace(fault)
        os.kill(pid, signal.SIGCONT)
        return child

    def close(self):
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


class Child:
    """A consumer that the nursery has forked."""

    def __init__(self, pid, log):
        self.pid = pid
        self.log = Path(log)
        self._trace = Path(f"{log}.strace")
        self._tracer = None

    def trace(self, fault):
        call = fault.partition(":")[0]
        command = [
            "strace",
            "-f",
            "-qq",
            "-ttt",
            "-o",
            self._trace,
            "-e",
            f"trace={call}",
            "-e",
            f"inject={fault}",
            "-p",
            str(self.pid),
        ]
        self._tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while "TracerPid:\t0" in Path(f"/proc/{self.pid}/status").read_text():
            if self._tracer.poll() is not None:
                raise RuntimeError("strace cannot trace here")

    def poll(self):
        """Return how it ended, or None while it runs."""
        code = Path(f"{self.log}.code")
        return int(code.read_text()) if code.exists() else None

    def injected(self):
        """Return when calls were made to fail, by the wall clock."""
        text = self._trace.read_text(errors="replace") if self._trace.exists() else ""
        return [float(moment) for moment in re.findall(r"^\d+ +([\d.]+) .*\(INJECTED\)", text, re.MULTILINE)]

    def end(self, limit=10.0):
        """Ask it to stop, kill it if it does not; return how it ended."""
        stops = time.monotonic() + limit
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            while self.poll() is None and time.monotonic() < stops:
                time.sleep(0.005)
            if self.poll() is None:
                os.kill(self.pid, signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.005)
        if self._tracer:
            self._tracer.wait(20)
        return self.poll()


if __name__ == "__main__":
    serve()

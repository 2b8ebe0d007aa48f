"""A site under a real server, its load, its ledger, and whoever sweeps it."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from itertools import groupby
from pathlib import Path

import psutil
from servers import free_port

from flagsweep import FlagSweep

TESTS = Path(__file__).parent


def program(name):
    """Return the command of a program that is installed beside this Python."""
    return str(Path(sys.executable).parent / name)


def gunicorn(port, *options, workers=4):
    """Return the command of a gunicorn."""
    return [program("gunicorn"), "-b", f"127.0.0.1:{port}", "-w", workers, "--graceful-timeout", 10, *options, "served_site:wsgi"]


SERVERS = {
    "gunicorn": gunicorn,
    "gunicorn --preload": lambda port: gunicorn(port, "--preload"),
    "gunicorn gthread": lambda port: gunicorn(port, "-k", "gthread", "--threads", 4),
    "gunicorn --max-requests": lambda port: gunicorn(port, "--max-requests", 50, "--max-requests-jitter", 20),
    "uvicorn": lambda port: [program("uvicorn"), "--port", port, "--workers", 2, "--no-access-log", "served_site:asgi"],
    "hypercorn": lambda port: [program("hypercorn"), "-b", f"127.0.0.1:{port}", "-w", 2, "served_site:asgi"],
    "granian": lambda port: [
        *(program("granian"), "--interface", "asgi", "--port", port, "--workers", 2, "--respawn-failed-workers"),
        "served_site:asgi",
    ],
    "uwsgi": lambda port: [
        *(
            shutil.which("uwsgi") or "uwsgi",
            "--plugin",
            "python3",
            "--http-socket",
            f"127.0.0.1:{port}",
            "--master",
            "--need-app",
        ),
        *("--processes", 2, "--enable-threads", "--virtualenv", sys.prefix, "--module", "served_site:wsgi"),
        *("--die-on-term", "--disable-logging"),
    ],
}
"""The command of each server, by what tests call it."""


def why_missing(server):
    """Return why a server cannot be tried here, or None."""
    if server == "granian" and not Path(program("granian")).exists():
        return "granian is not installed"
    if server != "uwsgi":
        return None
    if shutil.which("uwsgi") is None:
        return "uwsgi is not installed"
    found = subprocess.run(["uwsgi", "--plugin", "python3", "--version"], capture_output=True, text=True, check=False)
    if found.returncode:
        return "uwsgi has no plugin for Python"
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    theirs = subprocess.run(["/usr/bin/python3", "-V"], capture_output=True, text=True, check=False).stdout
    return None if f" {ours}." in theirs else f"uwsgi is made for {theirs.strip()}, and this is Python {ours}"


class Served:
    """A server with workers, requests that never end, and flags raised one after the other.

    :param spawn: starts a child process.
    """

    def __init__(self, spawn, env, folder, url, server):
        self.port = free_port()
        self.ledger_file = folder / "ledger"
        self.ledger_file.touch()
        site = {"SITE_DATABASE": url, "SITE_LEDGER": str(self.ledger_file), "SITE_STATE": str(folder / "state")}
        self.flags = FlagSweep(url, state_dir=str(folder / "state"))
        self.flags.init()
        self.flags.connections.close_thread()

        @self.flags.handler
        def effect(n, seconds=0.002): ...

        self.effect = effect
        self.raised = 0
        self._spawn, self._server = spawn, server
        self._env = {**env, **site, "PYTHONPATH": str(TESTS)}
        self.serve_again()
        self._quiet = threading.Event()
        self._threads = [threading.Thread(target=self._request, name=f"requests-{n}", daemon=False) for n in range(6)]
        self._threads.append(threading.Thread(target=self._raise, name="raises", daemon=False))
        for thread in self._threads:
            thread.start()

    def serve_again(self, before=lambda env: None):
        """Start the server.

        :param before: called first, with the environment of the site.
        """
        before(self._env)
        self.child = self._spawn(*SERVERS[self._server](self.port), env=self._env)

    def consume(self, spawn, env):
        """Start a consumer of its own, and wait until it is there."""
        self.consumer = spawn(program("flagsweep"), "--app", "served_site:flags", "run", env=env)
        while "flagsweep sweeps" not in self.consumer.log.read_text():
            assert self.consumer.poll() is None, self.consumer.log.read_text()
            time.sleep(0.02)

    def ask(self):
        """Ask for a page; return the process that has answered, or None."""
        with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            connection.request("GET", "/")
            return int(connection.getresponse().read().split()[0])
        return None

    def _request(self):
        """Ask again and again, so that each worker serves its first."""
        while not self._quiet.wait(0.02):
            self.ask()

    def _raise(self):
        """Raise a flag each 10 ms, as another process of the site's would."""
        while not self._quiet.wait(0.01):
            self.effect.raise_flag(self.raised + 1)
            self.raised += 1
        self.flags.connections.close_thread()

    def lines(self):
        """Return the ledger: what, number, process, moment."""
        rows = [line.split() for line in self.ledger_file.read_text().splitlines()]
        return [(what, int(number), int(pid), float(moment)) for what, number, pid, moment in rows]

    def sweeping(self):
        """Return the processes that sweep, as the database says."""
        consumers = self.flags.status()["consumers"]
        return [each["pid"] for each in consumers if each["alive"] and each["mode"] == "embedded"]

    def workers(self):
        """Return the server's processes, the first excepted."""
        with suppress(psutil.NoSuchProcess):
            return [each.pid for each in psutil.Process(self.child.pid).children(recursive=True)]
        return []

    def sweeper(self, until, limit=20):
        """Return the process that sweeps, once it does."""

        def one():
            tail = self.lines()[-1:]
            return tail[0][2] if tail and tail[0][2] in self.workers() and tail[0][2] in self.sweeping() else None

        return until(one, limit)

    def ends_if_killed(self, worker):
        """Return whether the server would end itself if this worker were killed now.

        granian takes a worker that dies within 5.5 s of being started in another's place for one that cannot live.
        """
        return self._server == "granian" and time.time() - psutil.Process(worker).create_time() < 6

    def taken_over(self, before, since):
        """Return the seconds from a moment until a process other than ``before`` has begun something; None until then."""
        with self.ledger_file.open("rb") as ledger:
            ledger.seek(max(0, ledger.seek(0, os.SEEK_END) - 20_000))
            tail = [line.split() for line in ledger.read().decode().splitlines()[1:]]
        moments = [
            float(moment) for what, _, pid, moment in tail if what == "begin" and int(pid) != before and float(moment) > since
        ]
        return moments[0] - since if moments else None

    def end_load(self):
        """Ask and raise no more."""
        self._quiet.set()
        for thread in self._threads:
            thread.join(30)

    def drained(self, until, limit=60):
        """Wait until nothing is up."""
        until(lambda: not self.flags.find(limit=1), limit)

    def close(self):
        self.end_load()
        self.flags.connections.close_thread()
        self.flags.database.close()

    # What must hold.

    def lost(self):
        """Return the flags that were raised and have had no effect."""
        return set(range(1, self.raised + 1)) - {number for what, number, *_ in self.lines() if what == "end"}

    def repeated(self, killed):
        """Return the flags that had their effect twice though no process was killed that ran them.

        :param killed: the moment of each kill, by process.
        """
        begun = Counter(number for what, number, *_ in self.lines() if what == "begin")
        ended = {(number, pid) for what, number, pid, _ in self.lines() if what == "end"}
        last = {pid: max((m for _, _, p, m in self.lines() if p == pid), default=0.0) for pid in killed}
        twice = set()
        for number in (number for number, count in begun.items() if count > 1):
            runs = [(pid, moment) for what, n, pid, moment in self.lines() if what == "begin" and n == number]
            # A kill may take an outcome with it that is not settled yet: 50 ms of them.
            innocent = [pid for pid, m in runs[:-1] if pid not in killed or (last[pid] - m > 0.5 and (number, pid) in ended)]
            twice |= {number} if innocent else set()
        return twice

    def turns(self):
        """Return the processes in the order in which they swept: one that comes again has swept beside another."""
        return [pid for pid, _ in groupby(pid for _, _, pid, _ in sorted(self.lines(), key=lambda line: line[3]))]

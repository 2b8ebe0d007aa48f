"""What `mode="embedded"` costs a Flask site under gunicorn: memory of a worker, and requests while flags drain."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import processes
from measure import Plan, Row, Skipped, alternate, at_most, quantile, ratio_at_most

BETWEEN_REQUESTS = 0.002
WAIT = 60
"""Seconds after which a site counts as stuck."""


class Site:
    """A Flask site under gunicorn, asked over HTTP with a connection for each request."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=WAIT)
        connection.request("GET", path)
        body = connection.getresponse().read()
        connection.close()
        return body

    def states(self, workers: int) -> list[dict[str, Any]]:
        """Return what each worker tells of itself."""
        found: dict[int, dict[str, Any]] = {}
        until = time.monotonic() + WAIT
        while len(found) < workers and time.monotonic() < until:
            state = json.loads(self.get("/state"))
            found[state["pid"]] = state
        return list(found.values())

    def seconds_of_requests(self, enough: Callable[[int], bool]) -> list[float]:
        """Ask for the page that does nothing, one request after the other; return how long each took."""
        took: list[float] = []
        while not enough(len(took)):
            began = time.perf_counter()
            self.get("/")
            took.append(time.perf_counter() - began)
            time.sleep(BETWEEN_REQUESTS)
        return took


@contextmanager
def served(plan: Plan, python: str, mode: str, workers: int) -> Iterator[Site]:
    """Serve the site until the block ends; each worker has answered."""
    path = plan.new_file(mode)
    settings = {"FLAGSWEEP_DATABASE": f"sqlite:///{path}", "FLAGSWEEP_MODE": mode, "PYTHONPATH": str(processes.HERE)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAGSWEEP_")} | settings
    port = _free_port()
    subprocess.run([python, "-m", "flagsweep", "init"], env=environment, cwd=path.parent, check=True, capture_output=True)
    command = [python, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", str(workers), "app_served:app"]
    with (path.parent / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=path.parent, stdout=log, stderr=log)
    try:
        yield _answering(Site(port), workers)
    finally:
        server.terminate()
        server.wait(WAIT)


def _answering(site: Site, workers: int) -> Site:
    until = time.monotonic() + WAIT
    while True:
        try:
            site.states(workers)
            return site
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def site_python(folder: Path) -> str:
    """Return the Python of a venv with run-time packages, Flask and gunicorn, and nothing else that Huey or Peewee would load."""
    python = processes.runtime_python(folder)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "flask", "gunicorn"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"Flask and gunicorn could not be installed: {done.stderr.strip()[-300:]}")
    return python


def embedded_memory(plan: Plan) -> list[Row]:
    """Resident memory of a worker that sweeps and of one that stands by, beside workers of the same site that only raise."""
    python = site_python(plan.folder)
    sides = {mode: partial(_memory, plan, python, mode) for mode in ("embedded", "external")}
    taken = alternate(sides, plan.size(5, 1))
    without = statistics.median(chain.from_iterable(found[False] for found in taken["external"]))
    rows = []
    for sweeps, what, bound in ((True, "sweeps", at_most(15)), (False, "stands by", at_most(6))):
        found = statistics.median(chain.from_iterable(found[sweeps] for found in taken["embedded"]))
        note = f"{found:.1f} MiB in all"
        rows.append(
            Row(f"embedded adds to a worker that {what}", "MiB", found - without, "only raises", without, None, bound, note)
        )
    return rows


def _memory(plan: Plan, python: str, mode: str) -> dict[bool, list[float]]:
    """Return the MiB of two workers that have raised flags, by whether they sweep, once those are done."""
    with served(plan, python, mode, 2) as site:
        for _ in range(20):
            site.get("/raise/10")
        time.sleep(plan.size(5, 3))
        found: dict[bool, list[float]] = {True: [], False: []}
        for state in site.states(2):
            found[state["sweeping"]].append(state["rss"] / 1024)
        return found


def embedded_requests(plan: Plan) -> list[Row]:
    """How long a trivial request takes at the one worker while 10,000 flags drain in it, beside the same worker at rest."""
    python, flags = site_python(plan.folder), plan.size(10_000, 2_000)
    taken: dict[str, list[list[float]]] = {"drains": [], "rests": []}
    with served(plan, python, "embedded", 1) as site:
        site.seconds_of_requests(lambda count: count >= 300)
        for _ in range(plan.size(5, 2)):
            site.get(f"/raise/{flags}")
            draining = site.seconds_of_requests(lambda count: count % 20 == 0 and count > 0 and not json.loads(site.get("/left")))
            taken["drains"].append(draining)
            taken["rests"].append(site.seconds_of_requests(lambda count, most=len(draining): count >= most))
    rows = []
    for name, share, bound in (("p50", 0.5, None), ("p99", 0.99, ratio_at_most(2))):
        found = {side: [quantile(block, share) * 1000 for block in blocks] for side, blocks in taken.items()}
        drains, rests = (statistics.median(found[side]) for side in taken)
        ratio = statistics.median(a / b for a, b in zip(found["drains"], found["rests"], strict=True))
        what = f"trivial request while {flags:,} flags drain in its worker, {name}"
        rows.append(Row(what, "ms", drains, "at rest", rests, ratio, bound))
    return rows

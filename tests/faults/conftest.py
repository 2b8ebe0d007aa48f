"""What the fault suite shares: how large a run is, its seed, where figures go, and a site on each database that is to be had.

Every test in this folder is long: `make faults` and `make faults-nightly` run it, `make test` does not. A test is named after its
row, `test_f16_...`: that is how a row that failed or did not run gets its line in the table.
"""

import json
import os
import random
import re
import secrets
import sys
import threading
import time
from pathlib import Path

import pytest
from work import is_sound

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import pace  # noqa: E402
from worse import Worse, command  # noqa: E402

RESULTS = Path(os.environ.get("FLAGSWEEP_FAULTS_RESULTS") or HERE.parent.parent / "build" / "faults")
SIZE = os.environ.get("FLAGSWEEP_FAULTS") or "ci"

BACKENDS = ["sqlite", "postgresql", "mysql"]
"""The databases on which a row runs that asks for `backend`; FLAGSWEEP_FAULTS_BACKENDS=postgresql,mysql names others for once."""
NAMED = os.environ.get("FLAGSWEEP_FAULTS_BACKENDS")
BACKENDS = NAMED.split(",") if NAMED else BACKENDS
ON_SERVERS = ("f1", "f2", "f13", "f14", "f17", "f18", "f22", "f24", "f26", "f27")
"""The rows that run on servers, too, where no databases are named: all of them would take too long."""

SERVERS = {"postgresql": "postgresql://postgres@127.0.0.1:5432", "mysql": "mysql://root@127.0.0.1:3306"}
PLAIN = {"mysql": "?ssl_disabled=true"}
"""PyMySQL reads all certificates of the system for each connection, which takes longer than all the rest."""


# What a run is.


def pytest_configure(config):
    """Choose the seed once, for the workers of a parallel run, too."""
    os.environ.setdefault("FLAGSWEEP_SEED", str(secrets.randbelow(10**9)))


def pytest_report_header():
    return f"fault suite: size {SIZE}, seed {os.environ['FLAGSWEEP_SEED']} (again: FLAGSWEEP_SEED={os.environ['FLAGSWEEP_SEED']})"


def pytest_collection_modifyitems(config, items):
    kept, left = [], []
    for item in items:
        on = getattr(item, "callspec", None) and item.callspec.params.get("backend")
        row = re.search(r"test_(f\d+)_", item.name)
        runs = NAMED or on in (None, "sqlite") or (row and row[1] in ON_SERVERS)
        (kept if runs else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def pytest_itemcollected(item):
    item.add_marker(pytest.mark.faults)
    item.add_marker(pytest.mark.slow)


@pytest.fixture
def sized():
    """Give `sized(ci, nightly, short)`: the number for a run of this size."""

    def sized(ci, nightly, short=None):
        sizes = {"ci": ci, "nightly": nightly, "short": ci if short is None else short}
        if SIZE not in sizes:
            pytest.exit(f"FLAGSWEEP_FAULTS must be one of {', '.join(sizes)}, got {SIZE!r}", returncode=2)
        return sizes[SIZE]

    return sized


@pytest.fixture(scope="session")
def bound():
    """Give `bound(value)`: a bound in seconds, or another that a slower machine may miss by as much as it is slower."""
    slower = pace.slower(pace.of_this_run())
    return lambda value: round(value * slower, 3)


@pytest.fixture
def until(until, bound):
    """Give `until` with limits for a machine as slow as this one."""
    return lambda condition, limit=10.0, every=0.005: until(condition, bound(limit), every)


@pytest.fixture
def seed():
    """Return the number that all chance of this run comes from."""
    seed = int(os.environ["FLAGSWEEP_SEED"])
    print("seed", seed)
    return seed


@pytest.fixture
def chance(seed, request):
    """Return a source of chance of the test's own, so that it replays alone as it ran among the others."""
    return random.Random(f"{seed}:{request.node.name}")


# What it found.


@pytest.fixture
def report(request):
    """Give `report(row, what, figure, ok)`: put a figure into the table, print it, and fail the test where it is not good enough.

    :param row: such as `F16`.
    :param what: how the fault was made here.
    :param figure: what was measured, with its unit and bound.
    :param backend: the database, or what else the row ran on.
    :param criterion: what was asked for, where it is not the text that the table has.
    :param why: what to say where the criterion cannot be met, or is met in another way.
    """

    def report(row, what, figure, ok, backend="sqlite", criterion="", why=""):
        line = {"row": row, "what": what, "figure": figure, "ok": bool(ok), "backend": backend}
        write({**line, "criterion": criterion, "why": why, "test": request.node.nodeid})
        print(f"{row} on {backend}: {what}: {figure}: {'met' if ok else 'NOT MET'}")
        assert ok, f"{row} on {backend}: {what}: {figure} {why}"

    return report


def write(line):
    """Append one line to the results: many workers may do so at once."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    fd = os.open(RESULTS / "results.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(fd, json.dumps(line).encode() + b"\n")
    finally:
        os.close(fd)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Note how each test ended, so that the table misses none that failed before it had a figure, or did not run."""
    made = (yield).get_result()
    spent = item.stash.setdefault(SPENT, {})
    spent[made.when] = made.duration
    if made.when == "teardown" or not made.passed:
        row = re.search(r"test_(f\d+)_", item.name)
        backend = getattr(item, "callspec", None) and item.callspec.params.get("backend")
        ended = {"test": item.nodeid, "outcome": made.outcome, "seconds": round(sum(spent.values()), 1), "why": why(made)}
        write({**ended, "row": row[1].upper() if row else None, "backend": backend or None})


SPENT = pytest.StashKey[dict]()


def why(made):
    if made.skipped:
        return made.longrepr[2].removeprefix("Skipped: ") if isinstance(made.longrepr, tuple) else str(made.longrepr)
    if made.failed:
        crash = getattr(made.longrepr, "reprcrash", None)
        return str(crash.message if crash else made.longrepr).splitlines()[0][:200]
    return ""


# What it runs on.

SPAWNING = threading.Lock()


class Backend:
    """A database of a test's own, and the site and the consumers on it."""

    def __init__(self, name, database, folder, spawn, env, another=None):
        self.name = name
        self.database = database
        self.folder = folder
        self.journal = folder / "journal"
        self.another = another
        self.spawn = spawn
        self.env = env
        self._sites = []

    def site(self, **settings):
        """Return a site with its tables; all of them share one journal."""
        self._sites.append(Worse(self.database, self.journal, **settings).prepare())
        return self._sites[-1]

    def consume(self, environ=None, mode="run", options=None, **settings):
        """Start a consumer as its own process.

        :param environ: what is added to its environment.
        :param mode: `sweep` for one that sweeps until there is the file JOURNAL.stop.
        :param options: what `Popen` takes.
        """
        settings = {"backoff": 0.01, "shutdown_timeout": 2, **settings}
        line = command(mode, self.database, self.journal, **settings)
        with SPAWNING:  # Rows that run two sites at a time start consumers from two threads.
            return self.spawn(*line, env={**self.env, **(environ or {})}, **(options or {}))

    def is_sound(self):
        """Return whether the database finds nothing wrong with itself."""
        return is_sound(self.database)

    def close(self):
        for site in self._sites:
            site.close()


@pytest.fixture
def backend_at(tmp_path, spawn, env):
    """Give `backend_at(name, database)`: a site on a database that the test has made, with its notes in a folder of the test."""
    made = []

    def backend_at(name, database):
        made.append(Backend(name, str(database), tmp_path, spawn, {**env, "FLAGSWEEP_STATE_DIR": str(tmp_path / "state")}))
        return made[-1]

    yield backend_at
    for each in made:
        each.close()


@pytest.fixture(params=BACKENDS)
def backend(request, tmp_path, spawn, env, missing):
    """Give a site on each database, with a database of its own there, which is dropped afterwards.

    `another()` of it gives one more of the same sort.
    """
    made, dropping = [], []

    def another():
        folder = tmp_path / str(len(made)) if made else tmp_path
        folder.mkdir(exist_ok=True)
        if request.param == "sqlite":
            database = str(folder / "site.db")
        else:
            name, drop = created(request.param, missing)
            dropping.append(drop)
            database = f"{SERVERS[request.param]}/{name}{PLAIN.get(request.param, '')}"
        made.append(Backend(request.param, database, folder, spawn, env, another))
        return made[-1]

    try:
        yield another()
    finally:
        for each in made:
            each.close()
        for drop in dropping:
            drop()


def created(kind, missing):
    """Make a database on a server; return its name, and how to drop it again."""
    name = f"flagsweep_fault_{os.getpid()}_{time.monotonic_ns()}"
    ask = ask_postgresql if kind == "postgresql" else ask_mysql
    try:
        ask(f"CREATE DATABASE {name}")
    except (ImportError, OSError, RuntimeError) as error:
        missing(f"{kind} is not to be had at {SERVERS[kind]}: {error}")
    return name, lambda: ask(f"DROP DATABASE {name}" + (" WITH (FORCE)" if kind == "postgresql" else ""))


def ask_postgresql(statement):
    import psycopg

    try:
        with psycopg.connect(f"{SERVERS['postgresql']}/postgres", autocommit=True, connect_timeout=3) as connection:
            connection.execute(statement)
    except psycopg.OperationalError as error:
        raise RuntimeError(str(error).splitlines()[0]) from error


def ask_mysql(statement):
    import pymysql

    try:
        connection = pymysql.connect(host="127.0.0.1", port=3306, user="root", connect_timeout=3)
    except pymysql.err.OperationalError as error:
        raise RuntimeError(str(error)) from error
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)

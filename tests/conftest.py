"""What every test can use: its database's place, a way to wait, children, and a check that nothing is left behind."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import psutil
import pytest
from clients import DATABASES, Client
from hypothesis import settings
from rig import FakeClock, kill_with_descendants, let_go
from servers import (  # noqa: F401 (for every test)
    KEPT,
    _mysql,
    _postgres,
    _redis,
    mysql_url,
    postgres_url,
    private_postgres,
    private_redis,
    redis_url,
)

from flagsweep import FlagSweep
from flagsweep.config import Settings

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


for setting in ("APP", "CONFIG", *(each.name.upper() for each in fields(Settings))):
    os.environ.pop(f"FLAGSWEEP_{setting}", None)  # What somebody has exported for a site of their own.

# What is ignored here, under nohup or in a shell's background, every child would ignore, too.
for ignored, handler in ((signal.SIGHUP, lambda *_: None), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, handler)

SERVERS = re.compile("postgres|mysql|mariadb|redis|apsw")


def pytest_itemcollected(item):
    """Mark what needs a server, by the names of its fixtures and parameters: `make test` leaves that to `make test-servers`."""
    parameters = item.callspec.id if hasattr(item, "callspec") else ""
    talks = item.path.name in ON_SERVERS and SERVERS.search(parameters)
    if talks or any(SERVERS.search(name) for name in item.fixturenames):
        item.add_marker("servers")


_ON_SERVERS = (
    "asgi",
    "flags",
    "spare",
    "sqlalchemy",
    "statement",
    "alarms",
    "alive",
    "applications",
    "async",
    "beside",
    "buckets",
    "census",
    "columns",
    "conformance",
    "counting",
    "damage",
    "dead",
    "digest",
    "django",
    "django_connections",
    "django_tasks",
    "drain",
    "edits",
    "embedded",
    "embedded_servers",
    "errors",
    "exporting",
    "failures",
    "firing",
    "further",
    "gatekeeper",
    "gates",
    "inline",
    "health",
    "history",
    "kinds",
    "lending",
    "layer_rows",
    "many",
    "metrics",
    "moving",
    "over",
    "over_further",
    "pace",
    "pauses",
    "people",
    "pinging",
    "promises",
    "prune",
    "reconcile",
    "resizing",
    "restored",
    "results",
    "schedules",
    "schema",
    "sentry",
    "sessions",
    "shaping",
    "sites",
    "spare",
    "stamping",
    "start",
    "traces",
    "tracing",
    "upgrade",
    "why",
)
ON_SERVERS = tuple(f"test_{name}.py" for name in _ON_SERVERS)
"""Where a parameter names the server that a test talks to."""


def pytest_terminal_summary(terminalreporter, config):
    """Say what this run left out, where it was told to."""
    if "not servers" in (config.option.markexpr or ""):
        terminalreporter.write_line(
            "Left out: what takes long, or talks to PostgreSQL, MariaDB or Redis. `make test-servers` runs it."
        )


def pytest_make_parametrize_id(config, val, argname):
    """Name a parameter without memory addresses, so that every worker of a parallel run knows a test by the same name."""
    return None if isinstance(val, (str, int, float, bytes, bool, type(None))) else re.sub(r" at 0x[0-9a-f]+", "", repr(val))


GRACE = 2.0  # seconds a test's threads, processes and files have to go away after it ended


@pytest.fixture
def db_path(tmp_path: Path) -> Path:
    return tmp_path / "site.db"


@pytest.fixture(params=DATABASES)
def url(request, tmp_path: Path) -> str:
    """Return the URL of an empty database, on each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'site.db'}"
    return request.getfixturevalue(f"{'postgres' if request.param == 'postgresql' else 'mysql'}_url")


@pytest.fixture
def ready_url(request, url, tmp_path):
    """Return the same, where SQLite's has our tables already: to copy them is quicker than to make them."""
    if url.startswith("sqlite"):
        shutil.copyfile(request.getfixturevalue("empty_site"), tmp_path / "site.db")
    return url


@pytest.fixture
def client(url):
    """Give another program's session on that database."""
    client = Client(url)
    yield client
    client.close()


@pytest.fixture
def until():
    """Give `until(condition, limit=10)`: wait until the condition is true, return its value, or fail.

    The limit is of seconds in which the machine lets us look: what a pause of ``every`` seconds takes longer than twice
    that, others had the processor. So a short limit says how fast something is to be, whatever else goes on.
    """

    def until(condition, limit=10.0, every=0.005):
        spent, now = 0.0, time.monotonic()
        while not (value := condition()):
            if spent > limit:
                pytest.fail(f"still not so after {limit} s: {getattr(condition, '__name__', condition)}")
            time.sleep(every)
            then, now = now, time.monotonic()
            spent += min(now - then, 2 * every)
        return value

    return until


@pytest.fixture
def missing():
    """Give `missing(reason)`: skip on a laptop, fail where CI is set."""

    def missing(reason):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)

    return missing


@pytest.fixture
def env() -> dict[str, str]:
    """Return the environment for a child process: ours, without settings that would reach flagsweep."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLAGSWEEP_", "PYTHONPATH"))}
    return {**kept, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


@pytest.fixture
def spawn(tmp_path: Path, env: dict[str, str]):
    """Give `spawn(*command)`: start a child in the test's folder, with its output in the file that is its `log`.

    What still runs when the test ends is killed.
    """
    started = []

    def spawn(*command, **options):
        log = tmp_path / f"child-{len(started)}.log"
        with log.open("wb") as output:
            options = {"cwd": tmp_path, "env": env, "stdin": subprocess.DEVNULL, "stdout": output, **options}
            child = subprocess.Popen([str(part) for part in command], stderr=subprocess.STDOUT, **options)
        child.log = log
        started.append(child)
        return child

    yield spawn
    for child in started:
        kill_with_descendants(child)


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request):
    """Fail a test that left a thread, a child process, or an open file in its folder."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    threads, children = set(threading.enumerate()), _children()
    yield
    end = time.monotonic() + GRACE
    while (leaks := _leaks(threads, children, folder)) and time.monotonic() < end:
        time.sleep(0.02)
    if leaks:
        for child in _children() - children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        pytest.fail("left behind: " + ", ".join(leaks))


def _children():
    """Return our child processes, but servers that are there for every test of the run."""
    if not _has_children():
        return set()
    return {child for child in psutil.Process().children(recursive=True) if child.pid not in KEPT}


def _has_children():
    """Return whether there are any, as far as the kernel says: psutil reads of every process, twice for each test."""
    try:
        return any(Path(f"/proc/self/task/{thread}/children").read_bytes() for thread in os.listdir("/proc/self/task"))
    except OSError:  # A thread that has just ended, or a kernel that does not say.
        return True


def _leaks(threads, children, folder):
    process = psutil.Process()
    leaks = [f"thread {each.name}" for each in threading.enumerate() if each not in threads and _is_ours(each)]
    leaks += [f"process {each.pid}" for each in _children() - children]
    if folder:
        leaks += [f"open file {each.path}" for each in process.open_files() if _is_within(each.path, folder)]
    return leaks


def _is_ours(thread):
    return not thread.daemon or thread.name.startswith("flagsweep")


def _is_within(path, folder):
    return Path(path).is_relative_to(os.path.realpath(folder))


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(scope="session")
def empty_site(tmp_path_factory):
    """Return a database with the tables and nothing in them, to be copied: quicker than to make them."""
    path = tmp_path_factory.mktemp("empty") / "site.db"
    flags = FlagSweep(path)
    flags.init()
    flags.connections.close_thread()
    return path


@pytest.fixture
def make(db_path, clock, empty_site):
    """Give `make(**settings)`: flags with their tables on the test's database."""
    made = []

    def make(path=db_path, **settings):
        if path == db_path and not path.exists():
            shutil.copyfile(empty_site, path)
        made.append(FlagSweep(path, **{"clock": clock, "threads": 2, **settings}))
        made[-1].init()
        return made[-1]

    yield make
    for flags in made:
        flags.database.close()
    let_go(db_path.parent)


@pytest.fixture
def flags(make):
    return make()


@pytest.fixture
def flags_anywhere(ready_url, tmp_path):
    """Give flags with their tables, on each kind of database."""
    flags = FlagSweep(ready_url, clock=FakeClock(), threads=2, state_dir=str(tmp_path / "state"))
    flags.init()
    yield flags
    flags.connections.close_thread()
    let_go(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """Return the folder of a file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root alone")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)

"""The servers that tests talk to: databases of our own on those that run here, and private ones that a test may kill.

Fixtures, handed on by conftest.py:

* ``redis_url``: an empty Redis database: of a server that this run starts, or of the one at FLAGSWEEP_TEST_REDIS, where each
  worker of a parallel run has a database of its own, 15 and downwards, and empties it.
* ``postgres_url``, ``mysql_url``: a database of this run on the server at FLAGSWEEP_TEST_POSTGRES (default
  ``postgresql://postgres@127.0.0.1:5432``) or FLAGSWEEP_TEST_MYSQL (default ``mysql://root@127.0.0.1:3306``); without a table
  when a test begins, whatever the one before left open; dropped when the run ends.
* ``private_redis``: a ``PrivateRedis`` of the test's own, started, on a free port.
* ``private_postgres``: a ``PrivatePostgres`` of the test's own, with a database ``site``.

Where a server is missing its tests are skipped, and fail where CI is set.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

REDIS = os.environ.get("FLAGSWEEP_TEST_REDIS")
POSTGRES = os.environ.get("FLAGSWEEP_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432")
MYSQL = os.environ.get("FLAGSWEEP_TEST_MYSQL", "mysql://root@127.0.0.1:3306")
KEPT: set[int] = set()
"""Processes that no test is to blame for."""


def _worker():
    """Return the number of this process among those of a parallel run."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@pytest.fixture(scope="session")
def _redis(tmp_path_factory):
    """Give the URL of the Redis that FLAGSWEEP_TEST_REDIS names, or of one of this run's own; or the reason why there is none."""
    if REDIS:
        yield f"{REDIS}/{15 - _worker() % 12}", ""
        return
    try:
        server = PrivateRedis(tmp_path_factory.mktemp("redis")).start()
    except FileNotFoundError:
        yield None, "redis-server is not installed, and FLAGSWEEP_TEST_REDIS names none"
        return
    KEPT.add(server.process.pid)
    yield server.url, ""
    server.kill()


@pytest.fixture
def redis_url(_redis, missing):
    """Return the URL of an empty Redis database."""
    url, reason = _redis
    if url is None:
        missing(reason)
    import redis

    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="session")
def _postgres():
    """Make this run's database; give its URL, or the reason why there is none."""
    try:
        import psycopg

        server = psycopg.connect(f"{POSTGRES}/postgres", autocommit=True, connect_timeout=3)
    except Exception as error:
        yield None, f"no PostgreSQL at {POSTGRES}: {error}"
        return
    name = f"flagsweep_test_{os.getpid()}"
    server.execute(f"CREATE DATABASE {name}")
    yield f"{POSTGRES}/{name}", ""
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    server.close()


def forget_sightings(url):
    """Forget what this host knows of a database that each test makes anew under the same name, by a clock that stands still."""
    base = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "flagsweep"
    name = urlsplit(url).path[1:]
    for sighting in base.glob("*/stamp"):
        with suppress(OSError):  # Another worker's test has just done so.
            if f"/{name}" in sighting.read_text():
                sighting.unlink()


@pytest.fixture
def postgres_url(_postgres, missing):
    """Return the URL of a PostgreSQL database without tables, to which nobody is connected."""
    url, reason = _postgres
    if url is None:
        missing(reason)
    import psycopg

    with psycopg.connect(url, autocommit=True) as db:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        db.execute(f"SELECT pg_terminate_backend(pid) {others}")
        db.execute("DROP SCHEMA public CASCADE")
        db.execute("CREATE SCHEMA public")
    forget_sightings(url)
    return url


@pytest.fixture(scope="session")
def _mysql():
    """Make this run's database; give its URL, or the reason why there is none."""
    try:
        server = _mysql_connection(MYSQL)
    except Exception as error:
        yield None, f"no MySQL or MariaDB at {MYSQL}: {error}"
        return
    name = f"flagsweep_test_{os.getpid()}"
    yield f"{MYSQL}/{name}", ""
    server.cursor().execute(f"DROP DATABASE IF EXISTS {name}")
    server.close()


def _mysql_connection(url):
    import pymysql

    parts = urlsplit(url)
    known = {"user": parts.username, "password": parts.password or "", "ssl_disabled": True}
    return pymysql.connect(host=parts.hostname, port=parts.port or 3306, autocommit=True, connect_timeout=3, **known)


@pytest.fixture
def mysql_url(_mysql, missing):
    """Return the URL of a MySQL or MariaDB database without tables, to which nobody is connected."""
    url, reason = _mysql
    if url is None:
        missing(reason)
    name = urlsplit(url).path[1:]
    server = _mysql_connection(MYSQL)
    cursor = server.cursor()
    cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (name,))
    for (id,) in cursor.fetchall():
        cursor.execute(f"KILL {id}")
    cursor.execute(f"DROP DATABASE IF EXISTS {name}")
    cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    server.close()
    forget_sightings(url)
    return url


def free_port():
    """Return a port on which nobody listens just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class PrivateRedis:
    """A Redis of a test's own: ``start``, ``kill``, ``freeze``, ``thaw``. It keeps nothing on disk."""

    def __init__(self, folder, port=None):
        self.folder = folder
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self):
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while not self._listens():
            assert time.monotonic() < end, "redis-server did not start"
            time.sleep(0.01)
        return self

    def _listens(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.2) as client:
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self):
        self.thaw()
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def private_redis(tmp_path, missing):
    """Give a ``PrivateRedis`` that runs; killed when the test ends."""
    folder = tmp_path / "redis"
    folder.mkdir()
    try:
        server = PrivateRedis(folder).start()
    except FileNotFoundError:
        missing("redis-server is not installed")
    yield server
    if server.process.poll() is None:
        server.kill()


class PrivatePostgres:
    """A PostgreSQL of a test's own, which waits for the disk as a real one does: ``start``, ``kill``, ``freeze``, ``thaw``.

    It refuses to run as root: there the user ``postgres`` runs it, in a folder outside the test's, which is root's alone.
    """

    def __init__(self):
        self.programs = _postgres_programs()
        self.folder = Path(tempfile.mkdtemp(prefix="flagsweep-postgres-"))
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/site"
        self.process = None
        self._as = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        if self._as:
            shutil.chown(self.folder, "postgres", "postgres")
        self._run("initdb", "-D", self.folder / "data", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")

    def _run(self, program, *arguments):
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "cwd": self.folder, **self._as}
        done = subprocess.run([self.programs / program, *arguments], check=False, **options)
        assert done.returncode == 0, done.stderr.decode()

    def start(self):
        """Start it; return once it takes connections."""
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder, "fsync": "on"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            command = [self.programs / "postgres", "-D", self.folder / "data", *options]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._as)
        end = time.monotonic() + 60
        while not self.is_ready():
            assert time.monotonic() < end and self.process.poll() is None, (self.folder / "log").read_text()[-500:]
            time.sleep(0.01)
        return self

    def is_ready(self):
        import psycopg

        try:
            self.ask("SELECT 1", "postgres")
        except psycopg.OperationalError:
            return False
        return True

    def ask(self, statement, database="site"):
        """Run a statement as the superuser, and return its rows."""
        import psycopg

        with psycopg.connect(self.url.replace("/site", f"/{database}"), autocommit=True, connect_timeout=3) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def kill(self):
        """End it at once, as ``pg_ctl -m immediate`` does: connections break, nothing is written back."""
        self.thaw()
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def immediate_restart(self):
        self.kill()
        self.start()

    def freeze(self):
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self):
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _all(self):
        with suppress(psutil.NoSuchProcess):
            postmaster = psutil.Process(self.process.pid)
            return [postmaster, *postmaster.children(recursive=True)]
        return []

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _postgres_programs():
    """Return the folder of the newest PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    program = found[-1] if found else shutil.which("initdb")
    if program is None:
        raise FileNotFoundError("initdb")
    return Path(program).parent


@pytest.fixture
def private_postgres(missing):
    """Give a ``PrivatePostgres`` that runs, with an empty database ``site``; ended and deleted when the test ends."""
    try:
        server = PrivatePostgres()
    except FileNotFoundError:
        missing("the programs of a PostgreSQL server are not installed")
    try:
        server.start()
        server.ask("CREATE DATABASE site", "postgres")
        yield server
    finally:
        server.close()

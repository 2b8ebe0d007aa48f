"""Two databases of any kinds, a site with something in every table of the first, and what another program sees of both."""

import json
import os
import signal
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from clients import DATABASES, Client
from rig import forked

from flagsweep import FlagSweep, Snooze
from flagsweep.models import Flag
from flagsweep.operations.carrying.copying import Copying
from flagsweep.operations.carrying.side import Side
from flagsweep.operations.carrying.tables import shapes

PAIRS = [f"{source}-{target}" for source in DATABASES for target in DATABASES]
HUGE = "ü" * 700_000
LONGEST = "\U0001f600" * 200
NAMES = ["a", "A", "ä", "Ä", " a", "a ", "\U0001f600", "-0", "%s", "\\", "'\"", LONGEST]


def sibling(url):
    """Return the URL of a second database on the same server."""
    return f"{url}_b"


@contextmanager
def made(url):
    """Have that database for a while."""
    name = urlsplit(sibling(url)).path[1:]
    with closing_client(url) as server:
        server.ask(f"DROP DATABASE IF EXISTS {name}")
        server.ask(f"CREATE DATABASE {name}")
    try:
        yield sibling(url)
    finally:
        with closing_client(url) as server:
            server.ask(f"DROP DATABASE {name}{' WITH (FORCE)' if url.startswith('postgresql') else ''}")


@contextmanager
def closing_client(url):
    client = Client(url)
    try:
        yield client
    finally:
        client.close()


def url_on(request, kind):
    if kind == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path') / 'source.db'}"
    return request.getfixturevalue("postgres_url" if kind == "postgresql" else "mysql_url")


def filled(flags):
    """Put something of all there is into the tables of a site."""
    told = flags.handler("told", lane="mail", result=True, history=True)(lambda name: name)
    bad = flags.handler("bad", max_attempts=1, backoff=3600)(lambda n: 1 / 0)
    limited = flags.handler("limited", per="who", rate="1/h")(lambda who, n: None)
    flags.handler("late")(lambda n: (_ for _ in ()).throw(Snooze(3600)))
    told.raise_many([("x",), ("y",)])
    bad.raise_many([(n,) for n in range(3)])
    limited.raise_many([("ada", 1), ("ada", 2), ("bob", 1)])
    flags.handlers["late"].raise_flag(1)
    flags.sweep()
    told.raise_many([(name,) for name in (*NAMES, "nul \0 inside", "huge")])
    for name in NAMES:
        told.using(key=name or "-").raise_flag("keyed")
    huge = Flag.update(payload=json.dumps({"name": HUGE})).where(Flag.key == '{"name":"huge"}')  # More than a site may raise.
    with flags.connections.lent("") as db:
        huge.execute(db)
    bad.using(priority=-3, delay="1h", expires="2d").raise_flag(77)
    flags.schedules.add("nightly", "told", cron="0 4 * * 1", tz="Europe/Berlin", arguments=("ä\U0001f600",))
    flags.pause("bad", reason="provider ü\U0001f600 moves", until="2h")
    flags.pause(lane="mail", reason="lane")
    flags.set_threads("mail", 3)
    flags.discard(kind="bad", key='{"n":0}', reason="not wanted")
    return told


def contents(flags):
    """Return all rows that are carried, as they are in the database."""
    dialect, db = flags.connections.dialect, flags.connections.engine
    try:
        return {name: [row for page in dialect.all_of(db, shape) for row in page] for name, shape in shapes().items()}
    finally:
        flags.connections.close_engine()


def carried(found):
    """Return the rows without what is a move's own: the pause of all, and its notes."""
    gates, facts = shapes()["gate"].columns.index("sort"), shapes()["fact"].columns.index("name")
    return {
        **{name: sorted(rows, key=repr) for name, rows in found.items()},
        "gate": sorted((row for row in found["gate"] if row[gates] != "all"), key=repr),
        "fact": sorted((row for row in found["fact"] if not row[facts].startswith(("move:", "stamp", "left"))), key=repr),
    }


def opened(url, clock, tmp_path):
    flags = FlagSweep(url, clock=clock, threads=2, state_dir=str(tmp_path / "state"))
    return flags


def killed_at(step, do):
    """Do something in a forked child that is killed at this step of a move; return whether it came to its end before."""
    left = [step]

    def stepping(owner, name):
        before = getattr(owner, name)

        def counted(*arguments, **named):
            found = before(*arguments, **named)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        setattr(owner, name, counted)

    def child():
        for owner, name in ((Side, "note"), (Side, "set_pause"), (Side, "pause"), (Copying, "_within"), (Copying, "compare")):
            stepping(owner, name)
        do()

    return os.waitstatus_to_exitcode(os.waitpid(forked(child), 0)[1])


every_pair = pytest.mark.parametrize("pair", PAIRS)
ROUND = ("sqlite-sqlite", "sqlite-postgresql", "postgresql-mysql", "mysql-sqlite")
killed_pairs = pytest.mark.parametrize(
    "pair", [pytest.param(pair, marks=() if pair in ROUND else pytest.mark.slow) for pair in PAIRS]
)
"""Every pair. The longest tests leave to `make test-all` those whose databases are a source and a target in others, too."""

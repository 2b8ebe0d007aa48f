"""Queues and servers that fail: F9 to F15, and F28."""

import itertools
import os
import random
import select
import socket
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from urllib.parse import urlsplit

import pytest
from queue_rig import KEY, client_of, flood, garbage, make_a_folder
from servers import _mysql_connection
from work import Ledger, running

from flagsweep import FlagSweepError

READY = "flagsweep sweeps"
QUIET = {"watch": "poll", "poll_every": 1}
"""Settings of a consumer that looks for itself once a second: what comes sooner came through the queue."""


class Load(threading.Thread):
    """Raise flags all the while, half of them atomic, and keep count of what became of each raise.

    :param pause: seconds between two.
    :param many: raise so many more in one transaction each time.
    """

    def __init__(self, site, pause=0.005, many=0):
        super().__init__(daemon=True)
        self.site = site
        self.pause = pause
        self.many = many
        self.over = threading.Event()
        self.refused = 0
        self.broken = []
        self.exact = set()
        self.took = []
        self.numbers = itertools.count(1)

    def run(self):
        try:
            while not self.over.wait(self.pause):
                self._raise(next(self.numbers))
        except BaseException as error:
            self.broken.append(error)
        finally:
            self.site.flags.connections.close_thread()

    def _raise(self, n):
        kind, more = ("exact", {"do": "effect"}) if n % 2 else ("work", {"do": "slow", "seconds": 0.001})
        began = time.monotonic()
        try:
            self.site.raise_(kind, n, **more)
            self.took.append((began, time.monotonic() - began))
            if kind == "exact":
                self.exact.add(n)
            if self.many:
                self.site.raise_many("work", itertools.islice(self.numbers, self.many))
        except FlagSweepError:  # Refused, or not known: the site does not go on as if it were owed.
            self.refused += 1

    def end(self):
        self.over.set()
        self.join(60)
        assert not self.is_alive() and not self.broken, self.broken
        return self

    def slowest(self, begin, end):
        """Return how long the raises within a span of time took, the longest first."""
        return sorted((took for at, took in self.took if begin <= at <= end), reverse=True)


class Audit:
    """Say what the journal and the site's tables show of a load."""

    def __init__(self, site, load):
        ledger = Ledger(site.journal.events())
        wrote = Counter(site.effects())
        self.raised = len(ledger.raised)
        self.lost = len(ledger.lost(site.up()))
        # A raise whose answer was lost may have taken place: it has one effect then, or none.
        self.apart = len(load.exact - set(wrote)) + sum(times - 1 for times in wrote.values())
        self.overlaps = len(ledger.overlaps())
        self.repeats = sum(before.flag.startswith("work") for before, _ in ledger.unexplained())
        self.is_good = not (self.lost or self.apart or self.overlaps or self.repeats)

    def __str__(self):
        return (
            f"{self.raised} flags: lost {self.lost}, exactly-once difference {self.apart}, two owners at once {self.overlaps}, "
            f"repeats without a cause {self.repeats}"
        )


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def is_ready(child):
    return READY in child.log.read_text()


def finished(site, until, *children):
    """Have the rest done and the consumers stopped; what they wrote must show no error of ours."""
    until(site.is_idle, limit=60)
    for child in children:
        child.terminate()
    for child in children:
        assert child.wait(15) == 0, child.log.read_text()
        assert "Traceback" not in child.log.read_text(), child.log.read_text()[-2000:]


# F9: the queue is wiped.


@pytest.fixture(params=["sqlite queue", "redis queue"])
def queue(request, tmp_path):
    """Return the name of a queue, its settings, and how to wipe it."""
    if request.param == "sqlite queue":
        file = tmp_path / "queue.db"

        def wipe():
            for path in file.parent.glob("queue.db*"):
                if not path.name.endswith("-key"):
                    path.unlink(missing_ok=True)

        url = f"sqlite:///{file}"
    else:
        server = request.getfixturevalue("private_redis")
        url = server.url

        def wipe():
            import redis

            with redis.Redis.from_url(url) as client:
                client.flushall()

    return request.param, {"queue": url, "queue_key": KEY, "nudge": "on"}, wipe


def test_f9_the_queue_is_wiped_again_and_again(queue, backend_at, db_path, chance, sized, until, bound, report):
    """Beside a consumer another process sweeps, too: without its locks the claim alone keeps them apart."""
    seconds, (name, settings, wipe), wipes = sized(20, 600, 5), queue, 0
    backend = backend_at("sqlite", db_path)
    site = backend.site(**settings)
    child, other = backend.consume(**settings, **QUIET), backend.consume(mode="sweep", **settings, **QUIET)
    until(lambda: is_ready(child))
    load = Load(site, pause=0.02)
    load.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(chance.uniform(1, 5), max(0.0, end - time.monotonic())))
        wipe()
        wipes += 1
    load.end()
    until(site.is_idle, limit=30)
    site.journal.path.with_name("journal.stop").touch()
    assert other.wait(15) == 0
    finished(site, until, child)
    audit, delay = Audit(site, load), delays(site)
    report(
        "F9",
        f"{name}: wiped every 1 to 5 s, {wipes} times, for {seconds} s",
        f"{audit}, raises that failed {load.refused}; longest until it ran {max(delay):.2f} s <= 1 + {bound(2):g} s",
        audit.is_good and not load.refused and max(delay) <= 1 + bound(2),
        backend=name,
    )


def delays(site):
    """Return the seconds between each raise and its first run."""
    events = site.journal.events()
    starts = {}
    for event in events:
        if event.what == "start":
            starts.setdefault(event.flag, event.at)
    return [starts[event.flag] - event.at for event in events if event.what == "raised" and event.flag in starts]


# F10: the queue cannot be used.


def random_bytes(backend, server):
    file = backend.folder / "queue.db"
    with file.open("r+b") as raw:
        raw.write(os.urandom(max(4096, file.stat().st_size)))


def no_tables(backend, server):
    with closing(sqlite3.connect(backend.folder / "queue.db", isolation_level=None, timeout=10)) as db:
        for table in ("task", "kv"):
            db.execute(f"DROP TABLE IF EXISTS {table}")


def a_folder(backend, server):
    make_a_folder(backend.folder / "queue.db")


def down(backend, server):
    server.kill()


UNUSABLE = {
    "random bytes in the file": random_bytes,
    "tables dropped": no_tables,
    "no file but a folder": a_folder,
    "Redis down": down,
}


@pytest.mark.parametrize("how", UNUSABLE)
def test_f10_the_queue_cannot_be_used(how, request, backend_at, db_path, sized, until, bound, report):
    seconds, backend = sized(3, 60, 1), backend_at("sqlite", db_path)
    server = request.getfixturevalue("private_redis") if how == "Redis down" else None
    settings = {"queue": server.url if server else f"sqlite:///{backend.folder}/queue.db", "queue_key": KEY, "nudge": "on"}
    site = backend.site(**settings)
    child = backend.consume(**settings, **QUIET)
    until(lambda: is_ready(child))
    load = Load(site, pause=0.01)
    load.start()
    time.sleep(seconds)
    cut = time.monotonic()
    UNUSABLE[how](backend, server)
    time.sleep(seconds)
    load.end()
    finished(site, until, child)
    audit, before, after = Audit(site, load), load.slowest(0, cut), load.slowest(cut, time.monotonic())
    added = percentile(after, 0.99) - percentile(before, 0.99)
    report(
        "F10",
        how,
        f"{audit}, raises that failed {load.refused}; p99 of a raise {percentile(before, 0.99) * 1000:.1f} ms before, "
        f"{percentile(after, 0.99) * 1000:.1f} ms after (added <= {bound(50):g} ms); "
        f"longest until it ran {max(delays(site)):.2f} s",
        audit.is_good and not load.refused and added <= bound(0.05) and max(delays(site)) <= 1 + bound(2),
    )


# F11: Redis restarts, and stands still.


def test_f11_redis_restarts_again_and_again(private_redis, backend_at, db_path, chance, sized, until, bound, report):
    restarts, longest, backend = sized(20, 100, 3), sized(1.5, 5, 1), backend_at("sqlite", db_path)
    settings = {"queue": private_redis.url, "queue_key": KEY, "nudge": "on"}
    site = backend.site(**settings)
    child = backend.consume(**settings, **QUIET)
    until(lambda: is_ready(child))
    load = Load(site, pause=0.01)
    load.start()
    for _ in range(restarts):
        time.sleep(chance.uniform(0.2, longest))
        private_redis.kill()
        time.sleep(chance.uniform(0, 0.3))
        private_redis.start()
    load.end()
    finished(site, until, child)
    audit, most = Audit(site, load), max(took for _, took in load.took)
    report(
        "F11",
        f"killed and started {restarts} times",
        f"{audit}, raises that failed {load.refused}; longest raise {most * 1000:.0f} ms <= {bound(300):g} ms",
        audit.is_good and not load.refused and most <= bound(0.3),
        backend="redis queue",
    )


def test_f11_redis_stands_still(private_redis, backend_at, db_path, sized, until, bound, report):
    seconds, backend = sized(10, 60, 3), backend_at("sqlite", db_path)
    settings = {"queue": private_redis.url, "queue_key": KEY, "nudge": "on"}
    site = backend.site(**settings)
    child = backend.consume(**settings, **QUIET)
    until(lambda: is_ready(child))
    load = Load(site, pause=0.01)
    load.start()
    time.sleep(2)
    private_redis.freeze()
    frozen = time.monotonic()
    time.sleep(seconds)
    thawed = time.monotonic()
    private_redis.thaw()
    load.end()
    finished(site, until, child)
    audit, took = Audit(site, load), load.slowest(frozen, thawed)
    delayed = [each for each in took if each > 0.05]
    report(
        "F11",
        f"stopped for {seconds} s",
        f"{audit}, raises that failed {load.refused}; of {len(took)} raises meanwhile {len(delayed)} took more than 50 ms, "
        f"the longest {took[0] * 1000:.0f} ms <= {bound(300):g} ms; longest until it ran {max(delays(site)):.2f} s",
        audit.is_good and not load.refused and took[0] <= bound(0.3) and max(delays(site)) <= 1 + bound(2),
        backend="redis queue",
    )


# F12: PostgreSQL restarts at once.


def test_f12_postgresql_ends_at_once_and_is_started_again(private_postgres, backend_at, chance, sized, until, bound, report):
    seconds, ready, numbers = sized(40, 1800, 12), [], sized(20, 20, 5)
    backend = backend_at("postgresql", private_postgres.url)
    site, child = backend.site(), backend.consume()
    until(lambda: is_ready(child))
    load = Load(site, many=numbers)
    load.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(chance.uniform(3, 10) if seconds > 60 else chance.uniform(3, 6))
        private_postgres.kill()
        time.sleep(chance.uniform(0, 1))
        private_postgres.start()
        ready.append(time.monotonic())
    time.sleep(2)
    load.end()
    finished(site, until, child)
    audit = Audit(site, load)
    starts = [event.at for event in site.journal.events("start")]
    back = [min((at for at in starts if at > moment), default=float("inf")) - moment for moment in ready]
    report(
        "F12",
        f"ended as by pg_ctl -m immediate and started again, {len(ready)} times in {seconds} s",
        f"{audit}, raises refused meanwhile {load.refused}; "
        f"first job after it was ready: longest {max(back):.2f} s <= {bound(2):g} s",
        audit.is_good and max(back) <= bound(2),
        backend="postgresql",
    )


# F13: connections are killed.

SERVERS = ["postgresql", "mysql"]


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
def test_f13_connections_are_killed_at_random(backend, chance, sized, until, report):
    """Those of two consumers, one of which stands by, and of the site; those that hold a lease every third time."""
    kills, site = sized(200 if backend.name == "postgresql" else 60, 5000, 20), backend.site()
    children = [backend.consume() for _ in range(2)]
    until(lambda: all(map(is_ready, children)))
    load, killed, leases, killer = Load(site), 0, 0, Killer(backend.database)
    load.start()
    while killed < kills:
        time.sleep(chance.uniform(0, 0.25 if kills <= 200 else 1))
        among = killer.leases() if killed % 3 == 0 else killer.all()
        if among:
            killer.kill(chance.choice(among))
            killed += 1
            leases += killed % 3 == 1
    killer.close()
    load.end()
    finished(site, until, *children)
    audit, told = Audit(site, load), sum(child.log.read_text().count("the lease is lost") for child in children)
    report(
        "F13",
        f"{killed} connections killed, {leases} of them with a lease",
        f"{audit}, raises refused {load.refused}, leases seen lost {told}",
        audit.is_good and (told or kills < 200),
        backend=backend.name,
    )


class Killer:
    """Know the sessions on a database, and kill them."""

    def __init__(self, database):
        self.name = urlsplit(database).path[1:]
        self.postgres = database.startswith("postgresql")
        if self.postgres:
            import psycopg

            self.connection = psycopg.connect(database.replace(self.name, "postgres"), autocommit=True)
        else:
            self.connection = _mysql_connection(database)

    def _ask(self, statement, *parameters):
        cursor = self.connection.cursor()
        cursor.execute(statement, parameters)
        return [row[0] for row in cursor.fetchall()] if cursor.description else []

    def all(self):
        if self.postgres:
            return self._ask("SELECT pid FROM pg_stat_activity WHERE datname = %s", self.name)
        return self._ask("SELECT id FROM information_schema.processlist WHERE db = %s", self.name)

    def leases(self):
        """Return the sessions that hold a lock by a name; of MySQL those that have done nothing for the longest time."""
        if self.postgres:
            mine = "(SELECT oid FROM pg_database WHERE datname = %s)"
            return self._ask(
                f"SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = {mine}", self.name
            )
        named = "SELECT p.id FROM information_schema.processlist p WHERE p.db = %s AND p.info IS NULL ORDER BY p.id LIMIT 2"
        return self._ask(named, self.name)

    def kill(self, session):
        statement = f"SELECT pg_terminate_backend({session})" if self.postgres else f"KILL {session}"
        with suppress(Exception):  # It may have ended by itself.
            self._ask(statement)

    def close(self):
        self.connection.close()


# F14: the answer to COMMIT is lost.


class Proxy(threading.Thread):
    """Pass on what clients and a server say to each other; now and then swallow the answer to COMMIT, and cut the connection.

    :param share: of the commits, by what the transaction wrote before.
    """

    def __init__(self, port, seed, share):
        super().__init__(daemon=True)
        self.cuts = Counter()
        self.silent = False
        self._port = port
        self._chance = random.Random(seed)
        self._share = share
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._passing = []

    def run(self):
        with suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                self._passing.append(threading.Thread(target=self._pass_on, args=(client,), daemon=True))
                self._passing[-1].start()

    def _pass_on(self, client):
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as server:
            doing, cutting = "claims", False
            while True:
                for end in select.select([client, server], [], [])[0]:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    if end is client:
                        doing = "effects" if b'INTO "effect"' in data or b"INTO `effect`" in data else doing
                        commits = data.endswith((b"COMMIT\0", b"\x03COMMIT"))
                        cutting = commits and not self.silent and self._chance.random() < self._share[doing]
                        server.sendall(data)
                        continue
                    if cutting and (b"COMMIT\0" in data or data[4:5] == b"\0"):
                        self.cuts[doing] += 1
                        return
                    doing, cutting = ("claims" if self._is_over(data) else doing), False
                    client.sendall(data)

    def _is_over(self, data):
        """Return whether PostgreSQL says that no transaction is open; of MySQL's answers nothing is read."""
        return data.endswith(b"Z\0\0\0\x05I")

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.join(5)
        for thread in self._passing:
            thread.join(5)


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
def test_f14_the_answer_to_commit_is_lost(backend, chance, sized, until, report):
    """Of the consumer's commits alone: a site whose raise has no answer knows that it does not know."""
    cuts, site = sized(200 if backend.name == "postgresql" else 60, 2000, 15), backend.site()
    proxy = Proxy(urlsplit(backend.database).port, chance.random(), {"effects": 0.3, "claims": 0.05})
    proxy.silent = True  # Who loses the answer to its own entry does not start, and says so.
    proxy.start()
    direct = backend.database
    plain = "?sslmode=disable" if backend.name == "postgresql" else ""
    backend.database = direct.replace(f":{urlsplit(direct).port}/", f":{proxy.port}/") + plain
    child = backend.consume()
    until(lambda: is_ready(child))
    proxy.silent = False
    load = Load(site)
    load.start()
    until(lambda: proxy.cuts.total() >= cuts, limit=cuts)
    load.end()
    proxy.silent = True
    finished(site, until, child)
    proxy.close()
    audit = Audit(site, load)
    report(
        "F14",
        "a proxy swallows the server's answer to COMMIT and cuts the connection",
        f"{proxy.cuts['effects']} commits of atomic handlers, {proxy.cuts['claims']} of sweeps: {audit}",
        audit.is_good and proxy.cuts.total() >= cuts,
        backend=backend.name,
    )


# F15: the server takes no writes.


def test_f15_the_server_is_read_only_for_a_while(private_postgres, backend_at, sized, until, bound, report):
    times, seconds, backend = sized(3, 20, 1), sized(3, 20, 2), backend_at("postgresql", private_postgres.url)
    site, child, back = backend.site(), backend.consume(), []
    until(lambda: is_ready(child))
    load = Load(site)
    load.start()
    for _ in range(times):
        time.sleep(1)
        private_postgres.ask("ALTER SYSTEM SET default_transaction_read_only = on")
        private_postgres.ask("SELECT pg_reload_conf()")
        before = load.refused
        until(lambda before=before: load.refused > before)
        time.sleep(seconds)
        private_postgres.ask("ALTER SYSTEM RESET default_transaction_read_only")
        private_postgres.ask("SELECT pg_reload_conf()")
        back.append(time.monotonic())
        until(lambda: any(event.at > back[-1] + 0.1 for event in site.journal.events("start")), limit=30)
    load.end()
    finished(site, until, child)
    audit, starts = Audit(site, load), [event.at for event in site.journal.events("start")]
    waits = [min(at for at in starts if at > moment) - moment for moment in back]
    report(
        "F15",
        f"default_transaction_read_only = on for {seconds} s, {times} times",
        f"{audit}, raises refused {load.refused}; works again after {max(waits):.2f} s <= {bound(5):g} s",
        audit.is_good and load.refused > 0 and max(waits) <= bound(5),
        backend="postgresql",
        why="read-only stands for a server's full disk, too",
    )


# F28: garbage and pickle bombs.


@pytest.mark.parametrize("store", ["sqlite", "redis", "postgresql"])
def test_f28_garbage_and_bombs_are_dropped_and_none_is_executed(
    store, request, tmp_path, backend_at, db_path, until, bound, report
):
    count, backend = 10_000, backend_at("sqlite", db_path)
    if store == "sqlite":
        url = f"sqlite:///{tmp_path}/queue.db"
    else:
        url = request.getfixturevalue("redis_url" if store == "redis" else "postgres_url")
    site = backend.site(queue=url, queue_key=KEY, nudge="on", watch="off")
    client = client_of(site)
    try:
        flood(client, "default", list(garbage(tmp_path / "exploded", count)))
        began = time.monotonic()
        with running(site.flags, until):
            listener = site.flags.queue._listener
            until(lambda: listener.dropped.total() >= count, limit=60)
            took = time.monotonic() - began
            site.raise_("work", 1)
            until(site.is_idle)
    finally:
        client.disconnect()
    executed = (tmp_path / "exploded").exists()
    report(
        "F28",
        f"{count:,} messages: pickle bombs, forged, too large, random",
        f"dropped {listener.dropped.total()} in {took:.1f} s <= {bound(10):g} s, executed {int(executed)}; "
        "the next nudge is heard",
        listener.dropped.total() == count and took <= bound(10) and not executed,
        backend=f"{store} queue",
    )

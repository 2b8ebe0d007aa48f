"""F37: an hour of everything (a minute in CI): kills, locks, a wiped queue and load, on two sites at once.

On one site the consumer is killed again and again. On the other it lives through locks and a wiped queue, and is weighed.
"""

import random
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from statistics import linear_regression

import psutil
from work import Ledger

from flagsweep import FlagSweepError

MB, HOUR = 1024 * 1024, 3600


class Site:
    """A site under load, its consumer, and what is done to both."""

    def __init__(self, backend, chance, over):
        self.queue = backend.folder / "queue.db"
        self.settings = {"queue": f"sqlite:///{self.queue}"}
        self.backend = backend
        self.chance = chance
        self.over = over
        self.site = backend.site(backoff=0.01, **self.settings)
        self.child = backend.consume(**self.settings)
        self.numbers = count(1)
        self.deaths = {}
        self.done = Counter()
        self.exact = []
        self.failed = []
        self.weights = []

    def run(self, *tasks):
        """Start threads that each do one thing again and again, until it is over."""
        return [threading.Thread(target=self.repeat, args=task) for task in tasks]

    def repeat(self, do, least, most):
        chance = random.Random(self.chance.random())
        try:
            while not self.over.wait(chance.uniform(least, most)):
                do(chance)
                self.done[do.__name__] += 1
        except BaseException as error:
            self.failed.append(error)
        finally:
            self.site.flags.connections.close_thread()

    def load(self, chance):
        n, kind = next(self.numbers), chance.choice(("work", "work", "mail", "exact"))
        how = (
            {"do": "effect"} if kind == "exact" else {"do": chance.choice(("ok", "slow", "fail_once", "retry")), "seconds": 0.005}
        )
        with suppress(FlagSweepError):  # Locked for longer than a raise waits: it was refused, and is not owed.
            self.site.raise_(kind, n, **how)
            if kind == "exact":
                self.exact.append(n)

    def kill(self, chance):
        self.child.kill()
        self.child.wait()
        self.deaths[self.child.pid] = time.monotonic()
        self.child = self.backend.consume(**self.settings)

    def lock(self, chance):
        with closing(sqlite3.connect(self.backend.database, isolation_level=None, timeout=10)) as db:
            db.execute("BEGIN IMMEDIATE")
            self.over.wait(chance.uniform(0.1, 2))
            db.execute("ROLLBACK")

    def wipe(self, chance):
        for path in self.queue.parent.glob("queue.db*"):
            path.unlink(missing_ok=True)

    def weigh(self, chance):
        process = psutil.Process(self.child.pid)
        log = Path(f"{self.backend.database}-wal")
        size = log.stat().st_size if log.exists() else 0
        self.weights.append((time.monotonic(), process.memory_info().rss / MB, process.num_fds(), size / MB))


def slope(weights, what):
    """Return how much something grew in an hour, by the last two thirds of what was weighed."""
    late = weights[len(weights) // 3 :]
    return linear_regression([weight[0] / HOUR for weight in late], [weight[what] for weight in late]).slope


def test_f37_soak(backend, chance, sized, until, report):
    seconds, over = sized(60, HOUR, 20), threading.Event()
    killed, steady = (Site(each, chance, over) for each in (backend, backend.another()))
    until(lambda: all("flagsweep sweeps" in site.child.log.read_text() for site in (killed, steady)))
    threads = killed.run((killed.load, 0, 0.05), (killed.kill, 0.1, 2), (killed.lock, 2, 8), (killed.wipe, 1, 5))
    threads += steady.run((steady.load, 0, 0.05), (steady.lock, 2, 8), (steady.wipe, 1, 5), (steady.weigh, 0.5, 0.5))
    for thread in threads:
        thread.start()
    over.wait(seconds)
    over.set()
    for thread in threads:
        thread.join(20)
    assert not killed.failed + steady.failed, killed.failed + steady.failed
    for site in (killed, steady):
        until(site.site.is_idle, limit=60)
        site.child.terminate()
        assert site.child.wait(10) == 0
    ledgers = [Ledger(site.site.journal.events(), site.deaths) for site in (killed, steady)]
    lost = sum(len(ledger.lost(site.site.up())) for ledger, site in zip(ledgers, (killed, steady), strict=True))
    unexplained = sum(len(ledger.unexplained()) + len(ledger.overlaps()) for ledger in ledgers)
    differ = sum(site.site.effects() != sorted(site.exact) for site in (killed, steady))
    grown = [slope(steady.weights, what) for what in (1, 2, 3)]
    first, last = steady.weights[len(steady.weights) // 3], steady.weights[-1]
    long = seconds >= HOUR
    bounded = grown[0] < 1 and abs(grown[1]) < 1 if long else last[1] - first[1] < 10 and last[2] <= first[2] + 3
    report(
        "F37",
        f"{seconds} s: load, kills, locks, a queue that is wiped",
        f"{sum(len(ledger.raised) for ledger in ledgers)} flags, {killed.done['kill']} kills, "
        f"{killed.done['lock'] + steady.done['lock']} locks, {killed.done['wipe'] + steady.done['wipe']} wipes: "
        f"lost {lost}, unexplained repeats or overlaps {unexplained}, sites whose effects differ {differ}; "
        f"slopes: RSS {grown[0]:+.1f} MB/h, descriptors {grown[1]:+.1f}/h, log {grown[2]:+.1f} MB/h "
        f"(RSS {first[1]:.1f} to {last[1]:.1f} MB, descriptors {first[2]} to {last[2]}, log at most "
        f"{max(weight[3] for weight in steady.weights):.1f} MB)",
        not lost and not unexplained and not differ and bounded,
        backend=backend.name,
        why=""
        if long
        else "a minute is too short for a slope: judged is that RSS grew by less than 10 MB, descriptors by at most 3",
    )

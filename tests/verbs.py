"""One database and the verbs on it, with what does not matter to a test left out; times are microseconds after ``NOW``."""

import sqlite3
from contextlib import closing

from flagsweep import Backoff, FlagSweep
from flagsweep.config import SECOND
from flagsweep.databases.raising import Terms
from flagsweep.payloads import Item
from flagsweep.sweep.outcomes import Failed
from flagsweep.testing import FakeClock

NOW = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC


MINUTE = 60 * SECOND


HOUR = 60 * MINUTE


ME, OTHER = 1, 2  # consumers


class Site:
    """One database, and the verbs with what does not matter to a test left out. Times are microseconds after ``NOW``."""

    def __init__(self, path):
        self.path = path
        self.clock = FakeClock(NOW)
        self.flags = FlagSweep(path, clock=self.clock)
        self.flags.init()
        self.store, self.verbs = self.flags.store, self.flags.verbs
        backoff = Backoff(first=10, factor=2, cap="1h", jitter=0)
        self.handler = self.flags.handler("work", max_attempts=3, backoff=backoff)(lambda n=0: None)

    def raise_(self, key="k", due=0, now=0, payload='{"n":1}', priority=0, kind="work"):
        return self.verbs.raise_(kind, Item(key, payload), Terms(priority, NOW + due, NOW + now))

    def claim(self, limit=100, now=0, kind="work", priority=0, consumer=ME):
        with self.store.connections.write():
            return self.store.claim(kind, priority, limit, consumer, NOW + now)

    def claim_one(self, **more):
        (claimed,) = self.claim(**more)
        return claimed

    def lower(self, claimed):
        with self.store.connections.write():
            return self.store.lower([claimed.id], claimed.token)

    def settle(self, claimed, outcome, now=0):
        step = outcome.step(self.handler, claimed, NOW + now)
        with self.store.connections.write():
            return self.store.settle_one(claimed.id, claimed.token, step, NOW + now)

    def fail(self, now=0, **more):
        """Claim the one flag that is due and let its attempt fail."""
        return self.settle(self.claim_one(now=now), Failed("boom", ValueError(), **more), now)

    def die(self):
        """Raise a flag and let it die at once."""
        self.raise_()
        assert self.fail(final=True) == "dead"

    def release(self, *claimed, now=0):
        with self.store.connections.write():
            return self.store.release([c.id for c in claimed], claimed[0].token, NOW + now)

    def ask(self, statement, *arguments):
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, arguments)]

    def row(self, key="k"):
        """Return one flag as it is stored, its times after ``NOW``."""
        (row,) = self.ask("SELECT * FROM flagsweep_flag WHERE key = ?", key)
        return {name: v - NOW if name in ("due_at", "raised_at") else v for name, v in row.items()}

    def is_up(self, key="k"):
        return bool(self.ask("SELECT 1 FROM flagsweep_flag WHERE key = ?", key))

    def history(self):
        return [(row["event"], row["reason"]) for row in self.ask("SELECT * FROM flagsweep_history ORDER BY id")]

    def close(self):
        self.store.connections.close_thread()


def picked(row, *names):
    return tuple(row[name] for name in names)


def free(row):
    """Return whether a row bears no trace of a claim."""
    return picked(row, "claim_token", "claimed_by", "claimed_at", "claimed_generation") == (None,) * 4


def bring(site, state):
    """Bring the flag ``k`` into a state."""
    if state == "dead":
        return site.die()
    site.raise_()
    if state in ("claimed", "bumped"):
        site.claim()
    if state == "bumped":
        site.raise_(due=30)
    if state == "backing off":
        site.fail()


HOW = {"waiting": "coalesced", "backing off": "coalesced", "claimed": "bumped", "bumped": "bumped", "dead": "revived"}


BUMP = 5 * SECOND


def claimed(site, bumped, attempts=0, **more):
    """Return a flag that is claimed after so many failed attempts, raised again meanwhile or not."""
    site.raise_(**more)
    for _ in range(attempts):
        site.fail(now=HOUR)
        site.flags.clock.set(NOW)
        site.ask("UPDATE flagsweep_flag SET due_at = ?", NOW)
    flag = site.claim_one()
    if bumped:
        assert site.raise_(due=BUMP).how == "bumped"
    return flag

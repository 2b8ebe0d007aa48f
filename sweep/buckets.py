"""Buckets: the flags of a kind that has ``per`` take turns by the values of one argument, and limits hold for each value."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from zoneinfo import ZoneInfo

from ..config import SECOND
from ..databases.way import Way
from ..gates.limits import Limits, Took, changed
from ..handlers import Handler
from .claims import Claimed, Store

SHARE = 9
"""How many times as long as a look took nobody looks again where all that is due is closed: a tenth of the time."""

MOST_CLOSED = 20_000
"""Buckets that are remembered as closed; what is forgotten is found closed again."""


class Buckets:
    """Claim the flags of one kind by turns.

    :param zone: that of budgets.
    """

    def __init__(self, handler: Handler, store: Store, zone: ZoneInfo):
        options = handler.options
        self._name = handler.kind
        self._kinds = (handler.kind, *options.aliases)
        self.limits = Limits(options.rate, options.budget, zone)
        """What holds for each bucket."""
        self._limit = options.limit
        self._store = store
        self._dialect = store.connections.dialect
        self._engine = store.connections.engine
        self._starts: dict[tuple[str, int], str | None] = {}
        self._closed: dict[str, int] = {}
        """Until when buckets are closed, in microseconds UTC."""
        self._no_look_before = 0

    @property
    def limited(self) -> bool:
        """Whether limits hold for each bucket."""
        return bool(self.limits) or self._limit is not None

    def ended(self, bucket: str | None) -> None:
        """Take note that a flag of a bucket has ended, which may let the next one of it start."""
        if self._limit is not None and bucket is not None:
            self.reopen(bucket)

    def close(self, bucket: str, until: int) -> None:
        """Take note that a bucket is to wait."""
        self._closed[bucket] = max(until, self._closed.get(bucket, 0))

    def reopen(self, bucket: str | None = None) -> None:
        """Take note that a bucket may be open again; without one, that any may: gates were changed."""
        if bucket is None:
            self._closed = {}  # Anew: a claim in another thread may be walking the one that was.
        else:
            self._closed.pop(bucket, None)
        self._no_look_before = 0

    def may_look(self, now: int) -> bool:
        """Return whether a look is worth its time again, since something has changed."""
        return now >= self._no_look_before

    def opens_at(self, now: int) -> int:
        """Return when the first closed bucket opens, in microseconds UTC."""
        return min((until for until in self._closed.values() if until > now), default=now + SECOND)

    def claim(self, kind: str, priority: int, limit: int, consumer: int, now: int, token: int, way: Way) -> list[Claimed]:
        """Claim due flags so that buckets take turns, within a ``write``; what a bucket's limits do not allow is left.

        :param way: gates that must be open.
        """
        self._closed = {bucket: until for bucket, until in self._closed.items() if until > now}
        began, start = time.monotonic(), self._starts.get((kind, priority))
        which = (kind, priority, limit, consumer, token, now, start, list(self._closed), way)
        rows, self._starts[kind, priority] = self._dialect.claim_by_bucket(self._engine, *which)
        taken = [Claimed(kind, token, row, consumer) for row in rows]
        if self.limited and taken:
            taken = self._within_limits(taken, now)
        took = int((time.monotonic() - began) * SECOND)
        self._no_look_before = 0 if taken else now + SHARE * took
        return taken

    def _within_limits(self, taken: list[Claimed], now: int) -> list[Claimed]:
        """Give back what is more than the limits of its bucket allow; the gates of buckets are locked in the order of their
        names."""
        by_bucket: dict[str, list[Claimed]] = defaultdict(list)
        for claimed in taken:
            by_bucket[claimed.rare.bucket or ""].append(claimed)
        running = self._dialect.claimed_in(self._engine, self._kinds, list(by_bucket)) if self._limit is not None else Counter()
        kept: list[Claimed] = []
        for bucket in sorted(by_bucket):
            kept += self._allowed(bucket, by_bucket[bucket], running[bucket], now)
        ids = {claimed.id for claimed in kept}
        self._store.give_back([claimed for claimed in taken if claimed.id not in ids], now)
        return kept

    def _allowed(self, bucket: str, flags: list[Claimed], running: int, now: int) -> list[Claimed]:
        """Return those of a bucket's flags that may run, the longest due first, and write what they take.

        :param running: how many of its flags are claimed, these included.
        """
        row = self._dialect.lock_gate(self._engine, self._name, bucket)
        if row is None or (row["closed_until"] or 0) > now:
            self._closed[bucket] = now + SECOND // 20 if row is None else row["closed_until"]
            return []
        count = len(flags)
        if self._limit is not None:
            count = max(0, min(count, self._limit - (running - len(flags))))
        count = self.limits.left(row, now, count)
        values = self.limits.taking(row, now, count)
        if different := changed(values, row):
            self._dialect.set_gate(self._engine, self._name, bucket, different)
        if count < len(flags) or (self._limit is not None and running >= self._limit):
            # Where one of its flags has to end first, ``ended`` says so sooner.
            least = now if self._limit is None else now + SECOND
            self._closed[bucket] = max(least, self.limits.opens_at({**row, **values}, now) or now)
        for claimed in flags[:count] if self.limits else ():
            claimed.took = Took(values.get("taken"), values.get("day"))
            claimed.taken_at = None if self.limits.rate is None else now
        return flags[:count]

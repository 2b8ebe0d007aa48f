"""Buckets: the flags of a kind that has ``per`` take turns by the values of one argument, and limits hold for each value."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from ..config import SECOND
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
        self._rate, self._budget, self._limit = options.rate, options.budget, options.limit
        self._store = store
        self._dialect = store.connections.dialect
        self._engine = store.connections.engine
        self._zone = zone
        self._starts: dict[tuple[str, int], str | None] = {}
        self._closed: dict[str, int] = {}
        """Until when buckets are closed, in microseconds UTC."""
        self._no_look_before = 0

    @property
    def limited(self) -> bool:
        """Whether limits hold for each bucket."""
        return self._rate is not None or self._budget is not None or self._limit is not None

    def ended(self, bucket: str | None) -> None:
        """Take note that a flag of a bucket has ended, which may let the next one of it start."""
        if self._limit is not None and bucket is not None:
            self._closed.pop(bucket, None)
            self._no_look_before = 0

    def close(self, bucket: str, until: int) -> None:
        """Take note that a bucket is to wait."""
        self._closed[bucket] = max(until, self._closed.get(bucket, 0))

    def reopen(self) -> None:
        """Take note that gates were changed."""
        self._closed.clear()
        self._no_look_before = 0

    def may_look(self, now: int) -> bool:
        """Return whether a look is worth its time again, since something has changed."""
        return now >= self._no_look_before

    def opens_at(self, now: int) -> int:
        """Return when the first closed bucket opens, in microseconds UTC."""
        return min((until for until in self._closed.values() if until > now), default=now + SECOND)

    def claim(self, kind: str, priority: int, limit: int, consumer: int, now: int, token: int) -> list[Claimed]:
        """Claim due flags so that buckets take turns, within a ``write``; what a bucket's limits do not allow is left."""
        self._closed = {bucket: until for bucket, until in self._closed.items() if until > now}
        began, start = time.monotonic(), self._starts.get((kind, priority))
        which = (kind, priority, limit, consumer, token, now, start, list(self._closed))
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
        running = self._running(list(by_bucket)) if self._limit is not None else Counter()
        kept: list[Claimed] = []
        for bucket in sorted(by_bucket):
            kept += self._allowed(bucket, by_bucket[bucket], running[bucket], now)
        ids = {claimed.id for claimed in kept}
        self._store.give_back([claimed for claimed in taken if claimed.id not in ids], now)
        clock = time.monotonic()
        for claimed in kept if self._rate is not None else ():
            claimed.taken_at = clock
        return kept

    def _allowed(self, bucket: str, flags: list[Claimed], running: int, now: int) -> list[Claimed]:
        """Return those of a bucket's flags that may run, the longest due first, and write what they take.

        :param running: how many of its flags are claimed, these included.
        """
        row = self._dialect.lock_gate(self._engine, self._name, bucket)
        if row is None or (row["closed_until"] or 0) > now:
            self._closed[bucket] = now + SECOND // 20 if row is None else row["closed_until"]
            return []
        count, values = len(flags), {}
        if self._limit is not None:
            count = max(0, min(count, self._limit - (running - len(flags))))
        if self._rate is not None:
            count = self._rate.take(row["taken"], now, count)[0]
        if self._budget is not None:
            count, values["day"], values["used"] = self._budget.take(row["day"], row["used"] or 0, now, self._zone, count)
        if self._rate is not None:
            values["taken"] = self._rate.take(row["taken"], now, count)[1]
        changed = {column: value for column, value in values.items() if value != row[column]}
        if changed:
            self._dialect.set_gate(self._engine, self._name, bucket, changed)
        if count < len(flags) or (self._limit is not None and running >= self._limit):
            self._closed[bucket] = self._opens_at(row, values, now)
        return flags[:count]

    def _opens_at(self, row: dict[str, Any], values: dict[str, Any], now: int) -> int:
        """Return when the next flag of a bucket may start; where one has to end for it, ``ended`` says so sooner."""
        found = [now + SECOND] if self._limit is not None else []
        if self._rate is not None and (opens := self._rate.opens_at(values.get("taken", row["taken"]), now)) is not None:
            found.append(opens)
        if self._budget is not None:
            day, used = values.get("day", row["day"]), values.get("used", row["used"] or 0)
            found += [opens] if (opens := self._budget.opens_at(day, used, now, self._zone)) is not None else []
        return max(found, default=now)

    def _running(self, buckets: Sequence[str]) -> Counter[str]:
        return self._dialect.claimed_in(self._engine, self._name, buckets)

"""Metrics in Prometheus' format: what this consumer has done since it began, and how things are in the database just now.

What was done is counted in this process, and only grows until it ends; of several consumers each counts its own, so that their
sum is right. What is in the database all of them see alike: take the greatest, not the sum. Nothing reads all flags.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ..config import SECOND
from ..consumer.outlook import Running
from ..databases.counts import DURATIONS
from ..errors import FlagSweepError
from ..models import gates as gate_rows
from ..sweep.tally import FIRST, HOWS, SPENT, most_of
from .flags import NOBODY, lane_of
from .health import CODES, Health
from .promises import promise_of
from .site import Site

MOST_KINDS = 100
"""Kinds that have a label of their own; all others are ``other`` together. Those with a handler come first."""

OTHER = "other"

MOST_COUNTED = 1000
"""Flags of a kind and priority that are counted of those that are due, and of a kind that are dead."""

REMEMBERED = 60.0
"""Seconds for which the count of the dead is good."""

PREFIX = "flagsweep"

Labelled = Sequence[tuple[Sequence[str], float]]


class Metrics:
    """Say all of it as text.

    :param health: returns how the site is.
    :param lent: lends a connection.
    """

    def __init__(
        self, site: Site, running: Running, health: Callable[[], Health], lent: Callable[[], AbstractContextManager[Any]]
    ):
        self._site = site
        self._running = running
        self._health = health
        self._lent = lent
        self._dialect = site.connections.dialect
        self._handlers = {kind: site.handler_of(kind) for kind in site.handled}
        self._dead: tuple[float, dict[str, int]] | None = None
        self._lock = threading.Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> tuple[str, bytes]:
        """Return the text, its type before it: with what the site counts in this process by itself, and what the process is."""
        with self._lock:
            ours = generate_latest(self._registry)
        try:
            return CONTENT_TYPE_LATEST, ours + generate_latest(REGISTRY)
        except Exception:  # A collector of the site's own.
            return CONTENT_TYPE_LATEST, ours

    def collect(self) -> Iterator[Metric]:
        """Yield all that is ours, as prometheus-client asks for it."""
        yield _gauge("info", "Which version runs, and as which consumer.", ("version", "consumer"), [self._about()])
        yield from self._done()
        yield from self._lanes()
        health = self._health()
        yield _gauge("health", "What 'flagsweep check' says: 0 fine, 1 warning, 2 critical.", (), [((), CODES[health.level])])
        try:
            with self._lent() as db, self._dialect.lenient(db):
                found = [*self._waiting(db, health), *self._dead_flags(db), self._gates(db)]
        except FlagSweepError:
            found = [_gauge("database_up", "Whether the database answers.", (), [((), 0)])]
        else:
            found.append(_gauge("database_up", "Whether the database answers.", (), [((), 1)]))
        yield from found

    def _about(self) -> tuple[Sequence[str], float]:
        return (_version(), str(self._running.id())), 1

    # What this process has done.

    def _done(self) -> Iterator[Metric]:
        ended = CounterMetricFamily(f"{PREFIX}_flags", "Attempts that ended, by outcome.", labels=("kind", "outcome"))
        took = HistogramMetricFamily(f"{PREFIX}_run_seconds", "How long handlers ran.", labels=("kind",))
        for kind, row in self._merged(self._running.totals.by_kind()).items():
            for how, number in HOWS.items():
                ended.add_metric((kind, how), row[number])
            took.add_metric((kind,), _buckets(row[FIRST:]), row[SPENT] / SECOND)
        yield ended
        yield took

    def _merged(self, rows: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Return the rows of each kind that has a label, and of all others together."""
        found: dict[str, list[int]] = {}
        for kind, row in rows.items():
            label = self._label(kind, rows)
            found[label] = [a + b for a, b in zip(found[label], row, strict=True)] if label in found else list(row)
        return found

    def _label(self, kind: str, among: Mapping[str, Any]) -> str:
        return kind if kind in self._labelled(among) else OTHER

    def _labelled(self, among: Mapping[str, Any]) -> set[str]:
        """Return the kinds that have a label: those with a handler, then the others of these, as many as there may be."""
        if len(self._handlers) + len(among) <= MOST_KINDS:
            return {*self._handlers, *among}
        return set(sorted({*self._handlers, *among}, key=lambda kind: (kind not in self._handlers, kind))[:MOST_KINDS])

    def _lanes(self) -> Iterator[Metric]:
        lanes = self._running.lanes.items()
        running = [((name,), len(lane.pool.under_way())) for name, lane in lanes]
        yield _gauge("running_flags", "Flags whose handlers run in this process.", ("lane",), running)
        yield _gauge(
            "threads", "Threads of this process, by lane.", ("lane",), [((name,), lane.pool.size) for name, lane in lanes]
        )
        swept = [((name,), lane.swept_at / SECOND) for name, lane in lanes if lane.swept_at is not None]
        yield _gauge("last_sweep_timestamp_seconds", "When this process last swept a lane.", ("lane",), swept)

    # What is in the database.

    def _waiting(self, db: Any, health: Health) -> Iterator[Metric]:
        """Yield what is due; the health has just asked since when."""
        among = {wait.kind: wait for wait in health.waits}
        oldest: dict[tuple[str, str], float] = {}
        for wait in health.waits:
            at = (self._label(wait.kind, among), wait.lane)
            oldest[at] = max(wait.waited_s, oldest.get(at, 0.0))
        due = dict.fromkeys(oldest, 0.0)
        now = self._site.clock.now()
        for kind, priority, earliest in self._dialect.agenda(db, json.dumps(list(among))) if among else ():
            if isinstance(earliest, int) and earliest <= now:
                at = (self._label(kind, among), among[kind].lane)
                due[at] += self._dialect.due_behind(db, kind, priority, now, MOST_COUNTED)
        of = ("kind", "lane")
        capped = f"Flags that are due, counted up to {MOST_COUNTED} of each kind and priority."
        yield _gauge("due_flags", capped, of, list(due.items()))
        yield _gauge("oldest_due_seconds", "For how long the flag waits that is due for the longest.", of, list(oldest.items()))
        lanes = sorted({*self._running.lanes, *(wait.lane for wait in health.waits)} - {NOBODY})
        promised = {lane: promise_of(lane, self._site.settings) for lane in lanes}
        said = [((lane,), seconds) for lane, (seconds, is_said) in promised.items() if is_said]
        yield _gauge("promise_seconds", "For how long a due flag of a lane should wait at the most.", ("lane",), said)
        late = {wait.lane for wait in health.waits if wait.broken and wait.said}
        broken = [((lane,), float(lane in late)) for lane in lanes if promised[lane][1]]
        yield _gauge("promise_broken", "Whether a due flag of a lane waits for longer than was promised.", ("lane",), broken)

    def _dead_flags(self, db: Any) -> Iterator[Metric]:
        if self._dead is None or time.monotonic() - self._dead[0] > REMEMBERED:
            self._dead = time.monotonic(), self._dialect.dead_by_kind(db, MOST_COUNTED, MOST_KINDS)
        counts = self._dead[1]
        merged: dict[tuple[str, str], float] = {}
        for kind, count in counts.items():
            at = (self._label(kind, counts), lane_of(self._handlers, kind))
            merged[at] = merged.get(at, 0.0) + count
        capped = f"Flags that are dead, counted up to {MOST_COUNTED} of each kind, once a minute."
        yield _gauge("dead_flags", capped, ("kind", "lane"), list(merged.items()))

    def _gates(self, db: Any) -> Metric:
        from .promises import closed_gates

        closed = closed_gates(gate_rows(db), self._handlers, self._site.settings, self._site.clock.now())
        labels = [((sort, name, "yes" if gate.by is not None else "no"), 1.0) for (sort, name), gate in sorted(closed.items())]
        return _gauge("gate_closed", "Gates that are closed just now.", ("sort", "name", "by_hand"), labels[:MOST_KINDS])


def _gauge(name: str, about: str, labels: Sequence[str], values: Labelled) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", about, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return how many runs took no longer than each bound; the last has none."""
    found, sofar = [], 0
    for slot, count in enumerate(counts):
        sofar += count
        found.append((str(most_of(slot)) if slot < len(DURATIONS) - 1 else "+Inf", float(sofar)))
    return found


@cache
def _version() -> str:
    try:
        return version("flagsweep")
    except PackageNotFoundError:  # A checkout that was never installed.
        return ""

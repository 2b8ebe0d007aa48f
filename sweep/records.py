"""Records: history and counts, kept for as long as the settings say, and thinned out in short transactions."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from peewee import Database, fn

from ..config import SECOND
from ..databases.connections import Connections
from ..databases.counts import COLUMNS, DURATIONS, MOSTS, SUMS
from ..databases.pacer import Pacer
from ..databases.pages import PAGE, SHARE, Progress
from ..gates.rates import state_of
from ..models import Consumer, Count, Gate, History, Hold, Pulse
from .tally import MINUTE

HOUR = 3600
BUCKETS = 200
"""Gates of buckets that are deleted in one transaction."""

PULSES = 100
"""Pulses that are kept at the most: they are counted at every look."""

DAYS = 719_163
"""The ordinal of 1970-01-01, as budgets count days."""

MOST_COUNTED = 10**14
"""What no row counts more of, microseconds neither: those of four thousand threads in an hour are a seventh of it."""

FINE = 2 * 86400
"""Seconds for which counts are kept by the minute."""


class Records:
    """Thin out what is kept of what was done."""

    def __init__(self, connections: Connections, progress: Progress = None):
        self._connections = connections
        self._engine = connections.engine
        self._progress = progress
        self._gone = 0

    def prune(self, keep: Mapping[str, float], most: int, now: int) -> int:
        """Delete history that is older than it is kept, and what is more than so many lines; return how many.

        :param keep: seconds by event.
        """
        gone = self._delete_up_to((self._engine_scalar(fn.MAX(History.id)) or 0) - most)
        for event, seconds in keep.items():
            gone += self._delete((History.event == event) & (History.at < now - int(seconds * SECOND)), History.at)
        oldest = now - int(max(keep.values()) * SECOND)
        return gone + self._delete(History.at < oldest, History.at)

    def outdated(self, keep: Mapping[str, float], most: int, now: int) -> int:
        """Return how many lines ``prune`` would delete just now."""
        last = (self._engine_scalar(fn.MAX(History.id)) or 0) - most
        old = (History.id <= last) | (History.at < now - int(max(keep.values()) * SECOND))
        for event, seconds in keep.items():
            old |= (History.event == event) & (History.at < now - int(seconds * SECOND))
        return int(next(iter(History.select(fn.COUNT(History.id)).where(old).tuples().execute(self._engine)))[0])

    def counts_before(self, at: int) -> int:
        """Return how many counts there are of before a moment."""
        query = Count.select(fn.COUNT(Count.at)).where(Count.span.in_([MINUTE, HOUR]), Count.at < at)
        return int(next(iter(query.tuples().execute(self._engine)))[0])

    def forget_counts(self, at: int) -> int:
        """Delete the counts of before a moment, a minute's or an hour's at a time; return how many."""
        gone, pacer = 0, Pacer(SHARE, PAGE)
        for span in (MINUTE, HOUR):
            old = Count.select(Count.at).where(Count.span == span, Count.at < at).order_by(Count.at).tuples()
            while found := list(old.limit(1).execute(self._engine)):
                pacer.turn()
                with self._connections.write():
                    began = time.monotonic()
                    these = (Count.span == span) & (Count.at == found[0][0])
                    gone += Count.delete().where(these).execute(self._engine)
                pacer.ended(began, 1)
        return gone

    def _engine_scalar(self, value: Any) -> Any:
        return next(iter(History.select(value).tuples().execute(self._engine)))[0]

    def _delete_up_to(self, id: int) -> int:
        return self._delete(History.id <= id, History.id) if id > 0 else 0

    def _delete(self, where: Any, order: Any) -> int:
        """Delete lines some at a time, so that nobody waits long for the writer."""
        pacer, gone = Pacer(SHARE, PAGE), 0
        old = History.select(History.id).where(where).order_by(order).tuples()
        while ids := [row[0] for row in old.limit(pacer.batch).execute(self._engine)]:
            pacer.turn()
            with self._connections.write():
                began = time.monotonic()
                gone += History.delete().where(History.id.in_(ids)).execute(self._engine)
            pacer.ended(began, len(ids))
            self._gone += len(ids)
            if self._progress is not None:
                self._progress(self._gone)
        return gone

    def forget_gates(self, now: int) -> int:
        """Delete gates of buckets that let through again all they ever do, and slots that nobody holds; return how many gates."""
        today, gone = now // (86400 * SECOND) + DAYS, 0
        of_bucket = (Gate.bucket != "") & (Gate.taken.is_null() | (Gate.taken < state_of(now)))
        idle = (
            of_bucket & (Gate.day.is_null() | (Gate.day < today - 1)) & (Gate.closed_until.is_null() | (Gate.closed_until < now))
        )
        names = Gate.select(Gate.sort, Gate.name, Gate.bucket).where(idle).tuples()
        while found := list(names.limit(BUCKETS).execute(self._engine)):
            with self._connections.write():
                for sort, name, bucket in found:
                    this = (Gate.sort == sort) & (Gate.name == name) & (Gate.bucket == bucket)
                    gone += Gate.delete().where(this & idle).execute(self._engine)
        if (last := self._most_pulses()) is not None:
            with self._connections.write():
                Pulse.delete().where(Pulse.id < last).execute(self._engine)
        held = {row[0] for row in Hold.select(Hold.consumer).tuples().execute(self._engine)}
        for consumer in held - {row[0] for row in Consumer.select(Consumer.id).tuples().execute(self._engine)}:
            with self._connections.write():
                self._connections.dialect.forget_holds(self._engine, consumer)
        return gone

    def _most_pulses(self) -> int | None:
        """Return the last pulse where there are many before it."""
        last, count = next(iter(Pulse.select(fn.MAX(Pulse.id), fn.COUNT(Pulse.id)).tuples().execute(self._engine)))
        return last if count > PULSES else None

    def roll(self, keep: float, now: int) -> None:
        """Add up the minutes of each hour that is over for two days, and drop hours that are older than counts are kept.

        :param keep: seconds.
        """
        until = (now - FINE * SECOND) // (HOUR * SECOND) * HOUR * SECOND
        minutes = Count.select(Count.kind, Count.at).where(Count.span == MINUTE, Count.at < until).order_by(Count.at).limit(1)
        while found := list(minutes.tuples().execute(self._engine)):
            kind, at = found[0]
            self._roll_hour(kind, at // (HOUR * SECOND) * HOUR * SECOND)
        old = (Count.span == HOUR) & (Count.at < now - int(keep * SECOND))
        while ats := list(Count.select(Count.at).where(old).order_by(Count.at).limit(1).tuples().execute(self._engine)):
            with self._connections.write():
                Count.delete().where(Count.span == HOUR, Count.at == ats[0][0]).execute(self._engine)

    def _roll_hour(self, kind: Any, hour: int) -> None:
        of_it = (Count.kind == kind) & (Count.span == MINUTE) & (Count.at >= hour) & (Count.at < hour + HOUR * SECOND)
        with self._connections.write():
            rows = list(Count.select().where(of_it).dicts().execute(self._engine))
            Count.delete().where(of_it).execute(self._engine)
            self._connections.dialect.count(self._engine, [added_up(rows, kind=kind, span=HOUR, at=hour, consumer=0)])


def totals(db: Database, since: int) -> dict[str, dict[str, int]]:
    """Return what was counted by the minute since a moment, added up by kind.

    :param since: microseconds UTC, no longer ago than counts are kept by the minute.
    """
    return _added_by_kind(db, (Count.span == MINUTE) & (Count.at >= since))


def between(db: Database, since: int, until: int) -> dict[str, dict[str, int]]:
    """Return what was counted between two moments, by the minute or by the hour, added up by kind."""
    return _added_by_kind(db, (Count.at >= since) & (Count.at < until))


def only_failed(db: Database, since: int, least: int) -> list[tuple[str, int]]:
    """Return the kinds of which so many runs were counted since a moment, and all of them failed, with how many."""
    well = (Count.succeeded, Count.snoozed, Count.discarded)
    failed, rest = fn.SUM(Count.failed) + fn.SUM(Count.dead), sum((fn.SUM(each) for each in well[1:]), fn.SUM(well[0]))
    sound = [each.between(0, MOST_COUNTED) for each in (*well, Count.failed, Count.dead)]
    query = Count.select(Count.kind, failed).where(Count.span == MINUTE, Count.at >= since, *sound).group_by(Count.kind)
    return [(str(kind), int(runs)) for kind, runs in query.having(rest == 0, failed >= least).tuples().execute(db)]


def _added_by_kind(db: Database, which: Any) -> dict[str, dict[str, int]]:
    """Return counts added up by kind, without rows that a hand has damaged: text is larger than any number there."""
    sums = [fn.SUM(getattr(Count, name)).alias(name) for name in (*SUMS, *DURATIONS)]
    mosts = [fn.MAX(getattr(Count, name)).alias(name) for name in MOSTS]
    sound = [getattr(Count, name).between(0, MOST_COUNTED) for name in (*SUMS, *DURATIONS, *MOSTS)]
    query = Count.select(Count.kind, *sums, *mosts).where(which, *sound).group_by(Count.kind)
    return {row.pop("kind"): {name: int(value) for name, value in row.items()} for row in query.dicts().execute(db)}


def counted_since(db: Database) -> int | None:
    """Return when the oldest count was made that is kept, in microseconds UTC, or None."""
    return next(iter(Count.select(fn.MIN(Count.at)).tuples().execute(db)))[0]


def added_up(rows: Iterable[Mapping[str, Any]], **named: Any) -> tuple:
    """Return counts added up, in the order of ``COLUMNS``.

    :param named: what the sum is of.
    """
    values = list(rows)
    sums = {name: sum(row[name] for row in values) for name in (*SUMS, *DURATIONS)}
    mosts = {name: max((row[name] for row in values), default=0) for name in MOSTS}
    row = {**named, **sums, **mosts}
    return tuple(row[name] for name in COLUMNS)


class Wanted(NamedTuple):
    """Say which lines of history are asked for; None: any. Times are in microseconds UTC."""

    kind: str | None = None
    key: str | None = None
    flag: int | None = None
    event: str | None = None
    since: int | None = None
    until: int | None = None


def lines(db: Database, wanted: Wanted, most: int, look: int) -> tuple[list[History], int | None]:
    """Return lines of history, newest first, and the time before which nobody has looked; None: all was looked at.

    One index is gone down from the newest line, no further than ``look`` lines: what it does not have is compared line by line.
    """
    within = _within(wanted)
    if wanted.flag is not None:
        drive, end = [History.flag == wanted.flag], None
    else:
        drives = [
            [getattr(History, name) == getattr(wanted, name)] for name in ("kind", "event") if getattr(wanted, name) is not None
        ]
        ends = [(_end(db, [*each, *within], look), each) for each in drives or [[]]]
        end, drive = min(ends, key=lambda found: found[0] or 0)
    others = [] if end is None else [History.at > end]
    for name in ("kind", "key", "event"):
        if (value := getattr(wanted, name)) is not None and not any(each.lhs is getattr(History, name) for each in drive):
            others.append(_unindexed(getattr(History, name)) == value)
    query = _where(History.select(), [*drive, *within, *others]).order_by(History.at.desc(), History.id.desc()).limit(most)
    found = list(query.execute(db))
    return found, None if len(found) == most else end


def _within(wanted: Wanted) -> list[Any]:
    since = [] if wanted.since is None else [History.at >= wanted.since]
    return since + ([] if wanted.until is None else [History.at < wanted.until])


def _end(db: Database, where: list[Any], look: int) -> int | None:
    """Return the time of the line that is one too many to look at; the index alone is read for it."""
    found = _where(History.select(History.at), where).order_by(History.at.desc()).limit(1).offset(look).tuples().execute(db)
    return next((row[0] for row in found), None)


def _where(query: Any, conditions: list[Any]) -> Any:
    return query.where(*conditions) if conditions else query


def _unindexed(field: Any) -> Any:
    """Return a column such that no index is gone through for it."""
    return fn.COALESCE(field, "")

"""Reconcile: what does not fit together, though each part of it does, and what mends it as a sweep would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..consumer.leases import Leases
from ..consumer.membership import Enlisted, folder_for
from ..consumer.rescue import Rescuer
from ..databases import schema
from ..errors import ConfigError
from ..handlers import Handler
from ..logs import describe, headline
from ..models import Flag, Hold, Schedule, found
from ..schedules.book import plan_of
from .site import Site

PAGE = 500
"""Rows or flags that are looked at together."""
MOST = 10_000
"""So many rows without a flag are counted, where they are not raised."""
NAMED = 5
"""So many examples are named."""
GONE = "the row that it stands for is gone"


@dataclass
class Discrepancy:
    """Tell of one thing that does not fit."""

    what: str
    """``rows`` (work is owed and no flag is up), ``gone`` (a flag's own row is), ``claims`` (of nobody), ``holds`` (of nobody),
    ``kinds`` (that no handler takes), ``schedules`` (that cannot fire), or ``blind`` (a kind that could not be looked at)."""
    name: str
    """The kind or schedule, where it is one's."""
    count: int
    text: str
    fix: str
    """What mends it."""
    examples: list[str]
    mended: int = 0
    more: bool = False
    """Whether there may be more than were counted."""

    @property
    def left(self) -> int:
        """How many are as they were."""
        return max(0, self.count - self.mended)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {**asdict(self), "left": self.left}


class Reconcile:
    """Look for what does not fit, some at a time, in statements and transactions that are short.

    :param fix: mend what can be mended without a decision: raise, release, or drop with a line of history.
    :param progress: called with what is looked at.
    """

    def __init__(self, site: Site, fix: bool = False, progress: Callable[[str], Any] | None = None):
        self._site = site
        self._fix = fix
        self._progress = progress
        self._store = site.store
        self._connections = site.connections
        self._dialect = site.connections.dialect
        self._db = site.connections.engine
        self._now = site.clock.now()

    def all(self) -> list[Discrepancy]:
        """Return all that was found, and what was mended of it.

        :raises DatabaseAway, NotReady: where the database cannot be asked.
        """
        schema.require(self._connections)
        looks = (self._claims, self._holds, self._rows, self._gone, self._kinds, self._schedules)
        try:
            with self._connections.explained("not all was looked at"):
                return [each for look in looks for each in look()]
        finally:
            self._connections.close_engine()

    def _own(self) -> Iterator[Handler]:
        """Yield the handlers of own rows."""
        for handler in dict.fromkeys(self._site.handlers.values()):
            if handler.rows is not None:
                self._tell(handler.kind)
                yield handler

    def _tell(self, what: str) -> None:
        if self._progress is not None:
            self._progress(what)

    # Claims and holds of nobody.

    def _claims(self) -> Iterator[Discrepancy]:
        self._tell("claims")
        nobody = Flag.claimed_by.is_null() | Flag.claim_token.is_null()
        unsaid = [id for ids in found(self._db, [Flag.state == "claimed", nobody]) for id in ids]
        dead = self._dead_claimers()
        ids = [id for each in dead for id in self._dialect.claimed_ids(self._db, each)]
        count = len(ids) + len(set(unsaid) - set(ids))
        if not count:
            return
        text = f"{count} flags are claimed by nobody who lives: consumer {', '.join(map(str, dead)) or 'unknown'}"
        told = Discrepancy(
            "claims", "", count, text, "they are given back, as the next run or sweep would", _first(ids or unsaid)
        )
        if self._fix:
            self._rescue()
            told.mended = count - sum(len(self._dialect.claimed_ids(self._db, each)) for each in dead)
        yield told

    def _dead_claimers(self) -> list[int]:
        """Return those who have claims and do not live, by their leases."""
        claimers = [each for each in self._dialect.claimers(self._db) if each is not None]
        peers = self._store.peers()
        dead = [each for each in claimers if each not in peers]
        if (known := [peers[each] for each in claimers if each in peers]) and not self._connections.in_memory:
            leases = Leases(self._connections, folder_for(self._store, self._site.settings.state_dir))
            try:
                dead += [peer.id for peer in known if not leases.is_held(peer.id)]
            finally:
                leases.close()
        return sorted(dead)

    def _rescue(self) -> None:
        """Free what the dead had claimed, as a sweep does that begins: what was running is charged."""
        duties = self._site._duties()
        member = Enlisted(duties)
        try:
            Rescuer(member, duties.options_of, duties.on_failed).free_the_dead()
            self._store.release_orphans(self._now)
            self._store.release_nobodys(self._now)
        finally:
            member.leave()

    def _holds(self) -> Iterator[Discrepancy]:
        peers = self._store.peers()
        gone = sorted({row.consumer for row in Hold.select().execute(self._db)} - set(peers))
        if gone:
            text = f"{len(gone)} consumers that are gone hold slots of kinds"
            told = Discrepancy("holds", "", len(gone), text, "their rows are dropped; nobody counts them", _first(gone))
            if self._fix:
                with self._connections.write():
                    for each in gone:
                        self._dialect.forget_holds(self._db, each)
                told.mended = len(gone)
            yield told

    # Own rows.

    def _rows(self) -> Iterator[Discrepancy]:
        """Rows that meet a condition and have no flag."""
        for handler in self._own():
            try:
                yield from self._rows_of(handler)
            except Exception as error:
                yield self._blind(handler, error)

    def _rows_of(self, handler: Handler) -> Iterator[Discrepancy]:
        keys, mended = self._owed(handler, PAGE if self._fix else MOST), 0
        if not keys:
            return
        first, count, more = keys, len(keys), len(keys) == MOST
        while self._fix and keys:
            with self._connections.write():
                mended += (raised := self._store.discover(handler.kind, keys, handler.options.priority, self._now))
            keys = self._owed(handler, PAGE) if raised else []
            count += len(keys)
        text = f"{count}{' or more' if more else ''} rows of {handler.kind} meet their condition, and no flag is up for them"
        fix = "flags are raised for them, as the next sweep would"
        yield Discrepancy("rows", handler.kind, count, text, fix, _first(key for key, _ in first), mended, more)

    def _owed(self, handler: Handler, limit: int) -> list[tuple[str, str]]:
        assert handler.rows is not None
        return handler.rows.find(self._db, self._dialect, handler.kind, limit, handler.options.aliases)

    def _gone(self) -> Iterator[Discrepancy]:
        """Flags whose own row is gone."""
        for handler in self._own():
            kinds = (handler.kind, *handler.options.aliases)
            try:
                ids, named = self._flags_without_row(handler, kinds)
            except Exception as error:
                yield self._blind(handler, error)
                continue
            if ids:
                text = f"{len(ids)} flags of {handler.kind} stand for rows that are gone"
                fix = "they are dropped, with a line of history each"
                told = Discrepancy("gone", handler.kind, len(ids), text, fix, named)
                if self._fix:
                    told.mended = self._store.drop(ids, GONE, self._now)
                yield told

    def _flags_without_row(self, handler: Handler, kinds: tuple[str, ...]) -> tuple[list[int], list[str]]:
        ids: list[int] = []
        named: list[str] = []
        for kind in kinds:
            last: tuple[Any, ...] = ()
            while rows := self._next_of(kind, last):
                there = handler.rows.there(self._db, self._dialect, [str(key) for _, key in rows])  # type: ignore[union-attr]
                gone = [(id, str(key)) for id, key in rows if str(key) not in there]
                ids += [id for id, _ in gone]
                named = (named + [key for _, key in gone])[:NAMED]
                last = (rows[-1][1],)
        return ids, named

    def _next_of(self, kind: str, last: tuple[Any, ...]) -> list[tuple[int, Any]]:
        """Return the next flags of a kind that nobody has claimed, by their keys: so an index of this kind alone is read."""
        query = Flag.select(Flag.id, Flag.key).where(Flag.kind == kind, Flag.state != "claimed").order_by(Flag.key)
        behind = query.where(Flag.key > last[0]) if last else query
        return list(behind.limit(PAGE).tuples().execute(self._db))

    def _blind(self, handler: Handler, error: Exception) -> Discrepancy:
        """Tell of a kind whose rows could not be looked at: the others were."""
        if self._dialect.is_away(error) and not isinstance(error, ConfigError):
            raise error
        why = headline(describe(error))
        text = f"the rows of {handler.kind} could not be looked at: {why}"
        return Discrepancy("blind", handler.kind, 1, text, "mend its table or its condition", [])

    # What takes a person.

    def _kinds(self) -> Iterator[Discrepancy]:
        """Kinds with flags that no handler takes; without any handler nobody knows."""
        for kind in self._site.verbs.kinds_up() if self._site.handlers else ():
            if kind in self._site.handled:
                continue
            query = Flag.select(Flag.key).where(Flag.kind == kind).limit(MOST).tuples()
            keys = [str(row[0]) for row in query.execute(self._db)]
            text = f"{len(keys)}{' or more' if len(keys) == MOST else ''} flags have the kind {kind}, which no handler here takes"
            fix = "register a handler, give one the alias, or discard them; another application may have it"
            yield Discrepancy("kinds", kind, len(keys), text, fix, _first(keys), more=len(keys) == MOST)

    def _schedules(self) -> Iterator[Discrepancy]:
        """Schedules that cannot fire."""
        with self._dialect.lenient(self._db):
            rows = list(Schedule.select().order_by(Schedule.name).execute(self._db))
        for row in rows:
            name = str(row.name)
            try:
                plan_of(row)
            except (ConfigError, TypeError, ValueError) as error:
                text = f"the schedule {name} cannot be read: {' '.join(str(error).split())}"
                yield Discrepancy("schedules", name, 1, text, f"'flagsweep schedule edit {name}' or 'schedule remove {name}'", [])
                continue
            if self._site.handlers and row.kind not in self._site.handled:
                text = f"the schedule {name} raises {row.kind}, which no handler here takes: it does not fire"
                yield Discrepancy("schedules", name, 1, text, f"register a handler, or 'flagsweep schedule remove {name}'", [])


def _first(values: Iterable[Any]) -> list[str]:
    return [str(value) for value, _ in zip(values, range(NAMED), strict=False)]

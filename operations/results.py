"""Results: what became of a raise, found in its flag and in history, and waited for where that is seen."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..config import Settings, seconds
from ..consumer.wakeups import Bell, choose_bell
from ..errors import ConfigError, FlagSweepError, NotDone
from ..models import Flag, History, Raised, SiteVerbs
from ..sweep.claims import Store

POLL = 0.05
"""Seconds between two looks where nobody tells of a commit."""

FIRST, GROWTH, LAST, WINDOW = 0.0003, 1.5, 0.25, 10.0
"""A write is seen before its commit can be read: seconds between looks from then on, how they grow, and how long."""

BY_HAND = "lowered by hand"


@dataclass(frozen=True)
class Result:
    """Say what became of a raise.

    ``state`` is ``waiting``, ``claimed`` (a run that began after the raise is at work), ``lowered`` (done), ``dead``,
    ``discarded``, ``expired``, or ``gone``: nothing is known any more, since it was done without ``result=True``, its history
    was pruned, or its transaction was rolled back. ``value`` is what the handler returned, ``error`` why it is not done.
    """

    state: str
    value: Any = None
    error: str | None = None
    _again: Callable[[float | None], Result] | None = field(default=None, repr=False, compare=False)

    @property
    def is_over(self) -> bool:
        """Whether nothing more becomes of it by itself."""
        return self.state not in ("waiting", "claimed")

    def wait(self, timeout: object = None) -> Result:
        """Wait until it is over, and return the result then. Where commits are seen this polls nothing.

        :param timeout: seconds, a ``timedelta`` or text such as ``"5m"``; None: as long as it takes.
        :raises NotDone: where it is not over in that time.
        :raises FlagSweepError: within an open transaction, before whose end nobody does the work.
        """
        limit = None if timeout is None else seconds(timeout, "timeout")
        return self if self.is_over or self._again is None else self._again(limit)


class _Told(NamedTuple):
    """Hold what history says of a flag."""

    event: str
    reason: str
    result: str | None


class Results:
    """Find results."""

    def __init__(self, store: Store, verbs: SiteVerbs, settings: Settings):
        self._store = store
        self._verbs = verbs
        self._connections = store.connections
        self._settings = settings

    def of(self, raised: Raised) -> Result:
        """Return what became of a raise, over the site's connection."""
        if not isinstance(raised, Raised):
            raise ConfigError(f"a result is that of a raise: give what raise_flag returned, got {raised!r}")
        with self._connections.lent("the result could not be read") as db:
            found = found_in(db, raised)
        if found.state == "gone" and self._is_pending(raised):
            found = Result("waiting")
        return Result(found.state, found.value, found.error, lambda timeout: self._wait(raised, timeout))

    def _is_pending(self, raised: Raised) -> bool:
        """Return whether a raise is a part of a transaction that is open on another connection of the site's."""
        if self._connections.in_memory:
            return False  # There is but one connection.
        try:
            return raised.is_pending()
        except Exception:  # That connection is closed, or another thread's.
            return False

    def _is_unseen(self, raised: Raised) -> bool:
        """Return whether it is, and nothing of it to be seen: with some layers it may be a later transaction that is open."""
        if not self._is_pending(raised):
            return False
        with self._connections.lent("the result could not be read") as db:
            flag = Flag.select(Flag.id).where((Flag.id == raised.id) & (Flag.generation >= raised.generation))
            return not list(flag.execute(db)) and found_in(db, raised).state not in ("lowered", "discarded", "expired")

    def _wait(self, raised: Raised, timeout: float | None) -> Result:
        connections = self._connections
        if connections.in_memory:
            raise ConfigError("nobody else sees a database in memory, so nobody else does the work: call sweep(), then result()")
        if connections.is_site_in_transaction() or self._is_unseen(raised):
            raise FlagSweepError("wait() within an open transaction would wait for ever: its flag is seen once that commits")
        mine = connections.engine.is_closed()
        bell = choose_bell(self._settings.watch, self._store, POLL, results=True)
        try:
            with connections.explained("the result could not be read"):
                return _Watch(self._store, bell, raised).wait(math.inf if timeout is None else timeout)
        finally:
            bell.free()
            if mine:
                connections.close_engine()


class _Watch:
    """Look for a result whenever something was committed."""

    def __init__(self, store: Store, bell: Bell, raised: Raised):
        self._store = store
        self._bell = bell
        self._raised = raised

    def wait(self, timeout: float) -> Result:
        """Return the result once it is over.

        :param timeout: seconds.
        """
        now = time.monotonic()
        end, alert, until = now + timeout, None, 0.0
        self._bell.wait(0, None)  # From now on it hears.
        version, found = self._store.changes(), self._found()
        while not found.is_over:
            if now >= end:
                so = f"flag {self._raised.id} is {found.state}, not done within {timeout:g} s"
                raise NotDone(f"{so}: wait longer, or see whether a consumer runs ('flagsweep status')")
            rung = self._bell.wait(min(end - now, LAST if alert is not None else 1.0), alert)
            seen, version = version, self._store.changes()
            if rung or seen != version:
                found = self._found()
            now = time.monotonic()
            if rung and self._bell.rings_early:
                alert, until = FIRST, now + WINDOW
            elif alert is not None:
                alert = min(LAST, alert * GROWTH) if now < until else None
        return found

    def _found(self) -> Result:
        return found_in(self._store.connections.engine, self._raised)


def found_in(db: Any, raised: Raised) -> Result:
    """Return what the flag and its history say of a raise.

    The flag is read first: what is lowered between the two is found in history.
    """
    fields = (Flag.state, Flag.generation, Flag.claimed_generation, Flag.error)
    flag = next(iter(Flag.select(*fields).where(Flag.id == raised.id).execute(db)), None)
    of_flag = History.select(History.event, History.reason, History.result).where(History.flag == raised.id).tuples()
    begun_after = (History.event == "succeeded") & (History.generation >= raised.generation)
    done = _first(db, of_flag.where(begun_after).order_by(History.generation, History.id))
    if done is not None:
        return _lowered(done)
    if flag is not None:
        state = flag.state
        if state == "claimed" and (flag.claimed_generation or 0) < raised.generation:
            state = "waiting"
        return Result(state, error=flag.error)
    last = _first(db, of_flag.where(History.event.in_(("discarded", "expired", BY_HAND))).order_by(History.id.desc()))
    return Result("gone") if last is None else _given_up(last)


def _lowered(done: _Told) -> Result:
    try:
        return Result("lowered", None if done.result is None else json.loads(done.result))
    except (ValueError, RecursionError) as error:
        return Result("lowered", error=f"its result was damaged, and is no JSON: {error}")


def _first(db: Any, query: Any) -> _Told | None:
    return next((_Told(*row) for row in query.limit(1).execute(db)), None)


def _given_up(last: _Told) -> Result:
    by_hand = last.event == BY_HAND
    return Result("discarded" if by_hand else last.event, error=f"{BY_HAND}: {last.reason}" if by_hand else last.reason)

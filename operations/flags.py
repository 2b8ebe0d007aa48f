"""Flags, as people look after them: find, retry, discard, lower."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..config import Clock
from ..errors import ConfigError
from ..handlers import Handler
from ..models import Flag, SiteVerbs, in_error
from .info import FlagInfo
from .moments import past

NOBODY = "-"
"""The lane under which flags of a kind without handler are shown."""

STATES = ("waiting", "claimed", "dead")

Ids = int | Iterable[int] | None
Progress = Callable[[int], None] | None


class Flags:
    """Do what people ask of flags, as ``FlagSweep`` says.

    :param handlers: by kind, aliases included.
    """

    def __init__(self, verbs: SiteVerbs, handlers: Mapping[str, Handler], clock: Clock):
        self._verbs = verbs
        self._connections = verbs.connections
        self._handlers = handlers
        self._clock = clock

    def find(self, limit: int | None = 100, **what: Any) -> list[FlagInfo]:
        """Return the flags that meet all that is given, lowest id first.

        :raises ConfigError: where the limit or the state is none.
        """
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise ConfigError(f"limit must be a whole number from 0, got {limit!r}")
        flags = self._verbs.find(self._where(**what), limit)
        return [FlagInfo.of(flag, lane_of(self._handlers, flag.kind)) for flag in flags]

    def retry(self, id: Ids, kind: str | None, key: str | None, progress: Callable[[int], None] | None) -> int:
        """Let dead flags wait again, and those that back off be due now; return how many."""
        return self._verbs.retry(self._where(kind=kind, key=key, id=id), self._clock.now(), progress)

    def lower(self, kind: str, key: str) -> bool:
        """Take a flag down; return whether it was up."""
        connections = self._connections
        with connections.explained("the flag was not lowered"), connections.borrowed() as db, db.atomic():
            flags = self._verbs.find(self._where(kind=kind, key=key))
            lowered = self._verbs.lower_one(kind, key, self._clock.now())
            self._lower_rows(flags)
        return lowered

    def _where(
        self,
        kind: str | None = None,
        state: str | None = None,
        key: str | None = None,
        lane: str | None = None,
        id: Ids = None,
        due: bool | None = None,
        error: str | None = None,
        before: object = None,
        after: object = None,
    ) -> list[Any]:
        if state is not None and state not in STATES:
            raise ConfigError(f"state must be one of {', '.join(STATES)}, got {state!r}")
        where: list[Any] = [Flag.kind == kind] if kind is not None else []
        where += [Flag.state == state] if state is not None else []
        if key is not None:  # The index of keys begins with the kind: to name all kinds is quicker than to read all flags.
            where += [Flag.key == key] if kind is not None else [Flag.key == key, Flag.kind.in_(self._verbs.kinds_up())]
        if id is not None:
            where.append(Flag.id.in_([id] if isinstance(id, int) else list(id)))
        if lane is not None:
            kinds = [k for k, h in self._handlers.items() if lane in (h.lane, NOBODY)]
            where.append(Flag.kind.not_in(kinds) if lane == NOBODY else Flag.kind.in_(kinds))
        if due is not None:
            is_due = (Flag.state == "waiting") & (Flag.due_at <= self._clock.now())
            where.append(is_due if due else ~is_due)
        if error is not None:
            where.append(in_error(error))
        for moment, what in ((before, "before"), (after, "after")):
            if moment is not None:
                at = past(moment, self._clock.now(), what)
                where.append(Flag.died_at < at if what == "before" else Flag.died_at >= at)
        return where

    def _lower_rows(self, flags: Iterable[Flag]) -> None:
        """Lower columns of own rows within the open transaction, each by itself: a table may be gone, a key may be none."""
        db, dialect = self._connections.site, self._connections.dialect
        for flag in flags:
            handler = self._handlers.get(flag.kind)
            if handler is not None and handler.rows is not None:
                try:
                    with dialect.undoable(db):
                        handler.rows.lower(db, dialect, flag.key)
                except Exception as error:
                    if dialect.is_away(error) or not dialect.in_transaction(db):
                        raise


def lane_of(handlers: Mapping[str, Handler], kind: str) -> str:
    """Return the lane of a kind, or the one under which kinds without a handler are shown."""
    return handlers[kind].lane if kind in handlers else NOBODY

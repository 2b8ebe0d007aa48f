"""What runs just now: who has claimed flags, which of them a handler has in hand, and since when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..config import SECOND
from ..databases.state_folder import folder_of, path_on_host
from ..handlers import Handler
from ..logs import clean
from ..models import CLAIMED, Flag
from ..sweep.blackbox import BlackBox
from ..sweep.claims import Store
from .flags import lane_of
from .info import moment
from .status import consumers

MOST = 100
"""Flags of one consumer that are named."""


@dataclass(frozen=True)
class Running:
    """Show a flag that runs, or that a consumer has claimed and may begin at any moment.

    :ivar since: when it was claimed, and ``running_s``, for how many seconds it has been.
    :ivar started: whether a handler has it in hand; None where that is not to be seen from here: on another host.
    :ivar consumer: who has it; ``pid``, ``host`` and ``alive`` as ``FlagSweep.status`` says.
    """

    id: int
    kind: str
    key: str
    lane: str
    since: datetime | None
    running_s: float | None
    started: bool | None
    consumer: int
    pid: int
    host: str
    alive: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {**asdict(self), "since": None if self.since is None else self.since.isoformat()}


@dataclass(frozen=True)
class InHand:
    """Show what consumers have in hand.

    :ivar running: flags in hand, the longest first, of each consumer no more than so many.
    :ivar claimed: how many are claimed by those who live, or of whom nobody can say from here.
    :ivar orphaned: how many are by those who are gone: free at the next start of a consumer, or sweep.
    :ivar consumers: who is entered, as ``FlagSweep.status`` says.
    """

    running: list[Running]
    claimed: int
    orphaned: int
    consumers: list[dict[str, Any]]


def in_hand(store: Store, handlers: Mapping[str, Handler], state_dir: str, now: int) -> InHand:
    """Return what consumers have in hand. It reads the index of the claimed alone, however many flags there are."""
    people = {each["id"]: each for each in consumers(store)}
    found: list[Running] = []
    counts = {True: 0, False: 0}
    connections = store.connections
    with connections.lent("claimed flags could not be read") as db, connections.dialect.lenient(db):
        for id in connections.dialect.claimers(db):
            who = people.get(id)
            there = who is not None and who["alive"] is not False
            counts[there] += Flag.select().where(CLAIMED, Flag.claimed_by == id).count(db)
            if who is not None and there:
                started = _started(store, state_dir, id)
                found += [_shown(row, handlers, who, started, now) for row in _rows(db, id, started)]
    found.sort(key=lambda each: -(each.running_s or 0))
    return InHand(found, counts[True], counts[False], list(people.values()))


def _rows(db: Any, consumer: int, started: set[int] | None) -> list[Any]:
    """Return what a consumer has claimed: what its handlers have in hand, where that is known, else the first of all."""
    query = Flag.select(Flag.id, Flag.kind, Flag.key, Flag.claimed_at).where(CLAIMED, Flag.claimed_by == consumer)
    if started:
        query = query.where(Flag.id.in_(sorted(started)[:MOST]))
    return list(query.limit(MOST).execute(db))


def _started(store: Store, state_dir: str, consumer: int) -> set[int] | None:
    """Return the flags that a consumer's handlers have in hand, by the notes that it keeps on this host; None: not known."""
    connections = store.connections
    try:
        folder = (
            folder_of(connections.file)
            if connections.file is not None
            else path_on_host(f"{connections.where} {store.made_at()}", state_dir).expanduser()
        )
        return {each.flag for each in BlackBox.read(Path(folder), consumer)[1]}
    except (OSError, RuntimeError, ValueError):
        return None


def _shown(row: Any, handlers: Mapping[str, Handler], who: Mapping[str, Any], started: set[int] | None, now: int) -> Running:
    kind, since = clean(str(row.kind)), moment(row.claimed_at)
    return Running(
        row.id,
        kind,
        clean(str(row.key)),
        lane_of(handlers, kind),
        since,
        None if since is None else round(max(0, now - row.claimed_at) / SECOND, 3),
        None if started is None else row.id in started,
        who["id"],
        who["pid"],
        who["host"],
        who["alive"],
    )

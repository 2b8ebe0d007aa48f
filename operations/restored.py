"""Restored: why a database is held back that may be a backup or a copy, what would be done if it went on, and having it go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ..consumer.stamping import BY, HELD, Held, gate_of_all, is_held, restamp
from ..durations import SECOND
from ..gates.shut import ALL
from ..models import Flag, bump, fact
from ..schedules.book import is_paused
from .gates import OPEN
from .info import moment
from .pauses import by_whom
from .schedule_info import rows_of
from .site import Site

MOST = 10_000
"""Due flags of a kind and priority that are counted."""

REASON = "dropped when the database was confirmed"


@dataclass(frozen=True)
class Restored:
    """Tell of a database that may be a backup, or a copy of one that is swept elsewhere.

    :ivar finding: ``older``, ``copied`` or ``elsewhere``.
    :ivar why: a sentence.
    :ivar held_since: since when all is paused for it.
    :ivar known_until: up to when the database knows what was done.
    :ivar due: how many flags would start at once, by kind; ``more``: some were not counted.
    :ivar oldest_due_s: seconds for which the oldest of them has been due.
    :ivar schedules: the names of those that would fire at once.
    """

    finding: str
    why: str
    held_since: datetime | None
    known_until: datetime | None
    due: dict[str, int]
    more: bool
    oldest_due_s: float | None
    schedules: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        times = {name: None if (at := getattr(self, name)) is None else at.isoformat() for name in ("held_since", "known_until")}
        return {**asdict(self), **times}


def restored(site: Site) -> Restored | None:
    """Return why the database is held back, and what would be done if it went on; None: it is not."""
    now = site.clock.now()
    with site.connections.lent("the stamp could not be read") as db, site.connections.dialect.lenient(db):
        note = fact(db, HELD)
        if note is None or not is_held(db, now):
            return None
        due, more, oldest = _due(site, db, now)
    held = Held.parse(note.value)
    rows = [row for row in rows_of(site.connections) if isinstance(row.next_at, int) and row.next_at <= now]
    names = [str(row.name) for row in rows if not is_paused(row, now)]
    age = None if oldest is None else round((now - oldest) / SECOND, 3)
    return Restored(held.finding, held.why, moment(note.at), moment(held.until), due, more, age, names)


def _due(site: Site, db: Any, now: int) -> tuple[dict[str, int], bool, int | None]:
    """Return how many flags of each kind are due, whether there are more, and since when the oldest is."""
    dialect, due = site.connections.dialect, dict[str, int]()
    more, oldest = False, None
    kinds = [str(kind) for kind in dialect.waiting_kinds(db)]
    for kind, priority, earliest in dialect.agenda(db, json.dumps(kinds)) if kinds else ():
        if isinstance(earliest, int) and earliest <= now:
            count = dialect.due_behind(db, kind, priority, now, MOST)
            due[kind], more = due.get(kind, 0) + count, more or count >= MOST
            oldest = earliest if oldest is None else min(oldest, earliest)
    return due, more, oldest


def confirm(site: Site, drop: bool, by: str | None, progress: Callable[[int], None] | None) -> int:
    """Have the database go on, as ``FlagSweep.confirm`` says; return how many flags were dropped."""
    now = site.clock.now()
    who = by_whom(by)
    dropped = site.verbs.drop_waiting([Flag.state == "waiting"], f"{REASON}, by {who}", now, progress) if drop else 0
    with site.connections.lent("nothing was confirmed") as db, db.atomic(*site.connections.dialect.begin):
        note = fact(db, HELD)
        row = gate_of_all(db)
        if note is not None and row is not None and row.paused_by == BY:
            before = Held.parse(note.value).paused
            values = {**OPEN, **{name: value for name, value in before.items() if name in OPEN}}
            site.connections.dialect.set_by_hand(db, ALL, "", values)
            bump(db, "gate")
        restamp(site.connections.dialect, db, now)
    return dropped

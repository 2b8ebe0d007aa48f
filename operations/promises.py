"""Promises: how long due flags of each lane wait, and whether that is longer than was promised.

Asked of the agenda, a range of an index for each kind and priority: no flag is counted, however many there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from ..config import EVERY_LANE, SECOND, Settings, microseconds
from ..databases.dialect import Dialect
from ..gates.quiet import Quiet
from ..gates.shut import ALL
from ..handlers import Handler
from ..models import Gate
from ..models import gates as gate_rows
from .flags import NOBODY, lane_of
from .gate_info import GateInfo
from .gate_views import Views

UNSAID = 3600.0
"""Seconds that a due flag of a lane may wait of which nobody has promised anything, before that is worth a warning."""

LOOK_BACK = 2 * 86_400 * SECOND
"""Microseconds within which quiet hours that have just ended are looked for."""


@dataclass(frozen=True)
class Wait:
    """Show how long the oldest due flag of a kind waits.

    :ivar waited_s: seconds since it was due, or since the quiet hours of its kind ended.
    :ivar promised_s: the longest that it should, and ``said``, whether a setting says so.
    :ivar held: why its gate is closed just now, in plain words; None: it is open.
    :ivar by: who has paused it, where somebody has.
    :ivar gate: sort and name of that gate.
    :ivar shut_at: since when it is closed, where that is known, in microseconds UTC.
    :ivar quiet: whether these are the quiet hours of its kind, which break no promise.
    """

    lane: str
    kind: str
    waited_s: float
    promised_s: float
    said: bool
    held: str | None = None
    by: str | None = None
    quiet: bool = False
    gate: tuple[str, str] | None = None
    shut_at: int | None = None

    @property
    def broken(self) -> bool:
        """Whether it waits for longer than it should."""
        return self.waited_s > self.promised_s and not self.quiet

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {**asdict(self), "broken": self.broken}


def waits(
    db: Any,
    dialect: Dialect,
    settings: Settings,
    handlers: Mapping[str, Handler],
    now: int,
    served: Mapping[str, str] = MappingProxyType({}),
) -> list[Wait]:
    """Return how long the oldest due flag of each kind waits, the longest broken ones first.

    :param db: the connection to ask: the site's, or ours.
    :param handlers: by kind, aliases included.
    :param now: microseconds UTC.
    :param served: the lanes of kinds that have no handler here, and are served elsewhere.
    """
    with dialect.lenient(db):
        due = oldest_due(db, dialect, now)
        closed = closed_gates(gate_rows(db), handlers, settings, now) if due else {}
    lanes = {kind: lane_of(handlers, kind) if kind in handlers else served.get(kind, NOBODY) for kind in due}
    found = [_wait(kind, lanes[kind], since, settings, handlers, closed, now) for kind, since in due.items()]
    return sorted(found, key=lambda wait: (not wait.broken, not wait.said, -wait.waited_s / wait.promised_s))


def breaches(db: Any, dialect: Dialect, settings: Settings, handlers: Mapping[str, Handler], now: int) -> list[Wait]:
    """Return the longest wait of each lane that breaks what a setting promises of it, by lane."""
    found: dict[str, Wait] = {}
    for wait in waits(db, dialect, settings, handlers, now) if settings.promise else ():
        if wait.broken and wait.said:
            found.setdefault(wait.lane, wait)
    return [found[lane] for lane in sorted(found)]


def oldest_due(db: Any, dialect: Dialect, now: int) -> dict[str, int]:
    """Return since when the oldest due flag of each kind is due, of those that have any."""
    kinds = [str(kind) for kind in dialect.waiting_kinds(db)]
    due: dict[str, int] = {}
    for kind, _, earliest in dialect.agenda(db, json.dumps(kinds)) if kinds else ():
        if isinstance(earliest, int) and earliest <= now:
            due[kind] = min(earliest, due.get(kind, earliest))
    return due


def promise_of(lane: str, settings: Settings) -> tuple[float, bool]:
    """Return the seconds that a due flag of a lane should wait at the longest, and whether a setting says so."""
    said = settings.promise.get(lane, settings.promise.get(EVERY_LANE))
    return (UNSAID, False) if said is None else (said, True)


def _wait(
    kind: str,
    lane: str,
    since: int,
    settings: Settings,
    handlers: Mapping[str, Handler],
    closed: Mapping[tuple[str, str], GateInfo],
    now: int,
) -> Wait:
    handler = handlers.get(kind)
    quiet, zone = None if handler is None else handler.options.quiet, ZoneInfo(settings.timezone)
    is_quiet = quiet is not None and quiet.closed_until(now, zone) is not None
    if quiet is not None and not is_quiet:
        since = max(since, _opened_at(quiet, now, zone))
    gate = _gate_before(kind, lane, handler, closed)
    held, by, shut = (gate.why, gate.by, (gate.sort, gate.name)) if gate is not None else (None, None, None)
    waited, quiet_now = round((now - since) / SECOND, 3), is_quiet and by is None
    at = None if gate is None or gate.since is None else microseconds(gate.since)
    return Wait(lane, kind, waited, *promise_of(lane, settings), held, by, quiet_now, shut, at)


def _opened_at(quiet: Quiet, now: int, zone: ZoneInfo) -> int:
    """Return when the last quiet hours ended, which are over just now; what waited through them waits since then."""
    opened, at = 0, now - LOOK_BACK
    while (at := quiet.next_change(at, zone)) <= now:
        opened = at
    return opened


def closed_gates(
    rows: list[Gate], handlers: Mapping[str, Handler], settings: Settings, now: int
) -> dict[tuple[str, str], GateInfo]:
    """Return the gates that are closed just now, by sort and name; nothing behind them is counted."""
    infos = Views(rows, handlers, settings, {}, {}, now).infos()
    return {(gate.sort, gate.name): gate for gate in infos if gate.closed and not gate.bucket}


def _gate_before(kind: str, lane: str, handler: Handler | None, closed: Mapping[tuple[str, str], GateInfo]) -> GateInfo | None:
    """Return the closed gate behind which flags of a kind wait; that which a hand has closed, where there are several."""
    names = [("kind", kind), ("kind", kind if handler is None else handler.kind), ("lane", lane), (ALL, "")]
    found = [closed[name] for name in names if name in closed]
    return next((gate for gate in found if gate.by is not None), found[0] if found else None)

"""Status: what is up in each lane, and who sweeps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from ..config import SECOND, Clock
from ..consumer.file_lease import Lease
from ..consumer.keeper import OVERDUE
from ..consumer.leases import open_lease
from ..consumer.session_lease import SessionLease
from ..databases.connections import Connections
from ..databases.state_folder import folder_of
from ..errors import NotReady
from ..handlers import Handler
from ..models import SiteVerbs
from ..sweep.claims import Store
from .flags import STATES, lane_of
from .info import moment
from .schedule_info import ScheduleInfo, rows_of, seconds_due


def status(store: Store, verbs: SiteVerbs, lanes: Iterable[str], handlers: Mapping[str, Handler], clock: Clock) -> dict[str, Any]:
    """Return what is up, as ``FlagSweep.status`` says.

    :param lanes: the lanes that are shown even where nothing is up.
    :param handlers: by kind, aliases included.
    """
    now = clock.now()
    found = {name: _empty() for name in lanes}
    counts = verbs.counts(now)
    for kind, state, count, due, earliest in counts:
        entry = found.setdefault(lane_of(handlers, kind), _empty())
        entry[state] += count
        entry["due"] += due
        if due:
            age = round((now - (earliest or now)) / SECOND, 3)
            entry["oldest_due_s"] = max(entry["oldest_due_s"] or 0.0, age)
    overdue = _overdue(verbs.connections, handlers, now)
    partly = {} if counts.exact else {"exact": False}
    return {"lanes": found, "consumers": consumers(store), "overdue_schedules": overdue, **partly}


def _empty() -> dict[str, Any]:
    return {**dict.fromkeys((STATES[0], "due", *STATES[1:]), 0), "oldest_due_s": None}


def _overdue(connections: Connections, handlers: Mapping[str, Handler], now: int) -> list[dict[str, Any]]:
    """Return the schedules that somebody who has a handler for their kind would have fired."""
    infos = [ScheduleInfo.of(row, now, row.kind in handlers) for row in rows_of(connections)]
    return [
        {"name": info.name, "kind": info.kind, "due": info.to_dict()["due"], "due_s": round(seconds_due(info, now), 3)}
        for info in infos
        if not info.handled and seconds_due(info, now) >= OVERDUE
    ]


def consumers(store: Store) -> list[dict[str, Any]]:
    """Return who is entered, alive or not, as ``FlagSweep.status`` says."""
    with ExitStack() as stack:
        lease = _lease(store.connections, stack)
        return [
            {
                "id": c.id,
                "mode": c.mode,
                "pid": c.pid,
                "host": c.host,
                "started_at": since.isoformat()
                if (since := moment(c.started_at))
                else str(c.started_at),  # As a hand has left it.
                "alive": c.id > 0 and lease.is_held(c.id) if lease else None,
            }
            for c in store.consumers()
        ]


def alive_of(connections: Connections, ids: Iterable[int]) -> dict[int, bool | None]:
    """Return whether each of these consumers lives; None where this user cannot see."""
    wanted = list(ids)
    with ExitStack() as stack:
        lease = _lease(connections, stack) if wanted else None
        return {id: lease.is_held(id) if lease else None for id in wanted}


def _lease(connections: Connections, stack: ExitStack) -> Lease | SessionLease | None:
    """Return the leases for looking, or None where there are none that this user may see."""
    if connections.file is not None and not os.access(folder_of(connections.file) / "lease", os.R_OK | os.W_OK):
        return None
    try:
        lease = open_lease(connections)
    except NotReady:
        return None
    if lease is not None:
        stack.callback(lease.close)
    return lease

"""Troubles that nobody need wait for: a provider that is away, a kind that only fails, schedules that do not fire, a full disk.

Each is asked of a few rows: the gates, the counts of an hour, the schedules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config import SECOND
from ..consumer.stamping import BY
from ..gates.breaker import Breaker
from ..gates.shut import ALL, FOREVER, Closing, Shut
from ..handlers import Handler
from ..models import Gate, Schedule
from ..schedules.book import is_paused
from ..sweep.records import only_failed
from .disk import NOTHING, room_on
from .point import CRITICAL, WARNING, Point, names, since
from .promises import UNSAID

LATELY = 3600
"""Seconds of runs of which all have failed, and ``FEW``, without how many nothing is said."""
FEW = 5

FIRED = 180
"""Seconds that a schedule may be due while a consumer runs, which looks each second."""

MOST = 100
"""Schedules that are told of."""


def of_the_disk(file: Path | None) -> Iterator[Point]:
    """Yield that there is no room on the disk of the database's file; that there is little, doctor tells."""
    try:
        room = None if file is None else room_on(file.parent)
    except OSError:
        return
    if room is not None and room.is_left == NOTHING:
        yield Point("disk", CRITICAL, room.text, "'flagsweep doctor'")


def of_failures(db: Any, rows: list[Gate], kinds: list[str], handlers: Mapping[str, Handler], now: int) -> Iterator[Point]:
    """Yield which kinds wait for their provider, or have only failed within the hour.

    :param rows: gates.
    :param kinds: those of which flags wait, since they failed or are not due yet, too.
    """
    waiting = {handlers[kind].kind if kind in handlers else kind for kind in kinds}
    breakers = ((row.name, row.breaker) for row in rows if row.sort == "kind" and not row.bucket and row.name in waiting)
    away = {name: outage for name, breaker in breakers if (outage := Breaker.parse(breaker).outage) is not None}
    for name, outage in away.items():
        text = f"{name} waits for its provider{since(outage.since, now)}: {outage.why}"
        yield Point("provider", WARNING, text, f"'flagsweep why {name}'")
    for name, runs in only_failed(db, now - LATELY * SECOND, FEW):
        if name in waiting - away.keys():
            yield Point("failing", WARNING, f"each of {runs} runs of {name} within the hour failed", f"'flagsweep why {name}'")


def of_schedules(
    db: Any, shut: Shut, handlers: Mapping[str, Handler], served: Mapping[str, str], is_swept: bool, now: int
) -> Iterator[Point]:
    """Yield which schedules never fire again, or are due and do not fire, and which wait behind a pause that was forgotten.

    :param served: the lanes of kinds that living consumers serve.
    :param is_swept: whether a consumer runs.
    """
    never, late = [], []
    for row in _suspects(db, now - (FIRED if is_swept else int(UNSAID)) * SECOND):
        kinds, lane = _kinds_and_lane(row.kind, handlers, served)
        gate = _gate_before(shut, kinds, lane, now)
        if _is_paused(row, now):
            continue
        if row.next_at is None:
            never.append(row.name)
        elif gate is None:
            late.append(row.name)
        elif gate[1].until >= FOREVER and now - row.next_at > UNSAID * SECOND:
            text = f"schedule {row.name} is due{since(row.next_at, now)}, and waits: {gate[1].why}"
            yield Point("schedules", WARNING, text, resuming(*gate[0], by=None))
    if never:
        yield Point("schedules", WARNING, f"never fires again: schedule {names(never)}", "'flagsweep doctor'")
    if late:
        yield Point("schedules", WARNING, f"due, and nobody fires it: schedule {names(late)}", "'flagsweep doctor'")


def resuming(sort: str, name: str, by: str | None) -> str:
    """Return the command that ends a pause."""
    if sort == ALL and by == BY:
        return "'flagsweep confirm'"
    return f"'flagsweep resume {'--all' if sort == ALL else f'--lane {name}' if sort == 'lane' else name}'"


def _suspects(db: Any, late: int) -> list[Schedule]:
    """Return schedules without a time to come, but those that had one moment and fired then, and those that are due for long."""
    over = (Schedule.sort == "at") & Schedule.fired_at.is_null(False)
    query = Schedule.select().where((Schedule.next_at.is_null() & ~over) | (Schedule.next_at <= late))
    return list(query.order_by(Schedule.name).limit(MOST).execute(db))


def _kinds_and_lane(kind: str, handlers: Mapping[str, Handler], served: Mapping[str, str]) -> tuple[list[str], str]:
    handler = handlers.get(kind)
    return ([kind], served.get(kind, "")) if handler is None else ([kind, handler.kind], handler.lane)


def _gate_before(shut: Shut, kinds: list[str], lane: str, now: int) -> tuple[tuple[str, str], Closing] | None:
    """Return the pause behind which a kind waits that lasts for the longest."""
    keys = [*(("kind", kind) for kind in kinds), ("lane", lane), (ALL, "")]
    pauses = shut.all_pauses(now)
    return max(((key, pauses[key]) for key in keys if key in pauses), key=lambda each: each[1].until, default=None)


def _is_paused(row: Schedule, now: int) -> bool:
    try:
        return is_paused(row, now) or not (row.next_at is None or isinstance(row.next_at, int))
    except TypeError:
        return False

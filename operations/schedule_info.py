"""What is shown of a schedule."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from ..config import SECOND, microseconds
from ..databases.connections import Connections
from ..errors import ConfigError
from ..models import Schedule
from ..schedules.book import Book, is_paused, plan_of
from ..schedules.declared import Plan
from ..schedules.spec import LAST
from .info import moment

NEXT = 3
"""Times to come that are shown."""

AS_IS = (
    *("name", "kind", "sort", "spec", "zone", "missed", "cap", "skipped"),
    *("outcome", "origin", "changed_by"),
)
"""Columns that are shown as they are."""

ALONE = ("key",)
"""Columns that follow from others: a hand does not change them by themselves."""


@dataclass(frozen=True)
class ScheduleInfo:
    """Show one schedule. Times are in its zone, or in UTC where that is damaged.

    :ivar sort: ``cron``, ``every`` or ``at``, and ``spec`` its text; ``plain`` says it in plain English.
    :ivar next: the next times at which it fires, three at the most; none while it is paused without an end.
    :ivar due: since when it is to fire and did not.
    :ivar last: the latest time that it was fired for, and ``fired_at``, when that was.
    :ivar outcome: how the last run that ended did end, and ``ended_at``, when.
    :ivar skipped: for how many times it was not fired.
    :ivar origin: ``code`` or ``hand``.
    :ivar changed: what a hand has changed of a schedule that code declares: by name, what the code says.
    :ivar handled: whether a handler here takes its kind; None where no handlers are known.
    :ivar problem: what is wrong with its row, so that it cannot fire; else None.
    :ivar notes: what is worth knowing of what was done just now, in sentences.
    """

    name: str
    kind: str
    payload: Any
    sort: str
    spec: str
    zone: str
    plain: str
    missed: str
    grace_s: float | None
    cap: int
    next: tuple[datetime, ...]
    due: datetime | None
    last: datetime | None
    fired_at: datetime | None
    outcome: str | None
    ended_at: datetime | None
    skipped: int
    paused_since: datetime | None
    paused_until: datetime | None
    paused_by: str | None
    reason: str | None
    origin: str
    changed: Mapping[str, Any]
    changed_by: str | None
    changed_at: datetime | None
    handled: bool | None
    problem: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: Schedule, now: int, handled: bool | None) -> ScheduleInfo:
        """Return what a row shows, however damaged it is.

        :param now: microseconds UTC.
        """
        plan, problem = _examined(row)
        zone: tzinfo = ZoneInfo(plan.spec.zone) if plan else UTC
        paused, next_at = _paused(row, now), row.next_at if isinstance(row.next_at, int) else None
        coming = _coming(plan, next_at, row, now) if plan and not problem else []
        shown_as_is: dict[str, Any] = {name: getattr(row, name) for name in AS_IS}
        times: dict[str, Any] = {name: in_zone(getattr(row, name), zone) for name in ("fired_at", "ended_at", "changed_at")}
        return cls(
            **shown_as_is,
            **times,
            payload=shown(row.payload),
            plain=plan.spec.plain() if plan else "",
            grace_s=row.grace / SECOND if isinstance(row.grace, int) else None,
            next=tuple(time for each in coming if (time := in_zone(each, zone)) is not None),
            due=in_zone(next_at, zone) if next_at is not None and next_at <= now and not paused else None,
            last=in_zone(row.last_at, zone),
            paused_since=in_zone(row.paused_at, zone) if paused else None,
            paused_until=in_zone(row.paused_until, zone) if paused else None,
            paused_by=row.paused_by if paused else None,
            reason=row.reason if paused else None,
            changed=_changed(row),
            handled=handled,
            problem=problem,
        )

    def noting(self, notes: list[str]) -> ScheduleInfo:
        """Return the same with notes."""
        return replace(self, notes=tuple(notes))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it: times as ISO 8601 text."""
        return {name: _as_json(value) for name, value in asdict(self).items()}


def seconds_due(info: ScheduleInfo, now: int) -> float:
    """Return for how many seconds a schedule has been to fire and did not.

    :param now: microseconds UTC.
    """
    return 0.0 if info.due is None else (now - microseconds(info.due)) / SECOND


def rows_of(connections: Connections) -> list[Schedule]:
    """Return the rows of all schedules by name, as the site sees them."""
    with connections.lent("schedules could not be read") as db, connections.dialect.lenient(db):
        return Book(connections).rows(db)


def in_zone(microseconds: Any, zone: tzinfo) -> datetime | None:
    """Return a time of the database in a zone, or None where there is none, or it is damaged."""
    time = moment(microseconds)
    try:
        return None if time is None else time.astimezone(zone)
    except OverflowError:
        return None


def shown(payload: Any) -> Any:
    """Return what a payload says, or its text where it is no JSON."""
    try:
        return json.loads(payload)
    except (TypeError, ValueError, RecursionError):
        return payload


def changed_names(row: Schedule) -> list[str]:
    """Return the columns that a hand has changed; of a row whose list was damaged none."""
    names = shown(row.changed) if row.changed else []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def said_by_code(row: Schedule) -> dict[str, Any]:
    """Return what the code says, by column; nothing where no code declares it, or the row was damaged."""
    said = shown(row.code) if row.code else {}
    return said if isinstance(said, dict) else {}


def _changed(row: Schedule) -> dict[str, Any]:
    """Return what the code says of what a hand has changed, as this class names and writes it."""
    said = said_by_code(row)
    kept = {name: said.get(name) for name in changed_names(row) if name not in ALONE}
    if "payload" in kept:
        kept["payload"] = shown(kept["payload"])
    if isinstance(grace := kept.pop("grace", None), int):
        kept["grace_s"] = grace / SECOND
    return kept


def _examined(row: Schedule) -> tuple[Plan | None, str | None]:
    """Return the plan of a row, and what is wrong with the row."""
    try:
        plan = plan_of(row)
    except (ConfigError, ArithmeticError) as error:
        return None, str(error)
    if not isinstance(shown(row.payload), dict):
        return plan, "its arguments are no JSON object"
    if row.next_at is not None and moment(row.next_at) is None:
        return plan, f"its next time {row.next_at!r} is none"
    return plan, None


def _paused(row: Schedule, now: int) -> bool:
    try:
        return is_paused(row, now)
    except TypeError:
        return False


def _coming(plan: Plan, next_at: int | None, row: Schedule, now: int) -> list[int]:
    """Return the times to come, in microseconds UTC."""
    begin = now
    if _paused(row, now):
        if row.paused_until is None:
            return []
        begin = row.paused_until
    if next_at is None:
        return []
    first = [next_at] if next_at > begin else []
    return first + plan.spec.times(max(begin, next_at), LAST, NEXT - len(first), next_at)


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return [_as_json(each) for each in value] if isinstance(value, tuple) else value

"""A schedule that does not fire."""

from __future__ import annotations

import shlex

from ...config import SECOND, microseconds
from ...consumer.keeper import OVERDUE
from ...models import Flag, Schedule
from ..doctor.finding import as_date
from ..doctor.firing import DAY, FAR
from ..schedule_info import ScheduleInfo, seconds_due
from .answer import Said
from .case import Case
from .closed import all_paused, kind_paused, lane_paused
from .nobody import nearest
from .words import at, listed, since, until


def info_of(case: Case, row: Schedule) -> ScheduleInfo:
    """Return what is shown of a schedule."""
    return ScheduleInfo.of(row, case.now, row.kind in case.handlers if case.handlers else None)


def schedule_damaged(case: Case, row: Schedule) -> Said | None:
    """A hand has damaged its row, so that nobody knows when to fire it."""
    problem = info_of(case, row).problem
    return Said({"name": shlex.quote(row.name), "problem": problem}) if problem else None


def schedule_paused(case: Case, row: Schedule) -> Said | None:
    """Somebody has paused it."""
    info = info_of(case, row)
    if info.paused_since is None:
        return None
    ends = "until somebody resumes it" if info.paused_until is None else f"until {until(row.paused_until, case.now)}"
    values = {"name": shlex.quote(row.name), "by": row.paused_by or "somebody", "since": since(row.paused_at, case.now)}
    reason = [f"The reason given: {row.reason}."] if row.reason else []
    return Said({**values, "ends": ends}, row.paused_at, row.paused_until, _last(case, row), reason)


def schedule_never(case: Case, row: Schedule) -> Said | None:
    """No time is left at which it would fire."""
    if row.next_at is not None:
        return None
    fired = f"it fired last {at(row.fired_at, case.now)}" if row.fired_at is not None else _last(case, row)
    values = {"name": shlex.quote(row.name), "spec": f"{row.sort} {row.spec}", "fired": fired, "times": _times(row)}
    return Said(values, row.fired_at, last=_last(case, row))


def schedule_far_off(case: Case, row: Schedule) -> Said | None:
    """Its next time is more than a year away, so that another may have been meant."""
    info = info_of(case, row)
    if info.due is not None or row.next_at - case.now < FAR * SECOND:
        return None
    values = {"date": as_date(row.next_at).split()[0], "days": f"{(row.next_at - case.now) // DAY:,}", "plain": info.plain}
    named = {"name": shlex.quote(row.name), "times": _times(row), "fired": _last(case, row)}
    return Said({**values, **named}, until=row.next_at, last=_last(case, row))


def _times(row: Schedule) -> str:
    """Return the option that gives a schedule other times."""
    return f'--{row.sort} "..."'


def is_over(row: Schedule) -> bool:
    """Return whether a schedule has fired the one time that it was for."""
    return row.sort == "at" and row.next_at is None and row.fired_at is not None


def schedule_behind_pause(case: Case, row: Schedule) -> Said | None:
    """It is due, but what it raises is paused: its kind, the lane of that, or everything."""
    if not seconds_due(info_of(case, row), case.now):
        return None
    flag = Flag(kind=row.kind, due_at=case.now)
    asked = (("kind {kind}", kind_paused), ("lane {lane}", lane_paused), ("everything", all_paused))
    for what, find in asked:
        if (said := find(case, flag)) is not None:
            lane = case.lane_of(row.kind)
            options = {kind_paused: shlex.quote(row.kind), lane_paused: f"--lane {lane}", all_paused: "--all"}
            shown = what.format(kind=row.kind, lane=lane)
            return Said(
                {**said.values, "what": shown, "option": options[find]}, said.since, said.until, _last(case, row), said.more
            )
    return None


def schedule_no_handler(case: Case, row: Schedule) -> Said | None:
    """It is due, and nobody fires it, since no handler has its kind."""
    info = info_of(case, row)
    if seconds_due(info, case.now) < OVERDUE or row.kind in case.handlers:
        return None
    if (case.people.staying and case.people.serve(row.kind)) or not (case.handlers or case.people.staying):
        return None
    near = nearest(case, row.kind)
    more = [f"The nearest kinds with a handler: {listed(near)}."] if near else []
    values = {"name": shlex.quote(row.name), "kind": row.kind, "since": since(row.next_at, case.now)}
    return Said(values, row.next_at, last=_last(case, row), more=more)


def schedule_overdue(case: Case, row: Schedule) -> Said | None:
    """It is due, and nobody fires it: that is done by a consumer, or by ``flagsweep sweep``."""
    info = info_of(case, row)
    if info.due is None or seconds_due(info, case.now) < OVERDUE:
        return None
    return Said({"since": since(microseconds(info.due), case.now)}, microseconds(info.due), last=_last(case, row))


def schedule_not_due(case: Case, row: Schedule) -> Said | None:
    """Its next time has not come."""
    info = info_of(case, row)
    if info.due is not None:
        return Said({"next": "at any moment", "plain": info.plain}, row.next_at, last=_last(case, row))
    return Said({"next": f"at {until(row.next_at, case.now)}", "plain": info.plain}, until=row.next_at, last=_last(case, row))


def flag_of(case: Case, row: Schedule) -> Flag | None:
    """Return the flag that it has raised and that is still up, if there is one."""
    where = [Flag.kind == row.kind, Flag.key == row.key] if row.key else [Flag.kind == row.kind, Flag.schedule == row.name]
    if not row.key:
        return None  # Each occurrence has a flag of its own: they are told of by their kind.
    return next(iter(case.flags(*where)), None)


def _last(case: Case, row: Schedule) -> str:
    """Return when it fired last, and how that run ended; a run by hand is none of its times."""
    if row.fired_at is None:
        by_hand = f"; by hand it was run, and that ended {at(row.ended_at, case.now)}: {row.outcome}" if row.outcome else ""
        return f"it has never fired by itself{by_hand}"
    ended = f", and its run ended {at(row.ended_at, case.now)}: {row.outcome}" if row.outcome else ""
    return f"it fired {at(row.fired_at, case.now)}{ended}"

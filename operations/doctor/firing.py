"""Schedules that do not fire, or not as they say: without a time to come, forgotten in a pause, overdue, too late, too slow."""

from __future__ import annotations

import shlex

from ...config import SECOND
from ...consumer.keeper import OVERDUE
from ...models import Schedule
from ...schedules.book import plan_of
from ...schedules.spec import LAST
from ..schedule_info import ScheduleInfo, seconds_due
from .finding import Finding, as_date, as_span
from .patient import Check, Patient

FAR = 366 * 86_400
"""Seconds to the next time, where somebody may have meant another: a yearly one is nearer."""
FORGOTTEN = 7 * 86_400
"""Seconds after which a pause without an end may have been forgotten."""
TOO_LATE = 3
"""Times in a row that were skipped."""
MOST = 10
"""Schedules that are told one by one."""
DAY = 86_400 * SECOND
ENOUGH = 3
"""Runs within a day of which the mean is taken."""

Told = tuple[str, str]
"""What is wrong, and its fix."""


def firing(patient: Patient) -> list[Finding]:
    """Look for schedules that will not fire, or have not. Those that were damaged are told as such."""
    rows = [(row, info) for row, info in zip(patient.schedule_rows, patient.schedules, strict=True) if not info.problem]
    found = [finding for row, info in rows if (finding := _of_one(patient, row, info))]
    if len(found) > MOST:
        more = f"and {len(found) - MOST} more schedules that do not fire as they say"
        return [*found[:MOST], Finding("warn", "firing", more, "'flagsweep schedule list' shows them all")]
    well = "each schedule has a time to come, and none is late" if rows else "there are no schedules"
    return found or [Finding("ok", "firing", well)]


def _of_one(patient: Patient, row: Schedule, info: ScheduleInfo) -> Finding | None:
    """Return the first thing that is wrong with one."""
    for look in (_paused, _never, _far, _overdue, _too_late, _slow):
        if (told := look(patient, row, info)) is not None:
            return Finding("warn", "firing", f"{info.name}: {told[0]}", told[1])
    return None


def _paused(patient: Patient, row: Schedule, info: ScheduleInfo) -> Told | None:
    """Tell of a pause without an end that goes on for long; any other ends by itself, or is meant."""
    if info.paused_since is None or info.paused_until is not None or patient.now - row.paused_at < FORGOTTEN * SECOND:
        return None
    why = f": {info.reason}" if info.reason else ""
    since = f"since {as_date(row.paused_at)} ({as_span((patient.now - row.paused_at) / SECOND)})"
    return f"paused {since} by {info.paused_by or 'somebody'}, without an end{why}", f"'flagsweep schedule resume {row.name}'"


def _never(patient: Patient, row: Schedule, info: ScheduleInfo) -> Told | None:
    if row.next_at is not None or info.paused_since is not None or (row.sort == "at" and row.fired_at is not None):
        return None
    if row.sort == "at":
        fix = f"'flagsweep schedule edit {row.name} --at ...' with a moment to come, or remove it"
        return f"its one moment, {row.spec}, has passed, and nothing was raised for it", fix
    return f"it has no time to come, though {info.plain} has", f"'flagsweep schedule reset {row.name}', or edit it"


def _far(patient: Patient, row: Schedule, info: ScheduleInfo) -> Told | None:
    if row.next_at is None or row.next_at - patient.now < FAR * SECOND or info.paused_since is not None:
        return None
    in_days = (row.next_at - patient.now) // DAY
    fix = f"'flagsweep schedule edit {shlex.quote(row.name)} --cron ...' with the times that are meant, where these are not"
    return f"its next time is {as_date(row.next_at)}, in {in_days:,} days ({info.plain})", fix.replace("cron", _option(row.sort))


def _option(sort: str) -> str:
    return sort if sort in ("every", "at") else "cron"


def _overdue(patient: Patient, row: Schedule, info: ScheduleInfo) -> Told | None:
    """Tell of one that somebody should have fired; of those without a handler other checks tell."""
    late = seconds_due(info, patient.now)
    if late < OVERDUE or info.handled is False:
        return None
    text = f"due since {as_date(row.next_at)} ({as_span(late)}), and nobody fires it"
    if not patient.living:
        return text, "start 'flagsweep run': schedules are fired by consumers"
    return text, "see the consumer's log: it may hang, or its clock be slow ('clocks'); start it again"


def _too_late(patient: Patient, row: Schedule, info: ScheduleInfo) -> Told | None:
    """Tell of one whose times are all skipped, since each comes to be looked at after its grace."""
    if row.missed != "skip" or not isinstance(row.skipped, int) or row.skipped < TOO_LATE or row.next_at is None:
        return None
    if plan_of(row).spec.count(row.last_at or row.created_at, patient.now, TOO_LATE, row.created_at) < TOO_LATE:
        return None
    last = f"last fired for {as_date(row.last_at)}" if row.last_at else "it has never fired"
    text = f"{last}, and {row.skipped} times were skipped: each was more than its grace of {as_span(row.grace / SECOND)} late"
    return text, "have 'flagsweep run' stay (a 'sweep' by cron comes too late), or give it more grace, or missed='once'"


def _slow(patient: Patient, row: Schedule, info: ScheduleInfo) -> Told | None:
    """Tell of one that comes again before its run has ended."""
    counts = patient.today.get(row.kind, {})
    runs = sum(counts.get(f"d{number}", 0) for number in range(13))
    times = plan_of(row).spec.times(patient.now, LAST, 2, row.next_at or 0)
    if runs < ENOUGH or len(times) < 2 or info.paused_since is not None:
        return None
    mean, apart = counts["spent"] / SECOND / runs, (times[1] - times[0]) / SECOND
    if mean <= apart:
        return None
    text = f"a run takes {as_span(mean)} on average, and it comes every {as_span(apart)}"
    if row.missed == "all":
        return f"{text}: its flags pile up", "have it come less often, or its handler do less, or missed='once'"
    return f"{text}: it runs without a pause, and times in between share a run", "have it come less often, or its handler do less"


FIRING: list[Check] = [firing]

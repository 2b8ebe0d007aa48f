"""Schedules: whether each can fire and has a handler, what the next clock changes do to them, which share a flag; and counts."""

from __future__ import annotations

from ...config import SECOND
from ...consumer.keeper import OVERDUE
from ...schedules.book import plan_of
from ...sweep.records import FINE, counted_since
from ..schedule_info import seconds_due
from ..schedules import sharing_with
from .finding import Finding, as_date, names
from .patient import Check, Patient

AHEAD = 60
"""Days within which clock changes are told."""

LATE = 86_400
"""Seconds that counts may be older than they are kept: they are thinned out by the hour, by consumers."""


def schedules(patient: Patient) -> Finding:
    """Check that each schedule has a handler that does what it raises."""
    if not patient.schedules:
        return Finding("ok", "schedules", "there are none")
    if not patient.site.handlers:
        return Finding("ok", "schedules", f"{len(patient.schedules)}; without --app it is not known which have a handler")
    unserved = [info for info in patient.schedules if not info.handled]
    overdue = [info for info in unserved if seconds_due(info, patient.now) >= OVERDUE]
    told = names(f"{info.name} (kind {info.kind})" for info in overdue or unserved)
    if overdue:
        fix = "register a handler for the kind, name it in the aliases= of another, or remove the schedule, or pause it"
        return Finding("warn", "schedules", f"due, and no handler for it here, nor, it seems, elsewhere: {told}", fix)
    if unserved:
        text = f"no handler here for {told}; none of these is overdue: another application seems to serve them"
        return Finding("ok", "schedules", text)
    return Finding("ok", "schedules", f"{len(patient.schedules)}, each with a handler")


def schedule_rows(patient: Patient) -> Finding:
    """Look for schedules that were damaged by hand."""
    damaged = [info for info in patient.schedules if info.problem]
    if damaged:
        text = "; ".join(f"{info.name} cannot fire: {info.problem}" for info in damaged[:10])
        fix = "'flagsweep schedule reset' where code declares it, else 'flagsweep schedule edit' with what is wrong, or 'remove'"
        return Finding("warn", "schedule rows", text, fix)
    return Finding("ok", "schedule rows", "all can be read")


def clock_changes(patient: Patient) -> Finding:
    """Tell which schedules lose or repeat a time at the next clock changes."""
    whole = [row for row, info in zip(patient.schedule_rows, patient.schedules, strict=True) if not info.problem]
    told = [f"{row.name}: {line}" for row in whole for line in plan_of(row).spec.lost(patient.now, AHEAD)]
    if told:
        more = f"; and {len(told) - 10} more" if len(told) > 10 else ""
        fix = "give it a time that no clock change skips or repeats, or the zone UTC, unless that is meant"
        return Finding("warn", "clock changes", f"{'; '.join(told[:10])}{more}", fix)
    return Finding("ok", "clock changes", f"none within {AHEAD} days skips or repeats a time of a schedule")


def shared_flags(patient: Patient) -> Finding:
    """Look for schedules that raise the same flag: where they are due together, there is one run."""
    rows = patient.schedule_rows
    groups = {tuple(sorted((row.name, *(each.name for each in sharing_with(row, rows))))) for row in rows}
    shared = sorted(group for group in groups if len(group) > 1)
    if shared:
        text = f"of the same kind and arguments, so that they share one flag and one run: {names(map(' and '.join, shared))}"
        return Finding("warn", "shared flags", text, "give them different arguments, or remove one, unless that is meant")
    return Finding("ok", "shared flags", "each schedule has its own")


def counts(patient: Patient) -> Finding:
    """Check that counts are thinned out."""
    oldest = counted_since(patient.store.connections.engine)
    keep = max(patient.site.settings.keep_counts, FINE)
    if oldest is None:
        return Finding("ok", "counts", "none yet: nothing was done")
    if oldest < patient.now - (keep + LATE) * SECOND:
        text = f"kept since {as_date(oldest)}, longer than {keep / 86_400:g} days: no consumer has thinned them out"
        return Finding("warn", "counts", text, "start 'flagsweep run': 'flagsweep sweep' does not thin them out")
    return Finding("ok", "counts", f"kept since {as_date(oldest)}, for {keep / 86_400:g} days at the most")


SCHEDULES: list[Check] = [schedules, schedule_rows, clock_changes, shared_flags, counts]

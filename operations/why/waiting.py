"""A flag that waits: for its time, for its next attempt, for its turn."""

from __future__ import annotations

import json
from typing import Any

from ...config import SECOND
from ...durations import span
from ...models import Flag
from .answer import Said
from .case import MOST, Case, last_failure
from .nobody import is_patient
from .words import at, is_time, listed, many, since, times, until

FEW = 10
"""Flags before one in a busy lane that do not tell more than who makes it busy."""


def damaged(case: Case, flag: Flag) -> Said | None:
    """A hand has damaged its row, so that no sweep can do anything with it."""
    problems = [] if is_time(flag.due_at) else [f"its due time is {flag.due_at!r}"]
    if not _is_json(flag.payload):
        problems.append("its payload is no JSON")
    return Said({"problems": " and ".join(problems), "kind": flag.kind}) if problems else None


def _is_json(text: Any) -> bool:
    try:
        json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _is_early(case: Case, flag: Flag) -> bool:
    return is_time(flag.due_at) and flag.due_at > case.now


def backing_off(case: Case, flag: Flag) -> Said | None:
    """It failed, or its process died with it, and waits for its next attempt."""
    if not _is_early(case, flag) or not (flag.attempts or flag.crashes):
        return None
    handler = case.handler(flag.kind)
    most = f" of {handler.options.max_attempts}" if handler else ""
    error = last_failure(flag) or "nothing is known of the error"
    values = {"attempt": f"{flag.attempts}{most}", "error": error, "until": until(flag.due_at, case.now)}
    more = [f"Its process died with it {times(flag.crashes)}."] if flag.crashes else []
    said = {**values, "id": flag.id, "at": at(flag.settled_at, case.now)}
    return Said(said, flag.settled_at, flag.due_at, last_of(case, flag), more)


def last_of(case: Case, flag: Flag) -> str:
    """Return what happened last to a flag that waits."""
    if flag.attempts or flag.crashes:
        return f"attempt {flag.attempts} failed {at(flag.settled_at, case.now)}: {last_failure(flag)}"
    if is_retried(flag):
        return f"it waits from scratch {since(flag.settled_at, case.now)}, after it had failed: {last_failure(flag)}"
    if flag.settled_at is not None:
        return f"it ran {at(flag.settled_at, case.now)}, and was put off"
    return f"it was raised {at(flag.raised_at, case.now)}"


def is_retried(flag: Flag) -> bool:
    """Return whether a flag that had failed waits from scratch, as after a retry: its error is there, none of its attempts is."""
    return flag.settled_at is not None and flag.error is not None and not flag.attempts


def snoozed(case: Case, flag: Flag) -> Said | None:
    """Its handler has begun it, and asked for later."""
    if not _is_early(case, flag) or flag.attempts or flag.settled_at is None or is_retried(flag):
        return None
    values = {"until": until(flag.due_at, case.now), "at": at(flag.settled_at, case.now)}
    return Said(values, flag.settled_at, flag.due_at, last_of(case, flag))


def not_due(case: Case, flag: Flag) -> Said | None:
    """Its time has not come: it was raised for later."""
    if not _is_early(case, flag) or flag.attempts or flag.crashes or not (flag.settled_at is None or is_retried(flag)):
        return None
    debounced = ["Each raise puts it off, as its debounce says."] if flag.first_at is not None else []
    scheduled = [f"The schedule {flag.schedule} has raised it."] if flag.schedule is not None else []
    return Said(
        {"until": until(flag.due_at, case.now)}, flag.raised_at, flag.due_at, last_of(case, flag), [*debounced, *scheduled]
    )


def expired_waiting(case: Case, flag: Flag) -> Said | None:
    """It was to begin before a time that has passed: the next sweep lowers it without running it."""
    if not is_time(flag.expires_at) or flag.expires_at > case.now:
        return None
    return Said({"at": at(flag.expires_at, case.now)}, flag.expires_at, last=f"it was due {at(flag.due_at, case.now)}")


def suspect(case: Case, flag: Flag) -> Said | None:
    """Its process died while it ran, so that it runs alone among others of which that is so, to find who is to blame."""
    if not flag.suspect:
        return None
    beside = [each for each in case.in_hand.running if each.started and each.lane == case.lane_of(flag.kind)]
    more = [f"Just now {beside[0].kind} (flag {beside[0].id}) runs in its lane."] if beside else []
    last = f"{last_failure(flag)}, {at(flag.settled_at, case.now)}"
    return Said({"crashes": times(flag.crashes or flag.suspect), "id": flag.id}, flag.settled_at, last=last, more=more)


def lane_busy(case: Case, flag: Flag) -> Said | None:
    """All threads of its lane have something in hand."""
    lane, before = _turn(case, flag)
    running = _running(case, lane)
    threads = case.people.threads(lane) or case.settings.lanes.get(lane, case.settings.threads)
    if len(running) < threads or before > FEW * max(1, threads):
        return None
    longest = running[0]
    values = {
        "lane": lane,
        "threads": f"its {threads} threads have work in hand" if threads > 1 else "its only thread has work in hand",
        "what": f"{longest.kind} (flag {longest.id})",
        "since": since(None if longest.running_s is None else case.now - int(longest.running_s * SECOND), case.now),
        "usual": case.usual(longest.kind),
        "more": threads + 2,
    }
    behind = [f"{many(before, MOST, 'flag')} of its lane come before it."] if before else []
    return Said(values, flag.due_at, last=f"it was due {at(flag.due_at, case.now)}", more=behind)


def _running(case: Case, lane: str) -> list[Any]:
    """Return what handlers have in hand in a lane, the longest first; what is only claimed ahead waits, too."""
    return [each for each in case.in_hand.running if each.started is not False and case.lane_of(each.kind) == lane]


def behind_others(case: Case, flag: Flag) -> Said | None:
    """Others of its lane are due that come before it: the longest due first, higher priorities before all."""
    lane, before = _turn(case, flag)
    if not before:
        return None
    kinds = case.kinds_in(lane) or [flag.kind]
    pace = case.pace(kinds)
    soon = f"at the present pace that takes {span(60 * before / pace)}" if pace else "none of them has begun within five minutes"
    begun = case.now + int(60 * before / pace * SECOND) if pace and before <= MOST else None
    values = {"many": many(before, MOST, "flag"), "lane": lane, "pace": f"{pace:.1f}", "soon": soon, "more": 8}
    return Said(values, flag.due_at, begun, f"it was due {at(flag.due_at, case.now)}")


def _turn(case: Case, flag: Flag) -> tuple[str, int]:
    lane = case.lane_of(flag.kind) or "default"
    return lane, case.before(flag, lane)


def any_moment(case: Case, flag: Flag) -> Said | None:
    """It is due, nothing is in its way, and it has waited for no longer than it may take to begin it."""
    if not is_patient(case, flag):
        return None
    return Said({"since": since(flag.due_at, case.now)}, flag.due_at)


def unexplained(case: Case, flag: Flag) -> Said | None:
    """It is due, and nothing that can be seen from here is in its way."""
    names = listed([f"{row.id} (pid {row.pid} on {row.host})" for row in case.people.staying])
    return Said({"since": since(flag.due_at, case.now), "who": names or "?"}, flag.due_at)

"""Nobody who could: no consumer, one that hangs, none with a handler."""

from __future__ import annotations

import platform
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ...config import SECOND
from ...consumer.terms import STAYING
from ...durations import span
from ...models import Consumer, Flag
from ..doctor.transactions import lanes_of
from ..older_code import file_of, older_than
from .answer import Said
from .case import Case
from .people import TICK, noted, who
from .words import at, clock_time, is_time, listed, since

PATIENCE = 30
"""Seconds for which a lane has nothing in hand and leaves a due flag, before that is worth a word."""


def no_handler(case: Case, flag: Flag) -> Said | None:
    """No code that is known here, and no consumer that runs, has a handler for the kind: it was renamed, or its module is not
    imported."""
    people = case.people
    if flag.kind in case.handlers or (people.staying and people.serve(flag.kind)) or not (case.handlers or people.staying):
        return None
    served = case.served(flag.kind)
    near = nearest(case, flag.kind)
    had = "nobody has noted which application had one"
    if served.get("app"):
        had = f"{served['app']} on {served.get('host', '?')} had one, and was last seen with it {at(served.get('at'), case.now)}"
    cure = f"aliases=[{flag.kind!r}] of the handler {near[0]!r}" if near else f"aliases=[{flag.kind!r}] of the one that is meant"
    more = [f"The nearest kinds with a handler: {listed(near)}."] if near else []
    return Said({"kind": flag.kind, "had": had, "alias": cure}, served.get("at"), more=more)


def nearest(case: Case, kind: str) -> list[str]:
    """Return kinds that have a handler and are called nearly so; where that is only one, it may be what it is called now."""
    known = sorted(set(case.handlers) or {name for kinds in case.people.lanes().values() for name in kinds})
    return get_close_matches(kind, known, 3, 0.4)


def consumer_without_handler(case: Case, flag: Flag) -> Said | None:
    """A handler is known here, but the consumer that runs has none: it has begun before the code had it, or is another's."""
    people = case.people
    if flag.kind not in case.handlers or not people.staying or people.serve(flag.kind):
        return None
    names = listed([who(row) for row in people.staying])
    oldest = min((row.started_at for row in people.staying if is_time(row.started_at)), default=None)
    pids = " ".join(str(row.pid) for row in people.staying)
    return Said({"kind": flag.kind, "who": names, "since": since(oldest, case.now), "pids": pids}, oldest)


def older_code(case: Case, kind: str) -> Said | None:
    """A consumer started before the module of a handler was changed, so that it runs the code of that time."""
    handler = case.handler(kind)
    if handler is None:
        return None
    older = older_than({kind: handler}, case.people.staying, platform.node())
    found = [each for each in older if each[1] <= case.now]
    if not found:
        return None
    module, changed, row = found[0]
    values = {
        "who": listed([who(row) for _, _, row in found]),
        "since": since(row.started_at, case.now),
        "file": file_of(module),
        "at": at(changed, case.now),
        "pids": " ".join(str(row.pid) for _, _, row in found),
    }
    return Said(values, changed)


def no_consumer(case: Case, flag: Flag | None = None) -> Said | None:
    """No consumer runs."""
    if case.people.staying or case.people.is_swept_now_and_then:
        return None
    left, ended = _left(case)
    return Said({"left": left}, ended, more=_inline(case))


def _left(case: Case) -> tuple[str, Any]:
    """Return who was the last to run and how that ended, and when."""
    dead = [row for row in case.people.rows.values() if row.mode in STAYING and not case.people.is_alive(row)]
    if dead:
        last = dead[-1]
        spoke = last.ticked_at if is_time(last.ticked_at) else last.started_at
        return f"the last, {who(last)}, has died; it was last heard of {at(spoke, case.now)}", spoke
    left = case.people.left
    if left is None:
        return "none has ever run on this database", None
    said = noted(left)
    how = {"died": "died", "stopped": "was stopped"}.get(said.get("how", ""), "ended")
    app = f", of {said['app']}" if said.get("app") not in (None, "", "None") else ""
    return f"the last (pid {said.get('pid', '?')} on {said.get('host', '?')}{app}) {how} {at(left.at, case.now)}", left.at


def _inline(case: Case) -> list[str]:
    return ["In mode 'inline' a raise sweeps, and nothing else does."] if case.settings.mode == "inline" else []


def between_sweeps(case: Case, flag: Flag | None = None) -> Said | None:
    """No consumer runs, but ``flagsweep sweep`` did of late, as where cron calls it."""
    people = case.people
    if people.staying or not people.is_swept_now_and_then or people.swept is None:
        return None
    return Said({"at": at(people.swept.at, case.now)}, people.swept.at)


def consumer_silent(case: Case, flag: Flag | None = None) -> Said | None:
    """A consumer's process lives, but it has not said for minutes that it goes on: it hangs, or stands still."""
    row = _silent(case)
    if row is None or consumer_cannot_write(case) is not None:
        return None
    spoke = row.ticked_at if is_time(row.ticked_at) else row.started_at
    values = {"who": who(row), "for": span(case.people.silence(row)), "pid": row.pid, "at": clock_time(spoke, case.now) or "?"}
    more = [f"Somebody has stopped it (SIGSTOP, or Ctrl-Z): 'kill -CONT {row.pid}' has it go on."] if is_stopped(row) else []
    return Said(values, spoke, more=more)


def _silent(case: Case) -> Consumer | None:
    """Return the consumer that spoke last, where that was minutes ago."""
    staying = case.people.staying
    if not staying or any(case.people.silence(row) <= TICK and not is_stopped(row) for row in staying):
        return None
    return min(staying, key=case.people.silence)


def consumer_cannot_write(case: Case, flag: Flag | None = None) -> Said | None:
    """A consumer's process lives, and another holds SQLite's only writer, so that it can neither say that it goes on, nor do
    anything: it is not to blame."""
    row = _silent(case)
    if row is None or is_stopped(row) or not case.writers or row.pid in case.writers:
        return None
    spoke = row.ticked_at if is_time(row.ticked_at) else row.started_at
    return Said({"who": who(row), "for": span(case.people.silence(row))}, spoke)


def is_stopped(row: Consumer) -> bool:
    """Return whether a consumer of this host stands still, as after SIGSTOP."""
    if row.host != platform.node():
        return False
    try:
        return Path(f"/proc/{row.pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError, ValueError):
        return False


def lane_not_swept(case: Case, flag: Flag) -> Said | None:
    """A consumer lives and says so, but does not sweep the lane."""
    lane = case.lane_of(flag.kind)
    return None if lane is None else not_swept(case, lane)


def not_swept(case: Case, lane: str) -> Said | None:
    """Return who leaves a lane alone; None: it is swept."""
    row = case.people.stalled(lane)
    if row is None:
        return None
    swept: Any = lanes_of(row).get(lane, {}).get("swept_at")
    last = f"it was swept last {at(swept, case.now)}" if is_time(swept) else "it was never swept by it"
    return Said({"lane": lane, "who": who(row), "last": last, "pid": row.pid}, swept)


def is_patient(case: Case, flag: Flag) -> bool:
    """Return whether a due flag waits no longer than it may take to begin it."""
    return case.now - flag.due_at <= PATIENCE * SECOND

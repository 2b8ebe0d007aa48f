"""Closed gates: what a person has paused, what a handler, a clock or a limit holds back."""

from __future__ import annotations

import shlex
from typing import Any

from ...config import SECOND
from ...consumer.stamping import BY, HELD, Held
from ...durations import span
from ...gates.breaker import Breaker, Outage
from ...gates.breaker import fresh_from as next_probe
from ...gates.closings import quiet_hours
from ...gates.shut import ALL
from ...handlers import Handler
from ...models import WAITING, Flag, Gate, fact
from .answer import Said
from .case import Case
from .people import noted
from .words import is_time, since, until

LOOK = 100
"""Flags that wait among which the next probe is looked for, of each priority."""

MOVES = ("was moved to ", "is being moved ")
"""How the reason begins for which a move pauses a database."""


def restored(case: Case, flag: Flag) -> Said | None:
    """The database seems to be a restored backup, or a copy, and nobody has confirmed it yet."""
    row, note = case.shut.row(ALL, ""), fact(case.db, HELD)
    if note is None or row is None or row.paused_by != BY or (ALL, "") not in case.shut.all_pauses(case.now):
        return None
    values = {"since": since(row.paused_at or None, case.now), "why": Held.parse(note.value).why}
    return Said(values, row.paused_at or None)


def all_paused(case: Case, flag: Flag) -> Said | None:
    """Somebody has paused everything."""
    return paused(case, flag, ALL, "") if restored(case, flag) is None else None


def moved(case: Case, flag: Flag) -> Said | None:
    """The flags of this database were moved to another, or are just being moved, so that none is done twice."""
    row = case.shut.row(ALL, "")
    to, here = (fact(case.db, name) for name in ("move:to", "move:from"))
    if row is None or (ALL, "") not in case.shut.all_pauses(case.now) or not str(row.reason).startswith(MOVES):
        return None
    where = case.connections.where if here is not None and "moved here" in str(row.reason) else noted(to).get("to", "URL")
    return Said({"since": since(row.paused_at or None, case.now), "moved": row.reason, "to": where}, row.paused_at or None)


def lane_paused(case: Case, flag: Flag) -> Said | None:
    """Somebody has paused the lane in which the flag is swept."""
    lane = case.lane_of(flag.kind)
    return None if lane is None else paused(case, flag, "lane", lane)


def kind_paused(case: Case, flag: Flag) -> Said | None:
    """Somebody has paused the kind, or the kind of which it is an alias."""
    found = (paused(case, flag, "kind", kind) for kind in _names(case, flag.kind))
    return next((said for said in found if said is not None), None)


def paused(case: Case, flag: Flag, sort: str, name: str) -> Said | None:
    """Return who has paused what goes by a name, where that holds for longer than the flag is not due."""
    row = case.shut.row(sort, name)
    if sort == ALL and moved(case, flag) is not None:
        return None
    if row is None or (sort, name) not in case.shut.all_pauses(case.now) or _is_over_by_then(row.paused_until, flag, case.now):
        return None
    ends = "until somebody resumes it" if row.paused_until is None else f"until {until(row.paused_until, case.now)}"
    values = {
        "name": shlex.quote(name),
        "by": row.paused_by or "somebody",
        "since": since(row.paused_at or None, case.now),
        "ends": ends,
    }
    reason = [f"The reason given: {row.reason}."] if row.reason else []
    return Said(values, row.paused_at or None, row.paused_until, more=reason)


def asked_to_wait(case: Case, flag: Flag) -> Said | None:
    """A handler has asked for all of its kind, or of the flag's bucket, to wait, as after a provider's Retry-After."""
    row = _row(case, flag)
    for each in (row, None if row is None or not row.bucket else case.shut.row("kind", row.name)):
        if each is not None and is_time(each.closed_until) and each.closed_until > case.now:
            if _is_over_by_then(each.closed_until, flag, case.now):
                return None
            of = f"{each.name}, bucket {each.bucket}" if each.bucket else each.name
            values = {
                "of": of,
                "until": until(each.closed_until, case.now),
                "why": each.closed_why or "its handler asked to wait",
            }
            return Said(values, until=each.closed_until)
    return None


def quiet(case: Case, flag: Flag) -> Said | None:
    """It is one of the hours of the day in which none of this kind starts."""
    handler = case.handler(flag.kind)
    closing = None if handler is None else quiet_hours(handler.options.quiet, max(case.now, _due(flag, case.now)), case.zone)
    if closing is None or handler is None:
        return None
    values = {"kind": flag.kind, "hours": str(handler.options.quiet), "until": until(closing.until, case.now)}
    return Said(values, until=closing.until)


def breaker(case: Case, flag: Flag) -> Said | None:
    """Flag after flag of the kind failed alike, so that its provider seems to be away, and only a probe is let through."""
    handler = case.handler(flag.kind)
    row = case.shut.row("kind", flag.kind if handler is None else handler.kind)
    state = Breaker.parse(None if row is None else row.breaker)
    if state.outage is None:
        return None
    ends = next_probe(state, case.now)
    if _is_over_by_then(ends, flag, case.now):
        return None
    ends = _next_try(case, flag, state.outage)
    soon = ends <= case.now
    values = {
        "kind": flag.kind,
        "quoted": shlex.quote(flag.kind),
        "why": state.outage.why,
        "since": since(state.outage.since, case.now),
        "next": "may go at once" if soon else f"goes at {until(ends, case.now)}",
    }
    return Said(values, state.outage.since, None if soon else ends)


def _next_try(case: Case, flag: Flag, outage: Outage) -> int:
    """Return when a probe goes: that takes a flag that is due, and one that was never tried has a time of its own."""
    waiting = [flag]
    for due in case.agenda:
        if due.kind in _names(case, flag.kind):
            where = (WAITING, Flag.kind == due.kind, Flag.priority == due.priority)
            waiting += case.flags(*where, order=(Flag.due_at, Flag.id), limit=LOOK)
    tried, fresh = outage.next_at(case.now), outage.fresh_from(case.now)
    opens = [(each, tried if each.attempts else min(tried, fresh)) for each in waiting]
    return min(max(when, _due(each, case.now)) for each, when in opens)


def rate(case: Case, flag: Flag) -> Said | None:
    """As many of the kind have started as its rate allows."""
    handler = case.handler(flag.kind)
    if handler is None or (limit := handler.options.rate) is None:
        return None
    row = _row(case, flag)
    return _used_up(case, flag, handler, str(limit), limit.opens_at(None if row is None else row.taken, case.now))


def budget(case: Case, flag: Flag) -> Said | None:
    """As many of the kind have started today as its budget allows."""
    handler = case.handler(flag.kind)
    if handler is None or (limit := handler.options.budget) is None:
        return None
    row = _row(case, flag) or Gate()
    return _used_up(case, flag, handler, str(limit), limit.opens_at(row.day, row.used or 0, case.now, case.zone))


def _used_up(case: Case, flag: Flag, handler: Handler, limit: str, opens: int | None) -> Said | None:
    if opens is None or _is_over_by_then(opens, flag, case.now):
        return None
    return Said({"of": _of(flag, handler), "limit": limit, "until": until(opens, case.now)}, until=opens)


def limit(case: Case, flag: Flag) -> Said | None:
    """As many of the kind run just now as may at the same time, whoever runs them."""
    handler = case.handler(flag.kind)
    if handler is None or (most := handler.options.limit) is None or _due(flag, case.now) > case.now:
        return None
    kinds = _names(case, flag.kind, aliases=True)
    if handler.options.per is not None and flag.bucket is not None:
        running = case.dialect.claimed_in(case.db, kinds, [flag.bucket])[flag.bucket]
    else:
        running = sum(case.dialect.in_hand(case.db, kind) for kind in kinds)
    if running < most:
        return None
    longest = next((each for each in case.in_hand.running if each.kind in kinds and each.running_s is not None), None)
    more = [] if longest is None else [f"The longest, flag {longest.id}, has run for {span(longest.running_s or 0)}."]
    return Said({"of": _of(flag, handler), "limit": most, "usual": case.usual(handler.kind)}, more=more)


def _row(case: Case, flag: Flag) -> Gate | None:
    """Return the gate that a flag's limits are of: that of its bucket, where its kind has any."""
    handler = case.handler(flag.kind)
    kind = flag.kind if handler is None else handler.kind
    if flag.bucket is None or (handler is not None and handler.options.per is None):
        return case.shut.row("kind", kind)
    of_bucket = Gate.select().where(Gate.sort == "kind", Gate.name == kind, Gate.bucket == flag.bucket).limit(1)
    return next(iter(of_bucket.execute(case.db)), None) or case.shut.row("kind", kind)


def _names(case: Case, kind: str, aliases: bool = False) -> list[str]:
    """Return a kind and that of its handler; with all that go by the same handler, where they are wanted."""
    handler = case.handler(kind)
    others = [name for name, each in case.handlers.items() if each is handler] if aliases else []
    return list(dict.fromkeys([kind, *([handler.kind] if handler else []), *others]))


def _of(flag: Flag, handler: Handler) -> str:
    return f"{handler.kind}, bucket {flag.bucket}" if handler.options.per is not None and flag.bucket else handler.kind


def _due(flag: Flag, now: int) -> int:
    return flag.due_at if is_time(flag.due_at) else now


def _is_over_by_then(ends: Any, flag: Flag, now: int) -> bool:
    """Return whether a gate opens before a flag is due, so that it is not in its way."""
    return is_time(ends) and _due(flag, now) > max(now, ends) + SECOND

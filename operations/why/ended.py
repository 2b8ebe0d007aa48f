"""A flag that is dead, or not up any more, or never was."""

from __future__ import annotations

import shlex
from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from typing import Any, NamedTuple

from ...databases.errors import DATABASE_ERRORS
from ...logs import printable
from ...models import Flag, History
from .answer import Said
from .case import Case, last_failure
from .words import at, is_time, listed, times

LINES = 5_000
"""Lines of a kind's history that are looked through for a key, the newest first."""

MOST_SORTS = 200
"""Sorts of deaths that are looked through."""

KEYS = 200
"""Keys among which the nearest to one is looked for."""


class Gone(NamedTuple):
    """Name a flag that is not up: by its id, or by kind and key; with the last line of its history, if it has any."""

    id: int | None
    kind: str | None
    key: str | None
    line: History | None


def last_line(case: Case, id: int | None, kind: str | None, keys: list[str]) -> History | None:
    """Return the last line of a flag's history."""
    if id is not None:
        query = History.select().where(History.flag == id).order_by(History.id.desc()).limit(1)
        return next(iter(query.execute(case.db)), None)
    newest = History.select(History.id, History.key).where(History.kind == kind).order_by(History.at.desc()).limit(LINES)
    found = next((line.id for line in newest.execute(case.db) if line.key in keys), None)
    return None if found is None else next(iter(History.select().where(History.id == found).execute(case.db)), None)


def dead(case: Case, flag: Flag) -> Said | None:
    """It is out of attempts, or its error was final: it is kept until a person decides."""
    error = last_failure(flag) or "nobody has noted why"
    handler = case.handler(flag.kind)
    most = f" of {handler.options.max_attempts}" if handler else ""
    values = {"id": flag.id, "at": at(flag.died_at, case.now), "error": error, "tries": f"{flag.attempts}{most}"}
    crashed = [f"Its process died with it {times(flag.crashes)}."] if flag.crashes else []
    unserved = case.handlers and flag.kind not in case.handlers
    more = [f"No handler here has the kind {flag.kind} any more."] if unserved else []
    return Said(values, flag.died_at, last=f"it died {values['at']}: {error}", more=[*crashed, *more])


def lowered(case: Case, gone: Gone) -> Said | None:
    """Its work is done."""
    return _ended(case, gone, "succeeded")


def discarded(case: Case, gone: Gone) -> Said | None:
    """It was dropped undone: by its handler, or by a person who has discarded it when it was dead."""
    return _ended(case, gone, "discarded")


def expired(case: Case, gone: Gone) -> Said | None:
    """It was lowered without being run, since its time had passed."""
    return _ended(case, gone, "expired")


def lowered_by_hand(case: Case, gone: Gone) -> Said | None:
    """Somebody has taken it down with ``lower``."""
    return _ended(case, gone, "lowered by hand")


def _ended(case: Case, gone: Gone, event: str) -> Said | None:
    line = gone.line
    if line is None or line.event != event:
        return None
    reason = printable(str(line.reason or ""))[:300]
    attempt = f", in attempt {line.attempt}" if isinstance(line.attempt, int) and line.attempt > 1 else ""
    values = {"at": at(line.at, case.now), "reason": reason or "none was given", "attempt": attempt, "kind": line.kind}
    return Said(values, line.at, last=f"{line.event} {values['at']}")


def gone(case: Case, gone: Gone) -> Said | None:
    """There was a flag of this id, and it is not up any more; of successes no line is kept unless its kind says so."""
    if gone.id is None or gone.id > case.newest_id():
        return None
    if gone.line is None:
        return Said({"id": gone.id, "known": "it is not noted how"})
    line = gone.line
    what = f"the last that is noted of it is {printable(str(line.event))} {at(line.at, case.now)}"
    return Said({"id": gone.id, "known": what}, line.at, last=what)


def done_or_never(case: Case, gone: Gone) -> Said | None:
    """Nothing of this kind and key is up; flags of the kind are done and gone, of which no line is kept."""
    if gone.id is not None or gone.kind is None:
        return None
    handler = case.handler(gone.kind)
    done = case.ran(gone.kind).get("succeeded", 0)
    if not done or (handler is not None and handler.options.history):
        return None
    values = {"kind": gone.kind, "done": f"{done:,}"}
    return Said(values, more=_near(case, gone.kind, gone.key))


def never_raised(case: Case, gone: Gone) -> Said | None:
    """There never was such a flag in this database; or whoever raises it has not committed."""
    holder = _uncommitted(case)
    if gone.id is not None:
        newest = case.newest_id()
        so_far = f"the newest that was ever given is {newest:,}" if newest else "no flag was ever raised in this database"
        return Said({"what": f"flag {gone.id}", "known": so_far, "where": case.connections.where}, more=holder)
    kind = str(gone.kind)
    up = case.flags(Flag.kind == kind)
    known = f"other flags of {kind} are up" if up else f"no flag of {kind} is up"
    values = {"what": f"{kind} {gone.key}", "known": known, "where": case.connections.where}
    return Said(values, more=[*_near(case, kind, gone.key), *holder])


def _near(case: Case, kind: str, key: str | None) -> list[str]:
    """Return a sentence that names the keys which are nearest to one, of those that are up."""
    query = Flag.select(Flag.key).where(Flag.kind == kind).limit(KEYS)
    near = get_close_matches(key or "", [str(row.key) for row in query.execute(case.db)], 3, 0.6)
    return [f"Near to it are up: {listed([shlex.quote(each) for each in near])}."] if near else []


def _uncommitted(case: Case) -> list[str]:
    """Return a sentence that names whoever may have raised it, and not committed yet."""
    if case.dialect.one_writer:
        pids = sorted(case.writers - {0})
        return [f"The process {pids[0]} has a transaction open in which it may be: nobody sees that yet."] if pids else []
    found: list[Any] = []
    with suppress(*DATABASE_ERRORS):
        found, _ = case.dialect.open_transactions(case.connections.engine, 0)
    writing = [each for each in found if each.flags is not False and each.idle is not None]
    return [f"The transaction of {writing[0].who} is open, in which it may be: nobody sees that yet."] if writing else []


def kind_dead(case: Case, kind: str) -> Said | None:
    """Nothing of the kind waits, but flags of it are dead."""
    flag = newest_dead(case, kind)
    if flag is None:
        return None
    died = flag.died_at if is_time(flag.died_at) else None
    error = last_failure(flag) or "nobody has noted why"
    values: dict[str, Any] = {"kind": shlex.quote(kind), "id": flag.id, "at": at(died, case.now), "error": error}
    return Said(values, died, last=f"flag {flag.id} died {values['at']}: {error}")


def newest_dead(case: Case, kind: str) -> Flag | None:
    """Return the flag of a kind that died last: the last of each sort of death is the end of a range of an index."""
    groups = [group for group in islice(case.dialect.dead_groups(case.db), MOST_SORTS) if group[0] == kind]
    ids = [id for group in groups if (id := case.dialect.last_of_group(case.db, group)) is not None]
    found = case.flags(Flag.id.in_(ids), Flag.state == "dead", limit=MOST_SORTS) if ids else []
    return max(found, key=lambda flag: flag.died_at if is_time(flag.died_at) else 0, default=None)

"""A kind, a lane, or the site as a whole: nothing is in the way, or what is most urgent."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from itertools import islice
from typing import Any

from ...config import SECOND
from ...models import CLAIMED, Flag, History
from ...sweep.records import totals
from ..info import headline_of
from .answer import Said
from .case import Case
from .ended import MOST_SORTS
from .people import who
from .words import at, is_time, listed, many
from .words import since as since_when

MOST_DEAD = 1000
"""Dead flags of one sort that are counted."""

FIRST = 100
"""Lines of history among which the last failure is looked for."""


def nothing_up(case: Case, kinds: list[str]) -> Said | None:
    """No flag is up: all that was raised is done, or nothing was."""
    ran = [case.ran(kind) for kind in kinds]
    done, failed = (sum(each.get(name, 0) for each in ran) for name in ("succeeded", "failed"))
    return Said({"done": many(done, 10**12, "run"), "failed": f"{failed:,}"})


def claimed_of(case: Case, kinds: list[str]) -> Flag | None:
    """Return the flag of these kinds that a consumer has had in hand for longest."""
    return next(iter(case.flags(CLAIMED, Flag.kind.in_(kinds), order=(Flag.claimed_at,))), None) if kinds else None


def unknown_name(case: Case, name: str, near: list[str]) -> Said | None:
    """There is no kind, no lane and no schedule of that name."""
    more = [f"Near to it are: {listed(near)}."] if near else []
    return Said({"name": name}, more=more)


def dead_lately(case: Case) -> Iterable[Said]:
    """Flags died within the last day."""
    since, found = case.now - 86_400 * SECOND, []
    for kind, died_as in islice(case.dialect.dead_groups(case.db), MOST_SORTS):
        if count := case.dialect.died_since(case.db, (kind, died_as), since, MOST_DEAD + 1):
            found.append((count, kind, died_as))
    by_kind: dict[str, list[tuple[int, Any]]] = {}
    for count, kind, died_as in sorted(found, key=lambda each: -each[0]):
        by_kind.setdefault(kind, []).append((count, died_as))
    for kind, sorts in by_kind.items():
        total = sum(count for count, _ in sorts)
        values = {
            "many": many(total, MOST_DEAD, "flag"),
            "name": kind,
            "kind": shlex.quote(kind),
            "error": sorts[0][1] or "causes not noted",
        }
        yield Said(values)


def failing(case: Case) -> Iterable[Said]:
    """Runs of a kind failed within an hour, and none of it succeeded."""
    for kind, counts in sorted(totals(case.db, case.now - 3600 * SECOND).items()):
        failed = counts.get("failed", 0) + counts.get("dead", 0)
        if failed and not counts.get("succeeded", 0):
            line = _last_failed(case, kind)
            how = f"{at(line.at, case.now)}: {headline_of(line.reason)}" if line else ""
            error = f"; the last, flag {line.flag} {how}" if line else ""
            last = f"flag {line.flag} failed {how}" if line else ""
            values = {"name": kind, "kind": shlex.quote(str(kind)), "many": many(failed, 10**12, "attempt"), "error": error}
            yield Said(values, last=last)


def _last_failed(case: Case, kind: str) -> History | None:
    """Return the line of the failure of a kind that was last, of its newest lines within an hour.

    The flag itself tells when it was settled last, and a retry settles it, too.
    """
    where = (History.kind == kind, History.at >= case.now - 3600 * SECOND)
    newest = History.select().where(*where).order_by(History.at.desc(), History.id.desc()).limit(FIRST).execute(case.db)
    return next((line for line in newest if line.event in ("failed", "dead")), None)


def dead_consumers(case: Case) -> Iterable[Said]:
    """A consumer has died, and what it had claimed was not given back yet."""
    claimers = set(case.dialect.claimers(case.db))
    for row in case.people.rows.values():
        if row.id in claimers and not case.people.is_alive(row):
            spoke = row.ticked_at if is_time(row.ticked_at) else row.started_at
            yield Said({"who": who(row), "at": at(spoke, case.now)}, spoke)


def pauses(case: Case) -> Iterable[Said]:
    """Somebody has paused something, and nothing that is due waits behind it."""
    for sort, name in sorted(case.shut.all_pauses(case.now)):
        row = case.shut.row(sort, name)
        what = {"all": "everything", "lane": f"lane {name}"}.get(sort, f"kind {name}")
        option = {"all": "--all", "lane": f"--lane {shlex.quote(name)}"}.get(sort, shlex.quote(name))
        by, since = (row.paused_by or "somebody", row.paused_at or None) if row else ("somebody", None)
        reason = [f"The reason given: {row.reason}."] if row is not None and row.reason else []
        yield Said({"what": what, "by": by, "option": option, "since": since_when(since, case.now)}, since, more=reason)


def all_well(case: Case) -> Said | None:
    """Nothing is in the way of anything."""
    living = listed([who(row) for row in case.people.staying]) or "'flagsweep sweep', now and then"
    due = case.due()
    waits = "nothing is due" if not due else f"the oldest due flag ({due[0].kind}) was due {at(due[0].at, case.now)}"
    return Said({"who": living, "waits": waits})

"""A flag that somebody has: a consumer that lives, one that has died, or a transaction that is open."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ...databases.errors import DATABASE_ERRORS
from ...databases.sqlite.holders import holders
from ...durations import span
from ...models import Flag
from ..doctor.processes import Process
from .answer import Said
from .case import Case, last_failure
from .people import who
from .words import at, listed, since


def running(case: Case, flag: Flag) -> Said | None:
    """A consumer that lives has it in hand just now: it runs."""
    row = case.people.rows.get(flag.claimed_by)
    if row is None or not case.people.is_alive(row) or _started(case, flag) is False:
        return None
    unseen = case.people.lives.get(row.id) is None
    more = ["Whether that one lives, this user cannot see: it has ticked lately."] if unseen else []
    again = ["It was raised again meanwhile, and runs once more afterwards."] if _is_bumped(flag) else []
    values = {
        "who": who(row),
        "since": since(flag.claimed_at, case.now),
        "usual": case.usual(flag.kind),
        "has": "has it in hand" if _started(case, flag) else "has claimed it",
    }
    return Said(values, flag.claimed_at, last=_before(case, flag), more=[*more, *again])


def claimed_ahead(case: Case, flag: Flag) -> Said | None:
    """A consumer that lives has claimed it ahead, and begins it as soon as a thread of the lane is free."""
    row = case.people.rows.get(flag.claimed_by)
    if row is None or not case.people.is_alive(row):
        return None
    lane = case.lane_of(flag.kind) or "default"
    busy = [each for each in case.in_hand.running if each.started and each.consumer == row.id and case.lane_of(each.kind) == lane]
    longest = [f"The longest runs {busy[0].kind} (flag {busy[0].id}), for {span(busy[0].running_s or 0)}."] if busy else []
    values = {"who": who(row), "since": since(flag.claimed_at, case.now), "lane": lane}
    return Said({**values, "more": (case.people.threads(lane) or 2) + 2}, flag.claimed_at, last=_before(case, flag), more=longest)


def claimed_by_the_dead(case: Case, flag: Flag) -> Said | None:
    """The consumer that had claimed it has died, and nobody has given it back yet."""
    row = case.people.rows.get(flag.claimed_by)
    name = who(row) if row is not None else f"consumer {flag.claimed_by}, which is not entered any more"
    soon = "a consumer that runs gives it back within seconds" if case.people.staying else "no consumer runs that gives it back"
    return Said({"who": name, "since": since(flag.claimed_at, case.now), "soon": soon}, flag.claimed_at, last=_before(case, flag))


def _started(case: Case, flag: Flag) -> bool | None:
    """Return whether a handler has it in hand; None: that cannot be seen from here, or its consumer has too much to name all."""
    return next((each.started for each in case.in_hand.running if each.id == flag.id), None)


def _is_bumped(flag: Flag) -> bool:
    claimed = flag.claimed_generation
    return isinstance(claimed, int) and isinstance(flag.generation, int) and flag.generation > claimed


def _before(case: Case, flag: Flag) -> str:
    failed = f"attempt {flag.attempts} failed {at(flag.settled_at, case.now)}: {last_failure(flag)}"
    return failed if flag.attempts else f"it was raised {at(flag.raised_at, case.now)}"


def open_transaction(case: Case, flag: Flag) -> Said | None:
    """Somebody else's transaction is open that holds the flag's row, or SQLite's only writer."""
    if not flag.id:
        return None
    return writer(case) if case.dialect.one_writer else _holder(case, flag.id)


def _holder(case: Case, id: int) -> Said | None:
    engine = case.connections.engine
    if case.dialect.in_transaction(engine):
        return None
    found = None
    with suppress(*DATABASE_ERRORS):  # Such as a user who may read and lock nothing.
        found = case.dialect.holder_of(engine, id)
    if found is None:
        return None
    idle = [f"It has done nothing for {span(found.idle)}."] if found.idle is not None else []
    last = f"its last statement: {found.statement}" if found.statement else ""
    began = case.now - int(found.seconds * 1_000_000)
    values = {"who": found.who, "since": since(began, case.now), "end": found.end, "holds": "the row of this flag"}
    return Said(values, began, last=last, more=idle)


def writer(case: Case) -> Said | None:
    """Return who holds SQLite's writer at each of a few looks, between which nothing is committed."""
    pids = case.writers
    if not pids:
        return None
    known = sorted(pids - {0})
    names = listed([str(Process.of(pid)) for pid in known]) or "somebody in another container, or on another host"
    log = _last_commit(case)
    values = {
        "who": names,
        "since": since(log, case.now) if log else "for some moments at least",
        "end": f"kill {known[0]}" if known else "'flagsweep doctor' as root on the machine itself names it",
        "holds": "the database's only writer, so that nobody else can write",
    }
    return Said(values, log, last="the last commit was " + at(log, case.now) if log else "")


def locked_by(file: Path | None) -> str:
    """Return who holds a file that cannot be read, as the end of a sentence; empty where nobody is known to."""
    found = None if file is None else holders(file)
    pids = sorted(found.writers - {0}) if found is not None else []
    return f"; held by {listed([str(Process.of(pid)) for pid in pids])}" if pids else ""


def _last_commit(case: Case) -> int | None:
    """Return when something was committed last, as the files tell."""
    file = case.connections.file
    assert file is not None
    times = []
    for path in (file, *case.dialect.logs(file)):
        with suppress(OSError):
            times.append(path.stat().st_mtime_ns // 1000)
    return max(times, default=None)

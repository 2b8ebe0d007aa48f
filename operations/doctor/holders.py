"""Who holds SQLite's only writer, and who reads for so long that the log grows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...databases.errors import DATABASE_ERRORS
from ...databases.sqlite.holders import holders
from ...databases.sqlite.wal import SHORT_LOG
from ...models import AWAY
from .finding import Finding, as_time, names
from .patient import Check, Patient
from .processes import Process, that_have_open

MIB = 1024 * 1024
LONG_LOG = 64 * MIB
"""A log of this size means that some reader has kept SQLite from writing it back for long."""
EVERY = 0.05
"""Seconds between two looks at who holds what. Whoever is there at each of them may have gone and come back in between; but then
others would have had their turn, too, and so the next look begins anew where something was committed."""
LONG = 1.0
"""Seconds for which the writer may be held: a site's transactions take a few milliseconds."""
TOO_LONG = 5.0
"""Seconds after which who waits for the writer gives up, where nothing else was said: SQLite's own in Python, and ours."""


@dataclass
class Held:
    """Tell who held something at each look.

    :ivar seconds: from the first look to the last at which they did.
    """

    pids: frozenset[int]
    seconds: float = 0.0


def writer(patient: Patient) -> Finding:
    """Look who holds the writer: while somebody does, no flag is raised, claimed or lowered."""
    held = _watch_writer(patient)
    if held is None or held.seconds < LONG:
        return Finding("ok", "writer", "free, or held for moments only")
    level = "fail" if held.seconds >= TOO_LONG else "warn"
    written = _last_written(patient.path, patient.now)
    text = f"held for at least {held.seconds:.1f} s by {_who(patient, held.pids)}{written}"
    return Finding(level, "writer", text, _fix(patient, held.pids))


def _watch_writer(patient: Patient) -> Held | None:
    """Look for as long as the same ones hold it and nothing is committed; None: nobody did."""
    began, held, commit = time.monotonic(), None, _commit(patient)
    for pids in _writers(patient):
        now = time.monotonic()
        if held is None:
            held = Held(pids)
        if pids != held.pids or _commit(patient) != commit:
            return held
        held.seconds = now - began
        if held.seconds >= TOO_LONG:
            return held
        time.sleep(EVERY)
    return held


def _writers(patient: Patient) -> Iterator[frozenset[int]]:
    """Yield who holds it until nobody does; nobody's id where somebody does of whom the kernel says nothing here."""
    while (pids := _seen(patient.path)) or not _is_free(patient):
        yield pids


def _seen(path: Path) -> frozenset[int]:
    found = holders(path)
    return frozenset() if found is None else found.writers


def _is_free(patient: Patient) -> bool:
    """Return whether it can be had. Where the file cannot even be read, that is told elsewhere."""
    try:
        return patient.dialect.is_writer_free(patient.store.connections.engine)
    except AWAY:
        return True


def _commit(patient: Patient) -> int | None:
    with suppress(*DATABASE_ERRORS):
        if not patient.reached:  # It would wait for as long as anybody does.
            return None
        return patient.dialect.changes(patient.store.connections.engine)
    return None


def _last_written(path: Path, now: int) -> str:
    """Return when something was written last: for so long at the most."""
    with suppress(OSError):
        log = Path(f"{path}-wal")
        moment = (log if log.exists() and log.stat().st_size else path).stat().st_mtime_ns // 1000
        return f"; the last commit was at {as_time(moment, now)}"
    return ""


def _who(patient: Patient, pids: frozenset[int]) -> str:
    """Return who that is, as far as this system and this user are told."""
    if known := sorted(pids - {0}):
        return names((f"{_as_consumer(patient, pid)}{Process.of(pid)}" for pid in known), 3)
    having, hidden = that_have_open(patient.path.resolve())
    others = [str(Process.of(pid)) for pid in having if pid != os.getpid()]
    where = f"; it is open in {names(others, 3)}" if others else "; no other process that can be seen here has it open"
    unseen = f", and of {hidden} processes of other users that cannot be seen" if hidden else ""
    return f"somebody of whom this system says nothing here (another container, or another host){where}{unseen}"


def _as_consumer(patient: Patient, pid: int) -> str:
    """Return which consumer a process is, if it is one."""
    if not patient.reached:
        return ""
    return next((f"consumer {c['id']}: " for c in patient.entered if c["pid"] == pid and c["alive"]), "")


def _fix(patient: Patient, pids: frozenset[int]) -> str:
    known = sorted(pids - {0})
    waits = "until then every raise and every sweep waits, and fails in the end"
    if not known:
        return f"call doctor as root on the machine itself, and end what holds it; {waits}"
    if os.getpid() in known:
        return f"commit, or roll back, what this process has open, before doctor is asked; {waits}"
    if any(_as_consumer(patient, pid) for pid in known):
        atomic = sorted(handler.kind for handler in patient.site.handlers.values() if handler.options.atomic)
        which = f"; {names(atomic)} {'is' if len(atomic) == 1 else 'are'} atomic, and so its whole run" if atomic else ""
        return (
            f"a handler of it writes for long ('flagsweep list --state claimed'{which}): have it commit in smaller parts; {waits}"
        )
    return f"have it commit, or end it ('kill {known[0]}': SQLite takes back what it has not committed); {waits}"


def log_size(patient: Patient) -> Finding:
    """Check that the write-ahead log is written back now and then."""
    log = Path(f"{patient.path}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size <= min(SHORT_LOG, LONG_LOG):
        return Finding("ok", "write-ahead log", f"{size / MIB:.1f} MiB")
    readers = _that_stay(patient.path)
    if size <= LONG_LOG and not readers:
        return Finding("ok", "write-ahead log", f"{size / MIB:.1f} MiB, to be written back by who writes next")
    text = f"{log} has {size / MIB:.0f} MiB: a reader that does not end keeps it from being written back"
    if not readers:
        fix = "look for a program that leaves a query or a transaction open, and end it"
        return Finding("warn", "write-ahead log", text, fix)
    who = names((f"{_as_consumer(patient, pid)}{Process.of(pid)}" for pid in sorted(readers)), 3)
    fix = f"have it end its query or its transaction, or end it ('kill {min(readers)}')"
    return Finding("warn", "write-ahead log", f"{text}; for at least {LONG:g} s it was {who}", fix)


def _that_stay(path: Path) -> frozenset[int]:
    """Return who reads at each of some looks."""
    end, found = time.monotonic() + LONG, holders(path)
    staying = frozenset() if found is None else found.readers - {0}
    while staying and time.monotonic() < end:
        time.sleep(EVERY)
        found = holders(path)
        staying &= frozenset() if found is None else found.readers
    return staying


HOLDERS: list[Check] = [writer, log_size]

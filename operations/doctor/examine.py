"""What ``flagsweep doctor`` looks at: the database, what it stands on, and whether anybody sweeps."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...adapters.rows import OwnRows
from ...config import SECOND
from ...consumer.file_lease import folder_of
from ...consumer.file_lease import leftovers as leftover_files
from ...consumer.watcher import LOCAL, OVERDUE, file_system
from ...databases.spare import too_small
from ...errors import FlagSweepError
from ...sweep.claims import Store

if TYPE_CHECKING:
    from ...app import FlagSweep

MIB = 1024 * 1024
LITTLE_SPACE = 64 * MIB
LONG_LOG = 64 * MIB
"""A log of this size means that some reader has kept SQLite from writing it back for long."""
NEWEST = 10_000
"""How many flags the checks of single rows look at, so that they end soon however many there are."""
FIRST_YEAR = 1_704_067_200 * SECOND
"""2024-01-01: a clock that shows less has never been set."""
RETURNING = (3, 35, 0)
WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))
"""First and last SQLite that may damage a database in WAL mode: https://sqlite.org/wal.html#walresetbug."""
NETWORK = ("nfs", "cifs", "smb", "afs", "ceph", "glusterfs", "lustre", "ncpfs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs")
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


@dataclass(frozen=True)
class Finding:
    """Tell what one check found.

    :param level: ``ok``, ``warn`` (works, with a risk or something to look at) or ``fail`` (does not work, or loses flags).
    :param fix: what to do; empty where all is well.
    """

    level: str
    what: str
    text: str
    fix: str = ""


def examine(flags: FlagSweep) -> list[Finding]:
    """Return what every check found. Changes nothing."""
    patient = Patient(flags)
    try:
        findings = _carry_out(REACH, patient)
        reached = all(finding.level == "ok" for finding in findings)
        return findings + _carry_out(_checks(flags, reached), patient)
    finally:
        flags.store.close_engine()


def _checks(flags: FlagSweep, reached: bool) -> list[Check]:
    if flags.store.dialect.shared:
        return [clock, *([server, *SWEEPING, *FLAGS] if reached else [])]
    on_disk = flags.path is not None and flags.path.parent.is_dir()
    checks = [*MACHINE, *(FILES if on_disk else [])]
    if reached:
        checks += [*OPENING, *(SWEEPING if on_disk else []), *FLAGS]
    return checks


class Patient:
    """Hold what several checks look at, asked once."""

    def __init__(self, flags: FlagSweep):
        self.flags = flags
        self.store = flags.store
        self.dialect: Any = flags.store.dialect
        self.path = flags.path or Path(flags.store.where)
        self.now = flags.clock.now()

    @cached_property
    def status(self) -> dict[str, Any]:
        return self.flags.status()

    @cached_property
    def counts(self) -> list[tuple[str, str, int, int, int | None]]:
        return self.store.counts(self.now)

    def total(self, state: str, kinds: Callable[[str], bool] = lambda kind: True) -> int:
        """Return how many flags of these kinds are in a state."""
        return sum(count for kind, its_state, count, _, _ in self.counts if its_state == state and kinds(kind))

    def overdue(self, kinds: Callable[[str], bool]) -> list[str]:
        """Return those of these kinds that have flags which somebody who serves them would have begun."""
        late = self.now - OVERDUE * SECOND
        return sorted({str(kind) for kind, _, _, due, earliest in self.counts if due and (earliest or 0) <= late and kinds(kind)})

    def known(self, kind: str) -> bool:
        """Return whether a handler takes flags of this kind. Without any handler, nothing is known."""
        handlers = self.flags.handlers
        return not handlers or kind in handlers or any(kind in h.options.aliases for h in handlers.values())


Check = Callable[[Patient], "Finding | list[Finding]"]


def _carry_out(checks: Iterable[Check], patient: Patient) -> list[Finding]:
    findings: list[Finding] = []
    for check in checks:
        try:
            found = check(patient)
        except Exception as error:
            text = f"this could not be checked: {str(error) or type(error).__name__}"
            found = Finding("fail", check.__name__.replace("_", " "), text, _hint(error))
        findings += found if isinstance(found, list) else [found]
        if check in REACH and findings[-1].level == "fail":
            break
    return findings


def _hint(error: Exception) -> str:
    return "call doctor as the user that runs the site" if isinstance(error, PermissionError) else "mend what the text names"


# Is it there?


def database(patient: Patient) -> Finding:
    """Check that the file is there, that it is a database, and that this process may write it."""
    if patient.store.dialect.shared:
        return _server_answers(patient)
    if patient.flags.path is None:
        return Finding("ok", "database", "in memory: nobody else sees it, and it ends with this process")
    if not patient.path.exists():
        return Finding("fail", "database", f"there is no database {patient.path}", "run 'flagsweep init' once, or mend the path")
    try:
        with patient.store.explained("it cannot be read"):
            patient.store.version()
    except FlagSweepError as error:
        text, _, fix = str(error).rpartition("; ")
        return Finding("fail", "database", text, "see what else is found here" if "doctor" in fix else fix)
    if not os.access(patient.path, os.W_OK):
        return Finding("fail", "database", f"{patient.path} is read-only for this user", "mend its rights, or use its owner")
    return Finding("ok", "database", f"{patient.path} answers")


def _server_answers(patient: Patient) -> Finding:
    try:
        with patient.store.explained("it cannot be read"):
            patient.store.version()
    except FlagSweepError as error:
        text, _, fix = str(error).rpartition("; ")
        return Finding("fail", "database", text, fix)
    return Finding("ok", "database", f"{patient.store.where} answers")


def schema(patient: Patient) -> Finding:
    """Check that the tables are there and are the ones that this code knows."""
    version = patient.store.version()
    try:
        patient.store.check_schema(version)
    except FlagSweepError as error:
        text, _, fix = str(error).rpartition(": ")
        return Finding("fail", "schema", text, fix)
    misfit = patient.store.misfit()
    if misfit:
        return Finding("warn", "schema", misfit, "run 'flagsweep init' where the setting is as it should be")
    return Finding("ok", "schema", f"version {version}")


REACH: list[Check] = [database, schema]


# The machine.


def library_of(db: Any) -> str:
    """Return the version of the SQLite library that a database object goes through."""
    if any(base.__module__ == "playhouse.apsw_ext" for base in type(db).__mro__):
        import apsw

        return apsw.sqlite_lib_version()
    return sqlite3.sqlite_version


def sqlite(patient: Patient) -> Finding:
    """Check the version of SQLite that our connections go through."""
    name = library_of(patient.store.engine)
    version = tuple(map(int, name.split(".")))
    if version < RETURNING:
        return Finding("fail", "SQLite", f"{name} is too old: flagsweep needs 3.35", "use a Python that has a newer SQLite")
    first, last = WAL_RESET_BUG
    if first <= version <= last:
        text = f"{name} has the WAL-reset bug, which damages a database in rare cases (two writers at one instant)"
        fix = "pip install 'flagsweep[apsw]' and driver='apsw', which brings a newer one; keep backups until then"
        return Finding("warn", "SQLite", text, fix)
    return Finding("ok", "SQLite", name)


def clock(patient: Patient) -> Finding:
    """Check that the clock has been set at all."""
    if patient.now < FIRST_YEAR:
        text = f"it is {_date(patient.now)} by this machine's clock"
        return Finding("fail", "clock", text, "set the clock: flags are not due until the time they were raised for")
    return Finding("ok", "clock", _date(patient.now))


MACHINE: list[Check] = [sqlite, clock]


def server(patient: Patient) -> list[Finding]:
    """Check the server's version, and that its commits reach the disk."""
    name, version, least = patient.dialect.server_version(patient.store.engine)
    shown = ".".join(map(str, version))
    if version < least:
        needed = ".".join(map(str, least))
        found = [Finding("fail", name, f"{shown} is too old: flagsweep needs {needed}", "use a newer server")]
    else:
        found = [Finding("ok", name, shown)]
    weak = patient.dialect.weak_commits(patient.store.engine)
    text = weak or "the server answers a commit once it is on its disk"
    fix = "set it back: what was committed just before a power cut may be lost" if weak else ""
    return [*found, Finding("warn" if weak else "ok", "commits", text, fix)]


# Files and folders.


def file_system_kind(patient: Patient) -> Finding:
    """Check that the file system has the locks and the shared memory that SQLite needs."""
    kind = file_system(patient.path.resolve())
    if kind.startswith(NETWORK):
        text = f"{kind} is a network's: SQLite's log does not work there, and the database will be damaged"
        return Finding("fail", "file system", text, "move the database to a local disk")
    if kind == "tmpfs":
        return Finding("warn", "file system", "tmpfs: a restart of this machine deletes the database", "move it to a disk")
    if kind not in LOCAL:
        text = f"{kind} is not known to have working locks, and commits are seen by polling there"
        return Finding("warn", "file system", text, "move the database to a local disk, such as one with ext4 or xfs")
    return Finding("ok", "file system", kind)


def folder(patient: Patient) -> Finding:
    """Check that SQLite can put its log beside the database, and that strangers cannot."""
    place = patient.path.parent
    if not os.access(place, os.W_OK | os.X_OK):
        text = f"{place} is not writable for this user: SQLite keeps its log beside the database"
        return Finding("fail", "folder", text, "mend its rights, or use the user that owns it")
    for path in (place, patient.path):
        if path.exists() and path.stat().st_mode & stat.S_IWOTH:
            text = f"anybody on this machine may write to {path}"
            fix = "give the database a folder of its own" if path.stat().st_mode & stat.S_ISVTX else f"chmod o-w {path}"
            return Finding("warn", "folder", text, fix)
    return Finding("ok", "folder", f"{place} is writable, for its owner and group alone")


def disk_space(patient: Patient) -> Finding:
    """Check that there is room for the database to grow."""
    free = shutil.disk_usage(patient.path.parent).free
    if free < LITTLE_SPACE:
        return Finding("warn", "disk space", f"{free // MIB} MiB are free", "free some space: on a full disk every raise fails")
    return Finding("ok", "disk space", f"{free / 1024 / MIB:.1f} GiB are free")


def log_size(patient: Patient) -> Finding:
    """Check that the write-ahead log is written back now and then."""
    log = Path(f"{patient.path}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size > LONG_LOG:
        text = f"{log} has {size // MIB} MiB: a reader that never ends keeps it from being written back"
        return Finding(
            "warn", "write-ahead log", text, "look for a program that leaves a query or a transaction open, and end it"
        )
    return Finding("ok", "write-ahead log", f"{size / MIB:.1f} MiB")


FILES: list[Check] = [file_system_kind, folder, disk_space, log_size]


# How the database is opened.


def journal(patient: Patient) -> Finding:
    """Check that readers and the writer do not block each other."""
    mode = patient.dialect.journal_mode(patient.store.engine)
    if mode not in ("wal", "memory"):
        text = f"{mode}: commits are seen by polling, and each writer blocks all readers"
        return Finding("warn", "journal", text, "run 'flagsweep init': it switches to WAL, for every program that opens the file")
    return Finding("ok", "journal", mode)


def synchronous(patient: Patient) -> Finding:
    """Check that the site's commits reach the disk. Our own always do."""
    with patient.store.borrowed() as db:
        mode = SYNCHRONOUS[patient.dialect.synchronous(db)]
    fix = "give the site's database pragmas={'synchronous': 'FULL'}"
    if mode == "OFF":
        return Finding("fail", "synchronous", "OFF on the site's connection: a power cut may damage the database", fix)
    if mode == "NORMAL":
        text = "NORMAL on the site's connection: a power cut may take back the raises of the last moments"
        return Finding("warn", "synchronous", text, fix)
    return Finding("ok", "synchronous", f"{mode} on the site's connection")


def lock_type(patient: Patient) -> Finding:
    """Check that the site's transactions take the writer at their beginning."""
    kind = (getattr(patient.store.site, "_lock_type", None) or "DEFERRED").upper()
    if kind == "DEFERRED" and patient.flags.path is not None:
        text = "DEFERRED: a transaction of the site that reads and then writes fails with 'locked' beside a sweep's commits"
        return Finding("warn", "lock type", text, "give the site's database lock_type='IMMEDIATE'")
    return Finding("ok", "lock type", kind)


OPENING: list[Check] = [journal, synchronous, lock_type]


# Who sweeps.


def consumer(patient: Patient) -> Finding:
    """Check that somebody does what is due."""
    running = [c for c in patient.status["consumers"] if c["mode"] == "run" and c["alive"]]
    due = sum(due for kind, _, _, due, _ in patient.counts if patient.known(kind))
    if any(c["alive"] is None for c in patient.status["consumers"]):
        return Finding("warn", "consumer", "this user cannot see whether it lives", "call doctor as the user that runs it")
    if running:
        who = "consumer {id} (pid {pid} on {host}, since {started_at:.19}Z) runs".format(**running[0])
        if late := patient.overdue(patient.known):
            text = f"{who}, but flags of {_names(late)} are overdue"
            fix = "if it is another application's, start this one's 'flagsweep run'; else its threads are too few, or hang"
            return Finding("warn", "consumer", text, fix)
        return Finding("ok", "consumer", f"{who}; flags that are due: {due}")
    if not due:
        return Finding("ok", "consumer", "none runs, and nothing is due")
    return Finding(
        "warn", "consumer", f"none runs; flags that are due: {due}", "start 'flagsweep run', or call 'flagsweep sweep'"
    )


def leftovers(patient: Patient) -> Finding:
    """Look for what dead consumers left; the next one that starts clears it away."""
    dead = [c for c in patient.status["consumers"] if c["alive"] is False]
    if not dead:
        return Finding("ok", "dead consumers", "none left anything")
    who = _names(f"{c['id']} (pid {c['pid']})" for c in dead)
    reports = [str(report) for c in dead for report in _crash_reports(patient, c["id"])]
    text = f"gone without giving back what they had claimed: {who}" + (
        f"; what crashed stands in {_names(reports)}" if reports else ""
    )
    return Finding(
        "warn", "dead consumers", text, "start 'flagsweep run' or call 'flagsweep sweep': both free what they had claimed"
    )


def _crash_reports(patient: Patient, consumer: int) -> list[Path]:
    if patient.flags.path is None:
        return []
    files = leftover_files(folder_of(patient.path), consumer)
    return [file for file in files if file.suffix == ".txt" and os.access(file, os.R_OK) and file.stat().st_size]


def _names(names: Iterable[str], most: int = 10) -> str:
    """Return names with commas, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def pool(patient: Patient) -> list[Finding]:
    """Check that a pool of the site's has a connection for each thread that performs."""
    settings = patient.flags.settings
    problem = too_small(patient.store.site, {n: settings.lanes.get(n, settings.threads) for n in patient.flags.lane_names()})
    return [Finding("warn", "pool", *problem)] if problem else []


SWEEPING: list[Check] = [consumer, leftovers, pool]


# The flags themselves.


def kinds(patient: Patient) -> Finding:
    """Check that somebody would take every flag that waits."""
    if not patient.flags.handlers:
        return Finding("ok", "kinds", "not checked: no handlers are known here, name the site's own FlagSweep with --app")
    unknown = sorted({str(kind) for kind, state, *_ in patient.counts if state == "waiting" and not patient.known(kind)})
    if unknown and not patient.overdue(lambda kind: not patient.known(kind)):
        text = f"no handler here for {_names(unknown)}; none of their flags is overdue: another application seems to serve them"
        return Finding("ok", "kinds", text)
    if unknown:
        count = patient.total("waiting", lambda kind: not patient.known(kind))
        text = f"no handler is registered for {_names(unknown)}; flags that wait for one: {count}"
        fix = "register a handler for the kind, name it in the aliases= of another, or take the flags down with 'flagsweep lower'"
        return Finding("warn", "kinds", text, fix)
    return Finding("ok", "kinds", f"handlers for {_names(sorted(patient.flags.handlers))}")


def dead_flags(patient: Patient) -> Finding:
    """Look for flags that a person has to decide about."""
    count = patient.total("dead")
    if count:
        fix = "see 'flagsweep list --state dead', then 'flagsweep retry' or 'flagsweep discard'"
        return Finding("warn", "dead flags", f"{count}, kept until a person decides", fix)
    return Finding("ok", "dead flags", "none")


def rows(patient: Patient) -> Finding:
    """Look for rows that were damaged by hand."""
    damaged = patient.store.damaged(NEWEST)
    if damaged:
        text = f"due time or payload cannot be read: flag {_names(str(id) for id in damaged)}"
        fix = "a running consumer parks them as dead, with the reason; then 'flagsweep discard'"
        return Finding("warn", "rows", text, fix)
    return Finding("ok", "rows", f"the newest {NEWEST:,} can be read")


def raise_times(patient: Patient) -> Finding:
    """Look for flags that were raised while a clock was wrong."""
    latest = patient.store.latest_raise(NEWEST)
    if latest is not None and latest > patient.now + 60 * SECOND:
        text = f"a flag was raised at {_date(latest)}, and now it is {_date(patient.now)}"
        return Finding(
            "warn", "raise times", text, "set the clocks of this machine and of what raises flags; a consumer mends the flags"
        )
    return Finding("ok", "raise times", "none lies in the future")


def own_rows(patient: Patient) -> list[Finding]:
    """Check that the site's own rows are found through an index."""
    handlers = patient.flags.handlers.values()
    return [_own_rows_of(patient.store, handler.kind, handler.rows) for handler in handlers if handler.rows is not None]


def _own_rows_of(store: Store, kind: str, rows: OwnRows) -> Finding:
    table = rows.model._meta.table_name
    if not store.engine.table_exists(table):
        fix = "create the table; until then this kind is not looked for, other kinds go on"
        return Finding("warn", "own rows", f"{kind}: there is no table {table}", fix)
    if store.reads_all(rows.query(store.dialect, kind, 1)):
        text = f"{kind}: every look for work reads the whole table {table}, for want of an index"
        return Finding("warn", "own rows", text, store.index_for(rows.model, rows.condition(), rows.fields()))
    return Finding("ok", "own rows", f"{kind} finds its rows in {table} through an index")


FLAGS: list[Check] = [kinds, dead_flags, rows, raise_times, own_rows]


def _date(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment / SECOND, UTC):%Y-%m-%d %H:%M:%S} UTC"

"""The database: whether it can be reached, and how it is opened."""

from __future__ import annotations

import os

from ...databases.schema import check, version
from ...errors import FlagSweepError
from .finding import Finding
from .patient import Check, Patient

SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


def database(patient: Patient) -> Finding:
    """Check that the file is there, that it is a database, and that this process may write it."""
    if patient.store.connections.dialect.shared:
        return _server_answers(patient)
    if patient.site.path is None:
        return Finding("ok", "database", "in memory: nobody else sees it, and it ends with this process")
    if not patient.path.exists():
        return Finding("fail", "database", f"there is no database {patient.path}", "run 'flagsweep init' once, or mend the path")
    try:
        with patient.store.connections.explained("it cannot be read"):
            version(patient.store.connections.engine)
    except FlagSweepError as error:
        text, _, fix = str(error).rpartition("; ")
        return Finding("fail", "database", text, "see what else is found here" if "doctor" in fix else fix)
    if not os.access(patient.path, os.W_OK):
        return Finding("fail", "database", f"{patient.path} is read-only for this user", "mend its rights, or use its owner")
    return Finding("ok", "database", f"{patient.path} answers")


def _server_answers(patient: Patient) -> Finding:
    try:
        with patient.store.connections.explained("it cannot be read"):
            version(patient.store.connections.engine)
    except FlagSweepError as error:
        text, _, fix = str(error).rpartition("; ")
        return Finding("fail", "database", text, fix)
    return Finding("ok", "database", f"{patient.store.connections.where} answers")


def schema(patient: Patient) -> Finding:
    """Check that the tables are there and are the ones that this code knows."""
    found = version(patient.store.connections.engine)
    try:
        check(patient.store.connections.where, found)
    except FlagSweepError as error:
        text, _, fix = str(error).rpartition(": ")
        return Finding("fail", "schema", text, fix)
    misfit = patient.store.connections.dialect.misfit(patient.store.connections.engine)
    if misfit:
        return Finding("warn", "schema", misfit, "run 'flagsweep init' where the setting is as it should be")
    return Finding("ok", "schema", f"version {found}")


REACH: list[Check] = [database, schema]


def server(patient: Patient) -> list[Finding]:
    """Check the server's version, and that its commits reach the disk."""
    name, version, least = patient.dialect.server_version(patient.store.connections.engine)
    shown = ".".join(map(str, version))
    if version < least:
        needed = ".".join(map(str, least))
        found = [Finding("fail", name, f"{shown} is too old: flagsweep needs {needed}", "use a newer server")]
    else:
        found = [Finding("ok", name, shown)]
    weak = patient.dialect.weak_commits(patient.store.connections.engine)
    text = weak or "the server answers a commit once it is on its disk"
    fix = "set it back: what was committed just before a power cut may be lost" if weak else ""
    return [*found, Finding("warn" if weak else "ok", "commits", text, fix)]


def journal(patient: Patient) -> Finding:
    """Check that readers and the writer do not block each other."""
    mode = patient.dialect.journal_mode(patient.store.connections.engine)
    if mode not in ("wal", "memory"):
        text = f"{mode}: commits are seen by polling, and each writer blocks all readers"
        return Finding("warn", "journal", text, "run 'flagsweep init': it switches to WAL, for every program that opens the file")
    return Finding("ok", "journal", mode)


def synchronous(patient: Patient) -> Finding:
    """Check that the site's commits reach the disk. Our own always do."""
    with patient.store.connections.borrowed() as db:
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
    kind = (getattr(patient.store.connections.site, "_lock_type", None) or "DEFERRED").upper()
    if kind == "DEFERRED" and patient.site.path is not None:
        text = "DEFERRED: a transaction of the site that reads and then writes fails with 'locked' beside a sweep's commits"
        return Finding("warn", "lock type", text, "give the site's database lock_type='IMMEDIATE'")
    return Finding("ok", "lock type", kind)


OPENING: list[Check] = [journal, synchronous, lock_type]

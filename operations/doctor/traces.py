"""What lies about: gates that a hand has damaged or closed for nobody, and a folder in which no bell can be."""

from __future__ import annotations

import os
from typing import Any

from ...config import SECOND
from ...databases.doorbell import PREFIX
from ...databases.gates import NUMBERS, sound
from ...databases.state_folder import folder_of, path_on_host
from ...gates.breaker import Breaker
from ...gates.shut import ALL
from .finding import Finding, names
from .patient import Check, Patient

LONGEST_PATH = 107
"""Bytes of a socket's path on Linux, without the zero behind it: https://man7.org/linux/man-pages/man7/unix.7.html."""
A_BELL = len(f"/{PREFIX}4194304-01234567")
"""Those of a bell's name, with the largest process id."""
COLUMNS = ("sort", "name", "bucket", *NUMBERS, "breaker")
MOST = 10_000


def gate_rows(patient: Patient) -> list[Finding]:
    """Look for gates that a hand has damaged, and for pauses of what nobody here has."""
    engine = patient.store.connections.engine
    with patient.dialect.lenient(engine):
        rows = engine.execute_sql(f"SELECT {', '.join(COLUMNS)} FROM flagsweep_gate ORDER BY sort, name LIMIT {MOST}").fetchall()
    gates = [{name: _text(value) for name, value in zip(COLUMNS, row, strict=True)} for row in rows]
    found = []
    if damaged := [text for gate in gates if (text := _damage(gate))]:
        fix = "what is damaged says nothing, but a pause stays one: 'flagsweep resume' ends it; else mend the row, or delete it"
        found.append(Finding("warn", "gate rows", f"damaged by hand: {names(damaged)}", fix))
    if nobodys := [_called(gate) for gate in gates if _is_nobodys(patient, gate)]:
        fix = "where that is a slip, resume it under this name and pause what was meant"
        found.append(Finding("warn", "gate rows", f"set by hand, and nobody here has them: {names(nobodys)}", fix))
    return found or [Finding("ok", "gate rows", f"{len(gates)}, all can be read" if gates else "there are none")]


def _text(value: Any) -> Any:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _called(gate: dict[str, Any]) -> str:
    return f"{gate['sort']} {gate['name']}{' of ' + gate['bucket'] if gate['bucket'] else ''}".strip()


def _damage(gate: dict[str, Any]) -> str | None:
    """Return what is wrong with a row, or None."""
    if gate["sort"] not in ("kind", "lane", ALL):
        return f"{_called(gate)} (no such sort)"
    wrong = [name for name in NUMBERS if gate[name] is not None and sound(name, gate[name]) is not gate[name]]
    if gate["breaker"] and Breaker.parse(gate["breaker"]) == Breaker():
        wrong.append("breaker")
    shown = ", ".join(f"{name} = {str(gate[name])[:40]!r}" for name in wrong)
    return f"{_called(gate)} ({shown})" if wrong else None


def _is_nobodys(patient: Patient, gate: dict[str, Any]) -> bool:
    """Return whether a hand has set something of a kind or lane that there is not, as far as handlers are known."""
    site = patient.site
    if not site.handlers or gate["bucket"] or (gate["paused_at"] is None and gate["threads"] is None):
        return False
    if isinstance(gate["paused_until"], int) and gate["paused_until"] <= patient.now - SECOND:
        return False
    known = {"kind": site.handled, "lane": site.lane_names()}.get(gate["sort"])
    return known is not None and gate["name"] not in known


def bell(patient: Patient) -> Finding:
    """Check that consumers of this host can have a bell: who raises a flag here then tells them at once."""
    connections, setting = patient.store.connections, patient.site.settings.state_dir
    if patient.dialect.shared and patient.dialect.notifies:
        return Finding("ok", "bell", "not needed: the server tells of flags")
    if connections.file is not None:
        folder, fix = folder_of(connections.file), "move the database to a folder with a shorter path"
    else:
        where = f"{connections.where} {patient.store.made_at()}"
        folder = path_on_host(where, setting).expanduser()
        fix = "set state_dir (FLAGSWEEP_STATE_DIR) to a folder with a shorter path"
    size = len(os.fsencode(folder)) + A_BELL
    if size <= LONGEST_PATH:
        return Finding("ok", "bell", f"{folder} has room for one")
    text = f"none: the path of a socket has {LONGEST_PATH} bytes at the most, and in {folder} it would have {size}"
    if not patient.dialect.shared:
        return Finding("ok", "bell", f"{text}; commits are seen without, by the file's log")
    return Finding("warn", "bell", f"{text}: consumers of this host see a flag up to a second later", fix)


TRACES: list[Check] = [gate_rows, bell]

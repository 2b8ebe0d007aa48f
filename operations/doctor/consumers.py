"""Who sweeps: whether anybody does, what the dead have left, and whether there are connections enough."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from ...consumer.crash_log import leftovers as leftover_files
from ...consumer.terms import STAYING
from ...databases.spare import too_small
from ...databases.state_folder import folder_of
from ...models import Consumer
from ..older_code import file_of, older_than
from .finding import Finding, as_time, names
from .patient import Check, Patient
from .transactions import lanes_of


def consumer(patient: Patient) -> Finding:
    """Check that somebody does what is due."""
    running = [c for c in patient.entered if c["mode"] in STAYING and c["alive"]]
    due = sum(due for kind, _, _, due, _ in patient.counts if patient.known(kind))
    if any(c["alive"] is None for c in patient.entered):
        return Finding("warn", "consumer", "this user cannot see whether it lives", "call doctor as the user that runs it")
    if running:
        who = "consumer {id} (pid {pid} on {host}, since {started_at:.19}Z) runs".format(**running[0])
        if late := patient.overdue(lambda kind: patient.known(kind) and patient.gate_before(kind) is None):
            if lost := [kind for kind in late if not _is_served(patient, kind)]:
                return _without_handler(patient, lost)
            text = f"{who}, but flags of {names(late)} are overdue"
            reasons = "its threads are too few, or hang, or limits let few through ('flagsweep gates')"
            fix = f"if it is another application's, start this one's 'flagsweep run'; else {reasons}"
            return Finding("warn", "consumer", text, fix)
        return Finding("ok", "consumer", f"{who}; flags that are due: {due}")
    if not due:
        return Finding("ok", "consumer", "none runs, and nothing is due")
    return Finding(
        "warn", "consumer", f"none runs; flags that are due: {due}", "start 'flagsweep run', or call 'flagsweep sweep'"
    )


def _staying(patient: Patient) -> list[Consumer]:
    return [each for each in patient.consumers if each.mode in STAYING and each.id in patient.living]


def _is_served(patient: Patient, kind: str) -> bool:
    """Return whether a living consumer has a handler for a kind; one that has not said for which it has any may have it."""
    said = [lanes_of(each) for each in _staying(patient)]
    return not all(said) or any(kind in (lane.get("kinds") or ()) for lanes in said for lane in lanes.values())


def _without_handler(patient: Patient, kinds: list[str]) -> Finding:
    """Return that who runs does not know kinds that the code here knows: it has begun before, or is another application's."""
    who = names(f"consumer {each.id} (pid {each.pid} on {each.host})" for each in _staying(patient))
    text = f"{who} has no handler for {names(kinds)}, whose flags are overdue, although this code has"
    fix = "start it anew, as by its service ('systemctl restart ...', or 'kill PID' and 'flagsweep run')"
    return Finding("warn", "consumer", text, f"{fix}; where it is another application's, start this one's beside it")


def code(patient: Patient) -> list[Finding]:
    """Look for consumers that run the code of before a change."""
    handlers = {kind: patient.site.handler_of(kind) for kind in patient.site.handled}
    older = older_than(handlers, _staying(patient), platform.node())
    return [_of_older(patient, *each) for each in older] or [
        Finding("ok", "code", "no module of handlers was changed since a consumer of this host started")
    ]


def _of_older(patient: Patient, module: str, changed: int, row: Consumer) -> Finding:
    changed_at, started = as_time(changed, patient.now), as_time(row.started_at, patient.now)
    text = f"{file_of(module)} was changed at {changed_at}, consumer {row.id} (pid {row.pid}) runs since {started}"
    fix = f"start it anew, as by its service, or 'kill {row.pid}' and 'flagsweep run'"
    return Finding("warn", "code", f"{text}, with the code of that time", fix)


def gates(patient: Patient) -> Finding:
    """Look for flags that wait behind a closed gate for long: somebody may have forgotten a pause."""
    held = [(kind, gate) for kind in patient.overdue(patient.known) if (gate := patient.gate_before(kind)) is not None]
    if not held:
        return Finding("ok", "gates", "no flag is overdue behind a closed one")
    text = f"overdue behind closed ones: flags of {names(f'{kind} ({gate.why})' for kind, gate in held)}"
    if all(gate.by is None and gate.breaker is None for _, gate in held):  # As their quiet hours and limits want it.
        return Finding("ok", "gates", text)
    return Finding("warn", "gates", text, "'flagsweep gates' shows since and until when, 'flagsweep resume' ends a pause")


def leftovers(patient: Patient) -> Finding:
    """Look for what dead consumers left; the next one that starts clears it away."""
    dead = [c for c in patient.entered if c["alive"] is False]
    if not dead:
        return Finding("ok", "dead consumers", "none left anything")
    who = names(f"{c['id']} (pid {c['pid']})" for c in dead)
    reports = [str(report) for c in dead for report in _crash_reports(patient, c["id"])]
    text = f"gone without giving back what they had claimed: {who}" + (
        f"; what crashed stands in {names(reports)}" if reports else ""
    )
    return Finding(
        "warn", "dead consumers", text, "start 'flagsweep run' or call 'flagsweep sweep': both free what they had claimed"
    )


def _crash_reports(patient: Patient, consumer: int) -> list[Path]:
    if patient.site.path is None:
        return []
    files = leftover_files(folder_of(patient.path), consumer)
    return [file for file in files if file.suffix == ".txt" and os.access(file, os.R_OK) and file.stat().st_size]


def pool(patient: Patient) -> list[Finding]:
    """Check that a pool of the site's has a connection for each thread that performs, event loops included."""
    problem = too_small(patient.store.connections.site, patient.threads())
    return [Finding("warn", "pool", *problem)] if problem else []


SWEEPING: list[Check] = [consumer, code, gates, leftovers, pool]

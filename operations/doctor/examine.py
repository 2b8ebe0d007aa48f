"""Carrying the checks out: those that the database allows, each by itself."""

from __future__ import annotations

from collections.abc import Iterable

from ..site import Site
from .consumers import SWEEPING
from .database import OPENING, REACH, server
from .environment import ENVIRONMENT
from .finding import Finding
from .firing import FIRING
from .flags import FLAGS
from .holders import HOLDERS
from .hosts import HOSTS, company
from .machine import FILES, MACHINE, clock
from .pace import PACE
from .patient import Check, Patient
from .restored import STAMP
from .schedules import SCHEDULES
from .settings import SETTINGS
from .traces import TRACES, gate_rows
from .transactions import SESSIONS
from .versions import VERSIONS


def examine(site: Site) -> list[Finding]:
    """Return what every check found. Changes nothing."""
    patient = Patient(site)
    try:
        findings = _carry_out(REACH, patient)
        patient.reached = all(finding.level == "ok" for finding in findings)
        return findings + _carry_out(_checks(site, patient.reached), patient)
    finally:
        site.connections.close_engine()


def _checks(site: Site, reached: bool) -> list[Check]:
    on_disk = site.path is not None and site.path.parent.is_dir()
    shared = site.connections.dialect.shared
    checks = [*([clock] if shared else MACHINE), *VERSIONS, *ENVIRONMENT, *([*FILES, *HOLDERS] if on_disk else [])]
    if not reached:
        return checks
    opening = [server, *SESSIONS, *HOSTS] if shared else OPENING
    sweeping = [*SWEEPING, company, *PACE, *SETTINGS, *TRACES] if shared or on_disk else [gate_rows]
    return [*checks, *opening, *STAMP, *sweeping, *FLAGS, *SCHEDULES, *FIRING]


def _carry_out(checks: Iterable[Check], patient: Patient) -> list[Finding]:
    findings: list[Finding] = []
    for look in checks:
        try:
            found = look(patient)
        except Exception as error:
            text = f"this could not be checked: {str(error) or type(error).__name__}"
            found = Finding("fail", look.__name__.replace("_", " "), text, _hint(error))
        findings += found if isinstance(found, list) else [found]
        if look in REACH and findings[-1].level == "fail":
            break
    return findings


def _hint(error: Exception) -> str:
    return "call doctor as the user that runs the site" if isinstance(error, PermissionError) else "mend what the text names"

"""Whether the database is held back, since it seems to be a backup that was restored, or a copy."""

from __future__ import annotations

from ...logs import printable
from ..restored import restored
from .finding import Finding
from .patient import Check, Patient


def stamp(patient: Patient) -> Finding:
    """Look whether somebody has to confirm the database."""
    if (found := restored(patient.site)) is None:
        checked = patient.site.settings.restore_check
        return Finding("ok", "stamp", "nothing is held back" if checked else "restore_check is off: nobody looks at it")
    fix = "'flagsweep confirm' says what waits, and has it go on; 'flagsweep confirm --drop' without what waits"
    return Finding("fail", "stamp", f"all is paused: {printable(found.why)}", fix)


STAMP: list[Check] = [stamp]

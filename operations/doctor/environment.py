"""The environment: variables that look like settings, and are none."""

from __future__ import annotations

import os
from dataclasses import fields

from ...config import Settings, did_you_mean
from .finding import Finding
from .patient import Check, Patient

PREFIX = "FLAGSWEEP_"
KNOWN = ("APP", "CONFIG", *(each.name.upper() for each in fields(Settings)))
"""What is read from the environment, without the prefix: with it, all names are alike."""
OF_TESTS = ("CRASH_", "FAULTS", "SEED", "TEST_")
"""What the names begin with that tests read."""


def variables(patient: Patient) -> list[Finding]:
    """Check that every variable with our prefix is one that is read: a misspelt one says nothing, to nobody."""
    given = sorted(name.removeprefix(PREFIX) for name in os.environ if name.startswith(PREFIX))
    unknown = [name for name in given if name not in KNOWN and not name.startswith(OF_TESTS)]
    found = [
        Finding("warn", "environment", f"{PREFIX}{name} is no setting", did_you_mean(name, KNOWN, f"after {PREFIX} there may be"))
        for name in unknown
    ]
    return found or [Finding("ok", "environment", f"{len(given)} variables {PREFIX}...")]


ENVIRONMENT: list[Check] = [variables]

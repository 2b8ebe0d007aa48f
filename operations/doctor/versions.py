"""Versions: of what is installed against what it was tried with, of servers whose time is over, and of those with known bugs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, requires, version

from ...config import utc
from .finding import Finding
from .patient import Check, Patient

ENDS = {
    ("PostgreSQL", (13,)): "2025-11-13",  # https://www.postgresql.org/support/versioning/
    ("PostgreSQL", (14,)): "2026-11-12",
    ("PostgreSQL", (15,)): "2027-11-11",
    ("PostgreSQL", (16,)): "2028-11-09",
    ("PostgreSQL", (17,)): "2029-11-08",
    ("MariaDB", (10, 6)): "2026-07-06",  # https://mariadb.org/about/#maintenance-policy
    ("MySQL", (8, 0)): "2026-04-30",  # https://www.mysql.com/support/eol-notice.html
    ("Python", (3, 11)): "2027-10-31",  # https://peps.python.org/pep-0664/ and those of its successors
    ("Python", (3, 12)): "2028-10-31",
    ("Python", (3, 13)): "2029-10-31",
}
"""The last day of a version: nobody mends it any more."""

NOTIFY_MENDED = {14: 21, 15: 16, 16: 12, 17: 8, 18: 2}
"""The first PostgreSQL in which VACUUM no longer throws away what LISTEN still reads (commit 8eeb4a0f7c of 2025-11-12, behind the
releases of that month; 13 had none any more): "could not access status of transaction", and a listener hears nothing."""

_BOUND = re.compile(r"(>=|<)([0-9.]+)")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def packages(patient: Patient) -> Finding:
    """Check that what is installed is what flagsweep was tried with."""
    try:
        said = requires("flagsweep") or []
    except PackageNotFoundError:
        return Finding("ok", "packages", "not checked: flagsweep itself is not installed as one")
    bad = [line for requirement in said if (line := _misfit(requirement))]
    if bad:
        fix = "install what is asked for: 'pip install --upgrade flagsweep' with the extras that you use"
        return Finding("warn", "packages", f"never tried: {'; '.join(bad)}", fix)
    return Finding("ok", "packages", "those that are installed are within what flagsweep asks for")


def _misfit(requirement: str) -> str | None:
    """Return what is wrong with the installed version of a package; None: nothing, or there is none."""
    wanted, _, condition = requirement.partition(";")
    name = _NAME.match(wanted)[0]  # type: ignore[index]
    try:
        has = version(name)
    except PackageNotFoundError:
        return None if "extra" in condition or "platform" in condition else f"{name} is not installed"
    for sign, bound in _BOUND.findall(wanted):
        if (_numbers(has) >= _numbers(bound)) != (sign == ">="):
            return f"{name} {has}, where {sign} {bound} is asked for"
    return None


def _numbers(text: str) -> tuple[int, ...]:
    """Return a version's numbers, without zeros at its end: 4 is 4.0."""
    found = [int(part) for part in re.match(r"[0-9.]*", text)[0].split(".") if part]  # type: ignore[index]
    while found and not found[-1]:
        found.pop()
    return tuple(found)


def ends(patient: Patient) -> Finding:
    """Look for versions that nobody mends any more, or that have a bug which flagsweep meets."""
    running = [("Python", tuple(sys.version_info[:3]))]
    if patient.dialect.shared and patient.reached:
        name, number, _ = patient.dialect.server_version(patient.store.connections.engine)
        running.append((name, number))
    today = utc(patient.now).date()
    told = [line for each in running for line in (*_over(*each, today), *_bugs(patient, *each))]
    if told:
        texts, fixes = zip(*told, strict=True)
        return Finding("warn", "versions", "; ".join(texts), "; ".join(fixes))
    return Finding("ok", "versions", ", ".join(f"{name} {'.'.join(map(str, number))}" for name, number in running))


def _over(name: str, number: tuple[int, ...], today: date) -> Iterator[tuple[str, str]]:
    for (named, beginning), last in ENDS.items():
        if named == name and number[: len(beginning)] == beginning and today > date.fromisoformat(last):
            shown = ".".join(map(str, number[: len(beginning)]))
            yield f"{name} {shown} is mended no more since {last}", f"move to a newer {name}"


def _bugs(patient: Patient, name: str, number: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    if name != "PostgreSQL" or patient.site.settings.notify == "off":
        return
    mended = NOTIFY_MENDED.get(number[0], 0 if number[0] > 13 else 10_000)
    if number[1] < mended:
        text = f"{name} {number[0]}.{number[1]} may lose what LISTEN still reads"
        fix = f"update to {number[0]}.{mended} or later" if mended < 10_000 else "move to 14.21 or later"
        yield f"{text}: flags are then seen within a minute only", f"{fix}, or set notify='off'"


VERSIONS: list[Check] = [packages, ends]

"""The flags themselves: whether somebody takes them, which are dead or damaged, and how own rows are found."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches

from ...adapters.rows import OwnRows
from ...config import SECOND
from ...models import fact
from ...sweep.claims import Store
from .finding import Finding, as_date, names
from .patient import Check, Patient

NEWEST = 10_000
"""How many flags the checks of single rows look at, so that they end soon however many there are."""


def kinds(patient: Patient) -> Finding:
    """Check that somebody would take every flag that waits."""
    if not patient.site.handlers:
        return Finding("ok", "kinds", "not checked: no handlers are known here, name the site's own FlagSweep with --app")
    unknown = sorted({str(kind) for kind, state, *_ in patient.counts if state == "waiting" and not patient.known(kind)})
    if unknown and not patient.overdue(lambda kind: not patient.known(kind)):
        text = f"no handler here for {names(unknown)}; none of their flags is overdue: another application seems to serve them"
        return Finding("ok", "kinds", text)
    if unknown:
        count = patient.total("waiting", lambda kind: not patient.known(kind))
        text = f"no handler is registered for {names(unknown)}; flags that wait for one: {count}{_served(patient, unknown)}"
        near = [close[0] for kind in unknown if (close := get_close_matches(kind, patient.site.handlers, 1))]
        of = f"that of {names(dict.fromkeys(near))}, if it was renamed" if near else "another"
        fix = f"register a handler for the kind, name it in the aliases= of {of}, or take the flags down with 'flagsweep lower'"
        return Finding("warn", "kinds", text, fix)
    return Finding("ok", "kinds", f"handlers for {names(sorted(patient.site.handlers))}")


def _served(patient: Patient, kinds: Iterable[str]) -> str:
    """Return who served the kinds last, as consumers have noted it."""
    told = []
    for kind in kinds:
        note = fact(patient.store.connections.engine, f"kind:{kind}")
        with suppress(ValueError, TypeError, KeyError, AttributeError, OverflowError):  # A hand has damaged it, or there is none.
            said = json.loads(note.value)  # type: ignore[union-attr]
            told.append(f"{kind} was served by {said['app']} on {said['host']} ({as_date(note.at)})")  # type: ignore[union-attr]
    return f"; {names(told, 3)}" if told else ""


def kinds_in_settings(patient: Patient) -> list[Finding]:
    """Tell what settings say of kinds instead of the code, and which of those kinds nobody handles here."""
    site, tables = patient.site, patient.site.settings.kinds
    where, found = getattr(tables, "where", "the settings"), []
    said = [f"{kind} ({', '.join(handler.overrides)})" for kind, handler in sorted(site.handlers.items()) if handler.overrides]
    if said:
        found.append(Finding("ok", "kinds in settings", f"{where} says instead of the code: {names(said)}"))
    unknown = sorted(set(tables) - set(site.handlers)) if site.handlers else []
    if unknown:
        text = f"{where} says something of {names(unknown)}, and there is no handler here"
        found.append(Finding("warn", "kinds in settings", text, "mend the name, or leave it where another application serves it"))
    return found


def dead_flags(patient: Patient) -> Finding:
    """Look for flags that a person has to decide about."""
    count = patient.total("dead")
    if count:
        fix = "see 'flagsweep dead', then 'flagsweep dead retry' or 'flagsweep dead discard'"
        many = f"{'' if patient.counts.exact else 'at least '}{count}"
        return Finding("warn", "dead flags", f"{many}, kept until a person decides", fix)
    return Finding("ok", "dead flags", "none")


def rows(patient: Patient) -> Finding:
    """Look for rows that were damaged by hand."""
    damaged = patient.store.damaged(NEWEST)
    if damaged:
        text = f"due time or payload cannot be read: flag {names(str(id) for id in damaged)}"
        fix = "a running consumer parks them as dead, with the reason; then 'flagsweep discard'"
        return Finding("warn", "rows", text, fix)
    return Finding("ok", "rows", f"the newest {NEWEST:,} can be read")


def raise_times(patient: Patient) -> Finding:
    """Look for flags that were raised while a clock was wrong."""
    latest = patient.store.latest_raise(NEWEST)
    if latest is not None and latest > patient.now + 60 * SECOND:
        text = f"a flag was raised at {as_date(latest)}, and now it is {as_date(patient.now)}"
        return Finding(
            "warn", "raise times", text, "set the clocks of this machine and of what raises flags; a consumer mends the flags"
        )
    return Finding("ok", "raise times", "none lies in the future")


def own_rows(patient: Patient) -> list[Finding]:
    """Check that the site's own rows are found through an index."""
    handlers = patient.site.handlers.values()
    return [_own_rows_of(patient.store, handler.kind, handler.rows) for handler in handlers if handler.rows is not None]


def _own_rows_of(store: Store, kind: str, rows: OwnRows) -> Finding:
    if rows.column is None and rows.layer != "Peewee":
        return Finding("ok", "own rows", f"{kind} has {rows.layer} find its rows: see there whether an index does it")
    table = rows.model._meta.table_name
    if not store.connections.engine.table_exists(table):
        fix = "create the table; until then this kind is not looked for, other kinds go on"
        return Finding("warn", "own rows", f"{kind}: there is no table {table}", fix)
    if store.reads_all(rows.query(store.connections.dialect, kind, 1)):
        text = f"{kind}: every look for work reads the whole table {table}, for want of an index"
        return Finding("warn", "own rows", text, store.index_for(rows.model, rows.condition(), rows.fields()))
    return Finding("ok", "own rows", f"{kind} finds its rows in {table} through an index")


FLAGS: list[Check] = [kinds, kinds_in_settings, dead_flags, rows, raise_times, own_rows]

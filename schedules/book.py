"""The book of schedules: their rows, who changes them and how, and the transaction that fires one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from typing import Any

from peewee import Database, IntegrityError

from ..config import SECOND
from ..databases.connections import Connections
from ..databases.raising import Occurrence, Terms
from ..errors import ConfigError
from ..models import Event, Schedule, bump, record
from ..payloads import Item
from .catching import AHEAD, Due, believed, first, mended
from .declared import Declarations, Declared, Plan, is_loaded, key_of

BY_HAND = ("sort", "spec", "zone", "missed", "grace", "cap", "payload", "key")
"""What a hand may change of a schedule that code declares."""


def plan_of(row: Schedule) -> Plan:
    """Return the plan of a row.

    :raises ConfigError: where the row was damaged by hand.
    """
    try:
        return Plan.of(row.sort, row.spec, row.zone, row.missed, row.grace / SECOND, row.cap)
    except TypeError as error:
        raise ConfigError(f"the row of the schedule {row.name!r} is damaged: {error}") from error


def changed_of(row: Schedule) -> set[str]:
    """Return which columns a hand has changed of a schedule that code declares; none where that was damaged."""
    try:
        changed = json.loads(row.changed or "[]")
    except (ValueError, TypeError, RecursionError):
        return set()
    return set(BY_HAND).intersection(name for name in changed if isinstance(name, str)) if isinstance(changed, list) else set()


def is_paused(row: Schedule, now: int) -> bool:
    """Return whether a schedule is paused just now."""
    return row.paused_at is not None and (row.paused_until is None or row.paused_until > now)


class Book:
    """Read and write schedules. Times are microseconds UTC."""

    def __init__(self, connections: Connections):
        self._connections = connections

    def rows(self, db: Database) -> list[Schedule]:
        """Return all schedules by name."""
        with self._connections.dialect.lenient(db):
            return list(Schedule.select().order_by(Schedule.name).execute(db))

    # What code declares.

    def write_declared(self, declarations: Declarations, zone: str, now: int) -> list[str]:
        """Write what code declares, as a consumer starts; return what was changed, a sentence each.

        What a hand has changed stays as it is. What is no longer declared by a module that is loaded goes.

        :param zone: that of the settings.
        """
        with self._connections.write() as db:
            rows = {row.name: row for row in self.rows(db)}
            ordered = sorted(declarations, key=attrgetter("name"))  # Two that start at once never wait for each other.
            told = [line for each in ordered if (line := self._write_one(db, each, rows.get(each.name), zone, now))]
            for row in rows.values():
                if row.origin == "code" and row.name not in declarations and is_loaded(row.module):
                    Schedule.delete().where(Schedule.name == row.name).execute(db)
                    told.append(f"the schedule {row.name} is no longer declared in {row.module}: it is gone")
            if told:
                bump(db)
        return told

    def _write_one(self, db: Database, declared: Declared, row: Schedule | None, zone: str, now: int) -> str | None:
        columns = declared.columns(zone)
        values, said = {**columns, "module": declared.module}, json.dumps(columns, sort_keys=True)
        plan = declared.plan(zone)
        if row is None:
            return self._insert(db, {**values, "name": declared.name, "origin": "code", "code": said}, plan, now)
        if row.origin == "code" and row.module != declared.module:  # Else whoever loads the one before takes it out.
            Schedule.update(module=declared.module).where(Schedule.name == row.name).execute(db)
        if row.origin == "hand" or row.code == said:
            return self._forget_if_over(db, row, now)
        changed = changed_of(row)
        if changed & {"sort", "spec"}:
            changed |= {"sort", "spec"}  # One says how to read the other.
        kept = {name: value for name, value in values.items() if name not in changed}
        if (key := self._key_of(declared, row, kept, plan)) is not None:
            kept["key"] = key
        if any(kept.get(name, getattr(row, name)) != getattr(row, name) for name in ("sort", "spec", "zone")):
            with suppress(ConfigError, TypeError):  # What a hand has damaged does not fire, and hinders no start.
                kept["next_at"] = first(plan_of(Schedule(**{**row.__data__, **kept})), now, row.last_at)
        Schedule.update(code=said, **kept).where(Schedule.name == declared.name).execute(db)
        return f"the schedule {declared.name} was changed in the code: {plan.spec.plain()}"

    def _key_of(self, declared: Declared, row: Schedule, kept: Mapping[str, Any], plan: Plan) -> str | None:
        """Return the key of a row of which the code says one part and a hand another; None where it stays."""
        missed = kept.get("missed", row.missed)
        if "payload" in kept:
            return key_of(declared.item, replace(plan, missed=missed), declared.single)
        return "" if missed == "all" else None

    def _forget_if_over(self, db: Database, row: Schedule, now: int) -> str | None:
        """Strike off what fired once, long enough ago: no clock that is set right since could fire it again."""
        if row.sort != "at" or row.next_at is not None or row.last_at is None or row.last_at > now - AHEAD:
            return None
        Schedule.delete().where(Schedule.name == row.name).execute(db)
        return f"the schedule {row.name} has fired: it is gone"

    def _insert(self, db: Database, values: Mapping[str, Any], plan: Plan, now: int) -> str | None:
        """Enter a new schedule; return what there is to say, or None where its one moment has passed."""
        next_at = first(plan, now)
        if next_at is None:
            return None
        Schedule.insert({**values, "next_at": next_at, "created_at": now}).execute(db)
        return f"the schedule {values['name']} is new: {plan.spec.plain()}"

    # What a hand does.

    def add(self, db: Database, name: str, values: Mapping[str, Any], plan: Plan, by: str, now: int) -> None:
        """Enter a schedule that no code declares.

        :param values: ``kind``, ``key`` and ``payload``.
        :raises ConfigError: where the name is taken, or its one moment has passed.
        """
        taken = f"there is a schedule {name!r} already: edit it, or give this one another name"
        if self.row(db, name) is not None:
            raise ConfigError(taken)
        origin = {"origin": "hand", "changed_by": by, "changed_at": now}
        try:
            entered = self._insert(db, {**values, **plan.columns(), **origin, "name": name}, plan, now)
        except IntegrityError as error:  # Somebody else has just done the same.
            raise ConfigError(taken) from error
        if entered is None:
            raise ConfigError(f"{plan.spec.text} lies in the past: give a moment to come")
        bump(db)

    def row(self, db: Database, name: str, lock: bool = False) -> Schedule | None:
        """Return a schedule, or None.

        :param lock: nobody else may change it before the open transaction ends.
        """
        query = Schedule.select().where(Schedule.name == name).limit(1)
        query = query.for_update() if lock and self._connections.dialect.shared else query
        return next(iter(query.execute(db)), None)

    def edit(self, db: Database, row: Schedule, values: Mapping[str, Any], by: str, now: int) -> None:
        """Change columns of a schedule; of one that code declares it is kept which, so that they win over the code."""
        kept = dict(values)
        if row.origin == "code":
            kept["changed"] = json.dumps(sorted(changed_of(row) | (set(values) & set(BY_HAND))))
        self.set(db, row.name, changed_by=by, changed_at=now, **kept)

    def set(self, db: Database, name: str, **values: Any) -> bool:
        """Set columns of a schedule; return whether it is there."""
        done = Schedule.update(values).where(Schedule.name == name).execute(db)
        bump(db)
        return bool(done)

    def remove(self, db: Database, name: str) -> bool:
        """Strike a schedule off; return whether it was there."""
        done = Schedule.delete().where(Schedule.name == name).execute(db)
        bump(db)
        return bool(done)

    # Firing.

    def fire(self, row: Schedule, due: Due, runs: Sequence[tuple[Item, Terms]], now: int) -> bool:
        """Fire a schedule for its next time, in one transaction: who else does the same comes too late, and does nothing.

        Nobody is waited for: a site that has raised its flag and then pauses it would in turn wait for its row.

        :param runs: what is raised.
        :return: whether it was fired here.
        """
        dialect, keys = self._connections.dialect, [item.key for item, _ in runs]
        with self._connections.write() as db:
            free = (not keys or dialect.may_raise(db, row.kind, keys)) and self._hold(db, _still(row))
            if not free or not self._advance(db, row, due, now):
                return False
            self._raise(db, row, runs)
            if due.skipped:
                reason = f"{due.skipped} times of the schedule {row.name} were not run: missed={row.missed!r}"
                record(db, [Event(0, row.kind, row.key, "skipped", reason)], now)
        row.next_at, row.last_at = due.next_at, _last_of(row, due)
        return True

    def _advance(self, db: Database, row: Schedule, due: Due, now: int) -> bool:
        """Have a schedule wait for its next time, or strike it off; return whether nobody has done so already.

        What code declares to fire once stays for a while: the next start would take it for new if the clock were set back.
        """
        mine = _still(row)
        if due.next_at is None and row.sort == "at" and row.origin != "code":
            return bool(Schedule.delete().where(mine).execute(db))
        fired = {"fired_at": now} if due.runs else {}
        values = {"next_at": due.next_at, "last_at": _last_of(row, due), "skipped": Schedule.skipped + due.skipped, **fired}
        return bool(Schedule.update(values).where(mine).execute(db))

    def _raise(self, db: Database, row: Schedule, runs: Iterable[tuple[Item, Terms]]) -> None:
        for item, terms in runs:
            self._connections.dialect.raise_over(db.execute_sql, row.kind, item, terms)

    def mend(self, row: Schedule, now: int) -> str | None:
        """Set right what a wrong clock has written; return what there is to say about it."""
        next_at = mended(plan_of(row), row.next_at, row.last_at, now)
        last_at = believed(row.last_at, now)
        if (next_at, last_at) == (row.next_at, row.last_at):
            return None
        with self._connections.write() as db:
            mine = _still(row)
            if not self._hold(db, mine) or not Schedule.update(next_at=next_at, last_at=last_at).where(mine).execute(db):
                return None
        row.next_at, row.last_at = next_at, last_at
        return f"the schedule {row.name} had a time that a wrong clock wrote: it is set anew"

    def ended(self, name: str, outcome: str, now: int) -> None:
        """Take note of how the last run of a schedule's flag ended."""
        with self._connections.write() as db:
            if self._hold(db, Schedule.name == name):
                Schedule.update(outcome=outcome, ended_at=now).where(Schedule.name == name).execute(db)

    def _hold(self, db: Database, which: Any) -> bool:
        """Lock a schedule for the open transaction; return whether it is there and nobody else holds it."""
        if not self._connections.dialect.shared:
            return True
        return bool(list(Schedule.select(Schedule.name).where(which).for_update(skip_locked=True).tuples().execute(db)))


def _still(row: Schedule) -> Any:
    """Return the condition that nobody has fired a schedule since it was read."""
    return (Schedule.name == row.name) & (Schedule.next_at == row.next_at)


def _last_of(row: Schedule, due: Due) -> int | None:
    return due.runs[-1][0] if due.runs else row.last_at


def occurrence_of(row: Schedule, intended: int, missed: int) -> Occurrence:
    """Return what a flag is told of the time it is raised for."""
    return Occurrence(row.name, row.zone, intended, missed)

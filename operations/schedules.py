"""Schedules, as people look after them: list, add, edit, pause, resume, run now, remove, reset."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from ..config import SECOND, check_name
from ..databases.raising import Occurrence, Terms
from ..errors import ConfigError, UnknownSchedule
from ..handlers import Handler
from ..logs import clean
from ..models import Raised, Schedule, bump
from ..payloads import Item
from ..schedules.book import Book, plan_of
from ..schedules.declared import Declarations, Plan, key_of
from .pauses import by_whom, end_of, meant
from .schedule_info import ScheduleInfo, changed_names, rows_of, said_by_code
from .schedule_plans import WHEN, Calls, Given, edited, first_of, plan_from, spec_of, with_companions
from .site import Site

Rows = list[Schedule]


class Schedules:
    """Look after schedules, in the transaction that is open on ``flags.database`` if there is one.

    Consumers see a change as soon as it is committed. ``by`` is who did it, by default this user's name on this host.

    :param handlers: by kind, aliases included.
    :param declared: what code declares here.
    :param tell: tells consumers of lane, kind and priority of a flag that was raised.
    """

    def __init__(
        self, site: Site, handlers: Mapping[str, Handler], declared: Declarations, tell: Callable[[str, str, int], None]
    ):
        self._site = site
        self._connections = site.connections
        self._book = Book(site.connections)
        self._handlers = handlers
        self._calls = Calls(handlers, site.settings.payload_limit)
        self._declared = declared
        self._tell = tell

    def list(self) -> list[ScheduleInfo]:
        """Return all schedules by name; one whose row is damaged has a ``problem``."""
        return [self._info(row) for row in rows_of(self._connections)]

    def add(
        self,
        name: str,
        kind: str,
        *,
        cron: str | None = None,
        every: object = None,
        at: object = None,
        tz: str | None = None,
        arguments: Given = (),
        missed: str | None = None,
        grace: object = None,
        cap: int | None = None,
        by: str | None = None,
    ) -> ScheduleInfo:
        """Have flags of a kind raised at times that no code declares; return the schedule, with notes on what it meets.

        :param cron: five fields such as ``"0 4 * * 1"``; or ``every``: seconds, a ``timedelta`` or text such as ``"10m"``; or
            ``at``: a ``datetime``, or text such as ``"2026-12-24 18:00"``. One of the three.
        :param tz: the IANA name of its zone; by default the setting ``timezone``.
        :param arguments: a dict of keyword arguments, or a tuple of positional ones. Where no handlers are known here, a
            dict, and nothing checks it.
        :param missed: what becomes of times that nobody was there for: ``"once"`` (one run for all), ``"skip"`` (none that is
            later than ``grace``, 60 s) or ``"all"`` (one for each of the latest ``cap``, 100).
        :raises ConfigError: where the name is taken, or naming what is wrong; ``SpecError`` has its ``position`` in the spec.
        :raises UnknownKind: where handlers are known here, and none has this kind.
        :raises SignatureError, PayloadError: where the handler would not accept the arguments, or they are no JSON.
        """
        check_name(name, "a schedule's name")
        given = spec_of(cron, every, at)
        if given is None:
            raise ConfigError(f"say when {name!r} fires: cron='0 4 * * 1', every='10m' or at='2026-12-24 18:00'")
        plan = plan_from(*given, self._site.settings.timezone if tz is None else tz, missed, grace, cap)
        handler = self._site.handler_of(kind) if self._handlers else None
        kind = check_name(kind, "the kind") if handler is None else handler.kind
        item = self._calls.item(kind, arguments)
        values = {"kind": kind, "payload": item.payload, "key": key_of(item, plan, self._calls.is_single(kind))}
        with self._changing("the schedule was not added") as db:
            self._book.add(db, name, values, plan, by_whom(by), self._now())
            return self._told(db, name, plan, unchecked=handler is None)

    def edit(
        self,
        name: str,
        *,
        cron: str | None = None,
        every: object = None,
        at: object = None,
        tz: str | None = None,
        arguments: Given | None = None,
        missed: str | None = None,
        grace: object = None,
        cap: int | None = None,
        by: str | None = None,
    ) -> ScheduleInfo:
        """Change a schedule; what is None stays as it is. Changed times owe no past. What is changed wins over the code.

        :param cron: as for ``add``, with the others.
        :raises UnknownSchedule: naming the nearest names there are.
        :raises ConfigError, SignatureError, PayloadError: as for ``add``.
        """
        given = spec_of(cron, every, at)
        with self._changing("the schedule was not changed") as db:
            row = self._row(db, name, lock=True)
            _refuse_an_end(row, given)
            plan = edited(row, given, tz, missed, grace, cap)
            values = plan.columns() | self._calls.edited(row, plan, arguments)
            changed = {column: value for column, value in values.items() if getattr(row, column) != value}
            self._change(db, row, with_companions(changed, values), plan, by)
            return self._told(db, name, plan, unchecked=arguments is not None and row.kind not in self._handlers)

    def pause(self, name: str, reason: str = "", until: object = None, by: str | None = None) -> ScheduleInfo:
        """Have a schedule not fire; what it misses, its ``missed`` decides about when it is resumed. What runs goes on.

        :param until: when it goes on by itself: a ``datetime`` with a time zone, or how long from now: seconds, a ``timedelta``
            or text such as ``"2h"``. Without it, it waits for ``resume``.
        :raises UnknownSchedule: naming the nearest names there are.
        """
        now = self._now()
        paused = {"paused_at": now, "paused_by": by_whom(by), "paused_until": end_of(until, now)}
        return self._set(name, "the schedule was not paused", {**paused, "reason": clean(str(reason)) or None})

    def resume(self, name: str) -> ScheduleInfo:
        """Have a schedule that is paused fire again; one that is not paused stays as it is.

        :raises UnknownSchedule: naming the nearest names there are.
        """
        columns = ("paused_at", "paused_by", "paused_until", "reason")
        return self._set(name, "the schedule was not resumed", dict.fromkeys(columns))

    def run_now(self, name: str) -> Raised:
        """Raise a schedule's flag just now, whether it is paused or not; its times stay as they are.

        Where no handler here has its kind, it has priority 0 and does not expire.

        :return: the flag's id, and ``new``, ``coalesced``, ``bumped`` or ``revived``.
        :raises UnknownSchedule: naming the nearest names there are.
        :raises ConfigError: where its row is damaged.
        """
        with self._connections.lent("the flag was not raised") as db:
            row, now = self._row(db, name), self._now()
        info = self._info(row)
        if info.problem:
            raise ConfigError(f"the schedule {name!r} cannot fire: {info.problem}")
        handler = self._handlers.get(row.kind)
        occurrence = Occurrence(row.name, row.zone, now)
        terms = Terms(0, now, now, occurrence=occurrence) if handler is None else handler.terms(occurrence)
        bucket = None if handler is None else handler.bucket_of(row.payload)
        key = row.key or f"@{name}/{_written(now, row.zone)}"
        raised = self._site.verbs.raise_(row.kind, Item(key, row.payload, bucket), terms)
        if handler is not None and terms.due_at <= now:
            self._tell(handler.lane, row.kind, terms.priority)
        return raised

    def remove(self, name: str) -> None:
        """Strike a schedule off. Its flag, if it is up, stays.

        :raises UnknownSchedule: naming the nearest names there are.
        :raises ConfigError: where code declares it: the next start would write it again.
        """
        with self._changing("the schedule was not removed") as db:
            row = self._row(db, name, lock=True)
            if row.origin == "code" and self._may_be_declared(row):
                raise ConfigError(
                    f"the schedule {name!r} is declared in {row.module}, and the next start of a consumer would write it again: "
                    "pause it, or take it out of the code"
                )
            self._book.remove(db, name)

    def reset(self, name: str) -> ScheduleInfo:
        """Undo what was changed by hand: the schedule is again as the code says.

        :raises UnknownSchedule: naming the nearest names there are.
        :raises ConfigError: where no code declares it.
        """
        with self._changing("the schedule was not reset") as db:
            row = self._row(db, name, lock=True)
            said = said_by_code(row)
            if row.origin != "code" or not said:
                raise ConfigError(f"no code declares the schedule {name!r}: edit it, or remove it")
            values = {column: value for column, value in said.items() if getattr(row, column) != value}
            for column, value in values.items():
                setattr(row, column, value)
            if values.keys() & WHEN or not isinstance(row.next_at, int):
                values["next_at"] = first_of(plan_of(row), self._now())
            self._book.set(db, name, **values, changed=None, changed_by=None, changed_at=None)
            return self._info(self._row(db, name))

    # What they have in common.

    def _now(self) -> int:
        return self._site.clock.now()

    @contextmanager
    def _changing(self, failed: str) -> Iterator[Any]:
        """Hold a transaction after which everybody reads schedules again."""
        with self._connections.lent(failed) as db, self._connections.writing_on(db):
            bump(db)
            yield db

    def _set(self, name: str, failed: str, values: Mapping[str, Any]) -> ScheduleInfo:
        with self._changing(failed) as db:
            self._row(db, name, lock=True)
            self._book.set(db, name, **values)
            return self._info(self._row(db, name))

    def _change(self, db: Any, row: Schedule, changed: dict[str, Any], plan: Plan, by: str | None) -> None:
        """Write what was changed of a row, with its next time where that follows from it."""
        if not changed:
            return
        if changed.keys() & WHEN or not isinstance(row.next_at, int):
            changed["next_at"] = first_of(plan, self._now())
        row.changed = None if not changed_names(row) else row.changed
        self._book.edit(db, row, changed, by_whom(by), self._now())

    def _rows(self, db: Any) -> Rows:
        with self._connections.dialect.lenient(db):
            return self._book.rows(db)

    def _row(self, db: Any, name: str, lock: bool = False) -> Schedule:
        """Return a schedule.

        :param lock: nobody else may change it before the transaction ends.
        :raises UnknownSchedule: naming the nearest names there are.
        """
        with self._connections.dialect.lenient(db):
            row = self._book.row(db, name, lock)
        if row is None:
            raise UnknownSchedule(f"there is no schedule {name!r}; {meant(name, (each.name for each in self._rows(db)))}")
        return row

    def _info(self, row: Schedule) -> ScheduleInfo:
        return ScheduleInfo.of(row, self._now(), row.kind in self._handlers if self._handlers else None)

    def _told(self, db: Any, name: str, plan: Plan, unchecked: bool) -> ScheduleInfo:
        """Return a schedule that was written just now, with what is worth knowing of it."""
        row, rows = self._row(db, name), self._rows(db)
        notes = [f"nothing here knows the kind {row.kind!r}: its arguments are not checked"] if unchecked else []
        sharing = [each.name for each in sharing_with(row, rows)]
        if sharing:
            names = " and ".join(map(repr, sharing))
            notes.append(f"the same kind and arguments as {names}: they share one flag, and one run where they are due together")
        return self._info(row).noting(notes + plan.spec.lost(self._now()))

    def _may_be_declared(self, row: Schedule) -> bool:
        """Return whether some code may declare a schedule: here, or in a module that this application does not load."""
        return row.name in self._declared or not self._handlers or _is_there(row.module)


def _refuse_an_end(row: Schedule, given: tuple[str, object] | None) -> None:
    """Refuse to let a schedule of the code fire once more: it would be gone then, until the next start writes it again."""
    said = said_by_code(row).get("sort")
    if given is not None and given[0] == "at" and said not in (None, "at"):
        raise ConfigError(
            f"the schedule {row.name!r} is declared in {row.module} and fires again and again: 'at' would end it; run it now, or "
            "add another one for that moment"
        )


def sharing_with(row: Schedule, rows: list[Schedule]) -> list[Schedule]:
    """Return the other schedules that raise the same flag."""
    return [each for each in rows if row.key and each.name != row.name and (each.kind, each.key) == (row.kind, row.key)]


def _written(now: int, zone: str) -> str:
    return datetime.fromtimestamp(now / SECOND, ZoneInfo(zone)).isoformat(timespec="microseconds")


def _is_there(module: str | None) -> bool:
    """Return whether a module can be imported here, or the program be found, that once declared a schedule."""
    name, _, file = (module or "").partition(":")
    if file:
        return Path(file).exists()
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False

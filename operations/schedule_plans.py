"""What people say of a schedule: when it fires, with which arguments, until when it is paused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import SECOND
from ..errors import ConfigError
from ..handlers import Handler
from ..models import Schedule
from ..payloads import Item, unchecked
from ..schedules import parse
from ..schedules.catching import first
from ..schedules.declared import Plan, key_of
from .schedule_info import shown

WHEN = frozenset(("sort", "spec", "zone"))
"""The columns that say when a schedule fires."""

TOGETHER = (("sort", "spec"), ("payload", "key"))
"""Columns of which a hand changes all or none: beside those of the code, one of them would make no sense."""

Given = Mapping[str, Any] | tuple
"""Arguments: a dict of keyword arguments, or a tuple of positional ones."""


class Calls:
    """Turn arguments into payload and key of a schedule.

    :param handlers: by kind, aliases included.
    :param limit: bytes of a payload.
    """

    def __init__(self, handlers: Mapping[str, Handler], limit: int):
        self._handlers = handlers
        self._limit = limit

    def is_single(self, kind: str) -> bool:
        """Return whether raises of a kind meet in one flag; of a kind that is not known here that is taken for granted."""
        return kind not in self._handlers or self._handlers[kind].options.unique

    def item(self, kind: str, arguments: Given) -> Item:
        """Return key and payload, by the kind's handler if there is one here.

        :raises ConfigError: where positional arguments are given and no handler names them.
        :raises SignatureError, PayloadError: where the handler would not accept them, or they are no JSON.
        """
        if kind in self._handlers:
            return self._handlers[kind].item_of(arguments, self._limit)
        if not isinstance(arguments, Mapping) and arguments != ():
            raise ConfigError(
                f"nothing here knows the names of the arguments of {kind!r}: give a dict such as {{'n': 1}}, got {arguments!r}"
            )
        return unchecked(dict(arguments), kind, self._limit)

    def edited(self, row: Schedule, plan: Plan, arguments: Given | None) -> dict[str, Any]:
        """Return payload and key of a schedule that is edited: where its ``missed`` changes, its key may, too."""
        single = self.is_single(row.kind)
        if arguments is not None:
            item = self.item(row.kind, arguments)
            return {"payload": item.payload, "key": key_of(item, plan, single)}
        said = shown(row.payload)
        apart = plan.missed == "all" or not single
        if apart == (row.key == "") or not isinstance(said, dict):
            return {}
        return {"key": "" if apart else key_of(self.item(row.kind, said), plan, single)}


def spec_of(cron: object, every: object, at: object) -> tuple[str, object] | None:
    """Return sort and text of the one spec that was given, or None.

    :raises ConfigError: where there are several.
    """
    given = [(sort, value) for sort, value in (("cron", cron), ("every", every), ("at", at)) if value is not None]
    if len(given) > 1:
        raise ConfigError(f"a schedule has one spec: give only one of {', '.join(f'{sort}={value!r}' for sort, value in given)}")
    return given[0] if given else None


def plan_from(sort: str, text: object, zone: str, missed: object, grace: object, cap: object) -> Plan:
    """Return a plan.

    :raises ConfigError: naming every bad part at once; where the spec alone is wrong, ``SpecError`` with its position.
    """
    try:
        return Plan.of(sort, text, zone, missed, grace, cap)
    except ConfigError as error:
        if len(error.problems) == 1:
            parse(sort, text, zone)
        raise


def edited(row: Schedule, given: tuple[str, object] | None, tz: str | None, missed: object, grace: object, cap: object) -> Plan:
    """Return the plan of a row with what is changed of it: so what is damaged can be mended."""
    sort, text = given or (row.sort, row.spec)
    if grace is None and isinstance(row.grace, int):
        grace = row.grace / SECOND
    return plan_from(sort, text, tz or row.zone, row.missed if missed is None else missed, grace, row.cap if cap is None else cap)


def with_companions(changed: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is changed, with the columns that are changed together with these."""
    for pair in TOGETHER:
        if changed.keys() & set(pair):
            changed |= {column: values[column] for column in pair if column in values}
    return changed


def first_of(plan: Plan, now: int) -> int:
    """Return when a schedule fires first that was changed just now.

    :raises ConfigError: where its one moment has passed.
    """
    next_at = first(plan, now)
    if next_at is None:
        raise ConfigError(f"{plan.spec.text} lies in the past: give a moment to come")
    return next_at

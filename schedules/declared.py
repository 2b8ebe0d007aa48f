"""What the site's code declares: schedules, by name, and the module that declares each."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import SECOND, Problems, check_name, seconds
from ..errors import ConfigError
from ..payloads import Item
from .sorts import parse
from .spec import Spec

POLICIES = ("once", "skip", "all")
"""What becomes of the times that nobody was there for: one run for all, none of those that are late, one for each."""

MOST = 1000
"""The most runs that one catching up brings, whatever ``cap`` says."""


@dataclass(frozen=True)
class Plan:
    """Say when, and what of it becomes of the times that were missed.

    :param grace: microseconds that an occurrence may be late without being skipped.
    :param cap: the most occurrences that ``missed="all"`` catches up.
    """

    spec: Spec
    missed: str = "once"
    grace: int = 60 * SECOND
    cap: int = 100

    @classmethod
    def of(cls, sort: str, text: Any, zone: str, missed: Any = None, grace: Any = None, cap: Any = None) -> Plan:
        """Return a plan; what is None is as above.

        :raises ConfigError: naming every bad part at once.
        """
        problems = Problems()
        spec = problems.take(parse, sort, text, zone)
        kept: dict[str, Any] = {}
        if missed is not None:
            kept["missed"] = missed
            if missed not in POLICIES:
                problems.found.append(f"missed must be 'once', 'skip' or 'all', got {missed!r}")
        if grace is not None:
            kept["grace"] = int((problems.take(seconds, grace, "grace") or 0) * SECOND)
        if cap is not None:
            kept["cap"] = problems.number(cap, "cap", 1, MOST, whole=True)
        problems.raise_any()
        return cls(spec, **kept)

    def columns(self) -> dict[str, Any]:
        """Return it as the columns of a row."""
        spec = self.spec
        return {
            **{"sort": spec.sort, "spec": spec.text, "zone": spec.zone},
            **{"missed": self.missed, "grace": self.grace, "cap": self.cap},
        }


@dataclass(frozen=True)
class Declared:
    """Be a schedule that code declares.

    :param zone: None: the one of the settings, which may not be known yet.
    :param said: what it says besides: ``missed``, ``grace`` and ``cap``.
    :param single: all its occurrences meet in one flag: False where each raise is a flag of its own.
    """

    name: str
    kind: str
    item: Item
    sort: str
    spec: Any
    zone: str | None
    said: Mapping[str, Any]
    module: str
    single: bool = True

    def plan(self, zone: str) -> Plan:
        """Return its plan.

        :param zone: that of the settings.
        """
        return Plan.of(self.sort, self.spec, self.zone or zone, **self.said)

    def columns(self, zone: str) -> dict[str, Any]:
        """Return what it says as the columns of a row."""
        plan = self.plan(zone)
        return {"kind": self.kind, "key": key_of(self.item, plan, self.single), "payload": self.item.payload, **plan.columns()}


def key_of(item: Item, plan: Plan, single: bool) -> str:
    """Return the key of a schedule's flag; empty where each occurrence has one of its own."""
    return item.key if single and plan.missed != "all" else ""


class Declarations:
    """Hold what is declared, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Declared] = {}

    def __iter__(self) -> Iterator[Declared]:
        return iter(list(self._by_name.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def add(self, declared: Declared) -> None:
        """Declare one more.

        :raises ConfigError: where its name is taken, or is none.
        """
        check_name(declared.name, "a schedule's name")
        declared.plan("UTC")  # What is wrong with it is told here.
        if declared.name in self._by_name:
            raise ConfigError(f"there is a schedule {declared.name!r} already: give this one another name=")
        self._by_name[declared.name] = declared


def module_of(names: dict[str, Any]) -> str:
    """Return the name of the module whose global names these are; a program is known by its file."""
    name = str(names.get("__name__", "?"))
    return name if name != "__main__" else f"__main__:{Path(str(names.get('__file__', '?'))).resolve()}"


def is_loaded(module: str | None) -> bool:
    """Return whether a module that once declared something is loaded in this process."""
    if module is None:
        return False
    name, colon, _ = module.partition(":")
    return module in sys.modules if not colon else module_of(vars(sys.modules[name])) == module

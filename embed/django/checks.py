"""Checks: what ``manage.py check`` says of flagsweep's settings, and of what the site's own make of its raises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import django
from django.core.checks import CheckMessage, Error, Info, Warning
from django.db import connections

from ...config import Settings
from ...errors import ConfigError
from ...handlers.options import OF_CODE, Options
from .settings import alias_of_settings, configured
from .site import _has_backend

IMMEDIATE = "'OPTIONS': {'transaction_mode': 'IMMEDIATE'}"


def check(app_configs: Sequence[Any] | None = None, **_: Any) -> list[CheckMessage]:
    """Return what is wrong with the settings, and what to know of them."""
    try:
        said = configured()
    except ConfigError as error:
        return _errors(error.problems)
    if problems := [*_kinds(said), *_framework()]:
        return _errors(problems)
    alias = alias_of_settings()
    return [*_modes(alias), *_other_databases(alias), *_requests(alias)]


def _errors(problems: Iterable[str]) -> list[CheckMessage]:
    return [Error(problem, hint="See docs/django.md of flagsweep.", id="flagsweep.E001") for problem in problems]


def _kinds(said: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with KINDS, as far as that shows without the handlers, which a check does not import."""
    for kind, table in Settings.load({name: value for name, value in said.items() if name != "connection"}).kinds.items():
        of_code = {"debounce": table["longest"]} if "longest" in table else {}  # For all that is known here.
        try:
            Options.overridden(kind, of_code, table, "KINDS", OF_CODE)
        except ConfigError as error:
            yield from (f"FLAGSWEEP of Django's settings: {problem}" for problem in error.problems)


def _framework() -> Iterator[str]:
    if _has_backend():
        try:
            import_module(f"{__package__}.frameworks")
        except ConfigError as error:
            yield from (f"TASKS of Django's settings: {problem}" for problem in error.problems)


def _modes(alias: str) -> Iterator[CheckMessage]:
    wrapper = connections[alias]
    mode = wrapper.settings_dict["OPTIONS"].get("transaction_mode")
    if wrapper.vendor != "sqlite" or str(mode).upper() in ("IMMEDIATE", "EXCLUSIVE"):
        return
    said = f"Transactions of DATABASES[{alias!r}] begin deferred: one that reads and then writes fails at once beside a sweep."
    hint = f"Give it {IMMEDIATE}" + ("." if django.VERSION >= (5, 1) else ", which takes Django 5.1 or newer.")
    yield Warning(said, hint=hint, id="flagsweep.W001")


def _other_databases(alias: str) -> Iterator[CheckMessage]:
    others = [other for other in connections if other != alias]
    if others:
        yield Info(
            f"Flags are kept in DATABASES[{alias!r}], and commit with its transactions alone, not with those of "
            f"{', '.join(map(repr, others))}.",
            hint=f"Raise in transaction.atomic(using={alias!r}), or after the commit of the other.",
            id="flagsweep.I001",
        )


def _requests(alias: str) -> Iterator[CheckMessage]:
    if connections[alias].settings_dict["ATOMIC_REQUESTS"]:
        yield Info(
            f"DATABASES[{alias!r}] has ATOMIC_REQUESTS: a flag is seen once its request has ended, so no view can wait for one.",
            hint="Give a view that waits for a result @transaction.non_atomic_requests.",
            id="flagsweep.I002",
        )

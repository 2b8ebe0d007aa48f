"""Events of flags, for JSON logs: one for each verb. Nothing here costs anything while nobody wants them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from ..logs import headline, tell_event, tells_events
from .claims import Claimed
from .outcomes import Outcome

KEY = 200
"""Characters of a key that are told."""


def claimed(flags: Iterable[Claimed]) -> None:
    """Tell of flags that were claimed just now."""
    if tells_events():
        for flag in flags:
            tell_event("claimed", **_of(flag))


def released(flags: Iterable[Claimed]) -> None:
    """Tell of flags that were given back before they began."""
    if tells_events():
        for flag in flags:
            tell_event("released", **_of(flag))


def settled(done: tuple[Claimed, Outcome, float], how: str, wait: float | None = None) -> None:
    """Tell what became of a flag.

    :param how: as a sweep counts it.
    :param wait: seconds until it is due again.
    """
    flag, outcome, took = done
    if not tells_events():
        return
    more: dict[str, Any] = {"took_s": round(took, 6)}
    if how in ("again", "snoozed", "released") and wait is not None:
        more["again_in_s"] = round(wait, 3)
    if outcome.error is not None:
        more["error"] = headline(outcome.error)
    tell_event(_name(outcome, how), logging.WARNING if outcome.error is not None else logging.INFO, **_of(flag), **more)


def _name(outcome: Outcome, how: str) -> str:
    """Return what an event is called: the outcome's own word, unless the flag's fate was another."""
    if how in ("dead", "lost", "released"):
        return how
    return "failed" if how == "again" and outcome.error is not None else outcome.counted


def _of(flag: Claimed) -> dict[str, Any]:
    """Return what tells a flag; a key that is its payload, as keys are by default, is not told."""
    key = str(flag.key)
    own = {} if key.startswith("{") else {"key": key[:KEY]}
    return {"kind": flag.kind, "flag": flag.id, **own, "attempt": flag.attempts + 1}

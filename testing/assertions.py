"""Assertions about flags that are up."""

from __future__ import annotations

import json
from typing import Any

from ..app import FlagSweep
from ..errors import SignatureError
from ..handlers import Handler
from ..operations.info import FlagInfo
from ..payloads import encode


def assert_raised(flags: FlagSweep, kind: str | Handler, /, **arguments: Any) -> FlagInfo:
    """Assert that a flag of this kind with at least these arguments is up, and return the first.

    :param kind: the kind, or its handler.
    :raises SignatureError: where the handler has no such argument.
    """
    found, others = _up(flags, kind, arguments)
    if not found:
        others_up = ", ".join(str(flag.payload) for flag in others[:10]) or "none"
        raise AssertionError(
            f"no flag of {_handler(flags, kind).kind} with {arguments or 'any arguments'} is up; up are: {others_up}"
        )
    return found[0]


def refute_raised(flags: FlagSweep, kind: str | Handler, /, **arguments: Any) -> None:
    """Assert that no flag of this kind with these arguments is up.

    :param kind: the kind, or its handler.
    :raises SignatureError: where the handler has no such argument.
    """
    found, _ = _up(flags, kind, arguments)
    if found:
        raise AssertionError(f"flag {found[0].id} of {found[0].kind} is up ({found[0].state}): {found[0].payload}")


def _handler(flags: FlagSweep, kind: str | Handler) -> Handler:
    return kind if isinstance(kind, Handler) else flags.handler_of(kind)


def _up(flags: FlagSweep, kind: str | Handler, arguments: dict[str, Any]) -> tuple[list[FlagInfo], list[FlagInfo]]:
    """Return the flags of a kind that have these arguments, and the others."""
    handler = _handler(flags, kind)
    parameters = handler.signature.parameters
    if unknown := sorted(set(arguments) - set(parameters)):
        raise SignatureError(f"{handler.kind}{handler.signature} has no argument {', '.join(unknown)}")
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    wanted = json.loads(encode(arguments, handler.kind, flags.settings.payload_limit)) if handler.rows is None else {}
    if handler.rows is not None and arguments:
        wanted = json.loads(handler.rows.item(arguments, flags.verbs).payload)
    found: list[FlagInfo] = []
    others: list[FlagInfo] = []
    for flag in flags.find(kind=handler.kind, limit=None):
        payload = {**defaults, **flag.payload} if isinstance(flag.payload, dict) else {}
        (found if wanted.items() <= payload.items() else others).append(flag)
    return found, others

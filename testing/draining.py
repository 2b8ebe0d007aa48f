"""A drain: all that is due, done in the test's own process."""

from __future__ import annotations

from collections import Counter

from ..app import FlagSweep


def drain(flags: FlagSweep, lane: str | None = None) -> Counter[str]:
    """Do all that is due, as ``flags.sweep()`` does, and then raise the first error of a handler."""
    return flags.sweep(lane, raise_errors=True)

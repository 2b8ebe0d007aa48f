"""A drain: all that is due, done in the test's own thread."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext

from ..app import FlagSweep
from ..consumer.inline import set_aside

MOST = 50_000
"""Flags after which what is still due counts as endless."""


def drain(flags: FlagSweep, lane: str | None = None) -> Counter[str]:
    """Do all that is due, as ``flags.sweep()`` does, in this thread, and then raise the first error of a handler."""
    return flags.sweep(lane, raise_errors=True)


def sweep_all(flags: FlagSweep, lane: str | None = None) -> Counter[str]:
    """Do all that is due, and what that raises for other lanes, until nothing is; return how many flags met which outcome.

    :param lane: this lane only.
    :raises Exception: the first error of a handler, once the others of its sweep are done: what failed waits for its backoff.
    :raises AssertionError: where it never ends.
    """
    total: Counter[str] = Counter()
    while total.total() < MOST:
        with _as_in_a_thread_of_its_own(flags):
            counts = flags.sweep(lane, limit=MOST, raise_errors=True)
        total.update(counts)
        if not counts:
            return total
    raise AssertionError(f"still due after {total.total():,} flags, which met {dict(total)}: they are raised without end")


def _as_in_a_thread_of_its_own(flags: FlagSweep) -> AbstractContextManager[None]:
    """Have handlers find the site's connection closed, whatever the test has open: but for a transaction, which is refused."""
    connections = flags.connections
    if connections.in_memory or connections.site.is_closed() or connections.is_site_in_transaction():
        return nullcontext()
    return set_aside(connections.site)

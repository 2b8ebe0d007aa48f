"""Why a kind waits that no hand has shut: quiet hours, and a provider that seems to be away."""

from __future__ import annotations

from datetime import tzinfo

from . import breaker
from .breaker import Breaker
from .quiet import Quiet
from .shut import Closing


def quiet_hours(quiet: Quiet | None, now: int, zone: tzinfo) -> Closing | None:
    """Return until when it is quiet, in microseconds UTC; None: it is not."""
    until = None if quiet is None else quiet.closed_until(now, zone)
    return None if until is None else Closing(until, f"quiet hours {quiet}")


def outage(state: Breaker, now: int, told: bool = False) -> Closing | None:
    """Return until when no flag of a kind may try, in microseconds UTC, which is ``now`` where one may; None: all may.

    :param told: people are told when one tries for sure: one that was never tried may do so before, if there is any.
    """
    now = breaker.abreast(state, now)
    until = breaker.closed_until(state, now) if told else breaker.fresh_from(state, now)
    return None if until is None else Closing(until, f"its provider seems to be away: {breaker.why(state)}")

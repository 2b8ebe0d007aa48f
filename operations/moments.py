"""Moments of the past, as people say them: a time, or how long ago."""

from __future__ import annotations

from datetime import datetime

from ..config import SECOND, microseconds, seconds
from ..errors import ConfigError


def past(value: object, now: int, what: str) -> int | None:
    """Return a moment in microseconds UTC; None: none was said.

    :param value: a ``datetime`` with a time zone, or how long ago: seconds, a ``timedelta`` or text such as ``"2h"``.
    :param what: the argument's name, for the error.
    :raises ConfigError: for anything else.
    """
    if value is None:
        return None
    if not isinstance(value, datetime):
        return now - int(seconds(value, f"{what}, if it is no datetime with a time zone,") * SECOND)
    if value.utcoffset() is None:
        raise ConfigError(f"{what} must have a time zone, got {value!r}: use datetime.now(timezone.utc) - timedelta(hours=2)")
    return microseconds(value)

"""Pauses, as people make them: until when, by whom, and the names that were meant."""

from __future__ import annotations

import difflib
import getpass
import os
from collections.abc import Iterable
from datetime import datetime

from ..config import SECOND, microseconds, seconds
from ..errors import ConfigError
from ..logs import clean


def end_of(until: object, now: int) -> int | None:
    """Return when a pause ends, in microseconds UTC; None: not by itself.

    :param until: a ``datetime`` with a time zone, or how long from now: seconds, a ``timedelta`` or text such as ``"2h"``.
    :raises ConfigError: where that is no time to come.
    """
    if until is None:
        return None
    if not isinstance(until, datetime):
        wait = int(seconds(until, "until, if it is no datetime with a time zone,") * SECOND)
        if not wait:
            raise ConfigError(f"until must lie in the future, got {until!r}: leave it out for a pause that waits for resume()")
        return now + wait
    if until.utcoffset() is None:
        raise ConfigError(f"until must have a time zone, got {until!r}: use datetime.now(timezone.utc) + timedelta(hours=2)")
    if (end := microseconds(until)) <= now:
        raise ConfigError(f"until lies in the past: got {until.isoformat()}")
    return end


def by_whom(by: str | None) -> str:
    """Return who changes something: by default this user's name on this host."""
    if by is not None:
        return clean(str(by))
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # As a container's number without a name.
        return f"user {os.getuid()}"


def meant(name: object, names: Iterable[str]) -> str:
    """Return what follows an error about a name that is none: the nearest, or all where there are few."""
    there = sorted(names)
    near = difflib.get_close_matches(str(name), there, 3, 0.6)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    listed = ", ".join(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
    return f"there are {listed or 'none'}"

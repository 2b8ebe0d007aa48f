"""What is shut: the rows of gates that a hand has closed, or that a ``Retry(all=True)`` has, and until when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..models import Gate

FOREVER = 2**62
"""When a gate opens that stays shut until somebody opens it."""

ALL = "all"


class Closing(NamedTuple):
    """Say until when something is closed, in microseconds UTC, and why."""

    until: int
    why: str


class Shut:
    """Know which kinds are shut.

    :param rows: gates; those of buckets are left out.
    """

    def __init__(self, rows: Iterable[Gate] = ()):
        self._rows = {(row.sort, row.name): row for row in rows if not row.bucket}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def row(self, sort: str, name: str) -> Gate | None:
        """Return the gate of a kind, of a lane, or of all."""
        return self._rows.get((sort, name))

    def paused(self, kinds: Iterable[str], lane: str, now: int) -> Closing | None:
        """Return until when a kind is paused by hand, with its lane or with all others; None: it is not.

        :param kinds: its own name, and that of its handler, of which it may be an alias.
        """
        return max(self.pauses(kinds, lane, now), default=None)

    def pauses(self, kinds: Iterable[str], lane: str, now: int) -> list[Closing]:
        """Return all that has paused a kind: itself, its lane, and all."""
        rows = [*(("kind", kind) for kind in dict.fromkeys(kinds)), ("lane", lane), (ALL, "")]
        return [closing for row in rows if (closing := self._pause(*row, now)) is not None]

    def all_pauses(self, now: int) -> dict[tuple[str, str], Closing]:
        """Return all that hands have paused, by sort and name."""
        return {key: closing for key in self._rows if (closing := self._pause(*key, now)) is not None}

    def _pause(self, sort: str, name: str, now: int) -> Closing | None:
        row = self._rows.get((sort, name))
        if row is None or row.paused_at is None:
            return None
        until = FOREVER if row.paused_until is None else row.paused_until
        return Closing(until, pause_why(row, sort)) if until > now else None

    def asked_to_wait(self, kind: str, now: int) -> Closing | None:
        """Return until when a handler has asked for all flags of a kind to wait; None: it has not."""
        row = self._rows.get(("kind", kind))
        if row is None or row.closed_until is None or row.closed_until <= now:
            return None
        return Closing(row.closed_until, row.closed_why or "its handler asked to wait")


def pause_why(row: Any, sort: str) -> str:
    """Return who paused a gate, or a schedule, and why.

    :param row: that of the gate or schedule.
    """
    what = {"lane": f"lane {row.name} paused", ALL: "all paused"}.get(sort, "paused")
    return f"{what} by {row.paused_by or 'somebody'}{f': {row.reason}' if row.reason else ''}"

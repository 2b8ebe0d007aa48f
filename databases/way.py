"""The way of a claim: the gates that it must find open, looked at by the statement that claims.

What was read before may have changed since: whoever waits for SQLite's one writer, say, waits for the very transaction that
pauses. So a pause that has committed holds for every claim that begins after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..config import LATEST


class Way(NamedTuple):
    """Name the gates of a claim, besides that of all.

    :param forced: none of them is looked at.
    :param kind: that of the flags.
    :param name: that of their handler, which differs where the other is an alias.
    """

    forced: bool
    kind: str
    name: str
    lane: str

    def values(self, now: int, encoded: Callable[[str], Any] = str) -> tuple[Any, ...]:
        """Return the parameters of ``is_open`` in their order.

        :param now: microseconds UTC.
        :param encoded: returns a name as its column takes it.
        """
        return (self.forced, *(encoded(each) for each in self[1:]), now, now)

    def named(self, now: int) -> dict[str, Any]:
        """Return the parameters of ``is_open`` by their names."""
        return dict(zip(PARAMETERS, self.values(now), strict=True))


PARAMETERS = ("forced", "way_kind", "way_name", "way_lane", "way_now", "way_now_too")

FORCED = Way(True, "", "", "")
"""Passes every gate."""


def is_open(mark: Callable[[str], str] = lambda name: "?") -> str:
    """Return the condition that nobody has paused what is claimed, nor asked for it to wait.

    A question of its own, so that it is worked out once, and no gate is locked.

    :param mark: returns what stands for a parameter of that name.
    """
    forced, kind, name, lane, now, again = map(mark, PARAMETERS)
    which = f"sort = 'kind' AND name IN ({kind}, {name}) OR sort = 'lane' AND name = {lane} OR sort = 'all' AND name = ''"
    paused = f"paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > {now})"
    shut = f"{paused} OR closed_until > {again} AND closed_until <= {LATEST}"
    return f"({forced} OR (SELECT count(*) FROM flagsweep_gate WHERE bucket = '' AND ({which}) AND ({shut})) = 0)"

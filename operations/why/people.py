"""Who sweeps, as far as reasons want to know: who lives, what each last said of its lanes, and who has left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ...config import SECOND
from ...consumer.terms import STAYING
from ...databases.connections import Connections
from ...logs import printable
from ...models import Consumer, Fact, fact
from ..doctor.transactions import lanes_of
from ..status import alive_of
from .words import is_time

TICK = 150
"""Seconds since a consumer's last tick, which comes each minute, after which it seems to hang."""

SWEPT = 180
"""Seconds before its consumer's last tick in which a lane should have been swept: that is done each minute."""

OFTEN = 3600
"""Seconds within which ``flagsweep sweep`` ran last, where it seems to be called by cron."""


class People:
    """Know who is entered, over the connection that a question has."""

    def __init__(self, connections: Connections, db: Any, now: int):
        self._now = now
        self.rows = {row.id: row for row in Consumer.select().order_by(Consumer.id).execute(db)}
        self.lives = alive_of(connections, self.rows)
        self.staying = [row for row in self.rows.values() if row.mode in STAYING and self.is_alive(row)]
        self.left, self.swept = fact(db, "left"), fact(db, "swept")

    def is_alive(self, row: Consumer) -> bool:
        """Return whether a consumer lives; where this user cannot see that, by its last tick."""
        lives = self.lives.get(row.id)
        return self.silence(row) <= TICK if lives is None else lives

    def silence(self, row: Consumer) -> float:
        """Return for how many seconds a consumer has not said that it goes on."""
        said = row.ticked_at if is_time(row.ticked_at) else row.started_at
        return max(0, self._now - said) / SECOND if is_time(said) else float("inf")

    def of_lane(self, lane: str) -> Iterator[tuple[Consumer, Mapping[str, Any]]]:
        """Yield who sweeps a lane, with what it last said of it."""
        for row in self.staying:
            if (said := lanes_of(row).get(lane)) is not None:
                yield row, said

    def lanes(self) -> dict[str, list[str]]:
        """Return the lanes that somebody sweeps, each with the kinds that are swept in it."""
        found: dict[str, list[str]] = {}
        for row in self.staying:
            for name, said in lanes_of(row).items():
                found.setdefault(str(name), []).extend(_kinds(said))
        return found

    def serve(self, kind: str) -> bool:
        """Return whether somebody who lives has a handler for a kind. Who has not said what it serves may."""
        told = [lanes_of(row) for row in self.staying]
        return not all(told) or any(kind in _kinds(said) for lanes in told for said in lanes.values())

    def stalled(self, lane: str) -> Consumer | None:
        """Return who lives and does not sweep a lane, where nobody else does; None: it is swept."""
        found = list(self.of_lane(lane))
        return found[0][0] if found and not any(_sweeps(row, said) for row, said in found) else None

    def threads(self, lane: str) -> int | None:
        """Return how many threads a lane has, by the word of those who sweep it."""
        told = [said["threads"] for _, said in self.of_lane(lane) if isinstance(said.get("threads"), int)]
        return sum(told) or None

    @property
    def is_swept_now_and_then(self) -> bool:
        """Whether ``flagsweep sweep`` ran of late, as where cron calls it."""
        at, left = (None if note is None else note.at for note in (self.swept, self.left))
        if is_time(at) and is_time(left) and left > at:  # type: ignore[operator]
            return False
        return is_time(at) and self._now - at <= OFTEN * SECOND  # type: ignore[operator]


def _kinds(said: Mapping[str, Any]) -> list[str]:
    kinds = said.get("kinds")
    return [str(kind) for kind in kinds] if isinstance(kinds, list) else []


def _sweeps(row: Consumer, said: Mapping[str, Any]) -> bool:
    """Return whether a lane was swept lately when its consumer last spoke of it, or had something in hand."""
    swept, ticked = said.get("swept_at"), row.ticked_at
    if said.get("running") or not is_time(ticked):
        return True
    swept = swept if is_time(swept) else row.started_at
    return not is_time(swept) or ticked - swept <= SWEPT * SECOND


def who(row: Consumer) -> str:
    """Return how a consumer is named: id, process and host."""
    return f"consumer {row.id} (pid {row.pid} on {row.host})"


def noted(note: Fact | None) -> dict[str, Any]:
    """Return what a note says; of a damaged one nothing."""
    try:
        said = json.loads(note.value) if note is not None else {}
    except (TypeError, ValueError, RecursionError):
        return {}
    return {name: printable(str(value)) for name, value in said.items()} if isinstance(said, dict) else {}

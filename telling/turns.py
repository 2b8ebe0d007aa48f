"""Turns: what is told once in a time is told by one consumer alone, and not again by the one that is started next."""

from __future__ import annotations

from contextlib import suppress

from ..config import SECOND, Clock
from ..databases.connections import Connections
from ..databases.errors import DATABASE_ERRORS
from ..models import AWAY, Fact

PREFIX = "told:"
KEPT = 86_400 * SECOND
"""Microseconds for which it is known what was told."""

MOST = 1000
"""Names that are remembered here, besides."""


class Turns:
    """Say whose turn it is to tell.

    A note in the database decides, of the name and the time; where that is away, or in memory, what this process remembers.
    """

    def __init__(self, connections: Connections, clock: Clock):
        self._connections = connections
        self._clock = clock
        self._taken: dict[str, int] = {}

    def may_ask(self, name: str, every: float) -> bool:
        """Return whether it may be the turn of this process, as far as it remembers; then take it that it asks.

        :param every: seconds from one turn to the next.
        """
        now = self._clock.now()
        if (last := self._taken.get(name)) is not None and abs(now - last) < every * SECOND:
            return False
        if len(self._taken) >= MOST:
            del self._taken[next(iter(self._taken))]
        self._taken[name] = now
        return True

    def take(self, name: str, every: float) -> bool:
        """Return whether nobody has had this turn within ``every`` seconds; then it is taken."""
        if self._connections.in_memory:
            return True
        try:
            with self._connections.write():
                return take(self._connections, name, every, self._clock.now())
        except AWAY:
            return True


def take(connections: Connections, name: str, every: float, now: int) -> bool:
    """Take a turn within the open transaction of ``connections.engine``; return False where somebody had it lately.

    :param now: microseconds UTC. A turn that lies ahead, by a clock that was wrong, is nobody's.
    """
    db, lately = connections.engine, int(every * SECOND)
    past = (Fact.at <= now - lately) | (Fact.at > now + lately)
    if Fact.update(at=now).where(Fact.name == PREFIX + name, past).execute(db):
        return True
    if Fact.select().where(Fact.name == PREFIX + name).exists(db) or not is_new(connections, PREFIX + name, "", now):
        return False
    old = (Fact.name >= PREFIX) & (Fact.name < PREFIX + "\U0010ffff") & (Fact.at < now - KEPT)
    Fact.delete().where(old).execute(db)
    return True


def is_new(connections: Connections, name: str, value: str, now: int) -> bool:
    """Note something within the open transaction; return False where there is a note of that name already."""
    with suppress(*DATABASE_ERRORS), connections.undoable():
        Fact.insert(name=name, value=value, at=now).execute(connections.engine)
        return True
    return False

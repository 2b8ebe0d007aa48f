"""PostgreSQL, MySQL and MariaDB: what doctor is told of other sessions, and of the server's copies."""

from __future__ import annotations

from typing import NamedTuple

STATEMENT = 60
"""Characters of a statement that are shown."""


class Open(NamedTuple):
    """Tell of a transaction that another session has open.

    :ivar who: the session: its id, user, host, and what its program calls itself.
    :ivar idle: seconds for which it has done nothing; None while it does something.
    :ivar flags: whether it has written flags; None where that is not told.
    :ivar waiting: how many sessions wait for it; None where that is not told.
    :ivar end: the statement that ends it.
    """

    who: str
    seconds: float
    idle: float | None
    flags: bool | None
    waiting: int | None
    statement: str
    end: str


class Room(NamedTuple):
    """Tell how many connections the server takes of this user, and how many there are just now."""

    most: int
    used: int


class Trouble(NamedTuple):
    """Tell what is wrong, and the fix; where there is no fix, what is good to know."""

    level: str
    text: str
    fix: str = ""


def short(statement: str | None) -> str:
    """Return a statement in one line, cut: behind its beginning may stand what is nobody's business."""
    line = " ".join((statement or "").split())
    return line if len(line) <= STATEMENT else f"{line[: STATEMENT - 3]}..."

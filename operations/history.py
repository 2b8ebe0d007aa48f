"""History: what became of flags, newest first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ..config import EVENTS, SECOND, Clock
from ..databases.connections import Connections
from ..errors import ConfigError
from ..models import History
from ..sweep.records import Wanted, lines
from .info import moment
from .moments import past

LOOK = 100_000
"""Lines that are gone through for what no index has: with the default of history_rows that is all of them."""


@dataclass(frozen=True)
class HistoryLine:
    """Show one thing that happened to a flag.

    :ivar flag: the flag's id; 0 where a schedule raised none.
    :ivar event: ``failed``, ``dead``, ``succeeded``, ``discarded``, ``expired``, ``skipped`` or ``lowered by hand``.
    :ivar took_s: seconds that its handler ran.
    :ivar consumer: the id of who ran it, where its kind keeps results; with its ``result`` as JSON text.
    """

    id: int
    at: datetime | None
    flag: int
    kind: str
    key: str
    event: str
    reason: str
    attempt: int | None
    took_s: float | None
    consumer: int | None
    result: str | None

    @classmethod
    def of(cls, row: History) -> HistoryLine:
        """Return what a row shows; a damaged time as None."""
        same: dict[str, Any] = {name: getattr(row, name) for name in cls.__dataclass_fields__ if name not in ("at", "took_s")}
        took = row.took / SECOND if isinstance(row.took, int) else None
        return cls(at=moment(row.at), took_s=took, **same)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it: times as ISO 8601 text."""
        return {**asdict(self), "at": None if self.at is None else self.at.isoformat()}


class HistoryLines(list[HistoryLine]):
    """Be lines of history.

    :ivar looked_until: before this nobody has looked: so many lines no index goes through. None: all was looked at.
    """

    looked_until: datetime | None = None


def history(connections: Connections, clock: Clock, limit: int | None, **wanted: Any) -> HistoryLines:
    """Return lines of history, as ``FlagSweep.history`` says.

    :raises ConfigError: for what is no limit, event or time.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise ConfigError(f"limit must be a whole number from 0, got {limit!r}")
    if wanted["event"] not in (None, *EVENTS):
        raise ConfigError(f"event must be one of {', '.join(EVENTS)}, got {wanted['event']!r}")
    now = clock.now()
    since, until = (past(wanted.pop(name), now, name) for name in ("since", "until"))
    most = 2**31 - 1 if limit is None else limit
    with connections.lent("history could not be read") as db, connections.dialect.lenient(db):
        found, end = lines(db, Wanted(since=since, until=until, **wanted), most, LOOK)
    told = HistoryLines(map(HistoryLine.of, found))
    told.looked_until = moment(end)
    return told

"""What is shown of a flag."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ..config import utc
from ..logs import headline
from ..models import Flag

TIMES = ("due_at", "raised_at", "claimed_at", "died_at", "expires_at", "intended")


@dataclass(frozen=True)
class FlagInfo:
    """Show one flag. Times are in UTC."""

    id: int
    kind: str
    key: str
    payload: Any
    state: str
    lane: str
    priority: int
    due_at: datetime | None
    raised_at: datetime | None
    attempts: int
    crashes: int
    generation: int
    cursor: str | None
    error: str | None
    claimed_by: int | None
    claimed_at: datetime | None
    died_at: datetime | None
    expires_at: datetime | None
    bucket: str | None
    schedule: str | None
    intended: datetime | None
    missed: int

    @classmethod
    def of(cls, flag: Flag, lane: str) -> FlagInfo:
        """Return what a row shows; a payload that is no JSON is shown as its text, a damaged time as None."""
        times: dict[str, Any] = {name: moment(getattr(flag, name)) for name in TIMES}
        same: dict[str, Any] = {
            name: getattr(flag, name) for name in cls.__dataclass_fields__ if name not in ("payload", "lane", *times)
        }
        try:
            payload = json.loads(flag.payload)
        except (TypeError, ValueError, RecursionError):
            payload = flag.payload
        return cls(payload=payload, lane=lane, **same, **times)

    @property
    def headline(self) -> str:
        """The line of the error that names it, or nothing."""
        return headline(self.error or "")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it: times as ISO 8601 text."""
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()}


def moment(microseconds: Any) -> datetime | None:
    """Return a time of the database as a ``datetime`` in UTC, or None where there is none or it is damaged."""
    try:
        return utc(microseconds)
    except (TypeError, OverflowError):
        return None


def headline_of(error: Any) -> str:
    """Return the line of an error that names it, whatever a hand has left in its column."""
    return "" if error is None else headline(error if isinstance(error, str) else str(error))

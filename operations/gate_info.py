"""What is shown of a gate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

MOST_WAITING = 10_000
"""Flags behind a gate that are counted; there may be more."""

MOST_BUCKETS = 1000
"""Buckets that are shown."""


@dataclass(frozen=True)
class Allowance:
    """Show what is left of a limit just now.

    :ivar said: the limit, as it was given.
    :ivar left: how many more may start; None where each bucket has its own.
    :ivar next_at: when there is more, where none is left; None where that depends on what runs.
    """

    said: str
    left: int | None
    next_at: datetime | None = None


@dataclass(frozen=True)
class Outage:
    """Show a breaker that holds flags back.

    :ivar since: when it closed the gate.
    :ivar why: how its flags fail: exception and line.
    :ivar next_probe: when the next flag tries at the latest; one that was never tried may do so before.
    """

    since: datetime | None
    why: str
    next_probe: datetime | None


@dataclass(frozen=True)
class GateInfo:
    """Show one gate: what is closed or limited. Times are in UTC.

    :ivar sort: ``kind``, ``lane``, ``all`` or ``schedule``; ``name`` is empty for ``all``.
    :ivar bucket: the value of the argument that ``per`` names, where only its flags are meant; else empty.
    :ivar closed: whether nothing behind it starts just now.
    :ivar why: in plain words; empty where it is open.
    :ivar by: who paused it, where somebody has.
    :ivar until: when it opens by itself; None where it is open, or waits for somebody.
    :ivar waiting: flags that are due behind it, counted up to ``MOST_WAITING`` of each kind and priority; None: nobody counted.
    :ivar limit: of those that run at the same time.
    :ivar threads: those of a lane, where a hand has set them.
    """

    sort: str
    name: str
    bucket: str = ""
    closed: bool = False
    why: str = ""
    by: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    waiting: int | None = 0
    rate: Allowance | None = None
    budget: Allowance | None = None
    limit: Allowance | None = None
    quiet: str | None = None
    breaker: Outage | None = None
    threads: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it: times as ISO 8601 text."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value.isoformat() if isinstance(value, datetime) else value

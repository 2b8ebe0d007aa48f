"""What a consumer that is watched lets others see of it, and asks of those above it who know how to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from ..sweep.lane import Lane
from ..sweep.totals import Totals


class Running(NamedTuple):
    """Be what a consumer shows of itself.

    :param lanes: its lanes by name.
    :param totals: what it has done.
    :param id: returns its id, which may change.
    """

    lanes: Mapping[str, Lane]
    totals: Totals
    id: Callable[[], int]


class Answer(NamedTuple):
    """Be what is answered to a request."""

    status: int
    type: str
    body: bytes


class Outlook(Protocol):
    """Answer what monitoring asks of a consumer."""

    def answer(self, path: str) -> Answer:
        """Return what is answered to a request for a path. Never raises."""
        ...

    def is_well(self) -> bool:
        """Return whether somebody sweeps and no promise is broken."""
        ...

    def close(self) -> None:
        """Leave nothing of the calling thread's behind."""
        ...


Watch = Callable[[Running], Outlook]
"""Makes the outlook of a consumer."""

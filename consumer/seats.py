"""Seats: on a server, which lanes a consumer sweeps, so that no more than ``sweepers`` sweep each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from .session_lease import SessionLease

log = logging.getLogger("flagsweep")


class Seats:
    """Hold a seat in each lane, or stand by for it.

    :param groups: what tells each lane from another application's of the same name, whose kinds are others.
    :param most: how many seats each lane has.
    :param on_seat: called with each lane in which a seat was taken.
    """

    def __init__(self, lease: SessionLease, groups: Mapping[str, str], most: int, on_seat: Callable[[str], None]):
        self._lease = lease
        self._groups = groups
        self._most = most
        self._on_seat = on_seat
        self._seats: dict[str, int | None] = dict.fromkeys(groups)

    def has(self, lane: str) -> bool:
        """Return whether there is a seat in this lane."""
        return self._seats.get(lane) is not None

    def take(self, at_once: bool = False) -> None:
        """Take the seats that are free.

        :param at_once: also those whose last owner may still come back for them.
        """
        for lane in self.standing_by():
            names = {seat: self._name(lane, seat) for seat in range(self._most)}
            taken = next((seat for seat, name in names.items() if self._lease.take_free_name(name, at_once)), None)
            if taken is not None:
                self._seats[lane] = taken
                self._on_seat(lane)

    def give_up(self) -> None:
        """Leave all seats to others, and take none any more."""
        seats, self._seats = self._seats, {}
        for lane, seat in seats.items():
            if seat is not None:
                self._lease.drop_name(self._name(lane, seat))

    def standing_by(self) -> list[str]:
        """Return the lanes in which others have all the seats."""
        return [lane for lane, seat in self._seats.items() if seat is None]

    def keep_those_held(self) -> list[str]:
        """Give up seats whose locks others have by now; return the lanes in which there still is one."""
        self._seats = {
            lane: seat if seat is not None and self._lease.holds(self._name(lane, seat)) else None
            for lane, seat in self._seats.items()
        }
        return [lane for lane, seat in self._seats.items() if seat is not None]

    def tell(self, lanes: Iterable[str]) -> None:
        """Say that these lanes may be swept."""
        for lane in lanes:
            self._on_seat(lane)

    def _name(self, lane: str, seat: int) -> str:
        return f"lane {self._groups[lane]} {seat}"

"""A clock that is turned by hand."""

from __future__ import annotations

from ..config import SECOND, Clock, seconds


class FakeClock(Clock):
    """Stand still until told otherwise: ``FlagSweep(..., clock=FakeClock())``.

    :param now: microseconds UTC; by default the system's time at the making.
    """

    def __init__(self, now: int | None = None) -> None:
        self._now = super().now() if now is None else now
        self._passed = 0.0

    def now(self) -> int:
        """Return the wall-clock time in microseconds UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds that have passed on this clock."""
        return self._passed

    def advance(self, by: object) -> None:
        """Let time pass.

        :param by: seconds, a ``timedelta`` or text such as ``"5m"``.
        """
        amount = seconds(by, "by")
        self._now += round(amount * SECOND)
        self._passed += amount

    def set(self, now: int) -> None:
        """Set the wall clock, forwards or back, as a person does: no time passes.

        :param now: microseconds UTC.
        """
        self._now = now

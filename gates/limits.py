"""Limits: what rate and budget let through, over the row that keeps what was taken of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, NamedTuple

from .budgets import Budget
from .rates import FINE, Rate


class Took(NamedTuple):
    """Say what a claim took of limits.

    :param full: the state of the rate after it, which says when the bucket is full again; None: there is none.
    :param day: the day of the budget; None: there is none.
    """

    full: int | None
    day: int | None


@dataclass(frozen=True)
class Limits:
    """Say how many may start. A row has ``taken``, the state of the rate, and ``day`` and ``used`` of the budget.

    :param zone: that of the budget's day.
    """

    rate: Rate | None
    budget: Budget | None
    zone: tzinfo

    def __bool__(self) -> bool:
        return self.rate is not None or self.budget is not None

    def left(self, row: Mapping[str, Any], now: int, wanted: int) -> int:
        """Return how many of those wanted may start just now, in microseconds UTC."""
        if self.rate is not None:
            wanted = self.rate.take(row["taken"], now, wanted)[0]
        if self.budget is not None:
            wanted = self.budget.take(row["day"], row["used"] or 0, now, self.zone, wanted)[0]
        return wanted

    def taking(self, row: Mapping[str, Any], now: int, count: int) -> dict[str, Any]:
        """Return what the row is to say once so many were taken, that were left; also where that is none: a state that a wrong
        clock has written is set right with it."""
        values: dict[str, Any] = {}
        if self.rate is not None:
            values["taken"] = self.rate.take(row["taken"], now, count)[1]
        if self.budget is not None:
            _, values["day"], values["used"] = self.budget.take(row["day"], row["used"] or 0, now, self.zone, count)
        return values

    def opens_at(self, row: Mapping[str, Any], now: int) -> int | None:
        """Return when the next may start, in microseconds UTC; None: one may now."""
        rate = None if self.rate is None else self.rate.opens_at(row["taken"], now)
        budget = None if self.budget is None else self.budget.opens_at(row["day"], row["used"] or 0, now, self.zone)
        return max((each for each in (rate, budget) if each is not None), default=None)

    def giving_back(self, row: Mapping[str, Any], returned: Iterable[Took], now: int) -> dict[str, Any]:
        """Return what the row is to say once it has back what flags took that never started.

        Tokens of a bucket that has been full since are none any more: they would come beside those that came for them.
        """
        values: dict[str, Any] = {}
        back = list(returned)
        count = sum(took.full is not None and took.full > now * FINE for took in back)
        if count and self.rate is not None and row["taken"] is not None:
            values["taken"] = self.rate.give_back(row["taken"], count)
        if self.budget is not None and row["day"] is not None:
            used = row["used"] or 0
            for day, many in Counter(took.day for took in back if took.day is not None).items():
                _, used = self.budget.give_back(row["day"], used, many, day)
            values["used"] = used
        return values


def changed(values: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values that the row does not have."""
    return {column: value for column, value in values.items() if value != row[column]}

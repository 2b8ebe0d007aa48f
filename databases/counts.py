"""Counts: what became of the flags of a kind, by the minute. Each consumer adds to rows of its own, so none waits for another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from peewee import Database

KEYS = ("kind", "span", "at", "consumer")
SUMS = ("succeeded", "failed", "dead", "snoozed", "discarded", "expired", "spent")
MOSTS = ("waited", "longest")
DURATIONS = tuple(f"d{number}" for number in range(13))
COLUMNS = (*KEYS, *SUMS, *MOSTS, *DURATIONS)


def adding(old: str, new: Callable[[str], str], greatest: str) -> str:
    """Return how a row is added to the one that is there.

    :param old: what stands before a column of that.
    :param new: returns how a value of the row that is added is written.
    :param greatest: the function that returns the larger of two numbers.
    """
    sums = [f"{name} = {old}{name} + {new(name)}" for name in (*SUMS, *DURATIONS)]
    return ", ".join([*sums, *(f"{name} = {greatest}({old}{name}, {new(name)})" for name in MOSTS)])


class Counts:
    """Count."""

    counting = ""
    """The statement that adds to a row, with a parameter for each of ``COLUMNS``."""

    def count(self, db: Database, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows, each in the order of ``COLUMNS``, to those that are there."""
        for row in rows:
            db.execute_sql(self.counting, tuple(row))

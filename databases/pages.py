"""Doing something with many flags, some at a time, each time in a short transaction, so that the site finds its turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from peewee import Database

from .connections import Connections
from .errors import DATABASE_ERRORS
from .pacer import Pacer

PAGE = 2000
"""The most flags of one transaction of a verb over many."""

TRIES = 10
"""How often a short transaction of ours is tried that others were in the way of."""

PATIENCE, PAUSE = 3, 0.02
"""How often, and how many seconds later, what an open transaction of somebody else held is looked at again."""

SHARE, SERVER_SHARE = 0.4, 0.8
"""The share of time in which a verb over many flags holds SQLite's writer, or row locks on a server; the rest is the site's."""

Progress = Callable[[int], Any] | None
"""What is told how many flags are done, between two transactions; what it raises ends the work there."""


class Pages:
    """Do something with many flags of one database."""

    def __init__(self, connections: Connections):
        self._connections = connections

    def do(
        self,
        db: Database,
        found: Iterable[list[int]],
        do: Callable[[Sequence[int]], int],
        progress: Progress = None,
        done: int = 0,
    ) -> int:
        """Do it page by page, and return to how many flags.

        Within a transaction of the caller's all is a part of that one. On a server, what an open transaction of somebody else
        holds is left out.

        :param found: ids, as many at a time as they come.
        :param do: gets ids, and returns how many flags it was done to.
        :param done: how many there were before; what all come to is returned.
        """
        run = _Run(self._connections, db, do, progress, done)
        for ids in found:
            run.over(ids)
        run.over_those_held()
        return run.done


class _Run:
    """Go once through many flags."""

    def __init__(self, connections: Connections, db: Database, do: Callable[[Sequence[int]], int], progress: Progress, done: int):
        self.done = done
        self._connections = connections
        self._dialect = connections.dialect
        self._db = db
        self._do = do
        self._progress = progress
        self._joins = db.transaction_depth() > 0
        share = SHARE if self._dialect.one_writer else SERVER_SHARE
        self._pacer = Pacer(1.0 if self._joins else share, PAGE)
        self._held: list[int] = []

    def over(self, ids: list[int]) -> None:
        """Do it with these, a page after the other."""
        while ids:
            page, ids = ids[: self._pacer.batch], ids[self._pacer.batch :]
            self._in_a_page(page)
            if self._progress is not None:
                self._progress(self.done)

    def over_those_held(self) -> None:
        """Try again with what somebody else held: who did may only have passed by, as another who does the same."""
        for _ in range(0 if self._joins else PATIENCE):
            if self._held:
                time.sleep(PAUSE)
                again, self._held = self._held, []
                self.over(again)

    def _in_a_page(self, page: Sequence[int]) -> None:
        """Do it in one transaction, with all that somebody else does not hold, and that is not gone."""
        for left in reversed(range(TRIES)):
            self._pacer.turn()
            try:
                with self._connections.writing_on(self._db):
                    began = time.monotonic()
                    free = self._dialect.free(self._db, page)
                    done = self._do(free) if free else 0
                break
            except DATABASE_ERRORS as error:  # Two that act on the same flags may have deadlocked.
                if self._joins or self._dialect.one_writer or not left or not self._dialect.is_busy(error):
                    raise
        self._pacer.ended(began, len(page))
        self.done += done
        if len(free) < len(page):
            self._held += sorted(set(page) - set(free))

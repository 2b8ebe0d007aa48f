"""A turn taken part by part: one flag's or kind's fault must not hold up the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ..databases.connections import Connections
from ..logs import describe, headline

log = logging.getLogger("flagsweep")

Result = TypeVar("Result")

HELD = 0.05
"""Seconds until what somebody else's transaction holds is tried again."""


class Part:
    """Tell whether a part of a turn failed."""

    failed = False


class Parts:
    """Take turns whole, which is cheap, and one that failed again in parts, each of which may fail alone."""

    TRIES = 10

    def __init__(self, connections: Connections):
        self.apart = False
        """Whether the turn is taken part by part."""
        self._connections = connections

    def take(self, turn: Callable[[], Result]) -> Result:
        """Take a turn, and take it again where another transaction was in its way, or part by part where one part fails."""
        try:
            for left in reversed(range(self.TRIES)):
                try:
                    return turn()
                except Exception as error:
                    if not left or not self._may_go_again(error):
                        raise
            raise AssertionError("a loop over no tries")
        finally:
            self.apart = False

    def _may_go_again(self, error: Exception) -> bool:
        dialect = self._connections.dialect
        if dialect.is_busy(error) and not dialect.one_writer:
            time.sleep(HELD)
            return True
        if self.apart or dialect.is_away(error):
            return False
        self.apart = True
        return True

    @contextmanager
    def part(self, failed: str) -> Iterator[Part]:
        """Within a turn that is taken part by part: undo this part alone where it fails, with a line in the log.

        :param failed: what the line says did not work.
        """
        part = Part()
        if not self.apart:
            yield part
            return
        try:
            with self._connections.undoable():
                yield part
        except Exception as error:
            self.raise_if_away(error)
            part.failed = True
            log.error("%s: %s; other kinds go on", failed, headline(describe(error)))

    def raise_if_away(self, error: Exception) -> None:
        """Raise again what has to do with the database as a whole, not with one row or table of the site's."""
        if self._connections.dialect.is_away(error):
            raise error

"""The guard, which looks after the process."""

from __future__ import annotations

import faulthandler
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from ..config import Clock
from ..logs import Seldom
from ..sweep.lane import Lane
from .chores import Chore, Chores

log = logging.getLogger("flagsweep")


class Guard(Chores):
    """Once a second: is the database still the one we opened, can each lane still do something, does a handler take long.

    It asks no database: a server that is away or hangs must not hold it up, since the process is ended while it stands still.

    :param replaced: tells why the database under us is no longer ours, or returns None.
    :param stop: ends the consumer, for the reason given.
    :param give_up: the same where a lane can do nothing any more.
    :param stuck_after: seconds after which a handler counts as hung; None: however long it takes.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        clock: Clock,
        replaced: Callable[[], str | None],
        stop: Callable[[str], None],
        give_up: Callable[[str], None],
        stuck_after: float | None = None,
    ):
        chores = (self._beat, self._check_database, self._check_threads, self._report_slow)
        super().__init__("flagsweep-guard", 1.0, [Chore(chore, 1) for chore in chores], clock)
        self._lanes = lanes
        self._replaced = replaced
        self._stop_consumer = stop
        self._give_up = give_up
        self._stuck_after = stuck_after
        self._told: dict[int, Seldom] = defaultdict(Seldom)
        """By flag: tells that it runs for long."""

    def start(self) -> None:
        """Begin, before any handler does."""
        self._beat()
        try:
            super().start()
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        if self._stuck_after is not None:
            faulthandler.cancel_dump_traceback_later()

    def _beat(self) -> None:
        """Put off the end of the process, which C code brings about: a handler may keep the interpreter from this thread, too."""
        if self._stuck_after is not None and sys.stderr is not None:
            faulthandler.dump_traceback_later(self._stuck_after, exit=True, file=sys.stderr)

    def _check_database(self) -> None:
        reason = self._replaced()
        if reason:
            self._stop_consumer(reason)

    def _check_threads(self) -> None:
        """End where a lane can do nothing any more: whoever watches over this process starts it again."""
        for lane in self._lanes.values():
            trouble = lane.trouble(self._stuck_after)
            if trouble and not self._done.is_set():
                self._give_up(trouble)

    def _report_slow(self) -> None:
        now, slow = time.monotonic(), set()
        for lane in self._lanes.values():
            for claimed in lane.pool.under_way():
                limit, ran = lane.handlers[claimed.kind].options.slow_after, now - claimed.began
                if limit is None or ran < limit:
                    continue
                slow.add(claimed.id)
                if self._told[claimed.id].may_tell(now):
                    log.warning("%s (flag %d) runs for %.0f s", claimed.kind, claimed.id, ran)
            if lane.pool.loop is not None:
                lane.pool.loop.tell_of_blocking()
        for flag in self._told.keys() - slow:
            del self._told[flag]

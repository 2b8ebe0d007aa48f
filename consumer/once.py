"""Once: do all that is due, in the caller's process, and leave."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..databases import schema
from ..errors import DatabaseAway, LaneStuck
from ..logs import Outage
from ..models import AWAY
from ..sweep.lane import Lane
from .duties import Duties
from .lanes import make_lanes
from .membership import Enlisted
from .rescue import Rescuer
from .stamping import Stamping

Progress = Callable[[Counter[str]], None]


class Once:
    """Sweep lanes one after the other until nothing is due, as ``FlagSweep.sweep`` says.

    :param only: this lane alone.
    :param breakers: whether a kind whose flags fail alike waits for its provider.
    :param force: sweep what is paused, too.
    :param inline: perform in the calling thread.
    :param fires: fire the schedules that are due.
    """

    def __init__(
        self,
        duties: Duties,
        only: str | None = None,
        breakers: bool = True,
        force: bool = False,
        inline: bool = False,
        fires: bool = True,
    ):
        self.first_error: BaseException | None = None
        """The first error of a handler."""
        self._duties = duties
        self._only = only
        self._manner: dict[str, Any] = {"flat_out": True, "breakers": breakers, "force": force, "inline": inline}
        self._fires = fires
        self._lanes: list[Lane] = []
        self._stopping = False

    def sweep(self, limit: int | None = None, progress: Progress | None = None) -> Counter[str]:
        """Sweep; return how many flags met which outcome.

        :param limit: claim at most so many flags in each lane.
        :param progress: called with the counts so far, now and then.
        :raises DatabaseAway: where the database could not be written for ``shutdown_timeout`` seconds.
        :raises LaneStuck: where a thread died, and with it what would have become of its flag.
        """
        total: Counter[str] = Counter()
        with self._enlisted():
            for lane in self._lanes:
                if self._stopping:  # stop() may have come before there was a lane that it could tell.
                    break
                total.update(self._sweep(lane, limit, progress, total.copy()))
        errors = (lane.settler.first_error for lane in self._lanes)
        self.first_error = next((error for error in errors if error), None)
        return total

    def stop(self) -> None:
        """Have what runs finish, and what has not started given back."""
        self._stopping = True
        for lane in self._lanes:
            lane.stop()

    @contextmanager
    def _enlisted(self) -> Iterator[None]:
        """Be a consumer meanwhile, once what the dead had claimed is free."""
        duties = self._duties
        with ExitStack() as stack:
            stack.callback(duties.store.connections.close_engine)
            schema.require(duties.store.connections)
            member = Enlisted(duties)
            stack.callback(member.leave)
            stamping = Stamping(duties, member)
            stamping.check()
            stack.callback(stamping.close)
            Rescuer(member, duties.options_of, duties.on_failed).free_the_dead()
            duties.store.release_orphans(duties.clock.now())
            if self._fires:
                duties.firing().fire()
            self._lanes = list(make_lanes(duties, member, lambda: self._stopping, self._only, **self._manner).values())
            yield

    def _sweep(self, lane: Lane, limit: int | None, progress: Progress | None, before: Counter[str]) -> Counter[str]:
        """Sweep one lane, trying again while the database is away; on Ctrl-C, or where a thread died, give back what has not
        started."""
        total: Counter[str] = Counter()
        report = None if progress is None else lambda counts: progress(before + counts)
        patience = _Patience(self._duties)
        try:
            while True:
                try:
                    left = None if limit is None else limit - total.total() - lane.pool.outstanding
                    lane.sweep(left, report, total, lambda: _must_live(lane))
                    if not lane.kept_out:
                        return total
                    raise DatabaseAway("its session broke, so that nothing may be claimed until the lease is ours again")
                except AWAY as error:
                    patience.wait(error, total.total())
        except LaneStuck:
            lane.stop()
            lane.settle_rest()  # What no thread has taken is given back.
            raise
        except KeyboardInterrupt:
            lane.stop()
            lane.sweep(total=total, waited=lambda: _must_live(lane))
            raise
        finally:
            lane.pool.close()


def _must_live(lane: Lane) -> None:
    if trouble := lane.trouble():
        raise LaneStuck(f"{trouble}; what it ran is free once this process has ended, and runs again at the next sweep")


class _Patience:
    """Wait for a database that is away, but no longer than ``shutdown_timeout`` in which nothing is settled."""

    def __init__(self, duties: Duties):
        self._limit = duties.settings.shutdown_timeout
        self._where = duties.store.connections.where
        self._settled = 0
        self._begin()

    def _begin(self) -> None:
        self._outage = Outage("the database", "nothing is lost, sweeps are tried again", logging.ERROR)
        self._since = time.monotonic()

    def wait(self, error: BaseException, settled: int) -> None:
        """Wait before the next try.

        :param settled: how many flags are settled so far.
        """
        if settled > self._settled:  # It had come back meanwhile.
            self._settled = settled
            self._begin()
        wait = self._outage.tell(error)
        if time.monotonic() - self._since + wait > self._limit:
            raise DatabaseAway(f"{self._where} could not be written: {error}; what is not settled will run again") from error
        time.sleep(wait)

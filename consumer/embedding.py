"""Embedding: a FlagSweep in the process that serves the site, by the setting ``mode``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from .duties import Duties
    from .embedded import Worker
    from .opened import Opening


class Embedding:
    """Sweep in this process, or stand by, once that is asked for.

    :param duties: returns what is swept: all that is registered by then.
    :param flush: waits until the site's listeners have been told what happened.
    """

    def __init__(self, opening: Opening, duties: Callable[[], Duties], flush: Callable[[], None]):
        self._opening = opening
        self._duties = duties
        self._flush = flush
        self._worker: Worker | None = None

    @property
    def sweeping(self) -> bool:
        """Whether this process is the one that sweeps."""
        return self._worker is not None and self._worker.sweeping

    @property
    def serves(self) -> bool:
        """Whether this process sweeps, or stands by."""
        return self._worker is not None and self._worker.serves

    def start(self) -> None:
        """Begin, unless it has begun in this very process.

        :raises ConfigError: as ``FlagSweep.start`` says.
        """
        if self.serves:
            return
        opened = self._opening.opened()
        if (mode := opened.settings.mode) != "embedded":
            way = "have 'flagsweep run' sweep" if mode == "external" else "leave start() out: a raise is swept where it commits"
            raise ConfigError(f"start() sweeps in this process, and mode is {mode!r}: set mode='embedded', or {way}")
        if opened.connections.in_memory:
            raise ConfigError("start() needs a database that other threads can see, not one in memory: call sweep() instead")
        from .embedded import Worker, refuse_green_threads
        from .here import here

        refuse_green_threads()
        worker = Worker(self, opened.connections, self._duties, opened.queue, self._flush)
        self._worker = here.start(worker, opened.settings.shutdown_timeout)

    def stop(self, wait: bool) -> None:
        """End it; the threads of a handler that outlasts ``shutdown_timeout`` go on.

        :param wait: wait until no more is swept here.
        """
        if (worker := self._worker) is not None:
            worker.stop("stop() was called")
            if wait:
                from .here import GRACE

                worker.leave_within(self._opening.opened().settings.shutdown_timeout + GRACE)

"""Beside: the site's own Huey, whose tasks run in the same process for as long as the consumer does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

from huey import Huey
from huey.constants import WORKER_THREAD
from huey.consumer import Consumer as HueyConsumer
from huey.exceptions import ConfigurationError

from ..errors import ConfigError
from ..tasks import SweepHuey

LOGGERS = ("huey", "huey.consumer", "huey.consumer.Worker", "huey.consumer.Scheduler")
"""Those that tell of every task. A filter holds for what is told to its logger itself."""
AS_OPTIONS = 'also={"huey": huey, "workers": 4}, with the options of Huey\'s consumer'


class _Consumer(HueyConsumer):
    """Huey's consumer without its signals: those are ours."""

    def _set_signal_handlers(self) -> None:
        pass


class Beside:
    """Run the consumer of the site's own Huey: its workers and its scheduler, and what looks after them.

    :param also: that Huey; or a mapping with it as ``huey``, and options of Huey's consumer.
    :param shutdown_timeout: seconds that running tasks get.
    :raises ConfigError: where it is none, or cannot run here.
    """

    HEALTH_EVERY = 10.0

    def __init__(self, also: Any, shutdown_timeout: float):
        options = dict(also) if isinstance(also, Mapping) else {"huey": also}
        huey = options.pop("huey", None)
        if not isinstance(huey, Huey) or isinstance(huey, SweepHuey):
            raise ConfigError(f"also must be the site's own Huey, or {AS_OPTIONS}; got {huey!r}")
        if huey.immediate:
            raise ConfigError("also=huey is in immediate mode, in which it has no consumer: set huey.immediate = False")
        if (sort := options.pop("worker_type", WORKER_THREAD)) != WORKER_THREAD:
            raise ConfigError(f"the site's Huey runs beside flagsweep in threads, not with worker_type={sort!r}")
        try:
            self._consumer = _Consumer(huey, **{"shutdown_timeout": shutdown_timeout, **options})
        except (TypeError, ConfigurationError) as error:
            raise ConfigError(f"also must be the site's own Huey, or {AS_OPTIONS}: {error}") from error
        self._huey = huey
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="flagsweep-beside", daemon=True)
        self._filter: Callable[[logging.LogRecord], bool] | None = None

    def start(self, ours: Callable[[], Collection[int | None]]) -> None:
        """Start it; its log is as ever, and none of our own Huey's threads writes into it what is no warning.

        :param ours: returns the threads of our own Huey.
        """
        self._consumer.start()
        self._thread.start()
        self._filter = lambda record: record.levelno >= logging.WARNING or record.thread not in ours()
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self._filter)

    def stop(self) -> None:
        """Take no more tasks, and let those that run end."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until it has stopped, which takes no longer than its ``shutdown_timeout``."""
        if self._thread.ident is not None:
            self._thread.join()
        for name in LOGGERS if self._filter else ():
            logging.getLogger(name).removeFilter(self._filter)  # type: ignore[arg-type]

    def _look_after(self) -> None:
        while not self._stopping.wait(self.HEALTH_EVERY):
            self._consumer.check_worker_health()
        self._consumer.stop(graceful=True)
        self._huey.notify_interrupted_tasks()

"""The listener: a thread of a consumer that hears what other processes say through the shared queue."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..logs import Seldom
from .messages import Refused
from .place import Place
from .storage import Storage

log = logging.getLogger("flagsweep")


class Listener(threading.Thread):
    """Ask for the sweeps that the nudges of other processes ask for, and have the locks renewed meanwhile.

    :param ask: is given the lane.
    :param may: says whether a lane is swept here just now.
    :param every: called about once a second.
    """

    def __init__(
        self,
        place: Place,
        lanes: Sequence[str],
        ask: Callable[[str], None],
        may: Callable[[str], bool],
        every: Callable[[], None],
    ):
        super().__init__(name="flagsweep-listener", daemon=True)
        self.dropped: Counter[str] = Counter()
        self.done = threading.Event()
        self._place = place
        self._lanes = lanes
        self._ask = ask
        self._may = may
        self._every = every
        self._dropping = Seldom()

    def run(self) -> None:
        """Listen until done; a store that is away is tried again every second."""
        storage: Storage | None = None
        renewed, missed = 0.0, False
        while not self.done.is_set():
            try:
                if lanes := [lane for lane in self._lanes if self._may(lane)]:
                    storage = storage or self._place.open(1.0)
                    self._heed(storage.take(lanes, 1.0, self.done), missed)
                    missed = False
                else:
                    self.done.wait(0.25)
            except Exception as error:
                missed = True
                self._place.outage.tell(error)
                self._disconnect(storage)
                storage = None
                self.done.wait(1.0)
            if time.monotonic() - renewed >= 1:
                renewed = time.monotonic()
                self._every()
        self._disconnect(storage)

    def _heed(self, messages: Sequence[bytes], missed: bool) -> None:
        lanes = set(self._lanes) if missed else set()  # Nudges may have been lost.
        now, seal = self._place.clock.now(), self._place.seal()
        for message in messages:
            try:
                lanes.add(seal.open(message, now))
            except Refused as error:
                self.dropped[str(error)] += 1
        for lane in lanes.intersection(self._lanes):
            self._ask(lane)
        if self.dropped and self._dropping.may_tell():
            log.warning("dropped messages of the queue: %s", ", ".join(f"{n} {why}" for why, n in self.dropped.items()))

    def _disconnect(self, storage: Storage | None) -> None:
        if storage is not None:
            with suppress(Exception):
                storage.disconnect()

"""Nudges: whoever raises tells whoever sweeps, as soon as the raise has committed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from .courier import Courier
from .place import Place
from .storage import Storage

log = logging.getLogger("flagsweep")


class Nudges:
    """Post a nudge behind each commit. Nothing here raises or waits: the consumers look by themselves, too.

    :param courier: takes nudges to the store.
    """

    def __init__(self, place: Place, courier: Courier):
        self._place = place
        self._courier = courier
        self._senders: dict[str, Callable[[], None]] = {}

    def send_after_commit(self, lane: str, database: Any) -> None:
        """Tell the consumers, once the open transaction has committed, that a flag of this lane is due.

        :param database: tells of that commit, as Peewee's do.
        """
        try:
            if lane not in self._senders:
                self._senders[lane] = partial(self._send, lane)
            database.after_commit(self._senders[lane])
        except Exception as error:  # Within manual_commit() nobody knows when it commits: the consumers look by themselves.
            log.debug("no nudge after commit: %s", error)

    def _send(self, lane: str) -> None:
        """Run after a commit: an error here would make a committed transaction look like a failed one."""
        with suppress(Exception):
            self._courier.send(partial(self._post, lane), lane)

    def _post(self, lane: str, storage: Storage) -> None:
        storage.post(lane, self._place.seal().close(lane, self._place.clock.now()))

"""The context: what a handler that asks for it knows of its flag, and can say."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..config import utc
from ..databases.flags import Rare
from ..errors import ClaimLost
from ..payloads import encode
from .claims import Claimed, Store

CURSOR_LIMIT = 32_768
"""Bytes of JSON that ``flag.progress`` keeps."""


def _moment(rare: Rare) -> datetime | None:
    if rare.intended is None:
        return None
    try:
        zone: tzinfo = ZoneInfo(rare.zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):  # Another host wrote it, or a hand.
        zone = UTC
    return utc(rare.intended).astimezone(zone)


class FlagContext:
    """What a handler that names a parameter ``flag`` gets."""

    def __init__(self, claimed: Claimed, atomic: bool, store: Store, stopping: Callable[[], bool]):
        self.id = claimed.id
        self.kind = claimed.kind
        self.key = claimed.key
        self.attempt = claimed.attempts + 1
        self.cursor = claimed.cursor
        self.raises = claimed.raises
        """How many raises this run covers."""
        self.intended = _moment(claimed.rare)
        """For which time a schedule raised it, in the schedule's zone; None where none did."""
        self.missed = claimed.rare.missed
        """How many times of the schedule this run stands for besides."""
        self._claimed = claimed
        self._atomic = atomic
        self._store = store
        self._stopping = stopping

    def should_stop(self) -> bool:
        """Return whether the consumer is stopping: save your progress and raise ``Snooze(0)`` to go on after the restart."""
        return self._stopping()

    def progress(self, cursor: Any) -> None:
        """Keep how far the work has come; the next attempt finds it as ``flag.cursor``.

        Within a transaction of the handler's on ``flags.database`` it is kept with what that writes, or not at all. With
        ``raise Snooze(0)`` after it each run does one piece: a ``rate`` counts pieces, and the breaker takes each for a success.

        A run that has moved the cursor and then fails counts as the first attempt again, for the backoff and ``max_attempts``;
        one that moved it and asks for later leaves none. After 100 times ``max_attempts`` failures without a success the flag is
        dead all the same, and each death of its process counts as 100.

        :param cursor: any small JSON value.
        :raises PayloadError: where it is not.
        :raises ClaimLost: where the flag was lowered by hand meanwhile, or is no longer this consumer's.
        """
        text = encode({"cursor": cursor}, f"progress of {self.kind}", CURSOR_LIMIT)
        if not self._store.progress(self.id, self._claimed.token, text[len('{"cursor":') : -1], self._atomic):
            raise ClaimLost(f"flag {self.id} of {self.kind} is no longer up: stop working on it")
        self.cursor = json.loads(text)["cursor"]
        self._claimed.progressed = True

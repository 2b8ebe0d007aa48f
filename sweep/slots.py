"""Slots: flags of a kind that is limited start only where not too many of them run; the others wait here, not in a thread."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping

from .claims import Claimed


class Slots:
    """Keep the limits of kinds within one consumer.

    :param names: the kind whose limit it is, by kind; aliases share that of their handler's.
    :param most: how many may run at the same time, by those names; it changes as consumers come and go.
    """

    def __init__(self, names: Mapping[str, str], most: Mapping[str, int]):
        self.names = names
        self.in_hand: Counter[str] = Counter()
        """How many flags were given and not collected yet."""
        self._most = most
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[Claimed]] = defaultdict(deque)
        self._lock = threading.Lock()

    def begin(self, claimed: Claimed) -> bool:
        """Return whether a flag may start; if not, it waits here."""
        name = self.names[claimed.kind]
        with self._lock:
            if self._running[name] < max(1, self._most.get(name, 1)):
                self._running[name] += 1
                return True
            self._waiting[name].append(claimed)
            return False

    def end(self, claimed: Claimed) -> Claimed | None:
        """Take note that a flag has ended; return the next one that may try, or None."""
        name = self.names[claimed.kind]
        with self._lock:
            self._running[name] -= 1
            return self._waiting[name].popleft() if self._waiting[name] else None

    def count(self, flags: Iterable[Claimed], by: int) -> None:
        """Take note that flags were given, or are no longer in hand."""
        if self.names:
            for claimed in flags:
                if claimed.kind in self.names:
                    self.in_hand[self.names[claimed.kind]] += by

    def recall(self) -> list[Claimed]:
        """Return what waits here."""
        with self._lock:
            flags = [claimed for waiting in self._waiting.values() for claimed in waiting]
            self._waiting.clear()
            return flags

    def waiting(self) -> list[Claimed]:
        """Return what waits here, and leave it."""
        with self._lock:
            return [claimed for waiting in self._waiting.values() for claimed in waiting]

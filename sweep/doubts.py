"""Doubts: where flags of a kind fail one after the other, those behind them wait until their gate has heard of it."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping

from .claims import Claimed
from .outcomes import DONE, NOT_STARTED, Outcome


class Doubts:
    """Hold back flags of kinds that just fail, until the turn that settles the failures has asked the breaker.

    Otherwise a provider that refuses at once would have all tried, and charged, that was claimed ahead.

    :param names: the kind whose gate it is, by kind; aliases share that of their handler's.
    :param most: how many failures in a row, by those names, make a doubt; without a breaker none do.
    """

    def __init__(self, names: Mapping[str, str], most: Mapping[str, int]):
        self.kinds: frozenset[str] = frozenset()
        """Those in doubt, by their names. The gate is to hear of them, so the next turn does not wait."""
        self.failing: Counter[str] = Counter()
        """How many have failed since a success, or since the gate was asked."""
        self.collected: frozenset[str] = frozenset()
        """Those of which the turn has collected the failures: their gates are asked."""
        self._names = names
        self._most = most
        self._patience: dict[str, int] = {}
        """How many failures make the next doubt, where the gate stayed open: a crowd of poison is settled in groups, too."""
        self._held: list[Claimed] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def note(self, claimed: Claimed, outcome: Outcome) -> None:
        """Take note of how a flag ended, once its outcome is there to be settled."""
        name = self._name_of(claimed)
        if outcome.fingerprint is None and not outcome.closes:
            if outcome.counted == DONE.counted and outcome is not NOT_STARTED:
                self._succeeded(name)
            return
        with self._lock:
            self.failing[name] += 1
            patience = self._patience.get(name) or self._most.get(name, sys.maxsize)
            if outcome.closes or self.failing[name] >= patience:
                self.kinds |= {name}

    def _succeeded(self, name: str) -> None:
        with self._lock:
            self.failing.pop(name, None)
            self._patience.pop(name, None)

    def holds(self, claimed: Claimed) -> bool:
        """Return whether a flag must not start yet: then it waits here."""
        name = self._name_of(claimed)
        if name not in self.kinds:
            return False
        with self._lock:
            if held := name in self.kinds:
                self._held.append(claimed)
            return held

    def answered(self, kinds: frozenset[str]) -> list[Claimed]:
        """Take note that the gates of kinds in doubt have heard of it; return what may start."""
        with self._lock:
            for name in kinds & self.kinds:
                self._patience[name] = 2 * max(self.failing.pop(name, 0), self._most.get(name, 1))
            self.kinds -= kinds
            return self._take(lambda claimed: self._name_of(claimed) not in self.kinds)

    def recall(self, unwanted: Callable[[Claimed], bool]) -> list[Claimed]:
        """Return what waits here and must be given back."""
        with self._lock:
            return self._take(unwanted)

    def _take(self, wanted: Callable[[Claimed], bool]) -> list[Claimed]:
        taken = [claimed for claimed in self._held if wanted(claimed)]
        self._held = [claimed for claimed in self._held if not wanted(claimed)]
        return taken

    def _name_of(self, claimed: Claimed) -> str:
        return self._names.get(claimed.kind, claimed.kind)

    def waiting(self) -> list[Claimed]:
        """Return what waits here, and leave it."""
        with self._lock:
            return list(self._held)

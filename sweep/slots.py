"""Slots: how many flags of a limited kind may run here, of those that may run at all, and that no more of them start."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping

from ..databases.connections import Connections
from .claims import KIND, Claimed


class _Limit:
    """What runs of the kinds that share a limit, and what waits for that."""

    __slots__ = ("name", "running", "waiting")

    def __init__(self, name: str):
        self.name = name
        self.running = 0
        self.waiting: deque[Claimed] = deque()


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
        limits = {name: _Limit(name) for name in names.values()}
        self._limits = {kind: limits[name] for kind, name in names.items()}
        self._lock = threading.Lock()

    def begin(self, claimed: Claimed) -> bool:
        """Return whether a flag may start; if not, it waits here."""
        limit = self._limits[claimed.kind]
        with self._lock:
            if limit.running < (self._most.get(limit.name) or 1):
                limit.running += 1
                return True
            limit.waiting.append(claimed)
            return False

    def end(self, claimed: Claimed) -> Claimed | None:
        """Take note that a flag has ended; return the next one that may try, or None."""
        limit = self._limits[claimed.kind]
        with self._lock:
            limit.running -= 1
            return limit.waiting.popleft() if limit.waiting else None

    def count(self, flags: Iterable[Claimed], by: int) -> None:
        """Take note that flags were given, or are no longer in hand."""
        for name, number in self.sums(flags).items():
            self.in_hand[name] += by * number

    def sums(self, flags: Iterable[Claimed]) -> Counter[str]:
        """Return how many of these flags are of each limited kind; all are counted by kind first, which costs less."""
        sums: Counter[str] = Counter()
        for kind, number in Counter(map(KIND, flags)).items() if self.names else ():
            if kind in self.names:
                sums[self.names[kind]] += number
        return sums

    def recall(self) -> list[Claimed]:
        """Return what waits here."""
        with self._lock:
            flags = self._all_waiting()
            for limit in self._limits.values():
                limit.waiting.clear()
            return flags

    def waiting(self) -> list[Claimed]:
        """Return what waits here, and leave it."""
        with self._lock:
            return self._all_waiting()

    def _all_waiting(self) -> list[Claimed]:
        return [claimed for limit in {*self._limits.values()} for claimed in limit.waiting]


class Holds:
    """Keep how many flags of limited kinds this consumer may run: rows, which count as long as it is entered."""

    def __init__(self, connections: Connections):
        self.slots: dict[str, int] = {}
        """How many flags of a kind may run here at the same time; what stands in committed rows."""
        self._dialect = connections.dialect
        self._engine = connections.engine
        self._holding: set[str] = set()
        """The kinds of which slots may stand in rows."""
        self._freed: set[str] = set()
        """Of these, those that the open transaction has given up."""
        self._granted: dict[str, int] = {}
        """The slots that the open transaction has taken: no thread may count on them before it has committed."""

    def take(self, name: str, limit: int, threads: int, consumer: int) -> int:
        """Take what others leave of a kind's limit, and no more than there are threads, under the lock of its gate; return how
        many flags may run here."""
        others, held = self._dialect.slots(self._engine, name, consumer)
        mine = max(0, min(limit - others, threads))
        if mine != held:
            self._dialect.hold(self._engine, name, consumer, mine)
        self._holding.add(name)
        self._granted[name] = mine
        return mine

    def free(self, in_hand: Mapping[str, int], consumer: int) -> set[str]:
        """Give up slots of kinds of which nothing is in hand, within a ``write``; return the kinds.

        :param in_hand: how many flags are in hand, by the kinds that have slots.
        """
        for name in [name for name in self._holding if not in_hand.get(name)]:
            self._dialect.hold(self._engine, name, consumer, 0)
            self._freed.add(name)
        return self._freed

    def committed(self) -> None:
        """Take note that what was written is kept."""
        self.slots.update(self._granted)
        self._granted.clear()
        self._holding -= self._freed
        self._freed.clear()

    def rolled_back(self) -> None:
        """Take note that nothing of what was written is kept."""
        self._granted.clear()
        self._freed.clear()

"""A site in virtual time: threads perform flags at a provider that may be down, with the default backoff, a breaker or none."""

import heapq
import random
from dataclasses import dataclass

from flagsweep import Backoff
from flagsweep.config import SECOND
from flagsweep.gates import breaker
from flagsweep.gates.breaker import Breaker

MAX_ATTEMPTS = 8


@dataclass
class Flag:
    """A flag with its due time; ``done`` and ``dead`` say when it became that."""

    id: int
    due: int
    poison: bool = False
    attempts: int = 0
    done: int | None = None
    dead: int | None = None


class Site:
    """Perform flags until a time.

    :param down: says of a time whether the provider is down.
    :param threshold: of the breaker; None: there is none.
    :param took: microseconds of an attempt.
    """

    def __init__(self, flags, down=lambda now: False, threshold=5, threads=4, took=SECOND // 5):
        self.flags, self.down, self.threshold, self.threads, self.took = flags, down, threshold, threads, took
        self.later = [(flag.due, flag.id, flag) for flag in flags]
        heapq.heapify(self.later)
        self.ready, self.running = [], []
        self.state, self.events, self.now, self.probes = Breaker(), [], 0, 0
        self.backoff, self.chance = Backoff(), random.Random(5).random

    def run(self, until):
        while self.now < until and (self.later or self.ready or self.running):
            while self.running and self.running[0][0] <= self.now:
                self._end(*heapq.heappop(self.running)[2:])
            while self.later and self.later[0][0] <= self.now:
                heapq.heappush(self.ready, heapq.heappop(self.later))
            while len(self.running) < self.threads and (flag := self._claim()):
                ends = self.now + self.took
                heapq.heappush(self.running, (ends, flag.id, flag, self.down(self.now)))
            self.now = min(self._next())
        return self

    def _claim(self):
        if not self.ready:
            return None
        if breaker.closed_until(self.state, self.now) is None:
            return heapq.heappop(self.ready)[2]
        probe = breaker.may_probe(self.state, self.now)
        allowed = [entry for entry in self.ready if probe and (not probe.fresh or entry[2].attempts == 0)]
        if not allowed:
            return None
        fewest = min(entry[2].attempts for entry in allowed)
        allowed = sorted((entry for entry in allowed if entry[2].attempts == fewest), key=lambda entry: entry[1])
        chosen = allowed[round(probe.place * (len(allowed) - 1))]
        self.ready.remove(chosen)
        heapq.heapify(self.ready)
        self.probes += 1
        self.state = breaker.probing(self.state, chosen[1], probe.fresh, self.now)
        return chosen[2]

    def _end(self, flag, was_down):
        failure = "Down" if was_down else "Poison" if flag.poison else None
        if self.threshold is not None:
            self.state, event = breaker.note(self.state, [(flag.id, failure, flag.attempts)], self.now, self.threshold)
            self.state = Breaker.parse(self.state.text())
            self.events += [(event, self.now)] if event else []
        if failure is None:
            flag.done = self.now
            return
        flag.attempts += 1
        if flag.attempts >= MAX_ATTEMPTS:
            flag.dead = self.now
            return
        due = self.now + int(self.backoff.delay(flag.attempts, self.chance) * SECOND)
        heapq.heappush(self.later, (due, flag.id, flag))

    def _next(self):
        """Yield the times at which something may happen next."""
        yield from (entry[0] for entry in self.running[:1] + self.later[:1])
        if self.state.outage is not None and self.ready:
            gates = (breaker.closed_until(self.state, self.now), breaker.fresh_from(self.state, self.now))
            yield from (time for time in gates if time > self.now)
        yield self.now + 60 * SECOND if self.running or self.ready else self.now + 3600 * SECOND

    def dead(self):
        return [flag for flag in self.flags if flag.dead is not None]

    def done(self, by, poison=False):
        """Return how many flags were done by a time."""
        return sum(flag.poison == poison and flag.done is not None and flag.done <= by for flag in self.flags)

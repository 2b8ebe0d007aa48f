"""The settler: outcomes become what their flags are from now on, many in one transaction."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter

from ..config import SECOND
from ..handlers import Handler
from ..logs import AS_EVENT, describe, headline, tells_events
from ..models import AWAY, Event, record
from ..schedules.book import Book
from . import events as told
from .claims import NO_RARE, Claimed, Step, Store
from .discovery import Discovery
from .notices import Failure, OnFailed
from .outcomes import DONE, NOT_STARTED, Failed, Lowered, Outcome, attempted, succeeded
from .parts import HELD, Parts

log = logging.getLogger("flagsweep")

Done = tuple[Claimed, Outcome, float]
"""A flag, what became of it, and the seconds that it took."""

News = list[Callable[[], None]]
"""What is to be told once the transaction has committed."""

ID = attrgetter("id")

REASON = 500
"""Characters of an error that its line of history keeps."""


@dataclass
class Settlement:
    """What settling did.

    :param counts: how many flags met which outcome.
    :param news: what is to be told once the transaction has committed.
    :param ended: how many flags of which kind count as what.
    """

    counts: Counter[str] = field(default_factory=Counter)
    news: News = field(default_factory=list)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: Settlement) -> None:
        """Add what another part did."""
        self.counts.update(other.counts)
        self.news += other.news
        self.ended.update(other.ended)


class Settler:
    """Settle the outcomes of one lane.

    :param handlers: by kind, aliases included.
    :param on_failed: called with each flag that failed for the first time, or died.
    :param keep_error: keep the first exception of a handler. It holds frames, and with them what a handler had open.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        store: Store,
        parts: Parts,
        discovery: Discovery,
        on_failed: OnFailed,
        keep_error: bool = False,
    ):
        self.first_error: BaseException | None = None
        """The first exception of a handler, where it is kept."""
        self._handlers = handlers
        self._store = store
        self._connections = store.connections
        self._parts = parts
        self._discovery = discovery
        self._on_failed = on_failed
        self._keep_error = keep_error
        self._book = Book(store.connections)
        self._results = {kind for kind, handler in handlers.items() if handler.options.result}
        self._kept = {kind for kind, handler in handlers.items() if handler.options.history} | self._results
        self._held: list[Done] = []
        self._held_until = 0.0

    # What somebody else's open transaction holds.

    @property
    def holds(self) -> bool:
        """Whether there are outcomes that could not be settled yet, since somebody else's transaction held their flags."""
        return bool(self._held)

    def tokens(self) -> set[int]:
        """Return the claims of the flags that could not be settled yet."""
        return {claimed.token for claimed, *_ in self._held}

    def no_longer_held(self) -> list[Done]:
        """Return outcomes that could not be settled: now they may."""
        if not self._held or time.monotonic() < self._held_until:
            return []
        outcomes, self._held = self._held, []
        return outcomes

    def keep(self, held: list[Done]) -> None:
        """Keep outcomes that cannot be settled yet."""
        if held:
            self._held += held
            self._held_until = time.monotonic() + HELD

    def free_to_settle(self, outcomes: list[Done]) -> tuple[list[Done], list[Done]]:
        """Part outcomes into those that can be settled now, and those whose flags somebody else's open transaction holds."""
        if not outcomes or self._connections.dialect.one_writer:
            return outcomes, []
        held = self._store.held([claimed.id for claimed, *_ in outcomes])
        if self._discovery.has_rows:
            rows = [(claimed, claimed.row.key) for claimed, outcome, _ in outcomes if outcome.lowers_row(claimed)]
            held |= self._discovery.held(rows)
        if not held:
            return outcomes, []
        return [o for o in outcomes if o[0].id not in held], [o for o in outcomes if o[0].id in held]

    # Settling, within the open transaction.

    def settle(self, outcomes: list[Done], now: int) -> Settlement:
        """Settle outcomes within the open transaction."""
        return self._settle_each(outcomes, now) if self._parts.apart else self._settle(outcomes, now)

    def _settle(self, outcomes: list[Done], now: int) -> Settlement:
        settled = Settlement()
        lowered: dict[int, list[Claimed]] = defaultdict(list)
        rest, unstarted, events, kept = [], [], [], self._kept
        if self._results:
            self._note_generations(outcomes)
        for done in outcomes:
            claimed, outcome, _ = done
            only_lowered = outcome is DONE and not (kept and claimed.kind in kept)
            if only_lowered and (claimed.rare is NO_RARE or claimed.rare.schedule is None):
                lowered[claimed.token].append(claimed)
            elif kept and claimed.generation is not None and _returned(claimed, outcome):
                lowered[claimed.token].append(claimed)
                events.append(succeeded(claimed, outcome, done[2]))
            elif outcome is NOT_STARTED:
                unstarted.append(claimed)
            else:
                rest.append(done)
        if tells_events():
            settled.news.append(partial(_tell_of_successes, outcomes, {id(flag) for flags in lowered.values() for flag in flags}))
        for token, flags in lowered.items():
            gone, bumped = self._store.lower(list(map(ID, flags)), token)
            settled.counts.update(lowered=gone, again=bumped, lost=len(flags) - gone - bumped)
            settled.ended[flags[0].kind, DONE.counted] += gone + bumped
        if unstarted:
            released = self._store.give_back(unstarted, now)
            settled.counts.update(released=released, lost=len(unstarted) - released)
            settled.news.append(partial(told.released, unstarted))
        for claimed, outcome, took in rest:
            how, outcome, tell = self._settle_one(claimed, outcome, took, now)
            settled.counts[how] += 1
            settled.news.append(tell)
            if how != "lost":
                counted = "dead" if how == "dead" else outcome.counted
                settled.ended[claimed.kind, counted] += 1
                if claimed.rare.schedule is not None:
                    settled.news.append(partial(self._note_end, claimed.rare.schedule, counted, now))
                events += self._events(claimed, outcome, how, took)
        record(self._connections.engine, events, now)
        return settled

    def _events(self, claimed: Claimed, outcome: Outcome, how: str, took: float) -> list[Event]:
        """Return the line of history of an attempt, where it has one that the outcome does not write itself."""
        if outcome.error is not None and how in ("again", "dead"):
            event = "dead" if how == "dead" else "failed"
            return [attempted(claimed, outcome, event, headline(outcome.error)[:REASON], took)]
        if outcome.counted != DONE.counted or claimed.kind not in self._kept:
            return []
        if outcome.settled is not None and claimed.kind in self._results:
            return []  # Its own transaction has written it.
        return [succeeded(claimed, outcome, took)]

    def _note_generations(self, outcomes: list[Done]) -> None:
        """Note with flags whose results are kept which generation their runs have seen: once they are settled nobody knows."""
        by_token: dict[int, list[Claimed]] = defaultdict(list)
        for claimed, outcome, _ in outcomes:
            if claimed.kind in self._results and outcome is not NOT_STARTED and outcome.settled is None:
                by_token[claimed.token].append(claimed)
        for flags in by_token.values():
            self._store.note_generations(self._connections.engine, flags)

    def _settle_each(self, outcomes: list[Done], now: int) -> Settlement:
        """Settle one by one, since together they could not be: the flag to blame has failed, all others count."""
        settled = Settlement()
        for claimed, outcome, took in outcomes:
            try:
                with self._connections.undoable():
                    one = self._settle([(claimed, outcome, took)], now)
            except Exception as error:
                self._parts.raise_if_away(error)
                one = self._settle_failed(claimed, error, took, now)
            settled.add(one)
        return settled

    def _settle_failed(self, claimed: Claimed, error: Exception, took: float, now: int) -> Settlement:
        """Settle a flag whose outcome the database does not take, as a failure; where not even that goes, leave it claimed."""
        for text in (describe(error), f"its outcome could not be kept: {type(error).__name__}"):
            try:
                with self._connections.undoable():
                    return self._settle([(claimed, Failed(text, error), took)], now)
            except Exception as again:
                self._parts.raise_if_away(again)
                error = again
        log.error("%s (flag %d) cannot be settled, it stays claimed: %s", claimed.kind, claimed.id, headline(describe(error)))
        return Settlement(Counter(lost=1))

    def _settle_one(self, claimed: Claimed, outcome: Outcome, took: float, now: int) -> tuple[str, Outcome, Callable[[], None]]:
        """Settle a flag; return how, by which outcome in the end, and what tells of it."""
        if outcome.settled is not None:
            return outcome.settled, outcome, partial(told.settled, (claimed, outcome, took), outcome.settled)
        handler = self._handlers[claimed.kind]
        if outcome.lowers(handler):
            try:
                with self._connections.undoable():
                    how = self._lower(claimed, outcome, handler, now)
                return how, outcome, partial(self._tell_of_lowered, (claimed, outcome, took), how)
            except Exception as error:  # A trigger, a constraint: this row cannot be lowered, and holds up no other.
                if not self._connections.dialect.in_transaction(self._connections.engine):
                    raise
                self._parts.raise_if_away(error)
                outcome = Failed(describe(error), error)
        if claimed.progressed:
            claimed.strikes = self._store.strikes_of(claimed)
        step = outcome.step(handler, claimed, now)
        state = self._store.settle_one(claimed.id, claimed.token, step, now)
        how = {None: "lost", "dead": "dead"}.get(state, outcome.again)
        return how, outcome, partial(self._tell, (claimed, outcome, took), how, step, now)

    def _lower(self, claimed: Claimed, outcome: Outcome, handler: Handler, now: int) -> str:
        if claimed.rare.intended is not None:
            self._store.pass_on(self._connections.engine, claimed)
        gone, bumped = self._store.lower([claimed.id], claimed.token)
        if gone:
            outcome.lower_row(self._connections, handler, claimed, now)
        return outcome.lowered if gone else "again" if bumped else "lost"

    # Once it has committed.

    def _note_end(self, schedule: str, outcome: str, now: int) -> None:
        """Note with a schedule how its run ended. Not in the transaction above: who fires it holds its row, and waits for the
        flag's."""
        try:
            self._book.ended(schedule, outcome, now)
        except AWAY as error:
            log.debug("the end of the schedule %s is not noted: %s", schedule, error)

    def _tell_of_lowered(self, done: Done, how: str) -> None:
        claimed, outcome, _ = done
        told.settled(done, how)
        outcome.tell(claimed, how)

    def _tell(self, done: Done, how: str, step: Step, now: int) -> None:
        """Log one line for what did not succeed, and tell the site of a first failure, or a death."""
        claimed, outcome, _ = done
        wait = step.due - now
        told.settled(done, how, wait / SECOND)
        if outcome.error is None:
            return
        if self._keep_error and self.first_error is None:
            self.first_error = outcome.exception
        after = f"again in {wait / 1e6:.0f} s" if how == "again" else how
        attempt, why = claimed.attempts + 1, headline(outcome.error)
        log.warning("%s (flag %d) attempt %d failed, %s: %s", claimed.kind, claimed.id, attempt, after, why, extra=AS_EVENT)
        first, final = claimed.attempts == 0, how == "dead"
        if (first or final) and how != "lost":
            said = (claimed.kind, claimed.key, claimed.id, attempt, outcome.error, outcome.cause(), first, final, claimed.payload)
            self._on_failed(Failure(*said), outcome.exception)


def _returned(claimed: Claimed, outcome: Outcome) -> bool:
    """Return whether a success may be lowered together with others of its claim, though its result is kept."""
    return type(outcome) is Lowered and outcome.row is None and claimed.rare.schedule is None


def _tell_of_successes(outcomes: list[Done], lowered: set[int]) -> None:
    """Tell of those of the outcomes whose flags were lowered together."""
    for done in outcomes:
        if id(done[0]) in lowered:
            told.settled(done, "lowered")

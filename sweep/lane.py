"""A lane: its sweep claims, performs and settles until nothing is due."""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import TASKS, Clock
from ..databases.pacer import Pacer
from ..handlers import Handler
from ..models import AWAY
from . import events as told
from .claimer import Claimer, Due, most_urgent_first
from .claims import Claimed, Store
from .crew import Crew
from .demand import SATED
from .discovery import Discovery, Found
from .doubts import Doubts
from .gatekeeper import Gatekeeper
from .member import Member
from .notices import OnFailed
from .outcomes import DONE, EXPIRED, NOT_STARTED
from .parts import HELD, Parts
from .settler import Done, News, Settlement, Settler
from .slots import Slots
from .tally import Tally
from .threads import Pool
from .totals import Totals

log = logging.getLogger("flagsweep")

OnOutage = Callable[[str, str, str], Any]

OUTCOMES = ("lowered", "again", "snoozed", "discarded", "expired", "dead", "released", "lost")
"""What a sweep counts. ``again``: failed or raised anew while it ran; ``lost``: no longer ours when its handler was done."""


@dataclass(frozen=True)
class Shared:
    """What all lanes of a consumer work with.

    :param on_failed: called with each flag that failed for the first time, or died.
    :param thorough: look for own rows every time and keep the first error, as ``sweep()`` does.
    :param zone: that of quiet hours and budgets.
    :param breakers: whether a kind whose flags fail alike waits for its provider.
    :param force: sweep what is paused, too.
    :param crew: shares out threads.
    :param on_outage: called with a kind, ``began`` or ``ended``, and why.
    :param tasks: how many flags of async handlers run at the same time, by lane.
    :param totals: where all that is done is counted in this process, too; None: nobody looks.
    """

    store: Store
    clock: Clock
    pacer: Pacer
    member: Member
    on_failed: OnFailed
    thorough: bool = True
    zone: str = "UTC"
    breakers: bool = True
    force: bool = False
    crew: Crew = field(default_factory=lambda: Crew(sys.maxsize))
    on_outage: OnOutage = lambda kind, event, why: None
    tasks: Mapping[str, int] = field(default_factory=dict)
    totals: Totals | None = None


@dataclass
class Turn:
    """What one turn does: settle what is done, give back what will not be done, claim what is due."""

    now: int
    outcomes: list[Done]
    recalled: list[Claimed]
    found: list[Found]
    due: list[Due]


@dataclass
class Written:
    """What a turn has done."""

    counts: Counter[str]
    claimed: list[Claimed]
    discovered: int
    news: News


class Lane:
    """Sweep the flags of one lane.

    :param handlers: the lane's handlers by kind, aliases included.
    :param pool: the lane's threads.
    """

    def __init__(self, name: str, handlers: Mapping[str, Handler], pool: Pool, shared: Shared):
        self.name = name
        self.handlers = handlers
        self.pool = pool
        self.demand = pool.demand
        self.stopping = False
        self.kept_out = False
        """Whether the last look ended since the consumer's lease, or its seat in this lane, was not its own."""
        self.swept_at: int | None = None
        """When it last looked for what is due, and could have claimed it, in microseconds UTC."""
        self._store = shared.store
        self._connections = shared.store.connections
        self._clock = shared.clock
        self._pacer = shared.pacer
        self._totals = shared.totals
        self._member = shared.member
        self._crew = shared.crew
        self._crew.join(pool)
        self._threads_set = pool.size
        self._turns = threading.Lock()
        self._sweeping = False
        self._claims_under = shared.member.id
        self._strays: set[int] = set()
        self._recalled: list[Claimed] = []
        """What is to be given back, and may have been: the answer to that commit was lost. It must not start any more."""
        self._parts = Parts(self._connections)
        self.discovery = Discovery(handlers, self._store, self._clock, self._pacer, self._parts, shared.thorough)
        self.gates = Gatekeeper(name, handlers, self._store, shared.zone, shared.breakers, shared.force, shared.on_outage)
        limited = {
            kind: each.kind for kind, each in handlers.items() if each.options.limit is not None and each.options.per is None
        }
        pool.slots = Slots(limited, self.gates.slots)
        patience = {each.kind: each.options.breaker for each in handlers.values() if shared.breakers and each.options.breaker}
        pool.doubts = Doubts({kind: each.kind for kind, each in handlers.items()}, patience)
        pool.by_turns = frozenset(kind for kind, each in handlers.items() if each.options.per is not None)
        in_loop = frozenset(kind for kind, each in handlers.items() if each.is_async)
        if in_loop:
            pool.have_loop(shared.tasks.get(name, TASKS), in_loop, len(in_loop) == len(handlers))
        pool.is_urgent = lambda: bool(self.gates.known.shut)
        self.claimer = Claimer(handlers, self._store, pool, self._pacer, self._member, self._parts, self.discovery, self.gates)
        self.settler = Settler(handlers, self._store, self._parts, self.discovery, shared.on_failed, shared.thorough)

    # What others ask.

    @property
    def group(self) -> str:
        """What tells this lane from another application's of the same name, which need not wait for it: the kinds it serves."""
        return group_of(self.name, self.handlers)

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of this lane."""
        return self.claimer.kinds

    @property
    def busy(self) -> bool:
        """Whether flags of this lane are claimed, performed or settled just now."""
        return self._sweeping or self.pool.outstanding > 0

    def has_due(self) -> bool:
        """Return whether a flag of this lane is due, without claiming."""
        return self._may_claim() and bool(self.claimer.due(self._clock.now()))

    def told(self) -> dict[str, Any]:
        """Return what its consumer says of it once a minute."""
        return {
            "swept_at": self.swept_at,
            "running": len(self.pool.under_way()),
            "threads": self.pool.size,
            "seat": not self.kept_out,
            "kinds": sorted(self.kinds),
        }

    def trouble(self, stuck_after: float | None = None) -> str | None:
        """Return why this lane can do nothing any more, or None.

        :param stuck_after: seconds after which a handler counts as hung; None: however long it takes.
        """
        trouble = self.pool.trouble(stuck_after)
        return trouble and f"lane {self.name} is stuck: {trouble}"

    def look_at_gates(self, pulse: Any = None) -> None:
        """Read the gates again where any was changed; what was shut and has not started is given back at the next turn, which
        whoever waits for the threads begins at once.

        :param pulse: what says so, where the caller has just read it.
        """
        self.gates.known.refresh(self._clock.now(), pulse)
        self._resize()
        if self.gates.known.shut:
            self.demand.post()

    def _resize(self) -> None:
        """Have as many threads as the gate of the lane says, or its settings, as far as there may be so many in all."""
        wanted, before = self.gates.known.threads or self._threads_set, self.pool.size
        if wanted == before or self.pool.is_inline:
            return
        size = self._crew.resize(self.pool, wanted)
        if size != before:
            less = "" if size == wanted else f"; {wanted} are too many for the consumer, or for the site's pool of connections"
            log.info("lane %s has %d threads now, %d before%s", self.name, size, before, less)

    def stop(self) -> None:
        """Claim nothing more, and give back what has not started."""
        self.stopping = True
        self.pool.stop()

    # Sweeping.

    def sweep(
        self,
        limit: int | None = None,
        progress: Callable[[Counter], None] | None = None,
        total: Counter[str] | None = None,
        waited: Callable[[], None] | None = None,
    ) -> Counter[str]:
        """Claim, perform and settle until nothing is due; return counts by outcome.

        Whatever fails leaves the outcomes that are not settled yet with the pool: the next sweep settles them first.

        :param limit: the most flags to claim.
        :param progress: called with the counts so far after every settling.
        :param total: what to add the counts to: they are not lost with a sweep that fails.
        :param waited: called once a second while nothing is done that could be settled; what it raises ends the sweep.
        """
        total = Counter() if total is None else total
        self.claimer.left = limit
        self._sweeping = True
        try:
            while True:
                worked = self._parts.take(lambda: self._turn(total))
                if worked and progress:
                    progress(total)
                if self.pool.outstanding:
                    self.pool.wait()
                    if waited and not self.pool.has_done():
                        waited()
                elif self.settler.holds:
                    time.sleep(HELD)
                elif not worked and self.demand.hungry == SATED:
                    return total
        finally:
            self._sweeping = False
            if any(total.values()):
                log.info("swept %s: %s", self.name, ", ".join(f"{n} {what}" for what, n in total.items() if n))

    def linger(self, holds_lock: bool = True) -> bool:
        """Wait, after a sweep, until there may be something for another; return whether this one is to go on.

        It is not where the consumer stops, or where another sweep lingers, and nothing runs.

        :param holds_lock: whether all of the lane's locks are held meanwhile: else nobody claims at once.
        """
        alone = self.demand.linger(self.pool.has_done, holds_lock)
        with self._turns:  # Who was just claiming at once has given it to the threads: it is waited for, and settled.
            return (alone and not self.stopping) or self.pool.outstanding > 0

    def claim_at_once(self, due: Iterable[Due]) -> bool:
        """Claim what was just seen to be due, in the caller's thread, while this lane's sweep lingers; return whether it was.

        It spares the wake-up of the sweep's thread and a second look at the same agenda. Where there is more to do than to begin
        one handler, the sweep is called besides.
        """
        if not (self._only_waits() and self._pacer.is_free() and self._turns.acquire(blocking=False)):
            return False
        try:
            if not (self._only_waits() and self._wants_more()):
                return False
            claimed = self._claim_alone(most_urgent_first(due))
        finally:
            self._turns.release()
        if len(claimed) != 1 or claimed[0].suspect or self.demand.hungry != SATED or not self.pool.has_threads(claimed[0].kind):
            self.demand.call()
        return True

    def _only_waits(self) -> bool:
        return self.demand.lingers and not (self.pool.outstanding or self.settler.holds or self.claimer.in_doubt)

    def _claim_alone(self, due: list[Due]) -> list[Claimed]:
        """Claim, and do nothing else; a sweep meets what fails here, and knows what to do."""
        try:
            with self._connections.write(not self.discovery.has_rows, self._belongs_together(due)):
                began = time.monotonic()
                claimed = self.claimer.claim(due, self._clock.now(), self.pool.size)
            self.claimer.committed(len(claimed))
            self.gates.committed()
        except Exception as error:
            self.gates.rolled_back()
            log.debug("lane %s could not claim at once: %s", self.name, error)
            return []
        self._pacer.ended(began, len(claimed))
        told.claimed(claimed)
        self.pool.give(claimed)
        return claimed

    def settle_rest(self) -> None:
        """Settle what a sweep that failed has left, once more and for good; what cannot be settled is rescued and runs again."""
        try:
            while self._turn(Counter()):
                pass
        except AWAY as error:
            log.warning("outcomes of lane %s could not be settled, their flags run again: %s", self.name, error)

    def release_strays(self) -> None:
        """Give back claims that nobody knows of, at the second look: a connection may break and its claim take place later."""
        with self._turns:
            known = self.pool.tokens() | self.settler.tokens() | {claimed.token for claimed in self._recalled}
            seen = self._strays
            self._strays = self._store.tokens(self._member.id, self.kinds) - known
            if again := seen & self._strays:
                log.warning("lane %s gives back %d claims that were lost on their way", self.name, len(again))
                with self._connections.write():
                    self._store.release_claims(again, self._member.id)

    # A turn.

    def _turn(self, total: Counter[str]) -> bool:
        """Settle what is done and claim the next, in one transaction; return whether there was anything to do."""
        with self._turns:
            self.pool.sate()
            fresh, now = self.pool.collect(), self._clock.now()
            outcomes = fresh + self.settler.no_longer_held()
            recalled = self._no_longer_wanted()
            try:
                found = self.discovery.find(lambda: self.pool.outstanding > 0) if self._wants_more() else []
                looks = not fresh and self._wants_more()  # What is still held must not keep a lane from looking.
                hinted = self.claimer.hinted() if looks else []
                due = hinted or (self.claimer.due(now) if looks else [])
                self._resize()
                if not (outcomes or recalled or found or due or self.claimer.in_doubt or self.gates.has_notes):
                    self.pool.let_start(self.gates.has_heard)
                    self._note_sweep(now)
                    return False
                done = self._write(Turn(now, outcomes, recalled, found, due))
            except BaseException:
                self.pool.put_back(outcomes)
                self._recalled = recalled
                self.gates.rolled_back()
                raise
            told.claimed(done.claimed)
            self.pool.give(done.claimed)
            self.pool.let_start(self.gates.has_heard)
            self._note_sweep(now)
            total.update(done.counts)
        for tell in done.news:
            tell()
        told.released(recalled)
        # Not what was found or due: somebody else's open transaction may hold it, and to ask again at once would spin.
        return bool(outcomes or recalled or done.claimed or done.discovered or hinted)

    def _note_sweep(self, now: int) -> None:
        if not self.kept_out:
            self.swept_at = now

    def _write(self, turn: Turn) -> Written:
        self._pacer.turn()
        claims_alone = not (turn.outcomes or turn.recalled or turn.found or self.discovery.has_rows or self.claimer.in_doubt)
        with self._connections.write(claims_alone, self._belongs_together(turn.due)):
            began = time.monotonic()  # Not before: to wait for another's long transaction is not to hold the writer.
            turn.now = self._clock.now()  # Tokens that came meanwhile are not spent twice.
            doubted = self.claimer.release_in_doubt()
            outcomes, held = self.settler.free_to_settle(turn.outcomes)
            settled = self.settler.settle(outcomes, turn.now)
            settled.counts["released"] += self._store.give_back(turn.recalled, turn.now)
            others = [done for done in outcomes if done[1] is not DONE]
            self.gates.hear(outcomes, others, turn.recalled, turn.now)
            settled.news += self.gates.write(turn.now)
            discovered = sum(self.discovery.turn_into_flags(handler, rows, turn.now) for handler, rows in turn.found)
            due = turn.due
            if self._wants_more() and (outcomes or turn.found or doubted):
                due = self.claimer.due(turn.now)
            claimed = self.claimer.claim(due, turn.now)
            self.gates.free(self.pool.slots.in_hand + self.pool.slots.sums(claimed), self._member.id)
            tally = self._count(_of_those_that_ran(outcomes, others), settled, turn.now)
        self.gates.committed()
        # Only now: a commit whose answer was lost may have taken place. Then flags are claimed that nobody would ever run.
        self.claimer.committed(len(claimed))
        self.settler.keep(held)
        if self._totals is not None:
            self._totals.add(tally)
        for kind, ran, spent in tally.paces():
            self.pool.learn(kind, ran, spent)
        self._pacer.ended(began, max(len(outcomes), len(claimed), discovered))
        return Written(settled.counts, claimed, discovered, settled.news)

    def _belongs_together(self, due: list[Due]) -> bool:
        """Return whether claims of these sorts want a transaction: with what they take, or to be undone each by itself."""
        return self.discovery.has_rows or self._parts.apart or any(self.gates.takes(kind) for _, kind in due)

    def _count(self, ran: list[Done], settled: Settlement, now: int) -> Tally:
        """Count what was settled, within the same transaction and last in it: nobody waits long for what it holds."""
        tally = Tally()
        for (kind, how), count in settled.ended.items():
            tally.add(kind, how, count)
        tally.ran(ran, now, time.monotonic())
        with self._parts.part("what was done is not counted"):
            self._store.count(tally.rows(self._member.id, now))
        return tally

    def _no_longer_wanted(self) -> list[Claimed]:
        """Return flags that were given to the threads and must not start: the consumer stops, or goes on under a new id.

        What was claimed under the id before has been given back. But a claim may have been under way when others took this
        consumer for dead, so whatever its threads have is given back here.
        """
        before, self._claims_under = self._claims_under, self._member.id
        shut = self.gates.known.take_shut()
        recalled, self._recalled = self._recalled, []
        if self.stopping or before != self._claims_under:
            return recalled + self.pool.recall()
        return recalled + (self.pool.recall(lambda claimed: self.gates.is_behind(claimed, shut)) if shut else [])

    def _wants_more(self) -> bool:
        wants = not self.stopping and self.claimer.left != 0
        self.kept_out = wants and not self._may_claim()
        return wants and not self.kept_out

    def _may_claim(self) -> bool:
        return self._member.may_claim(self.name)


def _of_those_that_ran(outcomes: list[Done], others: list[Done]) -> list[Done]:
    if not any(outcome is NOT_STARTED or outcome is EXPIRED for _, outcome, _ in others):
        return outcomes
    return [done for done in outcomes if done[1] is not NOT_STARTED and done[1] is not EXPIRED]


def group_of(lane: str, kinds: Iterable[str]) -> str:
    """Return the name of a lane and of what it serves; two consumers that have the same one take turns, or sweep side by side."""
    return f"{lane} {hashlib.sha256(chr(0).join(sorted(kinds)).encode()).hexdigest()[:12]}"

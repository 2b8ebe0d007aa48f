"""The gatekeeper of a lane: how many flags of a kind a claim may take, and what flags tell of their gates.

What is true stands in rows: what a claim takes of a limit is taken from the locked row, in the claim's own transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from ..config import SECOND
from ..databases.way import Way
from ..gates import breaker
from ..gates.breaker import Breaker, Probe
from ..gates.limits import Limits, Took, changed
from ..gates.shut import Closing
from ..handlers import Handler
from ..logs import AS_EVENT, printable, tell_event
from ..models import bump
from .buckets import Buckets
from .claims import Claimed, Store
from .known import FRESH, Known
from .notes import Gate, Note, Notes
from .outcomes import DONE, EXPIRED, NOT_STARTED, Outcome
from .settler import Done
from .slots import Holds

log = logging.getLogger("flagsweep")

LOOK = 500
"""Due flags among which a probe is chosen."""

HELD = SECOND
"""Microseconds after which a gate is asked again whose slots others had."""


@dataclass
class Grant:
    """Say how many flags of a kind may be claimed, and what is written once it is known how many were."""

    name: str
    count: int
    row: dict[str, Any]
    probe: Probe | None = None
    state: Breaker = field(default_factory=Breaker)


class Gatekeeper:
    """Keep the gates of one lane.

    :param handlers: by kind, aliases included; these share the gate of their handler's kind.
    :param zone: that of quiet hours and budgets which name none.
    :param breakers: whether a kind whose flags fail alike waits: not in tests, which must see each fail.
    :param force: whether what is paused is swept all the same.
    :param on_outage: told of a kind whose provider has gone, or is back.
    """

    def __init__(
        self,
        lane: str,
        handlers: Mapping[str, Handler],
        store: Store,
        zone: str = "UTC",
        breakers: bool = True,
        force: bool = False,
        on_outage: Callable[[str, str, str], Any] = lambda kind, event, why: None,
    ):
        self._lane = lane
        self._handlers = handlers
        self._connections = store.connections
        self._engine = store.connections.engine
        self._dialect = store.connections.dialect
        self._breakers_on = breakers
        self._force = force
        self._on_outage = on_outage
        self._notes = Notes()
        self._holds = Holds(store.connections)
        self._restarted: set[str] = set()
        self._probing: set[str] = set()
        place, handled = ZoneInfo(zone), {each.kind: each for each in handlers.values()}
        as_a_whole = {kind: each.options for kind, each in handled.items() if each.options.per is None}
        self._limits = {kind: Limits(each.rate, each.budget, place) for kind, each in as_a_whole.items()}
        self._most = {kind: each.limit for kind, each in as_a_whole.items() if each.limit is not None}
        self._limited = {kind for kind, each in handlers.items() if self._limits.get(each.kind) or each.kind in self._most}
        self.buckets = {kind: Buckets(each, store, place) for kind, each in handled.items() if kind not in as_a_whole}
        """Those of kinds whose flags take turns, by the handler's kind."""
        limits = (self._limits, self.buckets)
        self.known = Known(lane, handlers, store.connections, place, *limits, breakers, force)

    @property
    def slots(self) -> Mapping[str, int]:
        """How many flags of a kind may run here at the same time, where that is limited."""
        return self._holds.slots

    # A claim.

    def way(self, kind: str) -> Way:
        """Return the gates that the statement which claims flags of a kind must find open itself."""
        return Way(self._force, kind, self._handlers[kind].kind, self._lane)

    def takes(self, kind: str) -> bool:
        """Return whether a claim of a kind is more than one statement, which must take effect together."""
        return self.is_gated(kind) or (bool(self.buckets) and self._handlers[kind].kind in self.buckets)

    def is_gated(self, kind: str) -> bool:
        """Return whether a claim of a kind takes from a gate."""
        return kind in self._limited or self.known.has_outage(self._handlers[kind].kind)

    def enter(self, kind: str, wanted: int, threads: int, consumer: int, now: int) -> Grant | None:
        """Lock a kind's gate, within a ``write``; return what may be claimed, or None: nothing.

        :param threads: the lane's.
        """
        name = self._handlers[kind].kind
        row = self._dialect.lock_gate(self._engine, name, "")
        if row is None:
            self.known.wait(name, now, now)
            return None
        if (shut := self._shut_in(row, now)) is not None:
            self.known.wait(name, now, shut)
            return None
        grant = Grant(name, wanted, row)
        if self._heeds_breaker(name) and not self._may_probe(grant, now):
            return None
        if name in self._most and not self._take_slots(name, self._most[name], threads, consumer):
            self.known.wait(name, now, now + HELD)
            return None
        if limits := self._limits.get(name):
            grant.count = limits.left(row, now, grant.count)
            if not grant.count:
                self._set(name, changed(limits.taking(row, now, 0), row))
                self.known.wait(name, now, limits.opens_at(row, now) or now)
        return grant if grant.count > 0 else None

    def _heeds_breaker(self, name: str) -> bool:
        return self._breakers_on and self._handlers[name].options.breaker is not None

    def _set(self, name: str, values: Mapping[str, Any], bucket: str = "") -> None:
        if values:
            self._dialect.set_gate(self._engine, name, bucket, values)

    def _shut_in(self, row: Mapping[str, Any], now: int) -> int | None:
        """Return until when the row says that the kind waits: it is younger than what was read before."""
        paused = row["paused_at"] is not None and (row["paused_until"] is None or row["paused_until"] > now)
        if paused and not self._force:
            return now + HELD if row["paused_until"] is None else row["paused_until"]
        return row["closed_until"] if row["closed_until"] is not None and row["closed_until"] > now else None

    def _may_probe(self, grant: Grant, now: int) -> bool:
        state = Breaker.parse(grant.row["breaker"])
        now = breaker.abreast(state, now)
        if state.outage is not None and grant.name not in self._restarted:
            state = breaker.restarted(state, now)
        grant.state = state
        self.known.learn(grant.name, state)
        if state.outage is None:
            self._restarted.add(grant.name)
            return True
        grant.probe, grant.count = breaker.may_probe(state, now), 1
        if grant.probe is None:
            self.known.wait(grant.name, now, breaker.fresh_from(state, now) or now + HELD)
        return grant.probe is not None

    def _take_slots(self, name: str, limit: int, threads: int, consumer: int) -> bool:
        """Return whether flags of a kind may run here, so that all consumers together keep its limit."""
        return self._holds.take(name, limit, threads, consumer) > 0

    def leave(self, grant: Grant, taken: Sequence[Claimed], now: int) -> None:
        """Write what a claim has taken, in its transaction."""
        values, state = self._take(grant, taken, now), grant.state
        if not taken:  # What is due somebody holds: to ask for it again at once would spin.
            self.known.wait(grant.name, now, now if grant.probe is None else self._looks_again(grant.probe, state, now))
        if grant.probe is not None:
            self._probing.add(grant.name)
            for claimed in taken:
                state = breaker.probing(state, claimed.id, grant.probe.fresh, breaker.abreast(state, now))
        if self._heeds_breaker(grant.name) and (text := state.text()) != grant.row["breaker"]:
            values["breaker"] = text
            self.known.breakers[grant.name] = state
        self._set(grant.name, changed(values, grant.row))

    def _looks_again(self, probe: Probe, state: Breaker, now: int) -> int:
        """Return when a claim is tried again that has found no flag to probe with: a fresh one may be raised any time."""
        until = breaker.closed_until(state, now) or now + HELD
        return min(until, now + breaker.FRESH_EVERY) if probe.fresh else until

    def _take(self, grant: Grant, taken: Sequence[Claimed], now: int) -> dict[str, Any]:
        """Take tokens for flags that were claimed; return what the gate's row is to say of them."""
        limits = self._limits.get(grant.name)
        if not limits:
            return {}
        values = limits.taking(grant.row, now, len(taken))
        took, taken_at = Took(values.get("taken"), values.get("day")), None if limits.rate is None else now
        for claimed in taken:
            claimed.took, claimed.taken_at = took, taken_at
        return values

    def choose(self, grant: Grant, kind: str, priority: int, now: int) -> list[int]:
        """Return the flag that may probe: of those with the fewest attempts the one at the breaker's place."""
        assert grant.probe is not None
        due = self._dialect.candidates(self._engine, kind, priority, now, LOOK)
        least = min((attempts for _, attempts in due), default=0)
        if not due or (grant.probe.fresh and least):
            return []
        ids = sorted(id for id, attempts in due if attempts == least)
        at = ids[0] + grant.probe.place * (ids[-1] - ids[0])
        return [next(id for id in ids if id >= at)]

    def claim_by_turns(self, kind: str, priority: int, limit: int, consumer: int, now: int, token: int) -> list[Claimed]:
        """Claim flags of a kind whose buckets take turns, within a ``write``."""
        name = self._handlers[kind].kind
        buckets = self.buckets[name]
        taken = buckets.claim(kind, priority, limit, consumer, now, token, self.way(kind))
        if not taken:
            self.known.wait(name, now, buckets.opens_at(now))
        return taken

    # What flags tell of their gates.

    def hear(self, outcomes: list[Done], others: list[Done], recalled: list[Claimed], now: int) -> None:
        """Note what flags tell of their gates.

        :param others: those of the outcomes that did not just succeed.
        :param recalled: what is given back unstarted.
        """
        heard = self.heard() | {claimed.kind for claimed, outcome, _ in others if outcome.fingerprint is not None}
        for claimed, outcome, _ in outcomes if heard else others:
            if _answered(claimed, outcome):
                if claimed.kind in heard:
                    self.ended(claimed, None)
            elif outcome.fingerprint is not None:
                self.ended(claimed, outcome.fingerprint)
            elif outcome is NOT_STARTED or outcome is EXPIRED:
                self.returned([claimed])
            elif outcome.closes:
                until = now + int(outcome.wait(self._handlers[claimed.kind], claimed) * SECOND)
                self.waits(claimed, until, f"a handler asked for it: {outcome.error}")
            elif outcome.counted != "failed":
                self.unanswered(claimed)
        self.returned(recalled)
        if self.buckets:
            for claimed, _, _ in outcomes:
                if (buckets := self.buckets.get(self._handlers[claimed.kind].kind)) is not None:
                    buckets.ended(claimed.rare.bucket)
            self.known.stir(now)

    def heard(self) -> set[str]:
        """Return the kinds whose successes are to be noted, since flags of theirs failed."""
        if not self._breakers_on or not self.known.breakers:
            return set()
        return {kind for kind, each in self._handlers.items() if self.known.breakers.get(each.kind, FRESH) != FRESH}

    def ended(self, claimed: Claimed, fingerprint: str | None) -> None:
        """Note that a flag failed, or succeeded."""
        name = self._handlers[claimed.kind].kind
        if self._heeds_breaker(name):
            self._notes.of((name, "")).ended.append((claimed.id, fingerprint, claimed.attempts))

    def unanswered(self, claimed: Claimed) -> None:
        """Note that a flag tells nothing of its provider, and was charged nothing."""
        name = self._handlers[claimed.kind].kind
        if self.known.has_outage(name):
            self._notes.of((name, "")).unanswered.append(claimed.id)

    def returned(self, claimed: Iterable[Claimed]) -> None:
        """Note that flags ended unstarted: what they took of a limit is there again once this has committed."""
        for each in claimed:
            if each.took is not None:
                self._notes.returned(self._gate_of(each), each.took)
            self.unanswered(each)

    def waits(self, claimed: Claimed, until: int, why: str) -> None:
        """Note that all other flags of a kind, or of a flag's bucket, are to wait."""
        self._notes.of(self._gate_of(claimed)).closed = Closing(until, why)

    def _gate_of(self, claimed: Claimed) -> Gate:
        """Return the gate whose limits hold for a flag: its kind's, or its bucket's."""
        name = self._handlers[claimed.kind].kind
        return name, (claimed.rare.bucket or "") if name in self.buckets else ""

    def has_heard(self, name: str) -> bool:
        """Return whether all is written that flags of a kind told, and its gate stayed open."""
        return not any(gate[0] == name for gate in (*self.known.shut, *self._notes.pending()))

    def is_behind(self, claimed: Claimed, shut: Collection[Gate]) -> bool:
        """Return whether a flag is behind one of these gates: its kind's, or its bucket's."""
        kinds = (claimed.kind, self._handlers[claimed.kind].kind)
        return any((kind, "") in shut for kind in kinds) or self._gate_of(claimed) in shut

    def write(self, now: int) -> list[Callable[[], None]]:
        """Write what was noted, within a ``write``; return what is to be told once it has committed.

        Where somebody else holds a gate just now, its note stays for the next turn.
        """
        news: list[Callable[[], None]] = []
        for name, bucket in self._notes.pending():
            if self._write_note(name, bucket, self._notes.of((name, bucket)), now, news):
                self._notes.written((name, bucket))
        return news

    def committed(self) -> None:
        """Take note that what was written is kept."""
        for name, _ in self._notes.committed():
            self.known.ask_again(name)
        self._holds.committed()
        self._restarted |= self._probing
        self._probing.clear()

    def rolled_back(self) -> None:
        """Take note that nothing of what was written is kept: it is written again, and what was read is read again."""
        self._notes.rolled_back()
        self._holds.rolled_back()
        self._probing.clear()
        self.known.forget()

    @property
    def has_notes(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._notes)

    def _write_note(self, name: str, bucket: str, note: Note, now: int, news: list[Callable[[], None]]) -> bool:
        row = self._dialect.lock_gate(self._engine, name, bucket)
        if row is None:
            return False
        if note.closed is not None:
            self._close(name, bucket, row, note.closed)
        values = self._note_breaker(name, row, note, now, news)
        if note.returned:
            limits = self.buckets[name].limits if name in self.buckets else self._limits[name]
            values |= (back := limits.giving_back(row, note.returned, now))
            if limits.opens_at({**row, **back}, now) != limits.opens_at(row, now):
                bump(self._engine, "gate")  # Others wait for tokens that were to come later.
        self._set(name, values, bucket)
        self.known.ask_again(name)
        if bucket and note.returned:
            self.buckets[name].reopen(bucket)
        return True

    def _close(self, name: str, bucket: str, row: Mapping[str, Any], closing: Closing) -> bool:
        """Close a gate for some time, unless it is closed for longer; return whether that was written."""
        longer = closing.until > (row["closed_until"] or 0)
        if longer:
            self._set(name, {"closed_until": closing.until, "closed_why": closing.why[:500]}, bucket)
            bump(self._engine, "gate")
        self.known.shut.add((name, bucket))
        if bucket:
            self.buckets[name].close(bucket, closing.until)
        return longer

    def _note_breaker(
        self, name: str, row: Mapping[str, Any], note: Note, now: int, news: list[Callable[[], None]]
    ) -> dict[str, Any]:
        """Have the breaker of a kind know what ended; return what its row is to say."""
        if not (note.ended or note.unanswered):
            return {}
        before = Breaker.parse(row["breaker"])
        now = breaker.abreast(before, now)
        state, event = breaker.note(before, note.ended, now, self._handlers[name].options.breaker or 1)
        for flag in note.unanswered:
            state = breaker.unanswered(state, flag, now)
        if event is not None or (before == FRESH) != (state == FRESH):
            bump(self._engine, "gate")  # Others note their successes from now on, too, or need not any more.
        self.known.learn(name, state)
        if event is not None:
            if event == breaker.OUTAGE_BEGAN:
                self.known.shut.add((name, ""))
            news.append(lambda: self._tell(name, event, breaker.why(state) or breaker.why(before) or ""))
        return {} if state is before else {"breaker": state.text()}

    def _tell(self, name: str, event: str, why: str) -> None:
        if event == breaker.OUTAGE_BEGAN:
            away = "its flags fail alike, as if its provider were away"
            log.warning("%s waits: %s (%s); now and then one tries", name, away, printable(why), extra=AS_EVENT)
            tell_event("gate_closed", logging.WARNING, kind=name, why=why)
        else:
            log.info("%s goes on: its provider answers again", name, extra=AS_EVENT)
            tell_event("gate_opened", kind=name)
        self._on_outage(name, "began" if event == breaker.OUTAGE_BEGAN else "ended", why)

    def free(self, in_hand: Mapping[str, int], consumer: int) -> set[str]:
        """Give up slots of kinds of which nothing is in hand, within a ``write``; return the kinds."""
        return self._holds.free(in_hand, consumer)


def _answered(claimed: Claimed, outcome: Outcome) -> bool:
    """Return whether a flag tells that its provider answers: it succeeded, or came further before it asked for later."""
    if outcome.counted == "snoozed":
        return claimed.progressed
    return outcome.counted == DONE.counted and outcome is not NOT_STARTED

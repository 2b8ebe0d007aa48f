"""The gatekeeper of a lane: which kinds may be claimed just now, and how many flags of each.

What is true stands in rows: it is read again where the pulse says so, and what a claim takes of a limit is taken from the
locked row, in the claim's own transaction. What is remembered here only spares looks: when a kind is worth asking for again.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from ..config import SECOND
from ..gates import breaker
from ..gates.breaker import Breaker, Probe
from ..gates.rates import FINE, SKEW
from ..gates.shut import FOREVER, Closing, Shut
from ..handlers import Handler, Options
from ..logs import printable
from ..models import Gate
from ..schedules.book import bump
from .buckets import Buckets
from .claims import Claimed, Store, Took

log = logging.getLogger("flagsweep")

LOOK = 500
"""Due flags among which a probe is chosen."""

HELD = SECOND
"""Microseconds after which a gate is asked again whose slots others had."""

BRIEFLY = SECOND // 20
"""Microseconds after which a gate is asked again that somebody else held, or whose flags somebody held."""


FRESH = Breaker()


@dataclass
class Grant:
    """Say how many flags of a kind may be claimed, and what is written once it is known how many were."""

    name: str
    bucket: str
    count: int
    row: dict[str, Any]
    probe: Probe | None = None
    state: Breaker = field(default_factory=Breaker)


@dataclass
class Note:
    """Keep what flags of a kind tell of its gate until its row can be locked.

    :param ended: (flag, fingerprint or None for a success, attempts before).
    :param unanswered: flags that tell nothing, and were charged nothing.
    :param returned: what those took of a limit that were given back unstarted.
    :param closed: until when all others wait, in microseconds UTC, and why, by bucket.
    """

    ended: list[tuple[int, str | None, int]] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)
    returned: list[Took] = field(default_factory=list)
    closed: dict[str, Closing] = field(default_factory=dict)


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
        self.slots: dict[str, int] = {}
        """How many flags of a kind may run here at the same time, where that is limited; what stands in committed rows."""
        self._lane = lane
        self._handlers = handlers
        self._names = {each.kind for each in handlers.values()}
        self._store = store
        self._connections = store.connections
        self._dialect = store.connections.dialect
        self._zone = ZoneInfo(zone)
        self._breakers_on = breakers
        self._force = force
        self._on_outage = on_outage
        self._pulse: Any = None
        self._shut = Shut()
        self._breakers: dict[str, Breaker] = {}
        self._not_before: dict[str, tuple[int, int]] = {}
        """Until when a kind need not be asked for, and from when on: a clock that is set back makes nobody wait."""
        self._quiet: dict[str, tuple[int, int | None]] = {}
        self._notes: dict[str, Note] = defaultdict(Note)
        self._before: dict[str, Note | None] = {}
        """Notes as they were before the open transaction; its outcomes are noted again in the next, if it fails."""
        self._returned: list[tuple[str, Took]] = []
        """What flags took that ended unstarted in the open transaction, and of which kind."""
        self._restarted: set[str] = set()
        self._probing: set[str] = set()
        self._holding: set[str] = set()
        """The kinds of which slots may stand in rows."""
        self._freed: set[str] = set()
        """Of these, those that the open transaction has given up."""
        self._granted: dict[str, int] = {}
        """The slots that the open transaction has taken: no thread may count on them before it has committed."""
        self._shut_now: set[str] = set()
        """Kinds that were shut since the last turn: what of them has not started is given back."""
        self._lock = threading.Lock()
        self._limits = {each.kind: each for each in handlers.values() if _is_limited(each)}
        self.buckets = {each.kind: Buckets(each, store, self._zone) for each in handlers.values() if each.options.per is not None}
        """Those of kinds whose flags take turns, by the handler's kind."""

    # What is open.

    def refresh(self, now: int) -> None:
        """Read the gates again where any was changed."""
        pulse = self._dialect.pulse(self._connections.engine)
        if pulse == self._pulse:
            return
        rows = list(Gate.select().where(Gate.bucket == "").execute(self._connections.engine))
        with self._lock:
            self._pulse, self._shut = pulse, Shut(rows)
            self._not_before.clear()
            for buckets in self.buckets.values():
                buckets.reopen()
            for row in rows:
                if row.sort == "kind" and (row.breaker or row.name in self._breakers):
                    self._breakers[row.name] = Breaker.parse(row.breaker)
            self._shut_now.update(name for name in self._names if self._is_shut(name, now))

    def _is_shut(self, name: str, now: int) -> bool:
        paused = None if self._force else self._shut.paused(name, self._lane, now)
        return paused is not None or self._shut.asked_to_wait(name, now) is not None

    @property
    def has_shut(self) -> bool:
        """Whether a kind was shut since the last turn."""
        return bool(self._shut_now)

    def take_shut(self) -> set[str]:
        """Return the kinds that were shut since the last call."""
        with self._lock:
            shut, self._shut_now = self._shut_now, set()
        return shut

    def closing(self, kind: str, now: int) -> Closing | None:
        """Return until when a kind may not be claimed, as far as is known, and why; None: it may."""
        name = self._handlers[kind].kind
        found = [
            None if self._force else self._shut.paused(name, self._lane, now),
            self._shut.asked_to_wait(name, now),
            self._quiet_of(name, now),
            self._broken(name, now),
        ]
        asked, wait = self._not_before.get(name, (0, 0))
        if asked <= now < wait:
            found.append(Closing(wait, "its limit is reached"))
        return max((each for each in found if each is not None), default=None)

    def open(self, kinds: Iterable[str], now: int) -> list[str]:
        """Return the kinds that may be claimed just now, as far as is known."""
        return [kind for kind in kinds if self.closing(kind, now) is None]

    @property
    def threads(self) -> int | None:
        """How many threads a hand has given this lane; None: as many as the settings say."""
        row = self._shut.row("lane", self._lane)
        return None if row is None else row.threads

    def opens_at(self, now: int) -> int | None:
        """Return when the next gate opens by itself, in microseconds UTC; None: none does."""
        closings = (self.closing(kind, now) for kind in self._handlers)
        return min((each.until for each in closings if each is not None and each.until < FOREVER), default=None)

    def stir(self, now: int) -> None:
        """Take note that something was committed: a flag of a bucket that is open may have come."""
        for name, buckets in self.buckets.items():
            if buckets.may_look(now):
                self._not_before.pop(name, None)

    def _quiet_of(self, name: str, now: int) -> Closing | None:
        quiet = self._handlers[name].options.quiet
        if quiet is None:
            return None
        asked, until = self._quiet.get(name, (0, None))
        if not asked <= now < (until or asked + SECOND):
            until = quiet.closed_until(now, self._zone)
            self._quiet[name] = (now, until)
        return None if until is None else Closing(until, f"quiet hours {quiet}")

    def _broken(self, name: str, now: int) -> Closing | None:
        if not self._breakers_on or (state := self._breakers.get(name)) is None:
            return None
        until = breaker.fresh_from(state, abreast(state, now))
        return None if until is None or until <= now else Closing(until, f"its provider seems to be away: {breaker.why(state)}")

    # A claim.

    def is_gated(self, kind: str) -> bool:
        """Return whether a claim of a kind takes from a gate."""
        name = self._handlers[kind].kind
        return name in self._limits or (self._breakers_on and name in self._breakers and self._breakers[name].outage is not None)

    def enter(self, kind: str, wanted: int, threads: int, consumer: int, now: int) -> Grant | None:
        """Lock a kind's gate, within a ``write``; return what may be claimed, or None: nothing.

        :param threads: the lane's.
        """
        handler = self._handlers[kind]
        name, options = handler.kind, handler.options
        row = self._dialect.lock_gate(self._connections.engine, name, "")
        if row is None:
            self._wait(name, now, now + BRIEFLY)
            return None
        if (shut := self._shut_in(row, now)) is not None and not self._force:
            self._wait(name, now, shut)
            return None
        grant = Grant(name, "", wanted, row)
        if self._breakers_on and options.breaker is not None and not self._may_probe(grant, now):
            return None
        if options.limit is not None and options.per is None and not self._take_slots(name, options.limit, threads, consumer):
            self._wait(name, now, now + HELD)
            return None
        grant.count = min(grant.count, self._left(handler, row, now, grant.count))
        return grant if grant.count > 0 else None

    def _wait(self, name: str, now: int, until: int) -> None:
        """Take note that a kind is not worth asking for until some time, and never that it is worth it at once."""
        self._not_before[name] = (now, max(until, now + BRIEFLY))

    def _shut_in(self, row: Mapping[str, Any], now: int) -> int | None:
        """Return until when the row says that the kind waits: it is younger than what was read before."""
        paused = row["paused_at"] is not None and (row["paused_until"] is None or row["paused_until"] > now)
        if paused:
            return now + HELD if row["paused_until"] is None else row["paused_until"]
        return row["closed_until"] if row["closed_until"] is not None and row["closed_until"] > now else None

    def _may_probe(self, grant: Grant, now: int) -> bool:
        state = Breaker.parse(grant.row["breaker"])
        now = abreast(state, now)
        if state.outage is not None and grant.name not in self._restarted:
            state = breaker.restarted(state, now)
        self._breakers[grant.name] = grant.state = state
        if state.outage is None:
            self._restarted.add(grant.name)
            return True
        grant.probe, grant.count = breaker.may_probe(state, now), 1
        if grant.probe is None:
            self._wait(grant.name, now, breaker.fresh_from(state, now) or now + HELD)
        return grant.probe is not None

    def _take_slots(self, name: str, limit: int, threads: int, consumer: int) -> bool:
        """Take note of how many flags of a kind run here at the most, so that all consumers together keep its limit."""
        engine = self._connections.engine
        others, held = self._dialect.slots(engine, name, consumer)
        mine = max(0, min(limit - others, threads))
        if mine != held:
            self._dialect.hold(engine, name, consumer, mine)
        self._holding.add(name)
        self._granted[name] = mine
        return mine > 0

    def _left(self, handler: Handler, row: Mapping[str, Any], now: int, wanted: int) -> int:
        """Return how many of those wanted rate and budget allow just now."""
        if handler.options.per is not None:
            return wanted
        rate, budget, name = handler.options.rate, handler.options.budget, handler.kind
        if rate is not None:
            wanted = rate.take(row["taken"], now, wanted)[0]
            if not wanted:
                self._wait(name, now, rate.opens_at(row["taken"], now) or now)
                return 0
        if budget is not None:
            wanted = budget.take(row["day"], row["used"] or 0, now, self._zone, wanted)[0]
            if not wanted:
                self._wait(name, now, budget.opens_at(row["day"], row["used"] or 0, now, self._zone) or now)
        return wanted

    def leave(self, grant: Grant, taken: Sequence[Claimed], now: int) -> None:
        """Write what a claim has taken, in its transaction."""
        values, state = self._take(grant, taken, now), grant.state
        if grant.probe is not None:
            self._probing.add(grant.name)
            for claimed in taken:
                state = breaker.probing(state, claimed.id, grant.probe.fresh, abreast(state, now))
            if not taken:
                self._wait(grant.name, now, breaker.closed_until(state, now) or now + HELD)
        breaks = self._breakers_on and self._handlers[grant.name].options.breaker is not None
        if breaks and (text := state.text()) != grant.row["breaker"]:
            values["breaker"] = text
            self._breakers[grant.name] = state
        changed = {column: value for column, value in values.items() if value != grant.row[column]}
        if changed:
            self._dialect.set_gate(self._connections.engine, grant.name, grant.bucket, changed)

    def _take(self, grant: Grant, taken: Sequence[Claimed], now: int) -> dict[str, Any]:
        """Take tokens for flags that were claimed; return what the gate's row is to say of them."""
        options, row = self._handlers[grant.name].options, grant.row
        values: dict[str, Any] = {}
        if options.rate is not None and options.per is None:
            values["taken"] = options.rate.take(row["taken"], now, len(taken))[1]
        if options.budget is not None and options.per is None:
            _, values["day"], values["used"] = options.budget.take(row["day"], row["used"] or 0, now, self._zone, len(taken))
        for claimed in taken if values else ():
            claimed.took = Took(values.get("taken"), values.get("day"))
            claimed.taken_at = None if options.rate is None else now
        return values

    def choose(self, grant: Grant, kind: str, priority: int, now: int) -> list[int]:
        """Return the flag that may probe: of those with the fewest attempts the one at the breaker's place."""
        assert grant.probe is not None
        due = self._dialect.candidates(self._connections.engine, kind, priority, now, LOOK)
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
        taken = buckets.claim(kind, priority, limit, consumer, now, token)
        if not taken:
            self._wait(name, now, buckets.opens_at(now))
        return taken

    # What flags tell of their gates.

    def heard(self) -> set[str]:
        """Return the kinds whose successes are to be noted, since flags of theirs failed."""
        if not self._breakers_on or not self._breakers:
            return set()
        return {kind for kind, each in self._handlers.items() if self._breakers.get(each.kind, FRESH) != FRESH}

    def ended(self, claimed: Claimed, fingerprint: str | None) -> None:
        """Note that a flag failed, or succeeded."""
        handler = self._handlers[claimed.kind]
        if self._breakers_on and handler.options.breaker is not None:
            self._note(handler.kind).ended.append((claimed.id, fingerprint, claimed.attempts))

    def unanswered(self, claimed: Claimed) -> None:
        """Note that a flag tells nothing of its provider, and was charged nothing."""
        name = self._handlers[claimed.kind].kind
        if self._breakers_on and self._breakers.get(name, FRESH).outage is not None:
            self._note(name).unanswered.append(claimed.id)

    def returned(self, claimed: Iterable[Claimed], now: int) -> None:
        """Note that flags ended unstarted: what they took of a limit is there again once this has committed.

        Not at once: where the answer to the commit is lost they may start after all.
        """
        for each in claimed:
            if each.took is not None:
                self._returned.append((self._handlers[each.kind].kind, each.took))
            self.unanswered(each)

    def waits(self, claimed: Claimed, until: int, why: str) -> None:
        """Note that all other flags of a kind, or of a flag's bucket, are to wait."""
        handler = self._handlers[claimed.kind]
        bucket = (claimed.rare.bucket or "") if handler.options.per is not None else ""
        self._note(handler.kind).closed[bucket] = Closing(until, why)

    def _note(self, name: str) -> Note:
        """Return what is noted of a kind, to be added to within the open transaction's turn."""
        if name not in self._before:
            self._before[name] = deepcopy(self._notes.get(name))
        return self._notes[name]

    def write(self, now: int) -> list[Callable[[], None]]:
        """Write what was noted, within a ``write``; return what is to be told once it has committed.

        Where somebody else holds a gate just now, its note stays for the next turn.
        """
        news: list[Callable[[], None]] = []
        for name in sorted(self._notes):
            note = self._note(name)
            for bucket, closing in list(note.closed.items()):
                if self._close(name, bucket, closing):
                    del note.closed[bucket]
            if note.closed:
                continue
            if (note.ended or note.unanswered or note.returned) and not self._write_note(name, note, now, news):
                continue
            del self._notes[name]
            if (before := self._before[name]) is not None:
                before.returned.clear()  # Of a commit whose answer is lost nobody knows: tokens are lost rather than doubled.
        return news

    def committed(self) -> None:
        """Take note that what was written is kept."""
        self._before.clear()
        for name, took in self._returned:
            self._notes[name].returned.append(took)
            self._not_before.pop(name, None)
        self._returned.clear()
        self.slots.update(self._granted)
        self._granted.clear()
        self._holding -= self._freed
        self._freed.clear()
        self._restarted |= self._probing
        self._probing.clear()

    def rolled_back(self) -> None:
        """Take note that nothing of what was written is kept: what was noted before is written again, and what was read is read
        again. What the turn itself had noted it notes anew."""
        for name, before in self._before.items():
            self._notes.pop(name, None)
            if before is not None:
                self._notes[name] = before
        for left in (self._before, self._returned, self._granted, self._freed, self._probing):
            left.clear()
        self._pulse = None

    @property
    def has_notes(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._notes)

    def _close(self, name: str, bucket: str, closing: Closing) -> bool:
        engine = self._connections.engine
        row = self._dialect.lock_gate(engine, name, bucket)
        if row is None:
            return False
        if closing.until > (row["closed_until"] or 0):
            self._dialect.set_gate(engine, name, bucket, {"closed_until": closing.until, "closed_why": closing.why[:500]})
            bump(engine, "gate")
        if not bucket:
            self._shut_now.add(name)
        elif name in self.buckets:
            self.buckets[name].close(bucket, closing.until)
        return True

    def _write_note(self, name: str, note: Note, now: int, news: list[Callable[[], None]]) -> bool:
        row = self._dialect.lock_gate(self._connections.engine, name, "")
        if row is None:
            return False
        options, before = self._handlers[name].options, Breaker.parse(row["breaker"])
        now = abreast(before, now)
        state, event = breaker.note(before, note.ended, now, options.breaker or 1)
        for flag in note.unanswered:
            state = breaker.unanswered(state, flag, now)
        values: dict[str, Any] = {}
        if state is not before:
            values["breaker"] = state.text()
        values |= self._given_back(options, row, note.returned, now)
        if values:
            self._dialect.set_gate(self._connections.engine, name, "", values)
        if event is not None or (before == FRESH) != (state == FRESH):
            bump(self._connections.engine, "gate")  # Others note their successes from now on, too, or need not any more.
        self._breakers[name] = state
        self._not_before.pop(name, None)
        if event is not None:
            if event == breaker.OUTAGE_BEGAN:
                self._shut_now.add(name)
            news.append(lambda: self._tell(name, event, breaker.why(state) or breaker.why(before) or ""))
        return True

    def _given_back(self, options: Options, row: Mapping[str, Any], returned: Sequence[Took], now: int) -> dict[str, Any]:
        """Return what a gate's row is to say once it has back what flags took that never started.

        Tokens of a bucket that has been full since are none any more: they would come beside those that came for them.
        """
        values: dict[str, Any] = {}
        count = sum(took.full is not None and took.full > now * FINE for took in returned)
        if count and options.rate is not None and row["taken"] is not None:
            values["taken"] = options.rate.give_back(row["taken"], count)
        if options.budget is not None and row["day"] is not None:
            used = row["used"] or 0
            for day, many in Counter(took.day for took in returned if took.day is not None).items():
                _, used = options.budget.give_back(row["day"], used, many, day)
            values["used"] = used
        return values

    def _tell(self, name: str, event: str, why: str) -> None:
        if event == breaker.OUTAGE_BEGAN:
            away = "its flags fail alike, as if its provider were away"
            log.warning("%s waits: %s (%s); now and then one tries", name, away, printable(why))
        else:
            log.info("%s goes on: its provider answers again", name)
        self._on_outage(name, "began" if event == breaker.OUTAGE_BEGAN else "ended", why)

    # Slots.

    def free(self, running: Mapping[str, int], consumer: int) -> None:
        """Give up slots of kinds of which nothing is in hand, within a ``write``.

        :param running: how many flags are in hand, by the kinds that have slots.
        """
        for name in [name for name in self._holding if not running.get(name)]:
            self._dialect.hold(self._connections.engine, name, consumer, 0)
            self._freed.add(name)


def abreast(state: Breaker, now: int) -> int:
    """Return the time of the latest note where that is a little ahead: of another consumer, whose turn began later or whose clock
    is fast. A breaker would take such a note for a wrong clock's, and forget it."""
    noted = [state.answered, *(each.at for each in state.known)]
    if (out := state.outage) is not None:
        noted += [out.since, out.asked, out.fresh_at, out.until - out.wait, *(probe.at for probe in out.probes)]
    latest = max(noted)
    return latest if now < latest <= now + SKEW else now


def _is_limited(handler: Handler) -> bool:
    """Return whether limits hold for a kind as a whole."""
    options = handler.options
    if options.per is not None:
        return False
    return options.rate is not None or options.budget is not None or options.limit is not None

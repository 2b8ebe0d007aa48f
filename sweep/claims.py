"""Claims: the verbs of a sweep and of a consumer. ``models.py`` has the tables, the state table and the site's verbs."""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, NamedTuple

from peewee import Case, Database, Field, Model, Node, Select

from ..config import SECOND
from ..databases.connections import Connections
from ..databases.flags import Rare
from ..databases.pages import Pages
from ..databases.way import FORCED, Way
from ..errors import ClaimLost
from ..gates.limits import Took
from ..models import Consumer, Event, Flag, found, record
from .roll import Roll

KIND = attrgetter("kind")

CRASHES = 3
"""A flag that has crashed the process this often is dead."""

STRIKES = 100
"""A flag that comes further and fails again and again is dead after so many times its attempts without a success. A death of its
process counts as so many failures."""


NO_RARE = Rare()

FRESH: tuple[int, int, Any, int, Rare] = (0, 0, None, 1, NO_RARE)
"""Attempts, suspect, cursor, raises and what is rare, of a flag of which its row says nothing of these."""


class Claimed:
    """Hold one claimed flag on its way through a handler."""

    __slots__ = (
        *("attempts", "began", "consumer", "cursor", "due_at", "generation", "id", "key", "kind", "payload", "raises", "rare"),
        *("progressed", "row", "strikes", "suspect", "taken_at", "token", "took", "trouble"),
    )

    def __init__(self, kind: str, token: int, row: Sequence[Any], consumer: int = 0):
        self.kind = kind
        self.token = token
        self.consumer = consumer
        """The id under which it was claimed: what a consumer claimed under an id before is not its own any more."""
        self.row: Any = None
        self.taken_at: int | None = None
        """When it took of its kind's rate, in microseconds UTC."""
        self.took: Took | None = None
        self.began = 0.0
        """When its handler began, in seconds of the system's monotonic clock."""
        self.trouble: BaseException | None = None
        self.generation: int | None = None
        """The raise that its run has seen; known where its kind keeps results, once it is settled."""
        self.progressed = False
        """Whether its handler has come further, in this run."""
        self.strikes: int | None = None
        """What its row has, where this run has left it further for good; None: it has not."""
        self.due_at, self.id, self.key, self.payload, more = row
        self.attempts, self.suspect, self.cursor, self.raises, self.rare = FRESH
        if more is not None:
            self.attempts, self.suspect, self.cursor, self.raises, *rare = more
            self.rare = Rare(*rare)

    @property
    def before(self) -> int:
        """How many attempts before this one count: none where this one came further than they did."""
        return self.attempts if self.strikes is None else 0


class Step(NamedTuple):
    """Describe how one claimed flag leaves *claimed* without being lowered.

    :param due: microseconds UTC; ``bumped_due`` and ``bumped_attempts`` hold where it was raised again while it ran.
    :param earlier: where bumped, the raise's own due time wins if it is earlier.
    :param strikes: what its strikes change by.
    :param died_as: what tells its death from those of another cause, where it dies.
    """

    state: str
    attempts: int
    due: int
    bumped_attempts: int
    bumped_due: int
    earlier: bool = False
    error: str | None = None
    crashed: int = 0
    suspect: bool = False
    strikes: int = 0
    died_as: str | None = None


class Store(Roll):
    """Do the verbs of whoever sweeps, on our own connections."""

    def __init__(self, connections: Connections):
        super().__init__(connections)
        self._pages = Pages(connections)
        self.done = 0
        """How many flags were settled here, at least as often as that was kept: by it is known whether anything was done."""

    def agenda(self, kinds: Sequence[str]) -> list[tuple[str, int, int]]:
        """Return (kind, priority, earliest due time) for every priority in use among the waiting flags of these kinds."""
        return self.agenda_of(json.dumps(list(kinds)))

    def agenda_of(self, kinds: str) -> list[tuple[str, int, int]]:
        """Return the agenda for kinds that are a JSON array already."""
        rows = self._dialect.agenda(self._engine, kinds)
        return [row for row in rows if isinstance(row[2], (int, float))]  # A damaged due time is never due.

    def changes(self) -> Any:
        """Return something that differs when any other connection has committed."""
        return self._dialect.changes(self._engine)

    def pulse(self) -> Any:
        """Return something that differs once schedules or gates were changed."""
        return self._dialect.pulse(self._engine)

    def waiting_kinds(self) -> list[str]:
        """Return the kinds of which flags wait, without reading the flags."""
        with self._dialect.lenient(self._engine):
            return self._dialect.waiting_kinds(self._engine)

    def claim(
        self, kind: str, priority: int, limit: int, consumer: int, now: int, token: int | None = None, way: Way = FORCED
    ) -> list[Claimed]:
        """Take up to ``limit`` due flags of one kind and priority, the longest due first, within a ``write``.

        :param way: gates that must be open.
        """
        token = new_token() if token is None else token
        rows = self._dialect.claim(self._engine, kind, priority, limit, consumer, token, now, way)
        return [Claimed(kind, token, row, consumer) for row in rows]

    def claim_these(self, kind: str, ids: Sequence[int], consumer: int, now: int, token: int, way: Way = FORCED) -> list[Claimed]:
        """Take these flags of one kind where they still wait, within a ``write``.

        :param way: gates that must be open.
        """
        rows = self._dialect.claim_these(self._engine, ids, consumer, token, now, way)
        return [Claimed(kind, token, row, consumer) for row in rows]

    def held(self, ids: Sequence[int]) -> set[int]:
        """Lock flags that are to be settled, within a ``write``; return those that an open transaction of somebody else holds."""
        return self._dialect.held(self._engine, ids)

    def lower(self, ids: Sequence[int], token: int) -> tuple[int, int]:
        """Lower what one claim took and did; return how many are gone, and how many wait again since they were raised meanwhile.

        The rest was no longer ours.
        """
        self.done += len(ids)
        lowered = self._dialect.lower(self._engine, ids, token)
        bumped = self._dialect.lower_bumped(self._engine, ids, token) if lowered < len(ids) else 0
        return lowered, bumped

    def note_generations(self, db: Database, flags: Sequence[Claimed]) -> None:
        """Note with flags of a claim which generation it saw, where they are ours still; the commit tells who waits for them."""
        found = self._dialect.generations(db, [flag.id for flag in flags], flags[0].token)
        for flag in flags:
            flag.generation = found.get(flag.id)

    def pass_on(self, db: Database, claimed: Claimed) -> None:
        """Where a schedule raised a flag again that ran for it before, leave it with what this run did not stand for."""
        ours = (Flag.id == claimed.id) & (Flag.claim_token == claimed.token) & (Flag.generation > Flag.claimed_generation)
        for row in Flag.select(Flag.intended, Flag.missed).where(ours).execute(db):
            again = row.intended is not None and row.intended != claimed.rare.intended
            left = {"missed": row.missed - claimed.rare.missed - 1} if again else {"intended": None, "missed": 0}
            Flag.update(left).where(ours).execute(db)

    def settle_one(self, id: int, token: int, step: Step, now: int) -> str | None:
        """Let one claimed flag wait again or die; return its new state, or None where the claim was lost."""
        self.done += 1
        return self._dialect.settle_one(self._engine, {**step._asdict(), "id": id, "token": token, "now": now})

    def strikes_of(self, claimed: Claimed) -> int | None:
        """Return how many strikes a flag has, within a ``write``, where its run has left it with another cursor; else None."""
        ours = (Flag.id == claimed.id) & (Flag.claim_token == claimed.token)
        for cursor, strikes in Flag.select(Flag.cursor, Flag.strikes).where(ours).tuples().execute(self._engine):
            with suppress(ValueError, TypeError, RecursionError):
                return strikes if json.loads(cursor) != claimed.cursor else None
        return None

    def release(self, ids: Sequence[int], token: int, now: int) -> int:
        """Give flags back that were claimed and not started."""
        return self._dialect.release(self._engine, ids, token, now)

    def give_back(self, flags: Iterable[Claimed], now: int) -> int:
        """Give claimed flags back, whichever claims took them; return how many were still theirs."""
        by_token: dict[int, list[int]] = defaultdict(list)
        for flag in flags:
            by_token[flag.token].append(flag.id)
        return sum(self.release(ids, token, now) for token, ids in by_token.items())

    def put_off(self, flags: Sequence[Claimed], until: int, now: int) -> None:
        """Give claimed flags back, due at a later time, within a ``write``: what waits behind them goes first."""
        self.give_back(flags, now)
        these = Flag.id.in_([flag.id for flag in flags])
        Flag.update(due_at=until).where(these, Flag.state == "waiting").execute(self._engine)

    def release_claims(self, tokens: Iterable[int], consumer: int) -> None:
        """Give back all that these claims took, within a ``write``: whether they ever took anything is not known."""
        for token in tokens:
            query = Flag.update(state="waiting", claim_token=None, claimed_by=None, claimed_at=None, claimed_generation=None)
            query.where(Flag.state == "claimed", Flag.claimed_by == consumer, Flag.claim_token == token).execute(self._engine)

    def tokens(self, consumer: int, kinds: Sequence[str]) -> set[int]:
        """Return the claims of these kinds that a consumer has."""
        return {token for kind, token in self._dialect.claims_of(self._engine, consumer) if kind in kinds}

    def settle_within(
        self, claimed: Claimed, lower_row: Callable[[Database], None] | None, write: Callable[[Database], None] | None = None
    ) -> str:
        """Lower one flag in the transaction open on the site's connection; return ``lowered``, or ``again`` where it was bumped.

        :param write: writes the line of history that its result is kept with.
        :raises ClaimLost: where the flag is no longer ours, so that the transaction rolls back.
        """
        self.connections.files.check()
        self.done += 1
        site, id, token = self.connections.site, claimed.id, claimed.token
        if claimed.rare.intended is not None:
            self.pass_on(site, claimed)
        if write is not None:
            self.note_generations(site, [claimed])
            write(site)
        if self._dialect.lower(site, [id], token):
            if lower_row:
                lower_row(site)
            return "lowered"
        if self._dialect.lower_bumped(site, [id], token):
            return "again"
        raise ClaimLost(f"flag {id} was lowered by hand, or is no longer this consumer's: what its handler wrote is rolled back")

    def progress(self, id: int, token: int, cursor: str, atomic: bool) -> bool:
        """Keep how far a running handler has come; return False where the claim was lost.

        :param atomic: its handler holds the only writer, so this goes into its transaction, as within one of the handler's own.
        """
        if atomic or self.connections.site.in_transaction():
            return self._dialect.progress(self.connections.site, id, token, cursor)
        with self.connections.write():
            return self._dialect.progress(self._engine, id, token, cursor)

    def discover(self, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> int:
        """Turn rows of the site into flags; one that is up, running or dead already stays as it is."""
        return self._dialect.discover(self._engine, kind, rows, priority, now)

    def count(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add counts to those of their minutes, within a ``write``."""
        self._dialect.count(self._engine, rows)

    # Consumers.

    def rescue(
        self, consumer: int, charged: Sequence[tuple[int, int, Step]], now: int, comebacks: int | None = None
    ) -> tuple[int, list[int]] | None:
        """Give back what a dead consumer had claimed and strike it off.

        :param charged: (id, token, step) of the flags that are to blame.
        :param comebacks: how often it had come back when it was found dead.
        :return: how many flags were freed, and the ids of those that died; None, and nothing is done, where it came back once
            more, or somebody else was first.
        """
        with self.connections.write():
            # First: who comes back at this instant waits for this row, and then finds that it was taken for dead.
            it = (Consumer.id == consumer) & (True if comebacks is None else Consumer.comebacks == comebacks)
            peer = self.entered(consumer) or next(iter(Consumer.select().where(it).execute(self._engine)), None)
            struck_off = Consumer.delete().where(it).execute(self._engine)
            if not struck_off and comebacks is not None:
                return None
            if struck_off and peer is not None:
                self.note_end(peer, "stopped" if comebacks is None else "died", now)
            self._dialect.forget_holds(self._engine, consumer)
            settled = [(id, self.settle_one(id, token, step, now)) for id, token, step in charged]
        # Whoever dies here leaves claims of nobody, which ``release_orphans`` finds.
        freed = self._release_all(consumer, now)
        return freed + len(settled), [id for id, state in settled if state == "dead"]

    def _release_all(self, consumer: int, now: int) -> int:
        """Give back all that a consumer has claimed, some at a time, but what somebody else's open transaction holds."""
        free = {**dict.fromkeys(("claim_token", "claimed_by", "claimed_at", "claimed_generation")), "state": "waiting"}
        due_at = Case(None, [(Flag.due_at > now, now)], Flag.due_at)
        theirs = Flag.update({**free, "due_at": due_at}).where(Flag.state == "claimed", Flag.claimed_by == consumer)
        ids = [self._dialect.claimed_ids(self._engine, consumer)]
        return self._pages.do(self._engine, ids, lambda ids: theirs.where(Flag.id.in_(ids)).execute(self._engine))

    def release_orphans(self, now: int) -> int:
        """Give back what is claimed by nobody who is entered; return how many flags.

        A server may carry out a claim after its consumer has died and was rescued, or has gone on under another id.
        """
        claimers = self._dialect.claimers(self._engine)  # Before the consumers: who claims was entered at that time.
        orphaned = set(claimers) - set(self.peers()) if claimers else ()
        return sum(self._release_all(consumer, now) for consumer in orphaned)

    def release_nobodys(self, now: int) -> int:
        """Give back what is claimed and says of nobody that has it: a hand has written that."""
        where = (Flag.state == "claimed", Flag.claimed_by.is_null() | Flag.claim_token.is_null())
        free = {**dict.fromkeys(("claim_token", "claimed_by", "claimed_at", "claimed_generation")), "state": "waiting"}
        return self._mend(where, {**free, "due_at": Case(None, [(Flag.due_at > now, now)], Flag.due_at)})

    def drop(self, ids: Sequence[int], reason: str, now: int) -> int:
        """Drop flags that nobody has claimed, with a line of history for each; return how many."""

        def drop(ids: Sequence[int]) -> int:
            these = (Flag.id.in_(ids), Flag.state != "claimed")
            rows = list(Flag.select(Flag.id, Flag.kind, Flag.key).where(*these).execute(self._engine))
            record(self._engine, [Event(row.id, row.kind, row.key, "discarded", reason) for row in rows], now)
            return Flag.delete().where(*these).execute(self._engine)

        return self._pages.do(self._engine, [list(ids)], drop)

    def adopt(self, before: int, consumer: int) -> None:
        """Have a consumer that goes on under a new id own what it claimed under the one before, after that was given back."""
        with self.connections.write():
            claimed = (Flag.state == "claimed") & (Flag.claimed_by == before)
            Flag.update(claimed_by=consumer).where(claimed).execute(self._engine)

    def strike(self, consumer: int, now: int) -> None:
        """Strike off a consumer that ends well, giving back whatever it still has."""
        self.rescue(consumer, (), now)

    def claimed_by(self, consumer: int, ids: Iterable[int] | None = None) -> list[Flag]:
        """Return those of the flags that this consumer has claimed; without ``ids`` all that it has."""
        query = Flag.select().where(Flag.claimed_by == consumer, Flag.state == "claimed")
        return list((query if ids is None else query.where(Flag.id.in_(list(ids)))).execute(self._engine))

    # Chores.

    def heal_clock(self, now: int, horizon: int) -> int:
        """Mend due times that a wrong clock wrote; return how many flags were mended.

        :param horizon: microseconds UTC; what is due later than anybody may ask for was damaged, and is parked.
        """
        waiting, due, raised, settled = Flag.state == "waiting", Flag.due_at, Flag.raised_at, Flag.settled_at
        ahead = now + SECOND  # What is raised while this is asked was raised by no fast clock.
        # A raise while it ran decides when it is due again.
        owed = waiting | ((Flag.state == "claimed") & (Flag.generation > Flag.claimed_generation))
        not_after = Case(None, [(raised > now, now)], raised)
        # Raised again when it was due already, by the clock of that time: it is due.
        overtaken = (owed, due > now, raised > ahead, due < raised, (Flag.attempts == 0) | (settled > ahead))
        mended = self._mend(overtaken, {"due_at": now, "raised_at": now})
        # A backoff, a Retry(after), a Snooze or a retry by hand waits for what it asked for, however long, counted from now.
        by_settling = (waiting, settled > ahead, due >= settled, (raised <= settled) | (raised > due))
        mended += self._mend(by_settling, {"due_at": due - settled + now, "settled_at": now, "raised_at": not_after})
        # A raise may have asked for a delay or for a moment, and the row does not tell. It is taken for a delay where it would
        # otherwise be late by more than it has to wait anyhow.
        late = (due == raised) | ((due > raised) & (due <= horizon) & (raised - now > due - raised))
        by_raise = (owed, raised > ahead, late, settled.is_null() | (settled <= raised) | (settled > due))
        mended += self._mend(by_raise, {"due_at": due - raised + now, "raised_at": now})
        reason = "parked: its due time is damaged or lies more than ten years ahead"
        parked = {"state": "dead", "died_at": now, "died_as": "parked", "error": reason}
        return mended + self._mend((waiting, due > horizon), parked)

    def _mend(self, where: tuple, values: dict[str, Any]) -> int:
        """Update what meets the conditions; the writer is taken only for what a look has found."""
        query = Flag.update(values).where(*where)
        return self._pages.do(
            self._engine, found(self._engine, where), lambda ids: query.where(Flag.id.in_(ids)).execute(self._engine)
        )

    def trim_log(self) -> int:
        """Keep SQLite's write-ahead log short, waiting for nobody; return its bytes, 0 for a database that has none."""
        self.connections.files.check()
        return self._dialect.trim_log(self._engine)

    # What doctor asks.

    def latest_raise(self, last: int) -> int | None:
        """Return when, by its own word, the latest raise among the ``last`` newest flags was."""
        return self._dialect.latest_raise(self._engine, last)

    def damaged(self, last: int) -> list[int]:
        """Return the ids of damaged rows among the ``last`` newest: no due time, or no JSON. Dead ones are parked already."""
        return self._dialect.damaged(self._engine, last)

    def reads_all(self, query: Select) -> bool:
        """Return whether a query would read a whole table for want of an index. Asks how, without looking."""
        return self._dialect.reads_all(self._engine, query)

    def index_for(self, model: type[Model], condition: Node, fields: Sequence[Field]) -> str:
        """Return the statement that makes an index for a condition of the site's own."""
        return self._dialect.index_for(self._engine, model, condition, fields)


def new_token() -> int:
    """Return what tells one claim from all others."""
    return secrets.randbits(62)

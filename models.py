"""The tables, the states of a flag, and the verbs of the site. Whoever sweeps has ``claims.py``; no other room sends a statement
about a flag.

========= ============================================ =========================================
state     leaves by                                    to
========= ============================================ =========================================
waiting   ``claim``                                    claimed
waiting   ``lower_one`` (a person, the site)           gone
claimed   ``lower`` (success, discard), not bumped     gone
claimed   ``lower``, bumped: raised again meanwhile    waiting, attempts 0, due as the raise says
claimed   ``settle_one``: try again, snooze, release   waiting
claimed   ``settle_one``: out of attempts, not bumped  dead
claimed   ``rescue``: its consumer died                waiting, or dead where it is to blame
dead      ``raise_``, ``retry``                        waiting, attempts 0
dead      ``discard``                                  gone
========= ============================================ =========================================

Settling is fenced: ``WHERE id = ? AND claim_token = ?``, and the row count decides. Times are arguments, in microseconds UTC.
``databases/`` has the text of every statement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    Check,
    CompositeKey,
    Database,
    IntegerField,
    Model,
    NodeList,
    SmallIntegerField,
    TextField,
    fn,
)

from .databases.connections import Connections
from .databases.deaths import Group
from .databases.errors import DATABASE_ERRORS
from .databases.gates import sound
from .databases.pages import PAGE, Pages, Progress
from .databases.raising import Terms
from .errors import DatabaseAway, NotReady
from .payloads import CHUNK_BYTES, Item

AWAY: tuple[type[Exception], ...] = (*DATABASE_ERRORS, NotReady, DatabaseAway)
"""What a sweep takes for a database that is away: it is tried again, and nothing is lost."""

IDS = 50_000
"""Ids that are looked up at once."""

MANY = 100
"""Lines of history in one statement: with the longest errors still less than a server takes."""


PATIENCE = 0.2
"""Seconds for which a server counts what is up for somebody who looks on; then there is at least as much as it has said."""


SOME = 1000
"""Dead flags of a group that are counted where a server would take too long to count all."""

Keep = Callable[[str | None], bool] | None
"""Says of an error whether its flag is meant."""

Pace = tuple[int, int, int] | None
"""So many flags within so many microseconds, and how many came before."""


class Counts(list[tuple]):
    """Be lines that count flags.

    :ivar exact: whether all were counted; else there are at least so many.
    """

    def __init__(self, rows: Iterable[tuple], exact: bool):
        super().__init__(rows)
        self.exact = exact


class _AsItIs:
    """Read what a hand has put there as it is: a row that cannot be read would hide all others."""

    def python_value(self, value):
        return value


class _Big(_AsItIs, BigIntegerField): ...


class _Int(_AsItIs, IntegerField): ...


class _Small(_AsItIs, SmallIntegerField): ...


class _OfGate:
    """Read what a gate's column may say."""

    column_name: str

    def python_value(self, value):
        return sound(self.column_name, value)


class _GateBig(_OfGate, BigIntegerField): ...


class _GateInt(_OfGate, IntegerField): ...


class _Id(BigAutoField):
    """Never repeat an id: ``discard 17`` must not hit a newer flag."""

    def ddl(self, context):
        return NodeList((super().ddl(context), SQL("AUTOINCREMENT")))


def _as_text(value: Any) -> Any:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


class _Text(TextField):
    """Read bytes that were put there by hand, too."""

    def adapt(self, value):
        return super().adapt(_as_text(value))


def _default(value: str) -> list:
    return [SQL(f"DEFAULT {value}")]


class Flag(Model):
    """Say that work is owed. Unique by (kind, key); a lowered flag has no row."""

    id = _Id()
    kind = _Text()
    key = _Text()
    payload = _Text()
    state = _Text(constraints=[*_default("'waiting'"), Check("state IN ('waiting', 'claimed', 'dead')")])
    priority = _Small(constraints=_default("0"))
    due_at = _Big()
    raised_at = _Big()
    raised_as = _Text(constraints=_default("'new'"))
    generation = _Big(constraints=_default("1"))
    attempts = _Int(constraints=_default("0"))
    crashes = _Int(constraints=_default("0"))
    suspect = _Int(constraints=_default("0"))
    cursor = _Text(null=True)
    error = _Text(null=True)
    died_at = _Big(null=True)
    claim_token = _Big(null=True)
    claimed_by = _Big(null=True)
    claimed_at = _Big(null=True)
    claimed_generation = _Big(null=True)
    settled_at = _Big(null=True)
    expires_at = _Big(null=True)
    first_at = _Big(null=True)
    """When it was first raised, where raises put it off."""
    covered = _Big(constraints=_default("0"))
    """The generation that its last success has done."""
    bucket = _Text(null=True)
    schedule = _Text(null=True)
    zone = _Text(null=True)
    intended = _Big(null=True)
    missed = _Int(constraints=_default("0"))
    strikes = _Int(constraints=_default("0"))
    """Failures since its last success that progress has made good, and deaths of its process, each of which counts as many."""
    died_as = _Text(null=True)
    """What tells deaths of one cause from others; as ``gates/fingerprint.py`` says, or a word such as ``crashed``."""
    trace = _Text(null=True)
    """Of what its raise was a part, as W3C's ``traceparent``."""

    class Meta:
        table_name = "flagsweep_flag"


CLAIMED = SQL("state = 'claimed'")
"""What is claimed. No parameter: of one SQLite does not know that the index of the claimed will do."""

WAITING = SQL("state = 'waiting'")
"""The same of what waits."""

# Indexes are named by hand: Peewee would name them after the class, and a site may have a Flag or a History of its own.
Flag.add_index(Flag.index(Flag.kind, Flag.key, unique=True, name="flagsweep_flag_kind_key"))
Flag.add_index(
    Flag.index(Flag.kind, Flag.priority, Flag.due_at, Flag.id, where=Flag.state == "waiting", name="flagsweep_waiting")
)
Flag.add_index(Flag.index(Flag.claimed_by, Flag.claim_token, where=Flag.state == "claimed", name="flagsweep_claimed"))
Flag.add_index(Flag.index(Flag.kind, Flag.id, where=Flag.state == "dead", name="flagsweep_dead"))
Flag.add_index(Flag.index(Flag.kind, Flag.died_as, Flag.died_at, where=Flag.state == "dead", name="flagsweep_dead_group"))


class Consumer(Model):
    """Name who claims. Whether it lives is asked of the lease, never of this row."""

    id = _Id()
    mode = _Text()
    pid = _Int()
    host = _Text()
    started_at = _Big()
    comebacks = _Int(default=0)
    """How often it has lost its lease and taken it again."""
    app = _Text(null=True)
    """The modules that its handlers are in."""
    ticked_at = _Big(null=True)
    """When it last said that it goes on: each minute, if it stays."""
    lanes = _Text(null=True)
    """What it said then of its lanes, as JSON: ``swept_at``, ``running``, ``threads``, ``seat`` and ``kinds`` of each."""

    class Meta:
        table_name = "flagsweep_consumer"


class History(Model):
    """Keep what became of flags that went without success, and of successes where their kind says so."""

    id = _Id()
    at = _Big()
    flag = _Big()
    kind = _Text()
    key = _Text()
    event = _Text()
    reason = _Text()
    attempt = _Int(null=True)
    took = _Big(null=True)
    """Microseconds that the handler ran."""
    generation = _Big(null=True)
    """The raise that the run had seen, where its kind keeps results."""
    consumer = _Big(null=True)
    result = _Text(null=True)
    """What the handler returned, or how it failed, as JSON."""

    class Meta:
        table_name = "flagsweep_history"


History.add_index(History.index(History.at, name="flagsweep_history_at"))
History.add_index(History.index(History.flag, History.generation, name="flagsweep_history_flag"))
History.add_index(History.index(History.kind, History.at, name="flagsweep_history_kind"))


class Schedule(Model):
    """Say when flags of a kind are raised. ``schedules/`` reads and writes it."""

    name = _Text(primary_key=True)
    kind = _Text()
    key = _Text()
    """That of its flag; empty where each occurrence has one of its own."""
    payload = _Text()
    sort = _Text()
    spec = _Text()
    zone = _Text()
    missed = _Text()
    grace = _Big()
    cap = _Int()
    next_at = _Big(null=True)
    last_at = _Big(null=True)
    """The latest time that it was fired for."""
    fired_at = _Big(null=True)
    skipped = _Big(constraints=_default("0"))
    """How many times it was not fired for."""
    outcome = _Text(null=True)
    """How its last run ended, and when."""
    ended_at = _Big(null=True)
    origin = _Text()
    module = _Text(null=True)
    """The module that declares it."""
    code = _Text(null=True)
    """What that says, where a hand has changed something."""
    changed = _Text(null=True)
    changed_by = _Text(null=True)
    changed_at = _Big(null=True)
    paused_at = _Big(null=True)
    paused_by = _Text(null=True)
    paused_until = _Big(null=True)
    reason = _Text(null=True)
    created_at = _Big()

    class Meta:
        table_name = "flagsweep_schedule"


class Gate(Model):
    """Say how much of a kind, a lane or all may be done just now. ``gates/`` reads and writes it."""

    sort = _Text()
    name = _Text()
    bucket = _Text(constraints=_default("''"))
    paused_at = _GateBig(null=True)
    paused_by = _Text(null=True)
    paused_until = _GateBig(null=True)
    reason = _Text(null=True)
    closed_until = _GateBig(null=True)
    closed_why = _Text(null=True)
    taken = _GateBig(null=True)
    day = _GateInt(null=True)
    used = _GateBig(null=True)
    breaker = _Text(null=True)
    threads = _GateInt(null=True)

    class Meta:
        table_name = "flagsweep_gate"
        primary_key = CompositeKey("sort", "name", "bucket")


class Hold(Model):
    """Say how many flags of a kind a consumer may run at once, of those that may run at all."""

    kind = _Text()
    consumer = _Big()
    slots = _Int()

    class Meta:
        table_name = "flagsweep_hold"
        primary_key = CompositeKey("kind", "consumer")


class Pulse(Model):
    """Hold a row for each change of a schedule or a gate, so that one look tells whether to read them again.

    A number that is counted up would be locked by who changes something in a long transaction, and everybody else would wait.
    """

    id = _Id()
    what = _Text()
    """``schedule`` or ``gate``."""

    class Meta:
        table_name = "flagsweep_pulse"


class Fact(Model):
    """Keep a small note that is to outlast whoever wrote it: which consumer was the last, which application served a kind."""

    name = _Text(primary_key=True)
    value = _Text()
    at = _Big()

    class Meta:
        table_name = "flagsweep_fact"


class Count(Model):
    """Count what became of the flags of a kind within a minute or an hour, by each consumer."""

    kind = _Text()
    span = _Int()
    at = _Big()
    consumer = _Big()
    succeeded, failed, dead, snoozed, discarded, expired, spent, waited, longest = (
        _Big(constraints=_default("0")) for _ in range(9)
    )
    d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, d10, d11, d12 = (_Big(constraints=_default("0")) for _ in range(13))

    class Meta:
        table_name = "flagsweep_count"
        primary_key = CompositeKey("kind", "span", "at", "consumer")


class _Raised(NamedTuple):
    id: int
    how: str


class Raised(_Raised):
    """Tell what a raise did: ``new``, ``coalesced`` (it was up), ``bumped`` (it runs once more) or ``revived`` (it was dead).

    It is the pair of the flag's id and that; ``flags.result`` takes it.
    """

    generation: int
    """How often the flag was raised, this raise included: by it a run is known that began after it."""
    is_pending: Callable[[], bool] = staticmethod(lambda: False)
    """Returns whether its transaction is open still, on a connection of the site's that is not ``flags.database``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Raised, (*self, self.generation)

    def __new__(cls, id: int, how: str, generation: int = 1) -> Raised:
        self = super().__new__(cls, id, how)
        self.generation = generation
        return self


class SiteVerbs:
    """Do what the site asks, on its own connection, in the transaction that it may have open."""

    def __init__(self, connections: Connections):
        self.connections = connections
        self.dialect = connections.dialect
        self.commits = connections.site
        """What tells of the commit that a raise is a part of."""
        self._pages = Pages(connections)

    def raise_(self, kind: str, item: Item, terms: Terms) -> Raised:
        """Put a flag up, in the transaction that the caller may have open. One statement, whatever the flag's state was."""
        with self.connections.lent("the flag was not raised") as db:
            return Raised(*self.dialect.raise_(db, kind, item, terms))

    def raise_many(self, kind: str, chunks: Sequence[str], terms: Terms) -> Counter[str]:
        """Put many flags up in one transaction; return how many were new, coalesced, bumped and revived.

        :param chunks: JSON arrays; an item is a payload that is its own key, or ``[key, payload, bucket]``.
        """
        counts: Counter[str] = Counter()
        with self.connections.lent("no flag was raised") as db, db.atomic():
            for chunk in chunks:
                counts.update(self.dialect.raise_many(db, kind, chunk, terms))
        return counts

    def row_key(self, query: Any) -> str | None:
        """Return the first value that a question to the site's own tables brings, as the site sees them, or None."""
        with self.connections.lent("the flag was not raised") as db:
            found = next(iter(query.limit(1).tuples().execute(db)), None)
        return None if found is None else str(found[0])

    def find(self, where: Iterable[Any], limit: int | None = None, keep: Keep = None) -> list[Flag]:
        """Return the flags that meet all the conditions, lowest id first.

        :param keep: which errors are meant.
        """
        query = Flag.select().order_by(Flag.id).limit(limit)
        for condition in where:
            query = query.where(condition)
        with self.connections.lent("flags could not be read") as db, self.dialect.lenient(db):
            if keep is not None:
                ids = list(islice((id for some in found(db, list(where), keep) for id in some), limit))
                query = Flag.select().order_by(Flag.id).where(Flag.id.in_(ids))
            return list(query.execute(db))

    def count(self, where: Sequence[Any], keep: Keep = None) -> int:
        """Return how many flags meet all the conditions."""
        with self.connections.lent("flags could not be counted") as db, self.dialect.lenient(db):
            if keep is not None:
                return sum(len(ids) for ids in found(db, where, keep))
            return int(next(iter(Flag.select(fn.COUNT(SQL("*"))).where(*where).tuples().execute(db)))[0])

    def counts(self, now: int, patience: float | None = PATIENCE) -> Counts:
        """Return (kind, state, how many, how many due, earliest due time) for what is up.

        :param patience: seconds within which a server is to have counted all; None: it takes its time.
        """
        return self._counted(self.dialect.counts, now, patience)

    def due_counts(self, now: int, patience: float | None = PATIENCE) -> Counts:
        """Return (kind, how many due, earliest due time) for what waits."""
        return self._counted(self.dialect.due_counts, now, patience)

    def _counted(self, ask: Callable[..., tuple[list[Any], bool]], now: int, patience: float | None) -> Counts:
        with self.connections.lent("flags could not be counted") as db, self.dialect.lenient(db):
            rows, exact = ask(db, now, patience)
            return Counts(((_as_text(kind), *more) for kind, *more in rows), exact)

    def kinds_up(self) -> list[str]:
        """Return the kinds of which flags are up, without reading all flags."""
        with self.connections.lent("kinds could not be read") as db, self.dialect.lenient(db):
            found = {kind for state in ("waiting", "claimed", "dead") for kind in self.dialect.kinds_in(db, state)}
        return sorted(map(_as_text, found))

    def dead_kinds(self) -> list[str]:
        """Return the kinds of which flags are dead, without counting them."""
        with self.connections.lent("kinds could not be read") as db, self.dialect.lenient(db):
            return [_as_text(kind) for kind in self.dialect.kinds_in(db, "dead")]

    def graves(self, kind: str | None, most: int, patience: float | None = PATIENCE) -> list[tuple[Any, ...]]:
        """Return (kind, what they died of, how many, when the first and the last died, whether all were counted) of the dead."""
        with self.connections.lent("dead flags could not be read") as db, self.dialect.lenient(db):
            rows = self.dialect.grouped(db, kind, most, patience)
            if rows is not None:
                return [(*row, True) for row in rows]
            groups = islice((group for group in self.dialect.dead_groups(db) if kind in (None, group[0])), most)
            some = (self.dialect.some_of(db, group, SOME) for group in groups)
            return [(*row, row[2] < SOME) for row in some if row[2]]

    def latest_dead(self, group: Group, most: int) -> list[tuple[int, Any, Any, Any]]:
        """Return id, key, died_at and error of those of a group that died last."""
        with self.connections.lent("dead flags could not be read") as db, self.dialect.lenient(db):
            return self.dialect.latest_of(db, group, most)

    def retry_dead(self, where: Sequence[Any], now: int, keep: Keep = None, rate: Pace = None, progress: Progress = None) -> int:
        """Let dead flags wait again from scratch; return how many.

        :param keep: which errors are meant, of flags that meet all the conditions.
        :param rate: so many within so many microseconds, and how many came before: each is due in its turn. None: all at once.
        """
        turn = rate[2] if rate else 0

        def again(ids: Sequence[int]) -> int:
            nonlocal turn
            dead = [row[0] for row in Flag.select(Flag.id).where(Flag.id.in_(ids), Flag.state == "dead").tuples().execute(db)]
            done = self.dialect.retry(db, dead, now) if dead else 0
            if rate and dead:
                self.dialect.space(db, sorted(dead), now, turn, rate[0], rate[1])
                turn += len(dead)
            return done

        with self.connections.lent("flags were not retried") as db, self.dialect.lenient(db):
            return self._pages.do(db, found(db, [Flag.state == "dead", *where], keep), again, progress)

    def retry(self, where: Sequence[Any], now: int, progress: Progress = None) -> int:
        """Let dead flags wait again from scratch, and those backing off be due at once; return how many."""
        done = 0
        with self.connections.lent("flags were not retried") as db:
            for may in (Flag.state == "dead", (Flag.state == "waiting") & (Flag.attempts > 0)):
                done = self._pages.do(db, found(db, [may, *where]), lambda ids: self.dialect.retry(db, ids, now), progress, done)
        return done

    def discard(
        self,
        where: Sequence[Any],
        reason: str,
        now: int,
        kinds: Sequence[str] = (),
        lower: Callable[[Iterable[Flag]], None] = lambda flags: None,
        progress: Progress = None,
        keep: Keep = None,
    ) -> int:
        """Drop dead flags and keep a line of history for each; return how many.

        :param kinds: those of which ``lower`` is told what is dropped, within its transaction.
        """

        def drop(ids: Sequence[int]) -> int:
            if kinds:
                these = (Flag.state == "dead", Flag.id.in_(ids), Flag.kind.in_(kinds))
                lower(list(Flag.select(Flag.kind, Flag.key).where(*these).execute(db)))
            return self.dialect.drop_dead(db, ids, reason, now)

        with self.connections.lent("flags were not discarded") as db:
            return self._pages.do(db, found(db, [Flag.state == "dead", *where], keep), drop, progress)

    def drop_waiting(self, where: Sequence[Any], reason: str, now: int, progress: Progress = None) -> int:
        """Take down flags that wait, with a line of history for each; return how many."""

        def drop(ids: Sequence[int]) -> int:
            rows = list(Flag.select(Flag.id, Flag.kind, Flag.key).where(Flag.id.in_(ids), Flag.state == "waiting").execute(db))
            Flag.delete().where(Flag.id.in_([row.id for row in rows]), Flag.state == "waiting").execute(db)
            record(db, [Event(row.id, row.kind, row.key, "lowered by hand", reason) for row in rows], now)
            return len(rows)

        with self.connections.lent("flags were not dropped") as db:
            return self._pages.do(db, found(db, where), drop, progress)

    def lower_one(self, kind: str, key: str, now: int) -> bool:
        """Take a flag down, whatever its state; a handler that runs just now goes on, and its result counts for nothing."""
        with self.connections.lent("the flag was not lowered") as db, db.atomic():
            found = list(Flag.select(Flag.id, Flag.state).where(Flag.kind == kind, Flag.key == key).execute(db))
            for flag in found:
                Flag.delete().where(Flag.id == flag.id).execute(db)
                record(db, [Event(flag.id, kind, key, "lowered by hand", f"was {flag.state}")], now)
        return bool(found)


def found(db: Database, where: Sequence[Any], keep: Keep = None) -> Iterator[list[int]]:
    """Yield the ids of the flags that meet all the conditions, upwards, so that it ends whatever others do meanwhile.

    :param keep: which errors are meant.
    """
    last, columns, most = 0, (Flag.id,) if keep is None else (Flag.id, Flag.error), IDS if keep is None else PAGE
    query = Flag.select(*columns).where(*where).order_by(Flag.id).limit(most).tuples()
    while rows := list(query.where(Flag.id > last).execute(db)):
        yield [row[0] for row in rows if keep is None or keep(_as_text(row[1]))]
        last = rows[-1][0]


def in_error(text: str) -> Any:
    """Return the condition that an error has a text in it, in whatever case."""
    return fn.LOWER(Flag.error).contains(text.lower())


class Event(NamedTuple):
    """Be a line of history.

    :param event: ``failed``, ``dead``, ``succeeded``, ``discarded``, ``expired``, ``skipped`` or ``lowered by hand``.
    :param took: microseconds that the handler ran.
    :param generation: the raise that the run had seen, where its kind keeps results.
    :param consumer: who ran it.
    :param result: what the handler returned, or how it failed, as JSON.
    """

    flag: int
    kind: str
    key: str
    event: str
    reason: str
    attempt: int | None = None
    took: int | None = None
    generation: int | None = None
    consumer: int | None = None
    result: str | None = None


def record(db: Database, events: Iterable[Event], now: int) -> None:
    """Write history."""
    for some in _in_parts(events):
        History.insert_many([{**event._asdict(), "at": now} for event in some]).execute(db)


def _in_parts(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Yield events as many at a time as go into one statement, with what their handlers returned."""
    part: list[Event] = []
    size = 0
    for event in events:
        if part and (len(part) == MANY or size + len(event.result or "") > CHUNK_BYTES):
            yield part
            part, size = [], 0
        part.append(event)
        size += len(event.result or "")
    if part:
        yield part


def gates(db: Database) -> list[Gate]:
    """Return the gates of all, of lanes and of kinds; those of buckets, which may be many, are read one by one."""
    return list(Gate.select().where(Gate.bucket == "").execute(db))


def bump(db: Database, what: str = "schedule") -> None:
    """Have everybody read schedules and gates again.

    :param what: ``schedule`` or ``gate``, whichever was changed.
    """
    Pulse.insert(what=what).execute(db)


def facts(db: Database, prefix: str = "") -> list[Fact]:
    """Return the notes whose names begin so, by name."""
    after = Fact.name < prefix + "\U0010ffff"
    return list(Fact.select().where(Fact.name >= prefix, after).order_by(Fact.name).execute(db))


def fact(db: Database, name: str) -> Fact | None:
    """Return one note, or None."""
    return next(iter(Fact.select().where(Fact.name == name).execute(db)), None)


def forget_fact(db: Database, name: str) -> bool:
    """Drop a note; return whether there was one."""
    return bool(Fact.delete().where(Fact.name == name).execute(db))

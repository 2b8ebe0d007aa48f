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
from typing import Any, NamedTuple

from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    Check,
    Database,
    IntegerField,
    Model,
    NodeList,
    SmallIntegerField,
    TextField,
)

from .databases.connections import Connections
from .databases.errors import DATABASE_ERRORS
from .databases.pages import Pages, Progress
from .errors import DatabaseAway, NotReady

AWAY: tuple[type[Exception], ...] = (*DATABASE_ERRORS, NotReady, DatabaseAway)
"""What a sweep takes for a database that is away: it is tried again, and nothing is lost."""

IDS = 50_000
"""Ids that are looked up at once."""

MANY = 100
"""Lines of history in one statement: with the longest errors still less than a server takes."""


class _Id(BigAutoField):
    """Never repeat an id: ``discard 17`` must not hit a newer flag."""

    def ddl(self, context):
        return NodeList((super().ddl(context), SQL("AUTOINCREMENT")))


class _Text(TextField):
    """Read bytes that were put there by hand, too."""

    def adapt(self, value):
        return value.decode(errors="backslashreplace") if isinstance(value, bytes) else super().adapt(value)


def _default(value: str) -> list:
    return [SQL(f"DEFAULT {value}")]


class Flag(Model):
    """Say that work is owed. Unique by (kind, key); a lowered flag has no row."""

    id = _Id()
    kind = _Text()
    key = _Text()
    payload = _Text()
    state = _Text(constraints=[*_default("'waiting'"), Check("state IN ('waiting', 'claimed', 'dead')")])
    priority = SmallIntegerField(constraints=_default("0"))
    due_at = BigIntegerField()
    raised_at = BigIntegerField()
    raised_as = TextField(constraints=_default("'new'"))
    generation = BigIntegerField(constraints=_default("1"))
    attempts = IntegerField(constraints=_default("0"))
    crashes = IntegerField(constraints=_default("0"))
    suspect = IntegerField(constraints=_default("0"))
    cursor = _Text(null=True)
    error = _Text(null=True)
    died_at = BigIntegerField(null=True)
    claim_token = BigIntegerField(null=True)
    claimed_by = BigIntegerField(null=True)
    claimed_at = BigIntegerField(null=True)
    claimed_generation = BigIntegerField(null=True)
    settled_at = BigIntegerField(null=True)

    class Meta:
        table_name = "flagsweep_flag"


# Indexes are named by hand: Peewee would name them after the class, and a site may have a Flag or a History of its own.
Flag.add_index(Flag.index(Flag.kind, Flag.key, unique=True, name="flagsweep_flag_kind_key"))
Flag.add_index(
    Flag.index(Flag.kind, Flag.priority, Flag.due_at, Flag.id, where=Flag.state == "waiting", name="flagsweep_waiting")
)
Flag.add_index(Flag.index(Flag.claimed_by, Flag.claim_token, where=Flag.state == "claimed", name="flagsweep_claimed"))
Flag.add_index(Flag.index(Flag.kind, Flag.id, where=Flag.state == "dead", name="flagsweep_dead"))


class Consumer(Model):
    """Name who claims. Whether it lives is asked of the lease, never of this row."""

    id = _Id()
    mode = TextField()
    pid = IntegerField()
    host = TextField()
    started_at = BigIntegerField()
    comebacks = IntegerField(default=0)
    """How often it has lost its lease and taken it again."""

    class Meta:
        table_name = "flagsweep_consumer"


class History(Model):
    """Keep what became of flags that went without success."""

    id = _Id()
    at = BigIntegerField()
    flag = BigIntegerField()
    kind = TextField()
    key = TextField()
    event = TextField()
    reason = TextField()

    class Meta:
        table_name = "flagsweep_history"


History.add_index(History.index(History.at, name="flagsweep_history_at"))


class Raised(NamedTuple):
    """Tell what a raise did: ``new``, ``coalesced`` (it was up), ``bumped`` (it runs once more) or ``revived`` (it was dead)."""

    id: int
    how: str


class SiteVerbs:
    """Do what the site asks, on its own connection, in the transaction that it may have open."""

    def __init__(self, connections: Connections):
        self.connections = connections
        self.dialect = connections.dialect
        self._pages = Pages(connections)

    def raise_(self, kind: str, key: str, payload: str, priority: int, due_at: int, now: int) -> Raised:
        """Put a flag up, in the transaction that the caller may have open. One statement, whatever the flag's state was."""
        with self.connections.lent("the flag was not raised") as db:
            return Raised(*self.dialect.raise_(db, kind, key, payload, priority, due_at, now))

    def raise_many(self, kind: str, chunks: Sequence[str], priority: int, due_at: int, now: int) -> Counter[str]:
        """Put many flags up in one transaction; return how many were new, coalesced, bumped and revived.

        :param chunks: JSON arrays; an item is a payload that is its own key, or ``[key, payload]``.
        """
        counts: Counter[str] = Counter()
        with self.connections.lent("no flag was raised") as db, db.atomic():
            for chunk in chunks:
                counts.update(self.dialect.raise_many(db, kind, chunk, priority, due_at, now))
        return counts

    def row_key(self, query: Any) -> str | None:
        """Return the first value that a question to the site's own tables brings, as the site sees them, or None."""
        with self.connections.lent("the flag was not raised") as db:
            found = next(iter(query.limit(1).tuples().execute(db)), None)
        return None if found is None else str(found[0])

    def find(self, where: Iterable[Any], limit: int | None = None) -> list[Flag]:
        """Return the flags that meet all the conditions, lowest id first."""
        query = Flag.select().order_by(Flag.id).limit(limit)
        for condition in where:
            query = query.where(condition)
        with self.connections.lent("flags could not be read") as db, self.dialect.lenient(db):
            return list(query.execute(db))

    def counts(self, now: int) -> list[tuple[str, str, int, int, int | None]]:
        """Return (kind, state, how many, how many due, earliest due time) for what is up."""
        with self.connections.lent("flags could not be counted") as db, self.dialect.lenient(db):
            return self.dialect.counts(db, now)

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
            return self._pages.do(db, found(db, [Flag.state == "dead", *where]), drop, progress)

    def lower_one(self, kind: str, key: str, now: int) -> bool:
        """Take a flag down, whatever its state; a handler that runs just now goes on, and its result counts for nothing."""
        with self.connections.lent("the flag was not lowered") as db, db.atomic():
            found = list(Flag.select(Flag.id, Flag.state).where(Flag.kind == kind, Flag.key == key).execute(db))
            for flag in found:
                Flag.delete().where(Flag.id == flag.id).execute(db)
                record(db, [(flag.id, kind, key, "lowered by hand", f"was {flag.state}")], now)
        return bool(found)


def found(db: Database, where: Sequence[Any]) -> Iterator[list[int]]:
    """Yield the ids of the flags that meet all the conditions, upwards, so that it ends whatever others do meanwhile."""
    last, query = 0, Flag.select(Flag.id).where(*where).order_by(Flag.id).limit(IDS).tuples()
    while ids := [row[0] for row in query.where(Flag.id > last).execute(db)]:
        yield ids
        last = ids[-1]


def record(db: Database, events: Iterable[tuple[int, str, str, str, str]], now: int) -> None:
    """Write history: (flag, kind, key, event, reason) each."""
    rows = [dict(zip(("flag", "kind", "key", "event", "reason"), event, strict=True), at=now) for event in events]
    for start in range(0, len(rows), MANY):
        History.insert_many(rows[start : start + MANY]).execute(db)

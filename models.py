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
``dialects/`` has the text of every statement.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
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

from .databases import schema
from .databases.dialect import DATABASE_ERRORS, Dialect
from .databases.pacer import Pacer
from .databases.spare import Spare
from .errors import DatabaseAway, FlagSweepError, NotReady

AWAY: tuple[type[Exception], ...] = (*DATABASE_ERRORS, NotReady, DatabaseAway)
"""What a sweep takes for a database that is away: it is tried again, and nothing is lost."""

PAGE = 2000
"""The most flags of one transaction of a verb over many."""

IDS = 50_000
"""Ids that are looked up at once."""

TRIES = 10
"""How often a short transaction of ours is tried that others were in the way of."""

PATIENCE, PAUSE = 3, 0.02
"""How often, and how many seconds later, what an open transaction of somebody else held is looked at again."""

SHARE, SERVER_SHARE = 0.4, 0.8
"""The share of time in which a verb over many flags holds SQLite's writer, or row locks on a server; the rest is the site's."""

MANY = 100
"""Lines of history in one statement: with the longest errors still less than a server takes."""

CRASHES = 3
"""A flag that has crashed the process this often is dead."""


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


Progress = Callable[[int], Any] | None
"""What is told how many flags are done, between two transactions; what it raises ends the work there."""


class Raised(NamedTuple):
    """Tell what a raise did: ``new``, ``coalesced`` (it was up), ``bumped`` (it runs once more) or ``revived`` (it was dead)."""

    id: int
    how: str


class SiteStore:
    """Do the verbs on one database.

    :param site: the site's database: raises, and what people ask for, go through it and join its transactions.
    :param engine: our own connections to the same database, for claiming and settling; the same object for ``:memory:``.
    :param where: what people know the database by, without a password.
    :param file: the file it is, if it is one.
    ``name`` is what the site's object called its database when this was made.

    :param session: makes a database object with one connection of its own, where it is a server.
    """

    def __init__(
        self,
        site: Database,
        engine: Database,
        dialect: Dialect,
        where: str,
        file: Path | None = None,
        session: Callable[[], Database] | None = None,
    ):
        self.site = site
        self.engine = engine
        self.dialect = dialect
        self.where = where
        self.file = file
        self.session = session
        self.spare = Spare.of(site, dialect.is_stale)
        self.name = site.database
        self.writing = threading.RLock()

    @property
    def in_memory(self) -> bool:
        """Whether no other process, and no other thread, can see this database."""
        return self.engine is self.site

    def attached(self) -> tuple[str, ...]:
        """Return the names of the SQLite databases that the site has attached; connections of ours do when they open."""
        return tuple(getattr(self.site, "_attached", ()))

    # The site's side.

    def raise_(self, kind: str, key: str, payload: str, priority: int, due_at: int, now: int) -> Raised:
        """Put a flag up, in the transaction that the caller may have open. One statement, whatever the flag's state was."""
        with self.explained("the flag was not raised"), self.borrowed() as db:
            return Raised(*self.dialect.raise_(db, kind, key, payload, priority, due_at, now))

    def raise_many(self, kind: str, chunks: Sequence[str], priority: int, due_at: int, now: int) -> Counter[str]:
        """Put many flags up in one transaction; return how many were new, coalesced, bumped and revived.

        :param chunks: JSON arrays; an item is a payload that is its own key, or ``[key, payload]``.
        """
        counts: Counter[str] = Counter()
        with self.explained("no flag was raised"), self.borrowed() as db, db.atomic():
            for chunk in chunks:
                counts.update(self.dialect.raise_many(db, kind, chunk, priority, due_at, now))
        return counts

    def row_key(self, query: Any) -> str | None:
        """Return the first value that a question to the site's own tables brings, as the site sees them, or None."""
        with self.explained("the flag was not raised"), self.borrowed() as db:
            found = next(iter(query.limit(1).tuples().execute(db)), None)
        return None if found is None else str(found[0])

    def find(self, where: Iterable[Any], limit: int | None = None) -> list[Flag]:
        """Return the flags that meet all the conditions, lowest id first."""
        query = Flag.select().order_by(Flag.id).limit(limit)
        for condition in where:
            query = query.where(condition)
        with self.explained("flags could not be read"), self.borrowed() as db, self.dialect.lenient(db):
            return list(query.execute(db))

    def counts(self, now: int) -> list[tuple[str, str, int, int, int | None]]:
        """Return (kind, state, how many, how many due, earliest due time) for what is up."""
        with self.explained("flags could not be counted"), self.borrowed() as db, self.dialect.lenient(db):
            return self.dialect.counts(db, now)

    def retry(self, where: Sequence[Any], now: int, progress: Progress = None) -> int:
        """Let dead flags wait again from scratch, and those backing off be due at once; return how many."""
        done = 0
        with self.explained("flags were not retried"), self.borrowed() as db:
            for may in (Flag.state == "dead", (Flag.state == "waiting") & (Flag.attempts > 0)):
                found = self.found(db, [may, *where])
                done = self.in_pages(db, found, lambda ids: self.dialect.retry(db, ids, now), progress, done)
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

        with self.explained("flags were not discarded"), self.borrowed() as db:
            return self.in_pages(db, self.found(db, [Flag.state == "dead", *where]), drop, progress)

    def found(self, db: Database, where: Sequence[Any]) -> Iterator[list[int]]:
        """Yield the ids of the flags that meet all the conditions, upwards, so that it ends whatever others do meanwhile."""
        last, query = 0, Flag.select(Flag.id).where(*where).order_by(Flag.id).limit(IDS).tuples()
        while ids := [row[0] for row in query.where(Flag.id > last).execute(db)]:
            yield ids
            last = ids[-1]

    def in_pages(
        self,
        db: Database,
        found: Iterable[list[int]],
        do: Callable[[Sequence[int]], int],
        progress: Progress = None,
        done: int = 0,
    ) -> int:
        """Do something with many flags, some at a time, each time in a short transaction; the site finds its turn in between.

        Within a transaction of the caller's all is a part of that one. On a server, what an open transaction of somebody else
        holds is left out.

        :param found: ids, as many at a time as they come.
        :param do: gets ids, and returns how many flags it was done to.
        :param done: how many there were before; what all come to is returned.
        """
        joins = db.transaction_depth() > 0
        pacer = Pacer(1.0 if joins else SHARE if self.dialect.one_writer else SERVER_SHARE, PAGE)
        held: list[int] = []
        for chunk in found:
            done = self._over(db, chunk, do, pacer, progress, done, held)
        for _ in range(0 if joins else PATIENCE):  # Who held them may only have passed by, as another who does the same.
            if held:
                time.sleep(PAUSE)
                again, held = held, []
                done = self._over(db, again, do, pacer, progress, done, held)
        return done

    def _over(
        self,
        db: Database,
        ids: list[int],
        do: Callable[[Sequence[int]], int],
        pacer: Pacer,
        progress: Progress,
        done: int,
        held: list[int],
    ) -> int:
        while ids:
            page, ids = ids[: pacer.batch], ids[pacer.batch :]
            count, others = self._in_a_page(db, page, do, pacer)
            done += count
            held += others
            if progress is not None:
                progress(done)
        return done

    def _in_a_page(
        self, db: Database, page: Sequence[int], do: Callable[[Sequence[int]], int], pacer: Pacer
    ) -> tuple[int, list[int]]:
        """Do it in one transaction; return to how many flags, and which of them somebody else held, or are gone."""
        joins = db.transaction_depth() > 0
        for left in reversed(range(TRIES)):
            pacer.turn()
            try:
                with self.write() if db is self.engine and not self.in_memory else db.atomic(*self.dialect.begin):
                    began = time.monotonic()
                    free = self.dialect.free(db, page)
                    done = do(free) if free else 0
                pacer.ended(began, len(page))
                return done, [] if len(free) == len(page) else sorted(set(page) - set(free))
            except DATABASE_ERRORS as error:  # Two that act on the same flags may have deadlocked.
                if joins or self.dialect.one_writer or not left or not self.dialect.is_busy(error):
                    raise
        raise AssertionError("a loop over no tries")

    def lower_one(self, kind: str, key: str, now: int) -> bool:
        """Take a flag down, whatever its state; a handler that runs just now goes on, and its result counts for nothing."""
        with self.explained("the flag was not lowered"), self.borrowed() as db, db.atomic():
            found = list(Flag.select(Flag.id, Flag.state).where(Flag.kind == kind, Flag.key == key).execute(db))
            for flag in found:
                Flag.delete().where(Flag.id == flag.id).execute(db)
                self.record(db, [(flag.id, kind, key, "lowered by hand", f"was {flag.state}")], now)
        return bool(found)

    def record(self, db: Database, events: Iterable[tuple[int, str, str, str, str]], now: int) -> None:
        """Write history: (flag, kind, key, event, reason) each."""
        rows = [dict(zip(("flag", "kind", "key", "event", "reason"), event, strict=True), at=now) for event in events]
        for start in range(0, len(rows), MANY):
            History.insert_many(rows[start : start + MANY]).execute(db)

    @contextmanager
    def borrowed(self) -> Iterator[Database]:
        """Lend the site's connection: what found it open leaves it open, what opened it closes it."""
        if not self.site.is_closed():
            self.dialect.refresh(self.site)
            yield self.site
            return
        self._check_file()
        self.site.connect()
        try:
            self.dialect.refresh(self.site)  # A pool may have kept one that the server has ended.
            yield self.site
        except BaseException:
            self.spare.let_go()
            raise
        finally:
            self.spare.put_away()  # It may be closed: a leaked transaction has its connection closed early.

    def _check_file(self) -> None:
        """Refuse to open a database that is not there: the site's own Peewee object would make an empty file unnoticed."""
        if self.file is not None and not self.file.exists():
            raise NotReady(
                f"there is no database {self.where}: run 'flagsweep init' (or call flags.init()) once, or mend the path"
            )

    def close_thread(self) -> None:
        """Close the calling thread's connections, unless one database serves all."""
        for db in () if self.in_memory else (self.site, self.engine):
            if not db.is_closed():
                db.close()

    def close_engine(self) -> None:
        """Close the calling thread's connection of ours."""
        if not self.in_memory and not self.engine.is_closed():
            self.engine.close()

    def create_file(self) -> None:
        """Make the database's file where there is none. Nothing but ``init`` does."""
        if self.file is None:
            return
        try:
            open(self.file, "ab").close() if not self.file.exists() else None
        except OSError as error:
            raise NotReady(
                f"{self.where} cannot be created: {error.strerror}; check the path and the rights of its folder"
            ) from error

    @contextmanager
    def explained(self, failed: str) -> Iterator[None]:
        """Turn a database's error into one that says what failed and what to do."""
        try:
            yield
        except DATABASE_ERRORS as error:
            raise explain(error, failed, self.where, self.dialect) from error

    def init(self, now: int) -> bool:
        """Create or upgrade the tables; return whether anything was missing. Many processes may call it at once."""
        self.dialect.prepare(self.engine)
        with self.write() as db, self.dialect.migrating(db):
            return schema.upgrade(db, self.dialect, self.where, now)

    def version(self) -> int | None:
        """Return the version of the tables that are there, or None."""
        return schema.version(self.engine)

    def misfit(self) -> str:
        """Return what a setting asks of the tables and they do not have, or have and no setting asks for; or nothing."""
        return self.dialect.misfit(self.engine)

    def check_schema(self, version: int | None) -> None:
        """Refuse tables that this code cannot work with.

        :raises NotReady: where they are missing, older or newer.
        """
        schema.check(self.where, version)

    @contextmanager
    def write(self, only_claims: bool = False) -> Iterator[Database]:
        """Hold one write transaction of the engine.

        :param only_claims: nothing but claims is written, each of which may commit by itself.
        """
        with self.writing if self.dialect.one_writer else nullcontext(), self.dialect.transaction(self.engine, only_claims):
            yield self.engine

    def undoable(self) -> AbstractContextManager[None]:
        """Within a ``write``: where this part fails, undo it alone, unless the whole transaction has ended by itself."""
        return self.dialect.undoable(self.engine)


def explain(error: Exception, failed: str, where: str, dialect: Dialect) -> FlagSweepError:
    """Turn a database's error into one that says what failed, where, and what to do."""
    kind = NotReady if dialect.is_missing(error) else DatabaseAway
    fix = dialect.hint(error) or "'flagsweep doctor' looks further"
    return kind(f"{failed}: {where}: {' '.join(str(error).split())}; {fix}")

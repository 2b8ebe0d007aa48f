"""Claims: the verbs of a sweep and of a consumer. ``models.py`` has the tables, the state table and the site's verbs."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from peewee import Case, Database, Field, Model, Node, Select

from ..config import SECOND
from ..databases.pacer import Pacer
from ..databases.schema import Schema
from ..errors import ClaimLost, DatabaseAway, NotReady
from ..models import PAGE, SHARE, Consumer, Flag, History, SiteStore

CRASHES = 3
"""A flag that has crashed the process this often is dead."""


class Claimed:
    """Hold one claimed flag on its way through a handler."""

    __slots__ = ("attempts", "cursor", "due_at", "era", "id", "key", "kind", "payload", "row", "suspect", "token", "trouble")

    def __init__(self, kind: str, token: int, row: Sequence[Any]):
        self.kind = kind
        self.token = token
        self.era = 0
        """Under which of its consumer's ids it was claimed, as ``Pool`` counts them."""
        self.row: Any = None
        self.trouble: BaseException | None = None
        self.due_at, self.id, self.key, self.payload, self.attempts, self.suspect, self.cursor = row


class Step(NamedTuple):
    """Describe how one claimed flag leaves *claimed* without being lowered.

    :param due: microseconds UTC; ``bumped_due`` and ``bumped_attempts`` hold where it was raised again while it ran.
    :param earlier: where bumped, the raise's own due time wins if it is earlier.
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


class Store(SiteStore):
    """Do every verb on one database: the site's, which it inherits, and those of whoever sweeps."""

    _ours: Mapping[int, Files] = {}
    """What each consumer that is entered through this store has open. Replaced as a whole, never changed."""
    _keeps = False

    @contextmanager
    def write(self, only_claims: bool = False) -> Iterator[Database]:
        with super().write(only_claims) as db:
            self._check_files_are_ours()
            yield db

    def _check_files_are_ours(self) -> None:
        """Refuse to write into files that were moved away or deleted since this consumer was entered: nobody would see it."""
        if reason := self.lost():
            raise DatabaseAway(reason)

    def lost(self) -> str | None:
        """Return why what a consumer of this process has open is no longer the site's database, or None."""
        path = next((path for files in self._ours.values() if (path := files.changed())), None)
        if path is None:
            return None
        if path in self._logs():
            return (
                f"{path} was deleted or replaced while it was in use: what is written into the old one nobody sees; "
                "end every process that has the database open, then start them again"
            )
        return (
            f"{self.where} was replaced or deleted: what was open is no longer the site's database; "
            "start again what is to use the one that is there"
        )

    def has_lost_log(self) -> bool:
        """Return whether the database is there, but not the log that a consumer of this process has open."""
        return any(files.changed() in self._logs() for files in self._ours.values())

    def _logs(self) -> tuple[Path, ...]:
        return () if self.file is None else tuple(self.dialect.logs(self.file.resolve()))

    def left(self, consumer: int) -> None:
        """Forget what a consumer had open: it has left, and the files may be made anew."""
        self._keeps = self._keeps or self.has_lost_log()
        self._ours = {id: files for id, files in self._ours.items() if id != consumer}

    def close_engine(self) -> None:
        """Close the calling thread's connection of ours; but never write a log back that is no longer the database's.

        The thread that has entered a consumer keeps its own until that has left: with the last one SQLite deletes the log.
        """
        if not self.in_memory and not self.engine.is_closed() and (self._keeps or self.has_lost_log()):
            self.dialect.keep_open(self.engine)
        elif not any(files.thread == threading.get_ident() for files in self._ours.values()):
            super().close_engine()

    def agenda(self, kinds: Sequence[str]) -> list[tuple[str, int, int]]:
        """Return (kind, priority, earliest due time) for every priority in use among the waiting flags of these kinds."""
        return self.agenda_of(json.dumps(list(kinds)))

    def agenda_of(self, kinds: str) -> list[tuple[str, int, int]]:
        """Return the agenda for kinds that are a JSON array already."""
        rows = self.dialect.agenda(self.engine, kinds)
        return [row for row in rows if isinstance(row[2], (int, float))]  # A damaged due time is never due.

    def changes(self) -> Any:
        """Return something that differs when any other connection has committed."""
        return self.dialect.changes(self.engine)

    def waiting_kinds(self) -> list[str]:
        """Return the kinds of which flags wait, without reading the flags."""
        with self.dialect.lenient(self.engine):
            return self.dialect.waiting_kinds(self.engine)

    def claim(self, kind: str, priority: int, limit: int, consumer: int, now: int, token: int | None = None) -> list[Claimed]:
        """Take up to ``limit`` due flags of one kind and priority, the longest due first, within a ``write``."""
        token = new_token() if token is None else token
        rows = self.dialect.claim(self.engine, kind, priority, limit, consumer, token, now)
        return [Claimed(kind, token, row) for row in rows]

    def held(self, ids: Sequence[int]) -> set[int]:
        """Lock flags that are to be settled, within a ``write``; return those that an open transaction of somebody else holds."""
        return self.dialect.held(self.engine, ids)

    def lower(self, ids: Sequence[int], token: int) -> tuple[int, int]:
        """Lower what one claim took and did; return how many are gone, and how many wait again since they were raised meanwhile.

        The rest was no longer ours.
        """
        lowered = self.dialect.lower(self.engine, ids, token)
        bumped = self.dialect.lower_bumped(self.engine, ids, token) if lowered < len(ids) else 0
        return lowered, bumped

    def settle_one(self, id: int, token: int, step: Step, now: int) -> str | None:
        """Let one claimed flag wait again or die; return its new state, or None where the claim was lost."""
        return self.dialect.settle_one(self.engine, {**step._asdict(), "id": id, "token": token, "now": now})

    def release(self, ids: Sequence[int], token: int, now: int) -> int:
        """Give flags back that were claimed and not started."""
        return self.dialect.release(self.engine, ids, token, now)

    def release_claims(self, tokens: Iterable[int], consumer: int) -> None:
        """Give back all that these claims took, within a ``write``: whether they ever took anything is not known."""
        for token in tokens:
            query = Flag.update(state="waiting", claim_token=None, claimed_by=None, claimed_at=None, claimed_generation=None)
            query.where(Flag.state == "claimed", Flag.claimed_by == consumer, Flag.claim_token == token).execute(self.engine)

    def tokens(self, consumer: int, kinds: Sequence[str]) -> set[int]:
        """Return the claims of these kinds that a consumer has."""
        return {token for kind, token in self.dialect.claims_of(self.engine, consumer) if kind in kinds}

    def settle_within(self, id: int, token: int, lower_row: Callable[[Database], None] | None) -> str:
        """Lower one flag in the transaction open on the site's connection; return ``lowered``, or ``again`` where it was bumped.

        :raises ClaimLost: where the flag is no longer ours, so that the transaction rolls back.
        """
        self._check_files_are_ours()
        if self.dialect.lower(self.site, [id], token):
            if lower_row:
                lower_row(self.site)
            return "lowered"
        if self.dialect.lower_bumped(self.site, [id], token):
            return "again"
        raise ClaimLost(f"flag {id} was lowered by hand, or is no longer this consumer's: what its handler wrote is rolled back")

    def progress(self, id: int, token: int, cursor: str, atomic: bool) -> bool:
        """Keep how far a running handler has come; return False where the claim was lost.

        :param atomic: its handler holds the only writer, so this goes into its transaction, as within one of the handler's own.
        """
        if atomic or self.site.in_transaction():
            return self.dialect.progress(self.site, id, token, cursor)
        with self.write():
            return self.dialect.progress(self.engine, id, token, cursor)

    def discover(self, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> int:
        """Turn rows of the site into flags; one that is up, running or dead already stays as it is."""
        return self.dialect.discover(self.engine, kind, rows, priority, now)

    # Consumers.

    def made_at(self) -> int:
        """Return when the tables were made: this tells a database, or one schema of it, from every other."""
        query = Schema.select(Schema.applied_at).order_by(Schema.version).limit(1)
        return next(iter(query.tuples().execute(self.engine)))[0]

    def enlist(self, mode: str, pid: int, host: str, now: int, hold: Callable[[int], None]) -> int:
        """Enter a consumer under a new id.

        :param hold: takes the lease of that id; called before others can see the row, so that none finds it without its lease.
        """
        files = Files([] if self.file is None else [self.file])
        if problem := self.dialect.lost_before(self._logs()):
            raise NotReady(problem)
        with self.write():
            id = Consumer.insert(mode=mode, pid=pid, host=host, started_at=now).execute(self.engine)
            hold(id)
        # Only now the log is open; and it stays so, with this thread's connection, as long as the consumer is entered.
        self._ours = {**self._ours, id: files.and_these(self._logs())}
        return id

    def peers(self) -> dict[int, Consumer]:
        """Return all that are entered, alive or not, by their ids, as the engine sees them."""
        return {each.id: each for each in Consumer.select().execute(self.engine)}

    def come_back(self, consumer: int) -> bool:
        """Note that a consumer has taken its lease again; return whether it is still entered: nobody took it for dead."""
        with self.write():
            again = Consumer.update(comebacks=Consumer.comebacks + 1).where(Consumer.id == consumer)
            return again.execute(self.engine) == 1

    def consumers(self) -> list[Consumer]:
        """Return who is entered, alive or not."""
        with self.explained("consumers could not be read"), self.borrowed() as db:
            return list(Consumer.select().order_by(Consumer.id).execute(db))

    def rescue(
        self, consumer: int, charged: Sequence[tuple[int, int, Step]], now: int, comebacks: int | None = None
    ) -> tuple[int, list[int]] | None:
        """Give back what a dead consumer had claimed and strike it off.

        :param charged: (id, token, step) of the flags that are to blame.
        :param comebacks: how often it had come back when it was found dead.
        :return: how many flags were freed, and the ids of those that died; None, and nothing is done, where it came back once
            more, or somebody else was first.
        """
        with self.write():
            # First: who comes back at this instant waits for this row, and then finds that it was taken for dead.
            it = (Consumer.id == consumer) & (True if comebacks is None else Consumer.comebacks == comebacks)
            if not Consumer.delete().where(it).execute(self.engine) and comebacks is not None:
                return None
            settled = [(id, self.settle_one(id, token, step, now)) for id, token, step in charged]
        # Whoever dies here leaves claims of nobody, which ``release_orphans`` finds.
        freed = self._release_all(consumer, now)
        return freed + len(settled), [id for id, state in settled if state == "dead"]

    def _release_all(self, consumer: int, now: int) -> int:
        """Give back all that a consumer has claimed, some at a time, but what somebody else's open transaction holds."""
        free = {**dict.fromkeys(("claim_token", "claimed_by", "claimed_at", "claimed_generation")), "state": "waiting"}
        due_at = Case(None, [(Flag.due_at > now, now)], Flag.due_at)
        theirs = Flag.update({**free, "due_at": due_at}).where(Flag.state == "claimed", Flag.claimed_by == consumer)
        found = [self.dialect.claimed_ids(self.engine, consumer)]
        return self.in_pages(self.engine, found, lambda ids: theirs.where(Flag.id.in_(ids)).execute(self.engine))

    def release_orphans(self, now: int) -> int:
        """Give back what is claimed by nobody who is entered; return how many flags.

        A server may carry out a claim after its consumer has died and was rescued, or has gone on under another id.
        """
        claimers = self.dialect.claimers(self.engine)  # Before the consumers: who claims was entered at that time.
        orphaned = set(claimers) - set(self.peers()) if claimers else ()
        return sum(self._release_all(consumer, now) for consumer in orphaned)

    def adopt(self, before: int, consumer: int) -> None:
        """Have a consumer that goes on under a new id own what it claimed under the one before, after that was given back."""
        with self.write():
            claimed = (Flag.state == "claimed") & (Flag.claimed_by == before)
            Flag.update(claimed_by=consumer).where(claimed).execute(self.engine)

    def strike(self, consumer: int, now: int) -> None:
        """Strike off a consumer that ends well, giving back whatever it still has."""
        self.rescue(consumer, (), now)

    def claimed_by(self, consumer: int, ids: Iterable[int] | None = None) -> list[Flag]:
        """Return those of the flags that this consumer has claimed; without ``ids`` all that it has."""
        query = Flag.select().where(Flag.claimed_by == consumer, Flag.state == "claimed")
        return list((query if ids is None else query.where(Flag.id.in_(list(ids)))).execute(self.engine))

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
        return mended + self._mend((waiting, due > horizon), {"state": "dead", "died_at": now, "error": reason})

    def _mend(self, where: tuple, values: dict[str, Any]) -> int:
        """Update what meets the conditions; the writer is taken only for what a look has found."""
        query = Flag.update(values).where(*where)
        found = self.found(self.engine, where)
        return self.in_pages(self.engine, found, lambda ids: query.where(Flag.id.in_(ids)).execute(self.engine))

    def prune(self, before: int) -> int:
        """Delete history older than ``before``, some lines at a time; return how many."""
        pacer, gone = Pacer(SHARE, PAGE), 0
        old = History.select(History.id).where(History.at < before).order_by(History.at).tuples()
        while ids := [row[0] for row in old.limit(pacer.batch).execute(self.engine)]:
            pacer.turn()
            with self.write():
                began = time.monotonic()
                gone += History.delete().where(History.id.in_(ids)).execute(self.engine)
            pacer.ended(began, len(ids))
        return gone

    def trim_log(self) -> int:
        """Keep SQLite's write-ahead log short, waiting for nobody; return its bytes, 0 for a database that has none."""
        self._check_files_are_ours()
        return self.dialect.trim_log(self.engine)

    # What doctor asks.

    def latest_raise(self, last: int) -> int | None:
        """Return when, by its own word, the latest raise among the ``last`` newest flags was."""
        return self.dialect.latest_raise(self.engine, last)

    def damaged(self, last: int) -> list[int]:
        """Return the ids of damaged rows among the ``last`` newest: no due time, or no JSON. Dead ones are parked already."""
        return self.dialect.damaged(self.engine, last)

    def reads_all(self, query: Select) -> bool:
        """Return whether a query would read a whole table for want of an index. Asks how, without looking."""
        return self.dialect.reads_all(self.engine, query)

    def index_for(self, model: type[Model], condition: Node, fields: Sequence[Field]) -> str:
        """Return the statement that makes an index for a condition of the site's own."""
        return self.dialect.index_for(self.engine, model, condition, fields)


def new_token() -> int:
    """Return what tells one claim from all others."""
    return secrets.randbits(62)


class Files:
    """Tell files from others that take their places. What is not there is not looked after.

    :param paths: in the order in which they are looked at.
    """

    def __init__(self, paths: Iterable[Path]):
        self.thread = threading.get_ident()
        self._found = {path: found for path in paths if (found := identity(path)) is not None}

    def and_these(self, paths: Iterable[Path]) -> Files:
        """Take note of more files; return this."""
        self._found.update(Files(paths)._found)
        return self

    def changed(self) -> Path | None:
        """Return the first that was deleted or replaced, or None."""
        return next((path for path, found in self._found.items() if identity(path) != found), None)


def identity(file: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another that takes its place; None where there is none."""
    try:
        found = os.stat(file) if file is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)

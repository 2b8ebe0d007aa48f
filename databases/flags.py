"""The verbs on flags: each executes, on a connection, what a method beside it has as text.

A verb such as ``lower`` has its text from ``lowering``, which a database's own folder says, and which any connection takes that
goes through the dialect's driver. Where a verb takes more than one statement, the database has a verb of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from peewee import Database

from ..payloads import Item
from .raising import Terms
from .statement import Execute, Statement
from .way import FORCED, Way

Row = Sequence[Any]
"""A claimed flag: due_at, id, key, payload (parsed), and None where it was raised once, never tried before and has nothing of
``Rare``; else attempts, suspect, cursor (parsed), raises, and that of ``Rare`` in its order."""


Told = tuple[int, str, int]
"""A raised flag: its id, what the raise did, and the generation that it gave the flag."""


class Rare(NamedTuple):
    """Hold what few flags have: what a schedule wrote, when the work is not worth doing any more, the bucket, and the trace."""

    schedule: str | None = None
    zone: str | None = None
    intended: int | None = None
    missed: int = 0
    expires_at: int | None = None
    bucket: str | None = None
    trace: str | None = None


class Damaged(str):
    """Stand in for a payload that cannot be read, saying why."""


class Texts:
    """Return the statements of the verbs. Those that lock nothing, or claim, are each database's own affair."""

    def raising(self, kind: str, item: Item, terms: Terms) -> Statement:
        """Put a flag up; what it did ``raised`` reads."""
        raise NotImplementedError

    def retrying(self, ids: Sequence[int], now: int) -> Statement:
        """Let those of these flags wait from scratch that are dead or back off."""
        raise NotImplementedError

    def recording_dead(self, ids: Sequence[int], reason: str, now: int) -> Statement:
        """Write a line of history for those of these flags that are dead."""
        raise NotImplementedError

    def dropping_dead(self, ids: Sequence[int]) -> Statement:
        """Drop those of these flags that are dead."""
        raise NotImplementedError

    def discovering(self, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> Statement:
        """Turn (key, payload) pairs into flags where there are none."""
        raise NotImplementedError

    def lowering(self, ids: Sequence[int], token: int) -> Statement:
        """Delete the claimed flags that were not raised meanwhile."""
        raise NotImplementedError

    def lowering_bumped(self, ids: Sequence[int], token: int) -> Statement:
        """Let the claimed flags wait that were raised meanwhile."""
        raise NotImplementedError

    def settling(self, named: dict[str, Any]) -> Statement:
        """Let one claimed flag wait again or die."""
        raise NotImplementedError

    def releasing(self, ids: Sequence[int], token: int, now: int) -> Statement:
        """Give claimed flags back."""
        raise NotImplementedError

    def asking_generations(self, ids: Sequence[int], token: int) -> Statement:
        """Ask for id and generation of claimed flags that are about to be settled, and tell who waits for results."""
        raise NotImplementedError

    def progressing(self, id: int, token: int, cursor: str) -> Statement:
        """Keep how far a handler has come."""
        raise NotImplementedError

    def asking_agenda(self, kinds: str) -> Statement:
        """Ask for (kind, priority, earliest due time) of kinds given as a JSON array."""
        raise NotImplementedError

    def asking_waiting_kinds(self) -> Statement:
        """Ask for the kinds of which flags wait."""
        raise NotImplementedError

    def asking_claimed_ids(self, consumer: int) -> Statement:
        """Ask for the ids of the flags that a consumer has claimed."""
        raise NotImplementedError

    def asking_claimers(self) -> Statement:
        """Ask for the ids of those who have claimed flags."""
        raise NotImplementedError

    def asking_claims_of(self, consumer: int) -> Statement:
        """Ask for kind and token of each claim that a consumer has."""
        raise NotImplementedError


class Flags(Texts):
    """Do the verbs. ``db`` is the connection to do them on: the site's or ours."""

    # The site's verbs.

    def raise_(self, db: Database, kind: str, item: Item, terms: Terms) -> Told:
        """Put a flag up; return what ``raised`` does."""
        return self.raise_over(db.execute_sql, kind, item, terms)

    def raise_over(self, execute: Execute, kind: str, item: Item, terms: Terms) -> Told:
        """Put a flag up over any connection through the dialect's driver, within the transaction that is open there."""
        return self.raised(execute, self.raising(kind, item, terms).on(execute))

    def raised(self, execute: Execute, cursor: Any) -> Told:
        """Return a flag's id, what raising it did, and its generation, of the cursor that has just executed ``raising``."""
        row = cursor.fetchall()[0]
        return row[0], row[1], row[2]

    def raise_many(self, db: Database, kind: str, chunk: str, terms: Terms) -> Counter[str]:
        """Put the flags of one chunk up.

        :param chunk: a JSON array whose items are a payload that is its own key, or ``[key, payload, bucket]``.
        """
        return self.raise_many_over(db.execute_sql, kind, chunk, terms)

    def raise_many_over(self, execute: Execute, kind: str, chunk: str, terms: Terms) -> Counter[str]:
        """Put them up over any connection through the dialect's driver, within the transaction that is open there."""
        raise NotImplementedError

    def retry(self, db: Database, ids: Sequence[int], now: int) -> int:
        """Let those of these flags wait from scratch that are dead or back off; return how many."""
        return _count(db, self.retrying(ids, now))

    def space(self, db: Database, ids: Sequence[int], now: int, turn: int, count: int, period: int) -> None:
        """Have flags be due one after the other.

        :param turn: that of the first of these; that of turn 0 is due now.
        :param count: how many are due within ``period`` microseconds.
        """
        raise NotImplementedError

    def drop_dead(self, db: Database, ids: Sequence[int], reason: str, now: int) -> int:
        """Drop those of these flags that are dead, with a line of history for each; return how many."""
        self.recording_dead(ids, reason, now).on(db.execute_sql)
        return _count(db, self.dropping_dead(ids))

    # The verbs of a sweep.

    def agenda(self, db: Database, kinds: str) -> list[tuple[str, int, Any]]:
        """Return (kind, priority, earliest due time) for kinds given as a JSON array."""
        return self.asking_agenda(kinds).on(db.execute_sql).fetchall()

    def waiting_kinds(self, db: Database) -> list[str]:
        """Return the kinds of which flags wait, without reading the flags."""
        return _firsts(db, self.asking_waiting_kinds())

    def claim(
        self, db: Database, kind: str, priority: int, limit: int, consumer: int, token: int, now: int, way: Way = FORCED
    ) -> list[Row]:
        """Claim due flags where the way is open, the longest due first."""
        raise NotImplementedError

    def claim_these(self, db: Database, ids: Sequence[int], consumer: int, token: int, now: int, way: Way = FORCED) -> list[Row]:
        """Claim those of these flags that wait and that nobody holds, where the way is open."""
        raise NotImplementedError

    def held(self, db: Database, ids: Sequence[int]) -> set[int]:
        """Lock these flags for the open transaction; return those that somebody else's transaction holds just now."""
        return set()

    def may_raise(self, db: Database, kind: str, keys: Sequence[str]) -> bool:
        """Return whether flags of these keys may be raised over our connection without waiting for long, and without anybody
        else's transaction being ended where that in turn waits for ours."""
        return True

    def free(self, db: Database, ids: Sequence[int]) -> Sequence[int]:
        """Lock these flags for the open transaction; return those that are there and that nobody else holds."""
        return ids

    def lower(self, db: Database, ids: Sequence[int], token: int) -> int:
        """Delete the claimed flags that were not raised meanwhile; return how many."""
        return _count(db, self.lowering(ids, token))

    def lower_bumped(self, db: Database, ids: Sequence[int], token: int) -> int:
        """Let the claimed flags wait that were raised meanwhile; return how many."""
        return _count(db, self.lowering_bumped(ids, token))

    def settle_one(self, db: Database, named: dict[str, Any]) -> str | None:
        """Let one claimed flag wait again or die; return its new state, or None where the claim was lost."""
        rows = self.settling(named).on(db.execute_sql).fetchall()
        return rows[0][0] if rows else None

    def release(self, db: Database, ids: Sequence[int], token: int, now: int) -> int:
        """Give claimed flags back; return how many."""
        return _count(db, self.releasing(ids, token, now))

    def claimed_ids(self, db: Database, consumer: int) -> list[int]:
        """Return the ids of the flags that a consumer has claimed."""
        return _firsts(db, self.asking_claimed_ids(consumer))

    def claimers(self, db: Database) -> list[int]:
        """Return the ids of those who have claimed flags."""
        return _firsts(db, self.asking_claimers())

    def claims_of(self, db: Database, consumer: int) -> list[tuple[str, int]]:
        """Return kind and token of each claim that a consumer has."""
        return self.asking_claims_of(consumer).on(db.execute_sql).fetchall()

    def generations(self, db: Database, ids: Sequence[int], token: int) -> dict[int, int]:
        """Return the generations that claimed flags were claimed with, by id; their results are told of with the commit."""
        return {row[0]: row[1] for row in self.asking_generations(ids, token).on(db.execute_sql).fetchall()}

    def progress(self, db: Database, id: int, token: int, cursor: str) -> bool:
        """Keep how far a handler has come; return False where the claim was lost."""
        return _count(db, self.progressing(id, token, cursor)) == 1

    def discover(self, db: Database, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> int:
        """Turn (key, payload) pairs into flags where there are none; return how many."""
        return _count(db, self.discovering(kind, rows, priority, now))


def _count(db: Database, statement: Statement) -> int:
    return db.rows_affected(statement.on(db.execute_sql))


def _firsts(db: Database, statement: Statement) -> list[Any]:
    return [row[0] for row in statement.on(db.execute_sql).fetchall()]

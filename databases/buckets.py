"""How one look claims fairly among the buckets of a kind: what the databases have in common.

A look asks for the flags that are due longest first, one more than it may claim. Where no more come, these are all that is due:
there is nothing to be fair about, and buckets without due flags cost nothing. Else it walks the buckets from where the last look
stopped, takes as many flags of each as come to it, and fills up with those that are due longest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from peewee import Database

from .flags import Row
from .way import FORCED, Way

BUCKETS = 200
"""Buckets of one look."""
VISITS = 5
"""Buckets without due flags, or closed ones, that a look may pass for each flag that it may claim: so much a flag pays at most
for them, and a fresh bucket waits for at most one flag of others for every five buckets."""
FEWEST_VISITS = 200
EVERY = 2**31 - 1
OLDEST_SHARE = 32
"""One flag of so many is the one that is due longest, whatever its bucket: flags of a kind that have none, raised before it had
``per``, are in no bucket's turn. (Behind a flood of a closed bucket they wait until it opens: better give them a bucket.)"""

FEW = 20
"""One flag of so many may be missing from a look's turns: the oldest ones fill up without another question."""

Oldest = Sequence[tuple[int, str | None]]
"""Id and bucket of due flags, the longest due first."""
Seen = Sequence[tuple[int, str, bool]]
"""What a walk reports of buckets: the how-manieth it is, its name, whether it may be claimed from."""
Taken = dict[int, tuple[str | None, Row | None]]
"""What a look has claimed so far: bucket and row by id. No row: ``rows_of`` reads it."""
Step = Callable[[str, str | None, int, int], Seen]
"""Walk from this bucket on (included) to that one (excluded; None: to the last): report at most so many that have a due flag and
are open, of at most so many visited, and where these end the last one visited."""


class Look(NamedTuple):
    """Hold what a look is given.

    :param closed: names of buckets that are skipped.
    """

    kind: str
    priority: int
    consumer: int
    token: int
    now: int
    closed: frozenset[str]
    way: Way = FORCED


class ByBucket:
    """Claim among buckets, over what a database says in its own words."""

    def oldest(self, db: Database, look: Look, most: int) -> Oldest:
        """Return the flags that are due longest, none where the way is not open. Locks nothing."""
        raise NotImplementedError

    def step(self, db: Database, look: Look, first: str, before: str | None, most: int, visits: int) -> Seen:
        """Walk a part of the buckets, as ``Step`` says. Locks nothing."""
        raise NotImplementedError

    def take(self, db: Database, look: Look, buckets: Sequence[str], share: int) -> Taken:
        """Claim the first so many due flags of each of these buckets; return these at least, of what the look has claimed."""
        raise NotImplementedError

    def take_these(self, db: Database, look: Look, ids: Sequence[int]) -> Taken:
        """Claim those of these flags that still wait and are due."""
        raise NotImplementedError

    def rows_of(self, db: Database, look: Look, taken: Taken) -> list[Row]:
        """Return the rows of what was claimed, the longest due first."""
        return sorted((row for _, row in taken.values() if row is not None), key=lambda row: (row[0], row[1]))

    def claim_by_bucket(
        self,
        db: Database,
        kind: str,
        priority: int,
        limit: int,
        consumer: int,
        token: int,
        now: int,
        start: str | None,
        closed: Sequence[str],
        way: Way = FORCED,
    ) -> tuple[list[Row], str | None]:
        """Claim due flags so that buckets take turns.

        :param start: what the last look over this kind and priority returned as its second value; None: none has been.
        :param closed: buckets from which nothing is claimed now.
        :return: the flags, the longest due first, rows as ``claim`` has them; and where the next look begins.
            No flags: nothing is due but in closed buckets, somebody else has just taken it, or the way is not open.
        """
        look = Look(kind, priority, consumer, token, now, frozenset(closed), way)
        oldest = self.oldest(db, look, limit + 1)
        open_ids = [id for id, bucket in oldest if bucket not in look.closed]
        taken: Taken = {}
        if len(oldest) > limit and (shared := limit - min(_kept(limit, token), len(open_ids))):
            visits = max(FEWEST_VISITS, VISITS * limit) if open_ids else EVERY
            start = self.take_turns(db, look, shared, start, visits, taken)
        rest = [id for id in open_ids if id not in taken][: limit - len(taken)]
        if rest:
            taken |= self.take_these(db, look, rest)
        return self.rows_of(db, look, taken), start

    def take_turns(self, db: Database, look: Look, limit: int, start: str | None, visits: int, taken: Taken) -> str | None:
        """Claim from the buckets whose turn it is, into ``taken``; return whose turn is next."""
        buckets, start = turns(lambda *part: self.step(db, look, *part), start, most_buckets(limit), visits)
        while buckets and (left := limit - len(taken)) > limit // FEW:
            share = max(1, left // len(buckets))
            got = self.take(db, look, buckets[:left], share)
            of = Counter(bucket for id, (bucket, _) in got.items() if id not in taken)
            buckets = [bucket for bucket in buckets[:left] if of[bucket] >= share]  # These may have more.
            taken |= got
        return start


def most_buckets(limit: int) -> int:
    """Return of how many buckets a look claims at most, so that each has the same share."""
    share = -(-limit // BUCKETS)
    return limit // share


def turns(step: Step, start: str | None, most: int, visits: int) -> tuple[list[str], str | None]:
    """Return the buckets whose turn it is, each once, and the one with which the next look begins.

    :param visits: how many buckets a lap may pass; there are two: to the last bucket, and from the first one.
    """
    found: list[str] = []
    for first, before in [(start or "", None), ("", start)] if start else [("", None)]:
        seen = step(first, before, most + 1 - len(found), visits)
        found += [bucket for _, bucket, ready in seen if ready]
        if len(found) > most:
            return found[:most], found[most]
        if seen and seen[-1][0] >= visits:
            last = seen[-1][1]
            return [bucket for bucket in found if bucket != last], last
    return found, found[1 % len(found)] if found else None  # All have had a turn: another one is first the next time.


def _kept(limit: int, token: int) -> int:
    """Return how many flags of a look are the oldest ones; where that is less than one, by the token's chance."""
    return limit // OLDEST_SHARE + (token % OLDEST_SHARE < limit % OLDEST_SHARE)

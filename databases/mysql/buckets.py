"""MySQL and MariaDB: claiming among buckets.

MariaDB does not seek ``bucket > step.bucket`` in a recursion, but reads all buckets before it; it cannot be made to skip from
bucket to bucket for a GROUP BY; it has no LATERAL, and a UNION of 200 parts takes it five times as long as a plain claim. So the
index is read in pages, a short query each, from behind the bucket in which the last page ended: a page covers many small buckets,
or the beginning of a big one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from peewee import Database

from ..buckets import BUCKETS, FEW, Look, Oldest, Seen, Taken, most_buckets, turns
from ..server.flags import BUCKET, CLAIMED, readable
from ..way import is_open
from .flags import CLAIM, MysqlFlags

# kind, priority, now, those of the way, most.
OLDEST = f"""
SELECT id, bucket FROM flagsweep_flag FORCE INDEX (flagsweep_waiting)
WHERE state = 'waiting' AND kind = ? AND priority = ? AND due_at <= ? AND {is_open()} ORDER BY due_at, id LIMIT ?
"""

# kind, priority, bucket, flags of the page.
PAGE = """
SELECT bucket, due_at, id FROM flagsweep_flag FORCE INDEX (flagsweep_claimed)
WHERE state = 'waiting' AND claimed_by IS NULL AND claim_token IS NULL AND kind = ? AND priority = ? AND bucket {since} ?
ORDER BY bucket, due_at, id LIMIT ?
"""
SINCE, BEHIND = ">=", ">"

# ids, now.
HOLD_DUE = f"""
SELECT {CLAIMED} FROM flagsweep_flag FORCE INDEX (PRIMARY)
WHERE id IN ? AND state = 'waiting' AND due_at <= ? FOR UPDATE SKIP LOCKED
"""

LARGEST_PAGE = 1000
ROUNDS = 3
SMALLEST_PAGE = 10
"""Flags of a page."""
JUMP = 20
"""Flags that are read in less time than it takes to ask for what comes behind them."""


class MysqlBuckets(MysqlFlags):
    """Read candidates in pages, and lock what is chosen of them. ``claim_by_bucket`` wants an open transaction."""

    def oldest(self, db: Database, look: Look, most: int) -> Oldest:
        way = look.way.values(look.now, self.encoded_name)
        found = db.execute_sql(self.sql[OLDEST], (look.kind.encode(), look.priority, look.now, *way, most)).fetchall()
        return [(id, readable(bucket)) for id, bucket in found]

    def take_turns(self, db: Database, look: Look, limit: int, start: str | None, visits: int, taken: Taken) -> str | None:
        """Where that brings too few, go on: big buckets had more, or somebody else has, or holds, what was read."""
        tried: set[int] = set()
        for _ in range(ROUNDS):
            walk = Walk(self, db, look, limit - len(taken))
            buckets, start = turns(walk.step, start, most_buckets(walk.limit), visits)
            ids = in_turn([[id for id in walk.found[bucket] if id not in tried] for bucket in buckets], walk.limit)
            more = self.take_these(db, look, ids) if ids else {}
            tried.update(ids)
            taken |= more
            all_there_is = len(more) == len(ids) and not walk.has_more
            if all_there_is or limit - len(taken) <= limit // FEW:
                break
        return start

    def take_these(self, db: Database, look: Look, ids: Sequence[int]) -> Taken:
        found = db.execute_sql(self.sql[HOLD_DUE], (self.listed(ids), look.now)).fetchall()
        if found:
            db.execute_sql(self.sql[CLAIM], (look.token, look.consumer, look.now, tuple(row[1] for row in found)))
        bucket = {row[1]: readable(row[BUCKET]) for row in found}
        return {row[1]: (bucket[row[1]], row) for row in self.rows(found)}


class Walk:
    """Walk buckets page by page, and keep the due flags that were seen of each."""

    def __init__(self, dialect: MysqlBuckets, db: Database, look: Look, limit: int):
        self.found: dict[str, list[int]] = {}
        """Ids of due flags by bucket, the longest due first: a fair share at least, where there are so many."""
        self.has_more = False
        """Whether a bucket may have more due flags than were seen."""
        self._dialect = dialect
        self._db = db
        self._look = look
        self.limit = limit
        self._share = -(-limit // BUCKETS)
        self._size = min(LARGEST_PAGE, max(SMALLEST_PAGE, 2 * limit))

    def step(self, first: str, before: str | None, most: int, visits: int) -> Seen:
        """Walk a part of the buckets, as ``Step`` says; ten flags read count as a bucket visited."""
        seen: list[tuple[int, str, bool]] = []
        for read, names, last in self._pages(first.encode(), None if before is None else before.encode()):
            seen += [(read, name, True) for name in names]
            if len(seen) >= most:
                return seen[:most]
            if read >= visits:
                return [*seen, (read, last, False)]
        return seen

    def _pages(self, bucket: bytes, before: bytes | None) -> Iterator[tuple[int, list[str], str]]:
        """Yield for each page what was read so far, in tens of flags, the open buckets with due flags, and its last bucket."""
        since, read = SINCE, 0
        end: bytes | None = bucket
        while end is not None and (before is None or end < before):
            bucket, size = end, self._size
            due, end = self._page(since, bucket, size)
            since, read = BEHIND, read + 1 + size // SMALLEST_PAGE
            if end is not None and end != bucket and 0 < len(due.get(end, ())) < self._share:
                del due[end]  # The page may have cut it off: the next one begins with it.
                since = SINCE
            self.has_more |= since == BEHIND and end in due and readable(end) not in self._look.closed
            names = self._keep({name: ids for name, ids in due.items() if before is None or name < before}, size)
            yield read, names, readable(end or bucket)

    def _page(self, since: str, bucket: bytes, size: int) -> tuple[dict[bytes, list[int]], bytes | None]:
        """Return the due flags of a page by bucket, and the page's last bucket: None where nothing comes behind it."""
        parameters = (self._look.kind.encode(), self._look.priority, bucket, size)
        rows = self._db.execute_sql(self._dialect.sql[PAGE.replace("{since}", since)], parameters).fetchall()
        due: dict[bytes, list[int]] = {}
        for name, due_at, id in rows:
            if due_at <= self._look.now:
                due.setdefault(name, []).append(id)
        return due, rows[-1][0] if len(rows) == size else None

    def _keep(self, due: dict[bytes, list[int]], size: int) -> list[str]:
        """Keep the ids of open buckets, return these; the next page is smaller where this one went deep into some."""
        names = {readable(name): ids for name, ids in due.items()}
        opened = {name: ids for name, ids in names.items() if name not in self._look.closed}
        self.found |= opened
        surplus = sum(max(0, len(ids) - max(self._share, JUMP)) for ids in due.values())
        if 2 * surplus > size:
            self._size = max(size // 2, self.limit // (2 * len(self.found) + 2), self._share, SMALLEST_PAGE)
        elif 4 * surplus < size:
            self._size = min(2 * size, LARGEST_PAGE)
        return list(opened)


def in_turn(lists: Sequence[Sequence[int]], limit: int) -> list[int]:
    """Return the first of each list, then the second of each, and so on, so many in all."""
    return [id for each in zip_longest(*lists) for id in each if id is not None][:limit]

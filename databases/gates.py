"""Gates: the statements about pauses, limits and the slots that consumers hold, one text for all databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from peewee import Database

from ..config import LATEST

TAKEN = ("taken", "day", "used", "closed_until", "paused_at", "paused_until", "breaker")
"""What a claim reads of a gate."""

NUMBERS = {"paused_at": LATEST, "paused_until": LATEST, "closed_until": LATEST}
NUMBERS |= {"taken": 2**63 - 1, "day": 2**31 - 1, "used": 2**63 - 1, "threads": 1000}
"""The most that a column may say; the least is 0."""

LOCK = f"SELECT {', '.join(TAKEN)} FROM flagsweep_gate WHERE sort = 'kind' AND name = ? AND bucket = ?"
PULSE = "SELECT max(id), count(*) FROM flagsweep_pulse"
SLOTS = """
SELECT hold.consumer, hold.slots FROM flagsweep_hold AS hold JOIN flagsweep_consumer AS consumer ON consumer.id = hold.consumer
WHERE hold.kind = ?
"""
UNHOLD = "DELETE FROM flagsweep_hold WHERE kind = ? AND consumer = ?"
HOLD = "INSERT INTO flagsweep_hold (kind, consumer, slots) VALUES (?, ?, ?)"
HELD_BY = "SELECT kind FROM flagsweep_hold WHERE consumer = ?"
CANDIDATES = """
SELECT id, attempts FROM flagsweep_flag WHERE state = 'waiting' AND kind = ? AND priority = ? AND due_at <= ?
ORDER BY due_at, id LIMIT ?
"""

DUE = """
SELECT count(*) FROM (
    SELECT 1 FROM flagsweep_flag WHERE state = 'waiting' AND kind = ? AND priority = ? AND due_at <= ? LIMIT ?
) AS due
"""
ARRIVED = """
SELECT count(*) FROM (
    SELECT 1 FROM flagsweep_flag WHERE state = 'waiting' AND kind = ? AND priority = ? AND due_at >= ? AND due_at < ? LIMIT ?
) AS due
"""
IN_HAND = "SELECT count(*) FROM flagsweep_flag WHERE state = 'claimed' AND kind = ?"


def sound(column: str, value: Any) -> Any:
    """Return what a gate's column says. What a hand has damaged says nothing; but a pause it remains."""
    if value is None or column not in NUMBERS or (type(value) is int and 0 <= value <= NUMBERS[column]):
        return value
    return 0 if column == "paused_at" else None


class Gates:
    """Read and write gates, within a transaction of ours."""

    skips_locked = ""
    """What a question ends with that locks what it finds, and leaves out what somebody else's transaction holds."""
    making = "INSERT INTO flagsweep_gate (sort, name, bucket) VALUES (?, ?, ?) ON CONFLICT (sort, name, bucket) DO NOTHING"
    """Makes a gate where there is none."""

    def own(self, sql: str) -> str:
        """Return a common text, with ``?`` for a parameter, as this database's driver takes it."""
        return sql

    def encoded_name(self, name: str) -> Any:
        """Return a kind's or bucket's name as its column takes it."""
        return name

    def pulse(self, db: Database) -> Any:
        """Return something that differs once schedules or gates were changed."""
        return tuple(db.execute_sql(self.own(PULSE)).fetchone())

    def lock_gate(self, db: Database, name: str, bucket: str) -> dict[str, Any] | None:
        """Lock a kind's gate, making it where there is none, and waiting for nobody.

        :return: what a claim reads of it; None where somebody holds it.
        """
        which = (self.encoded_name(name), self.encoded_name(bucket))
        for _ in range(2):
            rows = db.execute_sql(self.own(LOCK + self.skips_locked), which).fetchall()
            if rows:
                return {column: sound(column, value) for column, value in zip(TAKEN, rows[0], strict=True)}
            if db.execute_sql(self.own(LOCK), which).fetchall() or not self.make_gate(db, which):
                return None
        return None

    def make_gate(self, db: Database, which: Sequence[Any]) -> bool:
        """Make a kind's gate where there is none; return False where somebody else is just making it.

        :param which: name and bucket, encoded.
        """
        db.execute_sql(self.own(self.making), ("kind", *which))
        return True

    def set_gate(self, db: Database, name: str, bucket: str, values: Mapping[str, Any]) -> None:
        """Set columns of a kind's gate, which is locked."""
        sets = ", ".join(f"{column} = ?" for column in values)
        which = (self.encoded_name(name), self.encoded_name(bucket))
        sql = f"UPDATE flagsweep_gate SET {sets} WHERE sort = 'kind' AND name = ? AND bucket = ?"
        db.execute_sql(self.own(sql), (*values.values(), *which))

    def set_by_hand(self, db: Database, sort: str, name: str, values: Mapping[str, Any]) -> None:
        """Set columns of a gate of any sort, making it where there is none, whatever the connection speaks."""
        which = (sort, self.encoded_name(name), self.encoded_name(""))
        sets = ", ".join(f"{column} = ?" for column in values)
        given = [self.encoded_name(value) if isinstance(value, str) else value for value in values.values()]
        db.execute_sql(self.own(self.making), which)
        db.execute_sql(self.own(f"UPDATE flagsweep_gate SET {sets} WHERE sort = ? AND name = ? AND bucket = ?"), (*given, *which))

    def due_behind(self, db: Database, kind: str, priority: int, now: int, most: int) -> int:
        """Return how many flags of a kind and priority are due, counting no further than ``most``."""
        return int(db.execute_sql(self.own(DUE), (self.encoded_name(kind), priority, now, most)).fetchone()[0])

    def arrived(self, db: Database, kind: str, priority: int, after: int, until: int, most: int) -> int:
        """Return how many flags of a kind and priority that wait have become due in a time, counting no further than ``most``."""
        return int(db.execute_sql(self.own(ARRIVED), (self.encoded_name(kind), priority, after, until, most)).fetchone()[0])

    def in_hand(self, db: Database, kind: str) -> int:
        """Return how many flags of a kind consumers have claimed."""
        return int(db.execute_sql(self.own(IN_HAND), (self.encoded_name(kind),)).fetchone()[0])

    def slots(self, db: Database, kind: str, consumer: int) -> tuple[int, int]:
        """Return how many flags of a kind other consumers that are entered may run, and how many this one."""
        held = dict(db.execute_sql(self.own(SLOTS), (self.encoded_name(kind),)).fetchall())
        mine = held.pop(consumer, 0)
        return sum(slots for slots in held.values() if isinstance(slots, int)), mine

    def hold(self, db: Database, kind: str, consumer: int, slots: int) -> None:
        """Take note of how many flags of a kind a consumer may run; 0: it runs none."""
        name = self.encoded_name(kind)
        db.execute_sql(self.own(UNHOLD), (name, consumer))
        if slots:
            db.execute_sql(self.own(HOLD), (name, consumer, slots))

    def forget_holds(self, db: Database, consumer: int) -> None:
        """Forget what a consumer held that is gone. By the keys of the rows: MySQL would wait for each that it reads."""
        for (name,) in db.execute_sql(self.own(HELD_BY), (consumer,)).fetchall():
            db.execute_sql(self.own(UNHOLD), (name, consumer))

    def claimed_in(self, db: Database, kinds: Sequence[str], buckets: Sequence[str]) -> Counter[str]:
        """Return how many flags of each of these buckets are claimed, by whomever.

        :param kinds: that of a handler, and its aliases.
        """
        among, which = (", ".join("?" * len(names)) for names in (kinds, buckets))
        of_these = f"state = 'claimed' AND kind IN ({among}) AND bucket IN ({which})"
        sql = f"SELECT bucket, count(*) FROM flagsweep_flag WHERE {of_these} GROUP BY bucket"
        rows = db.execute_sql(self.own(sql), tuple(map(self.encoded_name, (*kinds, *buckets)))).fetchall()
        return Counter({bucket.decode() if isinstance(bucket, bytes) else bucket: count for bucket, count in rows})

    def candidates(self, db: Database, kind: str, priority: int, now: int, most: int) -> list[tuple[int, int]]:
        """Return (id, attempts) of due flags, the longest due first."""
        parameters = (self.encoded_name(kind), priority, now, most)
        return db.execute_sql(self.own(CANDIDATES), parameters).fetchall()

"""Deaths: which sorts of dead flags there are, and how many died since a time, without reading the flags.

From one group of the index to the next is a step, and what is counted is counted no further than somebody wants to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peewee import Database

from .gates import Gates

Grave = tuple[str, str | None, int, Any, Any]
"""A group's kind and what its flags died of, how many there are, and when the first and the last of them died."""

Group = tuple[str, str | None]
"""A kind, and what its flags died of; None: they died before that was noted, or a hand has killed them."""


class Deaths(Gates):
    """Look through the dead."""

    dead = "state = 'dead' AND "
    """What makes a question one to the index of the dead."""
    outer, inner = "kind", "died_as"
    """The columns with which that index begins."""

    ordered = ""
    """Has those of a group be counted in the order of the index, where a database would rather look through all flags."""
    latest = "SELECT max(died_at) FROM flagsweep_flag {where}"
    """Asks when the last flag of a group died."""

    def dead_groups(self, db: Database) -> Iterator[Group]:
        """Yield which groups there are, in the order of the index."""
        for first in self._steps(db, self.outer):
            for second in self._steps(db, self.inner, first):
                yield (first, second) if self.outer == "kind" else (second, first)

    def died_since(self, db: Database, group: Group, since: int, most: int) -> int:
        """Return how many flags of a group died since a time, counting no further than ``most``."""
        kind, died_as = group
        named = "died_as IS NULL" if died_as is None else "died_as = ?"
        inner = f"SELECT 1 FROM flagsweep_flag WHERE {self.dead}kind = ? AND {named} AND died_at >= ? {self.ordered}LIMIT ?"
        values = (self.encoded_name(kind), *(() if died_as is None else (died_as,)), since, most)
        return int(db.execute_sql(self.own(f"SELECT count(*) FROM ({inner}) AS died"), values).fetchone()[0])

    def last_of_group(self, db: Database, group: Group) -> int | None:
        """Return the id of the flag of a group that died last, or None."""
        kind, died_as = group
        named = "died_as IS NULL" if died_as is None else "died_as = ?"
        where = f"WHERE {self.dead}kind = ? AND {named}"
        values = (self.encoded_name(kind), *(() if died_as is None else (died_as,)))
        (last,) = db.execute_sql(self.own(self.latest.format(where=where)), values).fetchone() or (None,)
        found = db.execute_sql(
            self.own(f"SELECT id FROM flagsweep_flag {where} AND died_at = ? LIMIT 1"), (*values, last)
        ).fetchone()
        return None if found is None else found[0]

    def dead_by_kind(self, db: Database, most: int, kinds: int) -> dict[str, int]:
        """Return how many flags of each kind are dead, counting no further than ``most`` of each of the first ``kinds`` kinds."""
        inner = "SELECT 1 FROM flagsweep_flag WHERE state = 'dead' AND kind = ? LIMIT ?"
        sql = self.own(f"SELECT count(*) FROM ({inner}) AS dead")
        least = "SELECT min(kind) FROM flagsweep_flag WHERE state = 'dead' AND kind {} ?"
        found: dict[str, int] = {}
        kind = self._least(db, least.format(">="), (self.encoded_name(""),))
        while kind is not None and kind not in found and len(found) < kinds:
            found[kind] = int(db.execute_sql(sql, (self.encoded_name(kind), most)).fetchone()[0])
            kind = self._least(db, least.format(">"), (self.encoded_name(kind),))
        return found

    def grouped(self, db: Database, kind: str | None, most: int, patience: float | None) -> list[Grave] | None:
        """Return the groups with how many there are of each, at most so many groups; None where that takes too long.

        :param kind: of this kind alone.
        :param patience: seconds after which a server is to give up; None: it takes its time.
        """
        raise NotImplementedError

    def some_of(self, db: Database, group: Group, most: int) -> Grave:
        """Return a group with how many there are of it, counting no further than ``most``, the latest first."""
        condition, values = self._of(group)
        inner = f"SELECT died_at FROM flagsweep_flag WHERE {condition} ORDER BY died_at DESC LIMIT ?"
        sql = f"SELECT count(*), min(died_at), max(died_at) FROM ({inner}) AS died"
        many, first, last = db.execute_sql(self.own(sql), (*values, most)).fetchone()
        return (*group, many, first, last)

    def latest_of(self, db: Database, group: Group, most: int) -> list[tuple[int, Any, Any, Any]]:
        """Return id, key, died_at and error of those of a group that died last."""
        condition, values = self._of(group)
        sql = f"SELECT id, key, died_at, error FROM flagsweep_flag WHERE {condition} ORDER BY died_at DESC LIMIT ?"
        return [
            (id, as_text(key), at, as_text(error))
            for id, key, at, error in db.execute_sql(self.own(sql), (*values, most)).fetchall()
        ]

    def _of(self, group: Group) -> tuple[str, tuple[Any, ...]]:
        """Return the condition that an index answers, and its parameters."""
        kind, died_as = group
        named = "died_as IS NULL" if died_as is None else "died_as = ?"
        dead = self.dead or "died_at IS NOT NULL AND "
        return f"{dead}kind = ? AND {named}", (self.encoded_name(kind), *(() if died_as is None else (died_as,)))

    def _steps(self, db: Database, column: str, first: Any = None) -> Iterator[Any]:
        """Yield the values of a column, each once.

        :param first: the value of the column before it in the index.
        """
        within, values = ("", ()) if first is None else (f"{self.outer} = ? AND ", (self._encoded(self.outer, first),))
        if first is not None and column == "died_as":
            yield None
        found = self._least(db, f"SELECT min({column}) FROM flagsweep_flag WHERE {self.dead}{within}{column} >= ?", (*values, ""))
        before = None
        while found is not None and found != before:  # Of what a hand has damaged the next may seem to be the same again.
            yield found
            before, after = found, (*values, self._encoded(column, found))
            found = self._least(db, f"SELECT min({column}) FROM flagsweep_flag WHERE {self.dead}{within}{column} > ?", after)

    def _encoded(self, column: str, value: str) -> Any:
        return self.encoded_name(value) if column == "kind" else value

    def _least(self, db: Database, sql: str, values: tuple[Any, ...]) -> str | None:
        found = db.execute_sql(self.own(sql), values).fetchone()[0]
        return found.decode(errors="backslashreplace") if isinstance(found, bytes) else found


def as_text(value: Any) -> Any:
    """Return text, of bytes that a hand or a server has put there as well."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value

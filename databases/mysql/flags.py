"""MySQL and MariaDB: the statements about flags. Neither has a RETURNING that an upsert could use."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from peewee import Database

from ...payloads import Item
from ..errors import DATABASE_ERRORS
from ..flags import Row, Told
from ..raising import FORMS, Terms, columns
from ..server import Server
from ..server.flags import CLAIMED, raised, readable, rounds
from ..statement import Execute, Statement
from ..way import FORCED, Way, is_open
from .words import quoted

UPSERT = {
    form: "ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), " + raised(form, "", "VALUES({})".format).replace("%s", "?")
    for form in FORMS
}
RAISE = {
    form: f"INSERT INTO flagsweep_flag ({', '.join(columns(form))}) VALUES ({', '.join('?' * len(columns(form)))}) {UPSERT[form]}"
    for form in FORMS
}
RAISED_AS = "SELECT raised_as, generation FROM flagsweep_flag WHERE id = ?"
RAISE_MANY = {form: f"INSERT INTO flagsweep_flag ({', '.join(columns(form))}) VALUES {{rows}} {UPSERT[form]}" for form in FORMS}
ROW = {form: f"({', '.join(['%s'] * len(columns(form)))})" for form in FORMS}
RAISED_MANY = "SELECT raised_as FROM flagsweep_flag WHERE kind = ? AND key IN ?"
AGENDA = """
SELECT kind, priority, min(due_at) FROM flagsweep_flag
WHERE state = 'waiting' AND kind = ? GROUP BY state, kind, priority
"""
# With DISTINCT MariaDB would read every row of the state.
KINDS = "SELECT kind FROM flagsweep_flag WHERE state = 'waiting' GROUP BY state, kind"
FIND_DUE = f"""
SELECT {CLAIMED} FROM flagsweep_flag
WHERE state = 'waiting' AND kind = ? AND priority = ? AND due_at <= ? AND {is_open()}
ORDER BY due_at, id LIMIT ? FOR UPDATE SKIP LOCKED
"""
FIND_THESE = f"""
SELECT {CLAIMED} FROM flagsweep_flag WHERE id IN ? AND state = 'waiting' AND {is_open()} FOR UPDATE SKIP LOCKED
"""
CLAIM = """
UPDATE flagsweep_flag SET state = 'claimed', claim_token = ?, claimed_by = ?, claimed_at = ?, claimed_generation = generation
WHERE id IN ?
"""
STATE = "SELECT state FROM flagsweep_flag WHERE id = ?"
IS_OURS = "SELECT 1 FROM flagsweep_flag WHERE id = ? AND claim_token = ?"
NOBODYS = "SELECT id FROM flagsweep_flag WHERE kind = ? AND key IN ? FOR UPDATE NOWAIT"
SPACE = """
UPDATE flagsweep_flag FORCE INDEX (PRIMARY)
JOIN JSON_TABLE(%s, '$[*]' COLUMNS (turn FOR ORDINALITY, id BIGINT PATH '$')) AS item ON item.id = flagsweep_flag.id
SET due_at = %s + (%s + item.turn - 1) * %s DIV %s
"""
DISCOVER = """
INSERT INTO flagsweep_flag (kind, key, payload, priority, due_at, raised_at) VALUES {rows} ON DUPLICATE KEY UPDATE id = id
"""

MANY = 500
"""Rows of one INSERT: far below any max_allowed_packet."""


class MysqlFlags(Server):
    """Kind and key are bytes: as text ``A`` would be ``a``, and a space at the end nothing."""

    among = "IN %s"
    text = "CONVERT(? USING utf8mb4)"

    def native(self, sql: str) -> str:
        if " IN ?" in sql or "{among}" in sql:  # A small table would be read whole, and a row that somebody holds waited for.
            sql = sql.replace("DELETE FROM flagsweep_flag", "DELETE flagsweep_flag FROM flagsweep_flag FORCE INDEX (PRIMARY)")
            sql = sql.replace("FROM flagsweep_flag WHERE id", "FROM flagsweep_flag FORCE INDEX (PRIMARY) WHERE id")
            sql = sql.replace("UPDATE flagsweep_flag", "UPDATE flagsweep_flag FORCE INDEX (PRIMARY)")
        return quoted(super().native(sql))

    def encoded(self, text: str) -> Any:
        return text.encode()

    def encoded_name(self, name: str) -> Any:
        return name.encode()

    def listed(self, values: Sequence[int]) -> Any:
        return tuple(values) or (-1,)

    def raise_(self, db: Database, kind: str, item: Item, terms: Terms) -> Told:
        with nullcontext() if db.in_transaction() else db.atomic():  # What is read after is then what was written.
            return super().raise_(db, kind, item, terms)

    def raising(self, kind: str, item: Item, terms: Terms) -> Statement:
        return Statement(self.sql[RAISE[terms.form]], (*self._values(kind, item, terms), *terms.updating))

    def _values(self, kind: str, item: Item, terms: Terms) -> tuple[Any, ...]:
        bucket = None if item.bucket is None else item.bucket.encode()
        named = terms.occurrence and terms.occurrence._replace(schedule=terms.occurrence.schedule.encode())  # type: ignore[arg-type]
        return terms._replace(occurrence=named).values(kind.encode(), item.key.encode(), item.payload, bucket)

    def raised(self, execute: Execute, cursor: Any) -> Told:
        id: int = cursor.lastrowid
        if cursor.rowcount == 1:
            return id, "new", 1
        row = execute(self.sql[RAISED_AS], (id,)).fetchone()
        return (id, "coalesced", 2) if row is None else (id, *row)  # Committed by itself, and swept since.

    def space(self, db: Database, ids: Sequence[int], now: int, turn: int, count: int, period: int) -> None:
        db.execute_sql(SPACE, (json.dumps(list(ids)), now, turn, period, count))

    def raise_many_over(self, execute: Execute, kind: str, chunk: str, terms: Terms) -> Counter[str]:
        counts: Counter[str] = Counter()
        for found in rounds(chunk):
            # Ordered by key: two requests that raise the same flags in different orders would wait for each other.
            ordered = sorted(found.values(), key=lambda item: item.key.encode())
            values = [value for item in ordered for value in self._values(kind, item, terms)]
            many = self.sql[RAISE_MANY[terms.form]].format(rows=", ".join([ROW[terms.form]] * len(ordered)))
            execute(many, (*values, *terms.updating))
            keys = tuple(item.key.encode() for item in ordered)
            counts.update(row[0] for row in execute(self.sql[RAISED_MANY], (kind.encode(), keys)).fetchall())
        return counts

    def agenda(self, db: Database, kinds: str) -> list[tuple[str, int, Any]]:
        # One kind a query: for a list of kinds MySQL reads all their rows instead of the first of each priority.
        return [
            (kind, *row[1:])
            for kind in json.loads(kinds)
            for row in db.execute_sql(self.sql[AGENDA], (kind.encode(),)).fetchall()
        ]

    def waiting_kinds(self, db: Database) -> list[str]:
        return [readable(row[0]) for row in db.execute_sql(self.sql[KINDS]).fetchall()]

    def claim(
        self, db: Database, kind: str, priority: int, limit: int, consumer: int, token: int, now: int, way: Way = FORCED
    ) -> list[Row]:
        which = (kind.encode(), priority, now, *way.values(now, self.encoded_name), limit)
        found = db.execute_sql(self.sql[FIND_DUE], which).fetchall()
        return self._claim(db, found, consumer, token, now)

    def claim_these(self, db: Database, ids: Sequence[int], consumer: int, token: int, now: int, way: Way = FORCED) -> list[Row]:
        found = db.execute_sql(self.sql[FIND_THESE], (self.listed(ids), *way.values(now, self.encoded_name))).fetchall()
        return self._claim(db, found, consumer, token, now)

    def _claim(self, db: Database, found: Sequence[Any], consumer: int, token: int, now: int) -> list[Row]:
        if found:
            db.execute_sql(self.sql[CLAIM], (token, consumer, now, tuple(row[1] for row in found)))
        return self.rows(found)

    def settle_one(self, db: Database, named: dict[str, Any]) -> str | None:
        if not self.settling(named).on(db.execute_sql).rowcount:
            return None
        return db.execute_sql(self.sql[STATE], (named["id"],)).fetchone()[0]

    def progress(self, db: Database, id: int, token: int, cursor: str) -> bool:
        """MySQL counts the rows that it has changed: one that holds this cursor already is looked for."""
        return super().progress(db, id, token, cursor) or bool(db.execute_sql(self.sql[IS_OURS], (id, token)).fetchall())

    def discover(self, db: Database, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> int:
        rows = sorted(rows)
        return sum(self._discover(db, kind, rows[n : n + MANY], priority, now) for n in range(0, len(rows), MANY))

    def may_raise(self, db: Database, kind: str, keys: Sequence[str]) -> bool:
        """Here whoever has done less is ended where two wait for each other; so we never wait."""
        try:
            with self.undoable(db):
                self._refuse_to_wait(db, kind, keys)
        except DATABASE_ERRORS as error:
            if not self.is_busy(error) or not self.in_transaction(db):
                raise
            return False
        return True

    def _refuse_to_wait(self, db: Database, kind: str, keys: Sequence[str]) -> None:
        """Fail at once where somebody is just raising one of these flags: an INSERT would wait for a second at least."""
        db.execute_sql(self.sql[NOBODYS], (kind.encode(), tuple(key.encode() for key in keys))).fetchall()

    def _discover(self, db: Database, kind: str, rows: Sequence[tuple[str, str]], priority: int, now: int) -> int:
        self._refuse_to_wait(db, kind, [key for key, _ in rows])
        values = [value for key, payload in rows for value in (kind.encode(), key.encode(), payload, priority, now, now)]
        many = self.sql[DISCOVER].format(rows=", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(rows)))
        return db.execute_sql(many, values).rowcount

"""Plain sqlite3 on the flags' own table, without flagsweep: what SQLite and the disk allow."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from peewee import SqliteDatabase, chunked
from playhouse.reflection import generate_models

TABLE = "flagsweep_flag"
FEWEST_INDEXES = (
    f"CREATE UNIQUE INDEX IF NOT EXISTS plain_key ON {TABLE} (kind, key)",
    f"CREATE INDEX IF NOT EXISTS plain_state ON {TABLE} (state, id)",
)


@dataclass(frozen=True)
class Model:
    """The flags' table, and one flag in it, as flagsweep wrote them: what plain SQL copies."""

    table: str
    indexes: tuple[str, ...]
    flag: Mapping[str, object]
    needed: tuple[str, ...]

    @property
    def insert(self) -> str:
        """An INSERT of the columns that have no default, key and payload first."""
        places = ", ".join("?" * len(self.needed))
        return f"INSERT INTO {TABLE} ({', '.join(self.needed)}) VALUES ({places})"

    def rows(self, numbers: Iterable[int]) -> Iterator[tuple[object, ...]]:
        """Yield the needed values for each number, the payload being its own key as in flagsweep."""
        rest = [self.flag[column] for column in self.needed[2:]]
        for n in numbers:
            payload = f'{{"user_id":{n}}}'
            yield (payload, payload, *rest)


def model_of(path: Path) -> Model:
    """Return the model that the newest flag of a file makes."""
    with closing(sqlite3.connect(path)) as connection:
        table, *indexes = _statements(connection)
        connection.row_factory = sqlite3.Row
        flag = dict(connection.execute(f"SELECT * FROM {TABLE} ORDER BY id DESC LIMIT 1").fetchone())
        del flag["id"]
        infos = connection.execute(f"PRAGMA table_info({TABLE})").fetchall()
    needed = {info["name"] for info in infos if info["notnull"] and info["dflt_value"] is None} - {"id"}
    return Model(table, tuple(indexes), flag, ("key", "payload", *sorted(needed - {"key", "payload"})))


def _statements(connection: sqlite3.Connection) -> list[str]:
    """Return what made the table and its indexes, the table first."""
    query = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC"
    return [row[0] for row in connection.execute(query, (TABLE,))]


@contextmanager
def plain_table(path: Path, model: Model, indexes: Iterable[str] | None = None) -> Iterator[sqlite3.Connection]:
    """Yield a connection (autocommit, WAL, synchronous=FULL) to a new file with the model's table and its indexes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for statement in (model.table, *(model.indexes if indexes is None else indexes)):
            connection.execute(statement)
        yield connection


def insert_rate(path: Path, model: Model, count: int) -> float:
    """Return the rows a second, each with its own commit."""
    with plain_table(path, model) as connection:
        rows = list(model.rows(range(count)))
        start = time.perf_counter()
        for row in rows:
            connection.execute(model.insert, row)
        return count / (time.perf_counter() - start)


def insert_many_rate(path: Path, model: Model, count: int) -> float:
    """Return the rows a second of one executemany in one transaction, making their JSON included."""
    with plain_table(path, model) as connection:
        start = time.perf_counter()
        _insert_many(connection, model, count)
        return count / (time.perf_counter() - start)


def _insert_many(connection: sqlite3.Connection, model: Model, count: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(model.insert, model.rows(range(count)))
    connection.execute("COMMIT")


def peewee_insert_many_rate(path: Path, model: Model, count: int) -> float:
    """Return the rows a second of Peewee's insert_many, 500 a statement, in one transaction."""
    with plain_table(path, model):
        database = SqliteDatabase(path, pragmas={"synchronous": "full"})
        with database.connection_context():
            table = generate_models(database, table_names=[TABLE])[TABLE]
            names = [table._meta.columns[column] for column in model.needed]
            start = time.perf_counter()
            with database.atomic("IMMEDIATE"):
                for rows in chunked(model.rows(range(count)), 500):
                    table.insert_many(rows, fields=names).execute()
            return count / (time.perf_counter() - start)


def drain_rate(path: Path, model: Model, count: int, batch: int) -> float:
    """Return the rows a second of the least that is a sweep: claim a batch and commit, delete it and commit.

    The table has the same columns, but no more indexes than this needs.
    """
    with plain_table(path, model, FEWEST_INDEXES) as connection:
        _insert_many(connection, model, count)
        start = time.perf_counter()
        while _claim_and_delete(connection, batch):
            pass
        return count / (time.perf_counter() - start)


def _claim_and_delete(connection: sqlite3.Connection, batch: int) -> int:
    token = secrets.randbits(62)
    connection.execute("BEGIN IMMEDIATE")
    claimed = connection.execute(
        f"UPDATE {TABLE} SET state = 'claimed', claim_token = ? WHERE id IN"
        f" (SELECT id FROM {TABLE} WHERE state = 'waiting' ORDER BY id LIMIT ?) RETURNING id",
        (token, batch),
    ).fetchall()
    connection.execute("COMMIT")
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(f"DELETE FROM {TABLE} WHERE id = ? AND claim_token = {token}", claimed)
    connection.execute("COMMIT")
    return len(claimed)


def fill(path: Path, model: Model, count: int, changes: Mapping[str, object]) -> None:
    """Add `count` rows like the model's, but for the changed columns, in one statement."""
    made = {"key": "'bulk-' || i", "payload": "'{\"user_id\":' || i || '}'"}
    cells = ", ".join(f":{column}" if column in changes else made.get(column, f":{column}") for column in model.flag)
    numbers = f"WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {int(count)})"
    insert = f"INSERT INTO {TABLE} ({', '.join(model.flag)}) {numbers} SELECT {cells} FROM numbers"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(insert, {**model.flag, **changes})
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

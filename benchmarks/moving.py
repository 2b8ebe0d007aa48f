"""How fast flags move to another database, beside a bare copy with its driver; and killed five times on the way."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from measure import Bound, Plan, Row, Skipped, paired, row_of
from servers import mysql, postgresql, settings_of

from flagsweep import FlagSweep
from flagsweep.operations.carrying.tables import shapes

MUST = Bound(20_000, of="measured")
"""Rows a second that are copied and compared, at the least."""
KILLS = 5
SHAPE = shapes()["flag"]
MARKS = {"sqlite": "?", "postgresql": "%s", "mysql": "%s"}


def move(plan: Plan) -> list[Row]:
    """Move to each kind of database."""
    source = _filled(plan, plan.size(1_000_000, 5_000))
    rows = []
    for name, made in (("SQLite", _file), ("PostgreSQL", postgresql), ("MySQL/MariaDB", mysql)):
        try:
            rows += _moves(plan, source, name, made)
        except Skipped as reason:
            rows.append(Row(f"move to {name}", note=str(reason)))
    return [*rows, _killed(plan, source)]


@contextmanager
def _file(plan: Plan) -> Iterator[str]:
    yield f"sqlite:///{plan.new_file('target')}"


def _filled(plan: Plan, count: int) -> Path:
    """Return a database in which so many flags wait, with a payload of about a hundred bytes each."""
    path = plan.new_file("source")
    flags = FlagSweep(path)
    flags.init()
    send = flags.handler("send_welcome_email")(lambda user_id, address: None)
    send.raise_many((number, f"somebody.{number}@mail.example.com") for number in range(count))
    flags.database.close()
    return path


def _moves(plan: Plan, source: Path, name: str, made: Callable[[Plan], Any]) -> list[Row]:
    sides = {"move": lambda: _move(plan, source, made), "bare copy": lambda: _bare(plan, source, made)}
    samples = paired(sides, plan.size(2, 1))
    row = row_of(f"move to {name}", "/s", samples, "move", "bare copy", None if name.startswith("MySQL") else MUST)
    return [row]


def _move(plan: Plan, source: Path, made: Callable[[Plan], Any]) -> float:
    """Move, and return how many rows a second; then give the source back."""
    flags = FlagSweep(source, **settings_of(plan))
    with made(plan) as url:
        moved = flags.move(url)
    flags.resume()
    flags.database.close()
    if not moved.counts["flag"] or moved.mended or moved.parked:
        raise RuntimeError(f"the move is not what it should be: {moved}")
    return moved.counts["flag"] / moved.seconds


def _bare(plan: Plan, source: Path, made: Callable[[Plan], Any]) -> float:
    """Copy the same rows into the same table with the drivers alone, in the same pages, and compare nothing."""
    with made(plan) as url, closing(sqlite3.connect(source)) as old:
        target = FlagSweep(url, **settings_of(plan))
        target.init()
        kind = url.partition(":")[0]
        columns = ", ".join(f"`{each}`" if kind == "mysql" else each for each in SHAPE.columns)
        marks = ", ".join([MARKS[kind]] * len(SHAPE.columns))
        always = " OVERRIDING SYSTEM VALUE" if kind == "postgresql" else ""
        insert = f"INSERT INTO flagsweep_flag ({columns}){always} VALUES ({marks})"
        raw: Any = target.database.connection()
        began, count, last = time.perf_counter(), 0, 0
        while page := old.execute(
            f"SELECT {SHAPE.listed} FROM flagsweep_flag WHERE id > ? ORDER BY id LIMIT 2000", (last,)
        ).fetchall():
            with raw if kind == "sqlite" else nullcontext():
                if kind == "sqlite":
                    raw.execute("BEGIN")
                raw.cursor().executemany(insert, page)
                raw.commit()
            count, last = count + len(page), page[-1][0]
        took = time.perf_counter() - began
        target.database.close()
        return count / took


CHILD = "import sys; from flagsweep import FlagSweep; FlagSweep(sys.argv[1]).move(sys.argv[2])"


def _killed(plan: Plan, source: Path) -> Row:
    """Move to SQLite by processes of which five are killed at random; count what arrives."""
    url = f"sqlite:///{plan.new_file('killed')}"
    with closing(sqlite3.connect(source)) as db:
        (count,) = db.execute("SELECT count(*) FROM flagsweep_flag").fetchone()
    began, kills = time.perf_counter(), 0
    while True:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(source), url])
        if kills < KILLS:
            time.sleep(random.uniform(0.5, max(0.6, count / 150_000)))
            child.send_signal(signal.SIGKILL)
        if child.wait() == 0:
            break
        kills += 1
    took = time.perf_counter() - began
    target = FlagSweep(url)
    with target.database.connection_context():
        found = target.database.execute_sql("SELECT count(*), count(DISTINCT id), sum(id) FROM flagsweep_flag").fetchone()
    back = FlagSweep(source)
    back.resume()
    back.database.close()
    if found[:2] != (count, count):
        raise RuntimeError(f"of {count} flags {found} arrived")
    note = f"{count:,} of {count:,} flags arrived, each once; {kills} processes were killed, whose starts count"
    return Row(f"move to SQLite, killed {kills} times", "/s", count / took, note=note)

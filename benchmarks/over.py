"""Raising over the site's own connection, beside the same layer's own raw INSERT of the same row."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import plain
import work
from in_process import flag_model
from measure import Plan, Row, Skipped, paired, ratio_at_least, row_of
from servers import postgresql

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "adapters"))

from flagsweep import FlagSweep


def over(plan: Plan) -> list[Row]:
    """Raises a second over a connection of each layer: each with a commit of its own, and many in one transaction."""
    try:
        import layers
    except ImportError as error:
        raise Skipped(f"{error.name} is not installed") from None
    rows = []
    with ExitStack() as stack:
        places = {"SQLite": f"sqlite:///{plan.new_file('over')}", "PostgreSQL": stack.enter_context(postgresql(plan))}
        for place, url in places.items():
            driver = layers.Sqlite if place == "SQLite" else layers.Psycopg
            for name, kind in (("DB-API", driver), ("SQLAlchemy", layers.AlchemySession), ("Django", layers.Django)):
                flags = stack.enter_context(work.flagsweep_at(url))
                with layers.opened(kind, url) as layer:
                    rows += _rows_of(plan, f"{name}, {place}", flags, layer)
    return rows


def _rows_of(plan: Plan, what: str, flags: FlagSweep, layer: Any) -> list[Row]:
    count = plan.size(1000, 100)
    insert = _inserting(layer, flag_model(plan))
    raising = work.noop_handler(flags, f"kind {what}".replace(" ", "-")).using(connection=layer.connection).raise_flag
    rows = []
    for together, bound in ((1, ratio_at_least(0.7, 0.9)), (count, None)):
        sides = {
            "flagsweep": lambda together=together: _rate(layer, raising, count, together),
            "raw INSERT": lambda together=together: _rate(layer, insert, count, together),
        }
        label = "one commit each" if together == 1 else "in one transaction"
        rows.append(row_of(f"raise over {what}, {label}", "/s", paired(sides, plan.size(7, 2)), "flagsweep", "raw INSERT", bound))
    return rows


NUMBERS = iter(range(10**9))
"""No two flags are the same, whichever side writes them."""


def _rate(layer: Any, put: Callable[[int], Any], count: int, together: int) -> float:
    """Return how many a second, so many within one transaction."""
    numbers = [next(NUMBERS) for _ in range(count)]
    start = time.perf_counter()
    for first in range(0, count, together):
        with _transaction(layer):
            for number in numbers[first : first + together]:
                put(number)
    return count / (time.perf_counter() - start)


@contextmanager
def _transaction(layer: Any) -> Iterator[None]:
    layer.begin()
    yield
    layer.commit()


def _inserting(layer: Any, model: plain.Model) -> Callable[[int], Any]:
    """Return what writes one such row with the layer's own means."""
    names, places = ", ".join(model.needed), len(model.needed)
    head = f"INSERT INTO {plain.TABLE} ({names}) VALUES"
    execute = _executing(layer, head, model.needed, places)

    def insert(number: int) -> None:
        for row in model.rows([number]):
            execute(("plain", *row[1:]) if model.needed[0] == "kind" else row)

    return insert


def _executing(layer: Any, head: str, names: tuple[str, ...], places: int) -> Callable[[tuple], Any]:
    if hasattr(layer, "engine"):
        from sqlalchemy import text

        statement = text(f"{head} ({', '.join(f':{name}' for name in names)})")
        return lambda row: layer.raw.execute(statement, dict(zip(names, row, strict=True)))
    mark = "?" if isinstance(layer.raw, sqlite3.Connection) else "%s"
    sql = f"{head} ({', '.join([mark] * places)})"

    def execute(row: tuple) -> None:
        cursor = layer.raw.cursor()
        cursor.execute(sql, row)
        cursor.close()

    return execute

"""Why rows cross between Python and SQLite as one JSON text: `python benchmarks/one_text.py`.

Reads 500 rows again and again, row by row and as one text, alone and beside a thread that only computes.
"""

import json
import sqlite3
import statistics
import threading
import time

ROWS, ROUNDS = 500, 7


def table() -> sqlite3.Connection:
    """Return a table of ROWS flags in memory."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE flag (id INTEGER PRIMARY KEY, key TEXT, payload TEXT)")
    rows = ((str(n), json.dumps({"user_id": n})) for n in range(ROWS))
    connection.executemany("INSERT INTO flag (key, payload) VALUES (?, ?)", rows)
    return connection


def row_by_row(connection: sqlite3.Connection) -> list:
    """Return the flags, fetched a row at a time."""
    return [(id, key, json.loads(payload)) for id, key, payload in connection.execute("SELECT id, key, payload FROM flag")]


def one_text(connection: sqlite3.Connection) -> list:
    """Return the flags, fetched as one JSON text."""
    statement = "SELECT json_group_array(json_array(id, key, json(payload))) FROM flag"
    return json.loads(connection.execute(statement).fetchone()[0])


def rate(read, connection: sqlite3.Connection) -> float:
    """Return rows a second of one reading."""
    began = time.perf_counter()
    assert len(read(connection)) == ROWS
    return ROWS / (time.perf_counter() - began)


def paired(connection: sqlite3.Connection) -> tuple[float, float]:
    """Return the medians of both ways, taken in turn."""
    rates = [(rate(row_by_row, connection), rate(one_text, connection)) for _ in range(ROUNDS)]
    return statistics.median(r[0] for r in rates), statistics.median(r[1] for r in rates)


def main() -> None:
    """Print both ways, alone and beside a busy thread."""
    connection, stop = table(), threading.Event()
    alone = paired(connection)

    def compute() -> None:
        while not stop.is_set():
            sum(range(100))

    busy = threading.Thread(target=compute)
    busy.start()
    beside = paired(connection)
    stop.set()
    busy.join()
    for name, (rows, text) in (("alone", alone), ("beside a busy thread", beside)):
        print(f"{name:22} row by row {rows:>10,.0f}/s   one text {text:>10,.0f}/s   ratio {text / rows:.1f}")


if __name__ == "__main__":
    main()

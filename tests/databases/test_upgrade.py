"""Tables of version 1, full of work become those of the newest: no row is lost or changed, and no kill leaves them in between."""

import itertools
import json
import os
import signal
from contextlib import closing

import pytest
from places import every_database, on
from rig import ended, forked

from flagsweep.databases.mysql import Mysql
from flagsweep.databases.mysql.words import quoted
from flagsweep.databases.postgresql import Postgresql
from flagsweep.databases.schema import SCHEMA
from flagsweep.databases.sqlite import Sqlite

DIALECTS = {"sqlite": Sqlite, "postgresql": Postgresql, "mysql": Mysql}
PAST, FUTURE = 1_700_000_000_000_000, 4_000_000_000_000_000  # 2023 and 2096
NEWEST = [*range(1, SCHEMA + 1)]
TABLES = ("flagsweep_flag", "flagsweep_consumer", "flagsweep_history")
ODD = ("a'b", 'a"b\\c', "a%b?c", "größer 旗", "tab\tline\n", "🚩")

FLAG = (
    *("kind", "key", "payload", "state", "priority", "due_at", "raised_at", "raised_as", "generation", "attempts", "crashes"),
    *("suspect", "cursor", "error", "died_at", "claim_token", "claimed_by", "claimed_at", "claimed_generation", "settled_at"),
)
HISTORY = ("at", "flag", "kind", "key", "event", "reason")
CONSUMER = ("mode", "pid", "host", "started_at", "comebacks")

ADDED = {
    "flagsweep_flag": {
        **dict.fromkeys(("expires_at", "first_at", "bucket", "schedule", "zone", "intended", "died_as", "trace")),
        **{"covered": 0, "missed": 0, "strikes": 0},
    },
    "flagsweep_history": dict.fromkeys(("attempt", "took", "generation", "consumer", "result")),
    "flagsweep_consumer": dict.fromkeys(("app", "ticked_at", "lanes")),
}
"""What the newest version says of a row of version 1."""


def flag(n):
    """Return the n-th flag: of ten one is dead, two are claimed, three are due in the future, four are due."""
    payload = json.dumps({"number": n, "text": ODD[n % len(ODD)]}, ensure_ascii=n % 2 == 0)
    state = "dead" if n % 10 == 0 else "claimed" if n % 10 in (1, 2) else "waiting"
    due_at = FUTURE if n % 10 in (3, 4, 5) else PAST + n
    claim = (2**62 + n // 20, 1, PAST, 1) if state == "claimed" else (None,) * 4
    died = ("ValueError: " + ODD[n % len(ODD)], PAST) if state == "dead" else (None, None)
    key = f"{n}:" + "k" * (180 if n % 50 == 0 else 1)
    tried = (n % 3, n % 2, n % 2, json.dumps(n) if n % 7 == 0 else None)
    return (
        "work",
        key,
        payload,
        state,
        (n % 3 - 1) * 5,
        due_at,
        PAST,
        "new",
        1,
        *tried,
        *died,
        *claim,
        PAST + n if n % 3 else None,
    )


def filled(place, count):
    """Make the tables of version 1, with so many flags."""
    place.ask(*DIALECTS[place.kind].steps[0], "INSERT INTO flagsweep_schema (version, applied_at) VALUES (1, 5)")
    insert(place, "flagsweep_consumer", CONSUMER, [("run", 1, "gone", PAST, 3)])
    insert(place, "flagsweep_flag", FLAG, [flag(n) for n in range(count)])
    lines = [(PAST + n, n, "work", f"{n}:k", "discarded", ODD[n % len(ODD)]) for n in range(count // 10)]
    insert(place, "flagsweep_history", HISTORY, lines)


def insert(place, table, columns, rows):
    mark = "?" if place.kind == "sqlite" else "%s"
    text = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"
    with closing(place.connect()) as db:
        if place.kind == "postgresql":
            db.autocommit = False
        cursor = db.cursor()
        cursor.executemany(quoted(text) if place.kind == "mysql" else text, rows)
        db.commit()


def held(place):
    """Return all rows of the tables of version 1, by table, as dictionaries."""
    found = {}
    for table in TABLES:
        names = [name for name, _ in place.columns(table)]
        found[table] = [dict(zip(names, row, strict=True)) for row in place.ask(f"SELECT * FROM {table} ORDER BY id")]
    return found


def upgraded(before):
    """Return what the rows are to be after the upgrade."""
    return {table: [{**row, **ADDED[table]} for row in rows] for table, rows in before.items()}


@every_database
@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_version_1_becomes_the_newest_version_without_a_row_lost_or_changed(place, count):
    filled(place, count)
    before = held(place)
    assert [len(before[table]) for table in TABLES] == [count, 1, count // 10]
    assert place.flags().init() is True
    assert place.versions() == NEWEST
    assert held(place) == upgraded(before)
    assert place.flags().init() is False


@every_database
def test_what_version_1_owed_is_done_after_the_upgrade(place):
    """What a consumer had claimed that is gone, too; what is dead or due later stays."""
    filled(place, 100)
    flags, ran = place.flags(threads=2), []
    flags.init()
    flags.handlers["work"].function = lambda number, text: ran.append(number)
    assert flags.sweep() == {"lowered": 60}
    assert sorted(ran) == [n for n in range(100) if n % 10 in (1, 2, 6, 7, 8, 9)]
    assert {n % 10 for n in (each.payload["number"] for each in flags.find(limit=None))} == {0, 3, 4, 5}


@every_database
def test_version_1_upgrades_to_the_tables_that_a_new_database_gets(place):
    place.flags().init()
    model = {table: sorted(place.columns(table)) for table in place.tables()}
    place.wipe()
    filled(place, 10)
    place.flags().init()
    assert {table: sorted(place.columns(table)) for table in place.tables()} == model


def killed_at(place, nth):
    """Have an ``init`` kill itself before the n-th statement of the second step and what follows; return whether it did."""
    first = DIALECTS[place.kind].steps[1][0]

    def die():
        flags, seen = place.flags(), []
        execute = flags.connections.engine.execute_sql

        def counted(sql, *arguments, **options):
            if seen or sql == first:
                seen.append(sql)
            if len(seen) == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return execute(sql, *arguments, **options)

        flags.connections.engine.execute_sql = counted
        flags.init()

    code = ended(forked(die))
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.long
@on("sqlite", *(pytest.param(server, marks=pytest.mark.slow) for server in ("postgresql", "mysql")))
def test_killed_at_any_statement_of_the_upgrade_the_next_init_completes_it(place):
    filled(place, 50)
    before = held(place)
    place.flags().init()
    layout, rows = place.layout(), held(place)
    assert rows == upgraded(before)
    for nth in itertools.count(1):
        place.wipe()
        filled(place, 50)
        if not killed_at(place, nth):
            break
        place.flags().init()
        assert (place.layout(), place.versions(), held(place)) == (layout, NEWEST, rows), f"killed before statement {nth}"
    assert nth > sum(map(len, DIALECTS[place.kind].steps[1:]))

"""Whatever a hand has put into one row: other flags are done, and people are shown all of them."""

from itertools import cycle, product

import pytest

from flagsweep.models import Flag, Gate

GARBAGE = ("'x'", "-1", "9223372036854775807", "9e999", "X'00ff'")
FLAG_COLUMNS = sorted(set(Flag._meta.fields) - {"id", "state"})
GATE_COLUMNS = sorted(set(Gate._meta.fields) - {"sort", "name", "bucket"})


@pytest.fixture
def flags(flags_anywhere):
    return flags_anywhere


@pytest.mark.long
def test_garbage_in_any_column_of_a_flag_hinders_and_hides_no_other(flags, client):
    ran, taken = [], set()
    work = flags.handler("work")(lambda n: ran.append(n))
    for (column, garbage), state in zip(product(FLAG_COLUMNS, GARBAGE), cycle(["waiting", "dead"]), strict=False):
        client.ask("DELETE FROM flagsweep_flag")
        bad = work.raise_flag(0).id
        try:
            client.ask(f"UPDATE flagsweep_flag SET state = '{state}', {column} = {garbage} WHERE id = {bad}")
        except Exception:  # The database does not take it: each driver says so in its own way.
            continue
        taken.add(column)
        work.raise_many([(1,), (2,)])
        ran.clear()
        flags.sweep()
        assert {1, 2} <= set(ran), (column, garbage)
        flags.find(), flags.status(), flags.kinds(), flags.gates()
        assert garbage != GARBAGE[-1] or all(finding.text for finding in flags.doctor())  # It takes its time.
    assert taken == set(FLAG_COLUMNS)


@pytest.mark.long
@pytest.mark.parametrize(("sort", "name"), [("kind", "work"), ("lane", "default"), ("all", "")])
def test_garbage_in_any_column_of_a_gate_hinders_no_other_kind(flags, client, sort, name):
    work = flags.handler("work", rate="100/s burst 100", budget="100000/d", limit=3)(lambda n: None)
    other = flags.handler("other", lane="other")(lambda n: None)
    flags.set_threads("default", 2)
    flags.sweep()
    taken = set()
    for column, garbage in product(GATE_COLUMNS, GARBAGE):
        gate = f"WHERE sort = '{sort}' AND name = '{name}' AND bucket = ''"
        client.ask(f"DELETE FROM flagsweep_gate {gate}")
        client.ask(f"INSERT INTO flagsweep_gate (sort, name, bucket) VALUES ('{sort}', '{name}', '')")
        try:
            client.ask(f"UPDATE flagsweep_gate SET {column} = {garbage} {gate}")
        except Exception:  # The database does not take it: each driver says so in its own way.
            continue
        taken.add(column)
        client.ask("INSERT INTO flagsweep_pulse (what) VALUES ('gate')")
        work.raise_flag(1)
        other.raise_flag(1)
        flags.sweep()
        left = {flag.kind for flag in flags.find()}
        assert "other" not in left or (sort, column) == ("all", "paused_at"), (column, garbage)
        assert "work" not in left or column in {"paused_at", "taken"}, (column, garbage)
        assert {(gate.sort, gate.name) for gate in flags.gates()} >= {("kind", "work")}, (column, garbage)
    assert taken == set(GATE_COLUMNS)
    client.ask("DELETE FROM flagsweep_gate")
    client.ask("INSERT INTO flagsweep_pulse (what) VALUES ('gate')")
    flags.sweep()
    assert flags.find() == []

"""Whatever a hand has put into one flag's row: the others are done, and people are shown all of them."""

from itertools import cycle, product

import pytest
from rig import FakeClock, let_go

from flagsweep import FlagSweep
from flagsweep.models import Flag

GARBAGE = ("'x'", "-1", "9223372036854775807", "9e999", "X'00ff'")
COLUMNS = sorted(set(Flag._meta.fields) - {"id", "state"})


@pytest.fixture
def flags(url, tmp_path):
    flags = FlagSweep(url, clock=FakeClock(), threads=2, state_dir=str(tmp_path / "state"))
    flags.init()
    yield flags
    flags.connections.close_thread()
    let_go(tmp_path)


@pytest.mark.long
def test_garbage_in_any_column_of_a_flag_hinders_and_hides_no_other(flags, client):
    ran, taken = [], set()
    work = flags.handler("work")(lambda n: ran.append(n))
    for (column, garbage), state in zip(product(COLUMNS, GARBAGE), cycle(["waiting", "dead"]), strict=False):
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
    assert taken == set(COLUMNS)

"""What is found of what lies about: gates that a hand has set or damaged, and a folder in which no bell can be."""

import pytest
from examined import found

from flagsweep import FlagSweep

GATE = "INSERT INTO flagsweep_gate (sort, name, bucket, {}) VALUES (?, ?, ?, ?)"


def test_gates_that_can_be_read_are_well(flags):
    assert found(flags, "gate rows").text == "there are none"
    flags.pause(kind="send")
    assert found(flags, "gate rows").level == "ok"


@pytest.mark.parametrize(
    ("column", "value"), [("paused_at", -5), ("threads", 100_000), ("breaker", "{"), ("closed_until", 2**62)], ids=str
)
def test_a_gate_that_a_hand_has_damaged_is_told_with_what_is_wrong(flags_anywhere, column, value):
    flags_anywhere.handler("send")(lambda number: None)
    with flags_anywhere.connections.write() as db:
        dialect = flags_anywhere.connections.dialect
        db.execute_sql(dialect.own(GATE.format(column)), ("kind", dialect.encoded_name("send"), dialect.encoded_name(""), value))
    finding = found(flags_anywhere, "gate rows")
    assert finding.level == "warn" and f"kind send ({column} = '{value}')" in finding.text


def test_a_gate_of_a_sort_that_there_is_not_is_told(flags):
    flags.database.execute_sql(GATE.format("paused_at"), ("kinds", "send", "", 1))
    assert "kinds send (no such sort)" in found(flags, "gate rows").text
    flags.database.close()


def test_a_pause_of_what_nobody_has_is_told(flags, db_path):
    unaware = FlagSweep(db_path)
    unaware.pause(kind="sned")
    finding = found(flags, "gate rows")
    assert finding.level == "warn" and "nobody here has them: kind sned" in finding.text
    assert found(unaware, "gate rows").level == "ok"


@pytest.mark.parametrize("length", [0, 120])
def test_a_folder_whose_path_is_too_long_for_a_bell_is_told(mysql_url, tmp_path, length):
    flags = FlagSweep(mysql_url, state_dir=str(tmp_path.parents[2] / ("x" * length)))
    flags.init()
    finding = found(flags, "bell")
    assert finding.level == ("warn" if length else "ok")
    assert not length or ("107 bytes at the most" in finding.text and "FLAGSWEEP_STATE_DIR" in finding.fix)
    flags.connections.close_thread()


def test_where_the_server_tells_of_flags_no_bell_is_needed(postgres_url, tmp_path):
    flags = FlagSweep(postgres_url, state_dir=str(tmp_path / ("x" * 120)))
    flags.init()
    assert found(flags, "bell").text == "not needed: the server tells of flags"
    flags.connections.close_thread()

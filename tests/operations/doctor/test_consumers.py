"""What is found of who sweeps."""

import os
from contextlib import closing

import pytest
from examined import found
from rig import plain

from flagsweep import FlagSweep
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.terms import RUN
from flagsweep.operations.doctor.finding import Finding


def test_flags_that_are_due_while_nobody_sweeps_are_told(flags):
    assert found(flags, "consumer") == Finding("ok", "consumer", "none runs, and nothing is due")
    flags.handlers["send"].raise_flag(1)
    finding = found(flags, "consumer")
    assert finding.level == "warn" and "due: 1" in finding.text and "flagsweep run" in finding.fix


def test_the_running_consumer_is_named(flags, db_path):
    with closing(Enlisted(flags._duties(), RUN)):
        finding = found(flags, "consumer")
        assert finding.level == "ok" and f"pid {os.getpid()}" in finding.text
    flags.connections.close_engine()


@pytest.mark.parametrize("what", [{"kind": "send"}, {"lane": "default"}, {}], ids=str)
def test_what_is_overdue_behind_a_closed_gate_is_no_fault_of_the_consumers(db_path, clock, what):
    flags = FlagSweep(db_path, clock=clock)
    flags.init()
    flags.handler("send")(lambda user_id: None)
    flags.handlers["send"].raise_flag(1)
    clock.advance(60)
    with closing(Enlisted(flags._duties(), RUN)):
        finding = found(flags, "consumer")
        assert finding.level == "warn" and "flags of send are overdue" in finding.text
        assert found(flags, "gates").level == "ok"
        flags.pause(**what, reason="audit", by="ada")
        assert found(flags, "consumer").level == "ok"
        finding = found(flags, "gates")
        assert finding.level == "warn" and "flags of send (" in finding.text and "paused by ada: audit" in finding.text
    flags.connections.close_engine()


def test_what_waits_since_its_options_say_so_needs_no_mending(db_path, clock):
    flags = FlagSweep(db_path, clock=clock)
    flags.init()
    flags.handler("send", quiet="00:00-07:00")(lambda user_id: None).raise_flag(1)
    clock.advance(60)
    finding = found(flags, "gates")
    assert finding.level == "ok" and "send (quiet" in finding.text


def test_a_consumer_whose_life_this_user_cannot_see_is_not_called_dead(flags, monkeypatch):
    consumer = {"id": 1, "mode": "run", "pid": 1, "host": "h", "started_at": "2026-01-01T00:00:00+00:00", "alive": None}
    monkeypatch.setattr("flagsweep.operations.doctor.patient.consumers", lambda store: [consumer])
    assert found(flags, "consumer").level == "warn"
    assert found(flags, "dead consumers").level == "ok"


def test_what_a_dead_consumer_left_is_told_with_its_crash_report(flags, db_path):
    with closing(Enlisted(flags._duties())):
        pass
    flags.connections.close_engine()
    plain(db_path, "INSERT INTO flagsweep_consumer (id, mode, pid, host, started_at) VALUES (77, 'run', 4711, 'h', 1)")
    report = db_path.parent / "site.db.flagsweep" / "crash-77.txt"
    report.write_text("Fatal Python error: Segmentation fault")
    finding = found(flags, "dead consumers")
    assert finding.level == "warn" and "77 (pid 4711)" in finding.text and str(report) in finding.text

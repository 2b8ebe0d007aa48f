"""What is found of who sweeps."""

import json
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


def test_a_consumer_without_the_handler_that_the_code_has_is_named(flags_anywhere):
    flags = flags_anywhere
    flags.handler("mails")(lambda: None)
    flags.handler("mail")(lambda: None).raise_flag()
    flags.clock.advance(60)
    with closing(Enlisted(flags._duties(), RUN)) as enlisted:
        assert "flags of mail are overdue" in found(flags, "consumer").text
        said = {"default": {"swept_at": flags.clock.now(), "running": 0, "threads": 2, "kinds": ["mails"]}}
        flags.store.tick(enlisted.id, json.dumps(said), flags.clock.now())
        finding = found(flags, "consumer")
        assert finding.level == "warn" and f"(pid {os.getpid()} on " in finding.text
        assert "has no handler for mail, whose flags are overdue, although this code has" in finding.text
        assert finding.fix.startswith("start it anew")
        said["default"]["kinds"].append("mail")
        flags.store.tick(enlisted.id, json.dumps(said), flags.clock.now())
        assert "its threads are too few" in found(flags, "consumer").fix


def test_a_consumer_that_started_before_its_code_was_changed_is_named(flags, tmp_path, monkeypatch):
    (tmp_path / "work_of_before.py").write_text("def send():\n    pass\n")
    os.utime(tmp_path / "work_of_before.py", (1, 1))
    monkeypatch.syspath_prepend(tmp_path)
    import work_of_before

    flags.handler("mail")(work_of_before.send)
    with closing(Enlisted(flags._duties(), RUN)):
        assert found(flags, "code").level == "ok"
        later = flags.clock.now() / 1_000_000 + 5
        os.utime(tmp_path / "work_of_before.py", (later, later))
        finding = found(flags, "code")
        assert finding.level == "warn" and finding.text.startswith("work_of_before.py was changed at ")
        assert finding.text.endswith("with the code of that time") and f"'kill {os.getpid()}'" in finding.fix
    flags.connections.close_engine()

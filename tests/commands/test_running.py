"""Doing the work: run and sweep, and the signals that end them."""

import json
import re
import signal

import pytest
from calling import flagsweep, line
from rig import count, plain


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_sweep_says_which_kinds_are_due_that_nobody_imported(shop, db_path, options):
    shop.send.raise_many([(1,), (2,)])
    plain(db_path, "UPDATE flagsweep_flag SET kind = 'other' WHERE id = 1")
    result = flagsweep("sweep", *options, code=1)
    assert "no handler is known for: other (1)" in result.stderr
    assert json.loads(result.stdout)["lowered"] == 1 if options else result.stdout == "swept 1 flag: 1 lowered\n"
    assert "no handler is known for: other (1)" in flagsweep("sweep", *options, code=1).stderr
    assert flagsweep("sweep", "--lane", "mail").exit_code == 0


def test_sweep_does_what_is_due_and_closes_with_a_line_of_counts(shop, db_path):
    shop.send.raise_many([(1,), (2,), (3, "fail")])
    result = flagsweep("sweep")
    assert result.stdout == "swept 3 flags: 2 lowered, 1 again\n"
    assert "WARNING send (flag 3) attempt 1 failed" in line(result)
    assert flagsweep("sweep").stdout == "nothing was due\n"
    assert count(db_path) == 1


def test_sweep_as_json_holds_every_outcome(shop):
    shop.send.raise_flag(1)
    counts = json.loads(flagsweep("sweep", "--json").stdout)
    assert counts == {"lowered": 1, **dict.fromkeys(("again", "snoozed", "discarded", "expired", "dead", "released", "lost"), 0)}


def test_sweep_takes_a_lane_and_a_limit(shop, db_path):
    shop.send.raise_many([(1,), (2,)])
    assert flagsweep("sweep", "--lane", "default").stdout == "nothing was due\n"
    assert flagsweep("sweep", "--limit", 1).stdout == "swept 1 flag: 1 lowered\n"
    assert "'nope'" in line(flagsweep("sweep", "--lane", "nope", code=2))
    assert count(db_path) == 1


def test_run_logs_a_banner_refuses_a_second_and_ends_well_at_sigterm(shop, command, until, db_path):
    shop.send.raise_flag(1, "fail")
    first = command("run")
    until(lambda: "again in 3" in first.log.read_text())
    second = command("run")
    assert second.wait(10) == 1
    (refusal,) = second.log.read_text().splitlines()
    assert refusal.startswith("flagsweep: consumer") and f"pid {first.pid}" in refusal and str(db_path) in refusal
    assert f"pid {first.pid}" in flagsweep("status").stdout and "runs (" not in flagsweep("status").stdout
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 0
    log = first.log.read_text()
    assert str(db_path) in log and "lane mail, 2 threads: send" in log
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) "
    assert all(re.match(stamp, each) and each.isprintable() for each in log.splitlines())
    assert r"\x1b[31m\u202e\x9b" in log and "user_id" not in log and log.splitlines()[-1].endswith("stopped")


@pytest.mark.long
def test_run_ends_in_time_though_a_handler_does_not(shop, folder, command, until):
    shop.send.raise_flag(1, "endless")
    consumer = command("run")
    until((folder / "started").exists)
    consumer.send_signal(signal.SIGINT)
    assert consumer.wait(5) == 0
    assert "still run" in consumer.log.read_text().splitlines()[-1]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_sweep_that_is_told_to_end_gives_back_what_has_not_started(shop, folder, command, until, number):
    shop.send.raise_many([(n, "slow") for n in range(20)])
    sweep = command("sweep")
    until((folder / "started").exists)
    sweep.send_signal(number)
    assert sweep.wait(5) == 1
    counts, reason = sweep.log.read_text().splitlines()
    assert counts.startswith("swept ") and reason.startswith(f"flagsweep: stopped by {number.name}: ")
    left = shop.flags.find()
    assert len(left) >= 14 and {(flag.state, flag.attempts) for flag in left} == {("waiting", 0)}


@pytest.mark.long
def test_a_second_signal_ends_a_sweep_at_once(shop, folder, command, until):
    shop.send.raise_flag(1, "endless")
    sweep = command("sweep")
    until((folder / "started").exists)
    until(lambda: sweep.send_signal(signal.SIGINT) or sweep.poll() is not None, every=0.1)
    assert sweep.wait(5) == 1
    flagsweep("status")
    assert [flag.state for flag in shop.flags.find()] == ["claimed"]

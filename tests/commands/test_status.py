"""How things are: status and doctor."""

import json
import re

from calling import flagsweep, kill_off
from rig import plain

from flagsweep.commands.status import consumer_line
from flagsweep.databases.schema import SCHEMA


def test_status_counts_by_lane(shop, db_path):
    shop.send.raise_many([(1,), (2,), (3,)])
    shop.send.using(delay="1h").raise_flag(4)
    kill_off(db_path, 3)
    plain(db_path, "INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) VALUES ('gone', 'k', '{}', 1, 1)")
    report = json.loads(flagsweep("status", "--json").stdout)
    assert report.keys() == {"lanes", "consumers", "overdue_schedules"} and report["consumers"] == []
    oldest = report["lanes"]["mail"].pop("oldest_due_s")
    assert report["lanes"]["mail"] == {"waiting": 3, "due": 2, "claimed": 0, "dead": 1} and 0 <= oldest < 60
    empty = {"waiting": 0, "due": 0, "claimed": 0, "dead": 0, "oldest_due_s": None}
    assert report["lanes"]["default"] == empty and report["lanes"]["-"]["due"] == 1
    text = flagsweep("status").stdout
    assert re.search(r"^mail +3 +2 +\d+ s +0 +1$", text, re.MULTILINE)
    assert "lane -: kinds without a handler" in text and "no consumer runs" in text and "no flags" not in text


def test_where_nothing_is_up_the_commands_say_so(shop):
    assert "no flags\n" in flagsweep("status").stdout
    assert flagsweep("list").stdout == "no flags\n"
    assert flagsweep("list", "--json").stdout == "[]\n"
    assert flagsweep("sweep").stdout == "nothing was due\n"


def test_status_names_consumers_alive_and_dead(shop, db_path):
    plain(db_path, "INSERT INTO flagsweep_consumer (id, mode, pid, host, started_at) VALUES (5, 'run', 4711, 'h', 1)")
    (db_path.parent / "site.db.flagsweep").mkdir(mode=0o700)
    (db_path.parent / "site.db.flagsweep" / "lease").touch()
    text = flagsweep("status").stdout
    assert "consumer 5 (pid 4711 on h, since 1970-01-01 00:00:00 UTC) is gone" in text and "no consumer runs" in text
    alive = {"id": 6, "mode": "sweep", "pid": 1, "host": "h", "started_at": "2026-01-01T00:00:00+00:00", "alive": True}
    assert consumer_line(alive).endswith("sweeps once")
    assert consumer_line({**alive, "mode": "run"}).endswith("runs")
    assert consumer_line({**alive, "alive": None}).endswith("cannot see whether it lives")


def test_status_names_schedules_that_are_overdue_without_a_handler(shop, db_path):
    shop.nightly.cron("0 4 * * *")
    flagsweep("sweep")
    assert "schedule" not in flagsweep("status").stdout
    plain(db_path, "UPDATE flagsweep_schedule SET kind = 'gone', next_at = 0")
    assert re.search(
        "^schedule nightly has been due for .* y: no handler here has the kind gone$", flagsweep("status").stdout, re.M
    )


def test_doctor_prints_each_finding_with_its_fix(shop):
    shop.nightly.raise_flag()
    text = flagsweep("doctor").stdout
    assert re.search(r"^ok    database          .*site.db answers$", text, re.MULTILINE)
    assert re.search(r"^warn  consumer .*\n {24}-> start 'flagsweep run'", text, re.MULTILINE)
    findings = json.loads(flagsweep("doctor", "--json").stdout)
    assert {"level": "ok", "what": "schema", "text": f"version {SCHEMA}", "fix": ""} in findings


def test_doctor_fails_where_something_fails(shop, db_path):
    for file in db_path.parent.glob("site.db*"):
        file.unlink() if file.is_file() else None
    assert "there is no database" in flagsweep("doctor", code=1).stdout
    assert json.loads(flagsweep("doctor", "--json", code=1).stdout)[0]["level"] == "fail"


def test_doctor_tells_a_monitor_warnings_from_what_fails(shop, db_path):
    shop.nightly.raise_flag()
    last = flagsweep("doctor", "--exit-code", code=1).stdout.splitlines()[-1]
    assert re.search(r"^\d+ findings: warn .*consumer", last)
    for file in db_path.parent.glob("site.db*"):
        file.unlink() if file.is_file() else None
    assert re.search(r"^\d+ findings: fail database(;|$)", flagsweep("doctor", "--exit-code", code=2).stdout.splitlines()[-1])

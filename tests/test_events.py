"""JSON logs: an event for each verb, a line each, whatever a site's data holds."""

import json
import logging
import sys

import pytest
from rig import idle

from flagsweep import Discard, Snooze
from flagsweep.logs import EVENT, JsonLines


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.setFormatter(JsonLines())
        self.found = []

    def emit(self, record):
        self.found.append(self.format(record))

    def told(self, *events):
        lines = [json.loads(line) for line in self.found]
        return [line for line in lines if not events or line["event"] in events]


@pytest.fixture
def lines():
    handler, events = Lines(), logging.getLogger("flagsweep.events")
    events.setLevel(EVENT)
    logging.getLogger("flagsweep").addHandler(handler)
    yield handler
    logging.getLogger("flagsweep").removeHandler(handler)
    events.setLevel(logging.NOTSET)


def test_each_verb_is_told_once_with_kind_flag_and_attempt(flags, lines):
    def do(how):
        if how == "snooze":
            raise Snooze("1h")
        if how == "discard":
            raise Discard("gone")
        if how != "ok":
            raise ValueError(how)

    work = flags.handler("work", max_attempts=2)(do)
    ids = {how: work.raise_flag(how).id for how in ("ok", "snooze", "discard", "no\n\x1b[31m\u2028user")}
    fatal = flags.handler("fatal", max_attempts=1)(lambda: 1 / 0)
    fatal.raise_flag()
    flags.sweep()
    by_flag = {}
    for line in lines.told():
        if "flag" in line:
            by_flag.setdefault(line["flag"], []).append(line["event"])
    failed = ids["no\n\x1b[31m\u2028user"]
    assert by_flag[ids["ok"]] == ["claimed", "succeeded"]
    assert by_flag[ids["snooze"]] == ["claimed", "snoozed"]
    assert by_flag[ids["discard"]] == ["claimed", "discarded"]
    assert by_flag[failed] == ["claimed", "failed"]
    (line,) = lines.told("failed")
    assert (line["kind"], line["attempt"], line["level"], line["error"][:14]) == ("work", 1, "WARNING", "ValueError: no")
    assert line["again_in_s"] >= 10 and line["took_s"] >= 0
    (dead,) = lines.told("dead")
    assert (dead["kind"], dead["error"]) == ("fatal", "ZeroDivisionError: division by zero")
    assert all(line.isascii() and line.isprintable() for line in lines.found)


def test_no_payload_is_told_and_a_key_only_where_it_is_none(flags, lines):
    work = idle(flags)
    work.raise_flag("secret")
    work.using(key="order-7").raise_flag("secret")
    flags.sweep()
    assert "secret" not in "".join(lines.found)
    assert [line.get("key") for line in lines.told("succeeded")] == [None, "order-7"]


def test_a_schedule_that_fires_and_a_pause_are_told(flags, lines, clock):
    idle(flags, "tidy").every("10m", name="often")
    flags.sweep()
    clock.advance(601)
    flags.sweep()
    fired = lines.told("fired")[-1]
    assert (fired["schedule"], fired["kind"]) == ("often", "tidy")


def test_nothing_is_gathered_where_nobody_wants_events(flags, caplog):
    caplog.set_level(logging.DEBUG)
    idle(flags).raise_flag()
    flags.sweep()
    assert not [record for record in caplog.records if record.levelno == EVENT]


@pytest.mark.long
def test_the_log_of_a_consumer_in_json_is_lines_of_json_alone(tmp_path, spawn, env, db_path, until, make):
    (tmp_path / "shop.py").write_text(f"""
import logging
from flagsweep import FlagSweep
logging.basicConfig()
flags = FlagSweep({str(db_path)!r}, threads=1)
@flags.handler(max_attempts=1)
def work(how):
    if how != "ok":
        raise ValueError("no\\n\\x1b[31m")
""")
    flags = make()
    work = flags.handler("work")(lambda how: None)
    child = spawn(sys.executable, "-m", "flagsweep", "--app", "shop:flags", "run", "--log", "json")
    work.raise_flag("ok"), work.raise_flag("fail")
    until(lambda: '"dead"' in child.log.read_text() and '"succeeded"' in child.log.read_text())
    child.terminate()
    assert child.wait(20) == 0
    told = [json.loads(line) for line in child.log.read_text().splitlines()]
    names = [line["event"] for line in told]
    for name in ("started", "claimed", "succeeded", "dead", "stopped"):
        assert name in names, names
    assert not [line for line in told if "attempt 1 failed" in line.get("message", "")], "what an event tells is told once"

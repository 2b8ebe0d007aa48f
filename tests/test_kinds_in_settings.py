"""Settings say options of kinds instead of the code: from a file, the environment or arguments, now and for handlers to come."""

import json
import logging
from dataclasses import fields

import pytest
from peewee import BooleanField, Model
from rig import idle
from work import running

from flagsweep import Backoff, ConfigError, FlagSweep
from flagsweep.config import Settings
from flagsweep.handlers.options import OF_CODE, Options


@pytest.fixture
def toml(tmp_path, monkeypatch):
    """Give `toml(text)`: have settings come from a file that holds it; return its path."""

    def toml(text):
        file = tmp_path / "flagsweep.toml"
        file.write_text(text, encoding="utf-8")
        monkeypatch.setenv("FLAGSWEEP_CONFIG", str(file))
        return str(file)

    return toml


EXAMPLES = {
    "lane": ("slow", "slow"),
    "max_attempts": (3, 3),
    "backoff": ({"first": 5, "cap": "1m"}, Backoff(5, cap="1m")),
    "priority": (7, 7),
    "slow_after": ("1m", 60),
    "history": (True, True),
    "expires": ("1h", 3600),
    "debounce": ("10s", 10),
    "longest": ("1m", 60),
    "replace": (False, False),
    "rate": ("10/m", "10/m"),
    "budget": ("500/d", "500/d"),
    "limit": (2, 2),
    "quiet": ("22:00-07:00", "22:00-07:00"),
    "breaker": ("none", None),
    "per": ("n", "n"),
}


def test_every_option_that_is_not_code_can_be_said(db_path):
    assert {*EXAMPLES, *OF_CODE, "kind"} == {each.name for each in fields(Options)}
    flags = FlagSweep(db_path, kinds={"work": {name: value for name, (value, _) in EXAMPLES.items()}})
    options = idle(flags).options
    for name, (_, expected) in EXAMPLES.items():
        found = getattr(options, name)
        assert found == expected or str(found) == str(expected), name
    assert flags.handlers["work"].lane == "slow" and "slow" in flags.lane_names()


def test_what_is_not_said_stays_as_the_code_has_it(db_path):
    flags = FlagSweep(db_path, kinds={"work": {"rate": "10/m"}, "other": {}})
    work = idle(flags, rate="1/h", lane="mail", max_attempts=2)
    assert (str(work.options.rate), work.lane, work.options.max_attempts) == ("10/m", "mail", 2)


def test_a_file_and_the_environment_say_it_and_the_environment_wins(toml, monkeypatch, db_path):
    toml('[kinds.work]\nrate = "10/m"\nlane = "slow"\n')
    assert str(idle(FlagSweep(db_path)).options.rate) == "10/m"
    monkeypatch.setenv("FLAGSWEEP_KINDS", json.dumps({"work": {"rate": "5/m"}}))
    work = idle(FlagSweep(db_path))
    assert (str(work.options.rate), work.lane) == ("5/m", "default")


def test_handlers_that_are_there_before_the_settings_are_known_obey_too(toml, db_path):
    flags = FlagSweep()
    work = idle(flags)
    toml('[kinds.work]\nlimit = 2\nlane = "slow"\n')
    flags.configure(database=db_path)
    flags.init()
    assert (work.options.limit, work.lane) == (2, "slow")
    work.raise_flag(1)
    assert flags.find(lane="slow") and +flags.sweep(lane="slow") == {"lowered": 1}
    flags.database.close()


def test_a_limit_of_the_settings_holds_in_a_sweep(make):
    flags = make(kinds={"work": {"rate": "2/h burst 2"}})
    idle(flags).raise_many([(n,) for n in range(5)])
    assert +flags.sweep() == {"lowered": 2}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('rate = "10 per minute"', "rate of 'work' must be"),
        ("rte = 5", "there is no option 'rte'; did you mean 'rate'?"),
        ("atomic = true", "atomic is a part of the handler's code"),
        ('aliases = ["old"]', "aliases is a part of the handler's code"),
        ('history = "yes"', "history must be true or false, got 'yes'"),
        ("limit = 0", "limit of 'work' must be a whole number from 1"),
        ('longest = "1m"', "longest of 'work' bounds a debounce"),
        ("backoff = {start = 5}", "backoff has first, factor, cap and jitter"),
        ('per = "customer"', "per of 'work' must name one of its arguments (n)"),
    ],
)
def test_a_bad_value_names_kind_option_and_file_whenever_the_handler_comes(toml, db_path, table, told):
    file = toml(f"[kinds.work]\n{table}\n")
    with pytest.raises(ConfigError) as late:
        idle(FlagSweep(db_path))
    flags = FlagSweep()
    idle(flags)
    flags.configure(database=db_path)
    with pytest.raises(ConfigError) as early:
        assert flags.settings
    for caught in (late, early):
        assert f"[kinds.work] of {file}: " in str(caught.value) and told in str(caught.value)


def test_every_bad_option_of_every_kind_is_named_at_once(db_path):
    flags = FlagSweep()
    idle(flags), idle(flags, "other")
    flags.configure(database=db_path, kinds={"work": {"rate": 1, "limt": 2}, "other": {"quiet": "never"}})
    with pytest.raises(ConfigError) as caught:
        assert flags.settings
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("value", ["rate=5", 5, ["work"], {"work": 5}, {"a b": {}}])
def test_what_is_no_table_of_tables_is_refused_by_the_settings_themselves(value):
    with pytest.raises(ConfigError, match="kinds"):
        Settings.load({"kinds": value}, {})


def test_kinds_of_rows_take_no_option_that_does_not_go_with_a_row(flags):
    meta = type("Meta", (), {"database": flags.database})
    person = type("Person", (Model,), {"greet": BooleanField(), "Meta": meta})
    site = FlagSweep(flags.database, kinds={"greet": {"debounce": "5s"}})
    with pytest.raises(ConfigError, match="debounce is a part of the handler's code"):
        site.when(person.greet, kind="greet")(lambda person: None)


def test_unknown_kinds_and_what_is_overridden_are_told_at_run_and_by_doctor(db_path, until, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    flags = FlagSweep(db_path, kinds={"work": {"rate": "10/m", "lane": "slow"}, "wrok": {"rate": "5/m"}})
    flags.init()
    idle(flags)
    with running(flags, until):
        pass
    assert "work: rate 10/m, lane slow (says FlagSweep(kinds=...))" in caplog.text
    assert "settings name kinds without a handler here: wrok" in caplog.text
    told, unknown = (finding for finding in flags.doctor() if finding.what == "kinds in settings")
    assert told.level == "ok" and "work (rate, lane)" in told.text
    assert unknown.level == "warn" and "wrok" in unknown.text
    flags.database.close()

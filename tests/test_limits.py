"""docs/limits.md, docs/options.md and the README tell the truth: every recipe is run, and all that can be said is listed."""

import ast
import inspect
import re
import tomllib
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from rig import idle, plain

import flagsweep
from flagsweep import Discard, FlagSweep, Retry, Snooze
from flagsweep.handlers import Handler, Registry
from flagsweep.handlers.options import OF_CODE, Options

ROOT = Path(flagsweep.__file__).resolve().parent
LIMITS = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
RECIPES = {
    section.partition("\n")[0]: "\n".join(re.findall(r"```(?:python|toml)\n(.*?)```", section, re.DOTALL))
    for section in LIMITS.split("\n## ")[1:]
}
HOUR, DAY = 3600, 86_400


@pytest.fixture
def run(make):
    """Give `run(heading, **names)`: run the recipe that stands below it; return the site and what the recipe has defined."""

    def run(heading, site=None, **names):
        flags = site or make(lanes={"mail": 2})
        found = {"flags": flags, **names}
        exec(RECIPES[heading], found)
        return flags, SimpleNamespace(**found)

    return run


def lowered(flags, **options):
    return flags.sweep(**options)["lowered"]


def test_every_recipe_has_a_test():
    tested = set(re.findall(r'run\("([^"]+)"|RECIPES\["([^"]+)"\]', Path(__file__).read_text(encoding="utf-8")))
    assert {one or other for one, other in tested} == set(RECIPES)
    assert all(RECIPES.values())


def test_pause(make, run, clock):
    site = make(lanes={"mail": 2})
    sms, mail = idle(site, "send_sms"), idle(site, "send_mail", lane="mail")
    run("Pause", site)
    sms.raise_flag(1), mail.raise_flag(1)
    assert [gate.name for gate in site.gates()] == ["mail", "send_sms"] and lowered(site) == 0
    clock.advance(2 * HOUR)
    assert lowered(site) == 1 and lowered(site, force=True) == 1


def test_rate(run, clock):
    flags, recipe = run("Rate")
    recipe.send_sms.raise_many([(n,) for n in range(100)])
    assert lowered(flags) == 20
    clock.advance(36)
    assert lowered(flags) == 1


def test_budget(run, clock):
    flags, recipe = run("Budget")
    recipe.geocode.raise_many([(n,) for n in range(1200)])
    assert lowered(flags) == 500 and lowered(flags) == 0
    clock.advance(DAY)
    assert lowered(flags) == 500


def test_limit(run):
    flags, recipe = run("Limit")
    recipe.export.raise_many([(n,) for n in range(9)])
    assert lowered(flags) == 9 and flags.gates()[0].limit.said == "2"


def test_per_keeps_the_bucket_with_the_flag(run):
    flags, recipe = run("Per")
    recipe.sync.raise_flag(17)
    assert flags.find()[0].bucket is not None


def test_quiet_hours(run, clock):
    flags, recipe = run("Quiet hours")
    recipe.remind.raise_flag(1)
    assert lowered(flags) == 0 and flags.gates()[0].until == datetime(2026, 1, 1, 7, tzinfo=UTC)
    clock.advance(12 * HOUR)
    assert lowered(flags) == 0
    clock.advance(HOUR)
    assert lowered(flags) == 1


@pytest.mark.parametrize("down", [True, False])
def test_breaker_and_on_outage(run, clock, capsys, down):
    flags, recipe = run("Breaker")
    run("When a provider is away, tell somebody", flags)
    answers = {"down": down}

    def call_api(order_id):
        if answers["down"]:
            raise ConnectionError("no route")

    recipe.call_api.function = call_api
    recipe.call_api.raise_many([(n,) for n in range(200)])
    flags.sweep()
    tried = len([flag for flag in flags.find(limit=None) if flag.attempts])
    assert tried >= 5 if down else tried == 0
    told = capsys.readouterr().out
    assert ("call_api: outage began (ConnectionError" in told) == down
    answers["down"] = False
    clock.advance(HOUR)
    flags.sweep()
    assert ("call_api: outage ended" in capsys.readouterr().out) == down


def test_retry_after(run, clock):
    response = SimpleNamespace(status_code=429, headers={"retry-after": "90"})
    flags, recipe = run("Retry-After", send=lambda order_id: response)
    recipe.post.raise_many([(n,) for n in range(9)])
    flags.sweep()
    (gate,) = flags.gates()
    assert gate.closed and gate.until == datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC)
    response.status_code = 200
    assert lowered(flags) == 0
    clock.advance(90)
    assert lowered(flags) == 9


def test_expires(run, clock):
    flags, recipe = run("Expires")
    recipe.send_code.raise_flag(1)
    recipe.send_code.using(expires="1h").raise_flag(2)
    clock.advance(601)
    assert +flags.sweep() == {"expired": 1, "lowered": 1}


@pytest.mark.long
def test_debounce(run, clock):
    flags, recipe = run("Debounce")
    ran = []
    recipe.reindex.function = lambda page_id: ran.append(page_id)
    for _ in range(11):
        recipe.reindex.raise_flag(1)
        clock.advance(5)
        flags.sweep()
    assert ran == []
    recipe.reindex.raise_flag(1)
    clock.advance(5)
    flags.sweep()
    assert ran == [1]


def test_replace(run):
    flags, recipe = run("Replace")
    recipe.welcome.using(key="17").raise_flag(17, greeting="hi")
    recipe.welcome.using(key="17").raise_flag(17, greeting="good day")
    assert flags.find()[0].payload == {"user_id": 17, "greeting": "hi"}


def test_history(run, db_path):
    flags, recipe = run("History")
    recipe.pay_out.raise_flag(1)
    flags.sweep()
    assert plain(db_path, "SELECT event FROM flagsweep_history") == [("succeeded",)]


def test_threads_of_a_lane(make, run):
    site = make(lanes={"mail": 2})
    idle(site, lane="mail")
    first, _, _ = RECIPES["Threads of a lane"].partition("\n")
    exec(first, {"flags": site})
    assert site.gates()[0].threads == 8
    run("Threads of a lane", site)
    assert site.gates() == []


def test_without_touching_the_code(db_path):
    flags = FlagSweep(db_path, **tomllib.loads(RECIPES["Without touching the code"]))
    sms = idle(flags, "send_sms")
    assert (str(sms.options.rate), sms.lane, sms.options.breaker) == ("10/m", "slow", None)


# The reference.


def table(heading):
    """Return the rows of the table below a heading."""
    section = OPTIONS.split(f"\n## {heading}\n")[1].partition("\n## ")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\| `.*$", section, re.MULTILINE)]


def test_the_reference_lists_every_option_of_a_handler_and_no_other_with_its_default():
    rows = {name.strip("`"): (default.strip("`"), code == "code") for name, default, code, _ in table("Of a kind")}
    assert list(rows) == [name for name in inspect.signature(Registry.handler).parameters if name not in ("self", "kind")]
    assert set(rows) == {each.name for each in fields(Options)} - {"kind"}
    assert {name for name, (_, code) in rows.items() if code} == set(OF_CODE)
    for name, parameter in inspect.signature(Registry.handler).parameters.items():
        if name in rows and name != "retry_on":
            assert ast.literal_eval(rows[name][0]) == parameter.default, name


def test_the_reference_lists_every_option_of_a_raise_and_no_other():
    listed = [row[0].strip("`") for row in table("Of one raise")]
    assert listed == [name for name in inspect.signature(Handler.using).parameters if name != "self"]


def test_what_the_readme_raises_in_a_handler_can_be_raised():
    shown = re.findall(r"^\| `raise (.*?)` \|", README, re.MULTILINE)
    for text in shown:
        assert isinstance(eval(text, {"Snooze": Snooze, "Discard": Discard, "Retry": Retry}), (Snooze, Discard, Retry))
    assert {text.partition("(")[0] for text in shown} == {"Snooze", "Discard", "Retry"}


def test_the_readme_lists_all_that_a_handler_gets_as_its_flag(make):
    flags, got = make(), []

    @flags.handler
    def look(flag):
        got.extend(name for name in dir(flag) if not name.startswith("_"))

    look.raise_flag()
    flags.sweep(raise_errors=True)
    rows = README[README.index("| `flag.` | |") :].partition("\n\n")[0].splitlines()[2:]
    listed = [name for row in rows for name in re.findall(r"`(\w+)[`(]", row.split("|")[1])]
    assert sorted(listed) == sorted(got)

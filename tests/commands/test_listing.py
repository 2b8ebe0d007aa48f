"""Looking at flags: list and show."""

import json
import re

import pytest
from calling import flagsweep, kill_off, line
from rig import plain


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], [1, 2, 3, 4]),
        (["--kind", "send"], [1, 2, 3]),
        (["--state", "dead"], [2]),
        (["--key", "later"], [3]),
        (["--lane", "default"], [4]),
        (["--due"], [1, 4]),
        (["--not-due"], [2, 3]),
        (["--due", "--kind", "send"], [1]),
        (["--limit", "2"], [1, 2]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_list_takes_conditions(shop, db_path, options, ids):
    shop.send.raise_many([(1,), (2,)])
    shop.send.using(delay="1h", key="later").raise_flag(3)
    shop.nightly.raise_flag()
    kill_off(db_path, 2)
    result = flagsweep("list", "--json", *options)
    assert [flag["id"] for flag in json.loads(result.stdout)] == ids
    assert result.stderr == ("these are the first 2; --limit shows more\n" if "--limit" in options else "")
    assert [int(id) for id in re.findall(r"^ *(\d+) ", flagsweep("list", *options).stdout, re.MULTILINE)] == ids


@pytest.mark.parametrize("options", [["--lane", "nope"], ["--state", "gone"], ["--limit", "0"], ["--limit", "x"], ["--nope"]])
def test_list_refuses_conditions_that_cannot_be_meant(shop, options):
    assert options[-1] in flagsweep("list", *options, code=2).stderr


def test_only_show_prints_payloads(shop):
    shop.send.using(key="k").raise_flag("a secret")
    assert "secret" not in flagsweep("list").stdout + flagsweep("list", "--json").stdout + flagsweep("status").stdout
    assert "a secret" in flagsweep("show", 1).stdout
    assert json.loads(flagsweep("show", 1, "--json").stdout)["payload"] == {"user_id": "a secret"}


def test_show_prints_all_there_is_with_the_long_texts_last(shop, db_path):
    shop.send.raise_flag(1)
    kill_off(db_path, 1)
    plain(db_path, "UPDATE flagsweep_flag SET error = 'Oh:' || char(10) || 'boom'")
    text = flagsweep("show", 1).stdout
    assert re.search(r"^state +dead \(57 y ago\)|^state +dead \(\d+ y ago\)", text, re.MULTILINE)
    assert text.endswith('payload\n    {\n      "user_id": 1\n    }\nerror\n    Oh:\n    boom\n')
    assert json.loads(flagsweep("show", 1, "--json").stdout)["error"] == "Oh:\nboom"


def test_show_of_a_flag_that_is_not_there_fails(shop):
    assert line(flagsweep("show", 17, code=1)).startswith("flagsweep: there is no flag 17")


@pytest.mark.parametrize("id", ["x", "0", "1.5", str(2**63)])
def test_an_id_that_cannot_be_one_is_wrong_usage(shop, id):
    flagsweep("show", id, code=2)


def test_one_damaged_row_hides_no_other(shop, db_path):
    shop.send.raise_many([(1,), (2,), (3,)])
    plain(db_path, "UPDATE flagsweep_flag SET error = CAST(x'ff1b' AS TEXT), due_at = 'soon' WHERE id = 1")
    plain(db_path, "UPDATE flagsweep_flag SET payload = x'ff', key = x'00ff' WHERE id = 2")
    text = flagsweep("list").stdout
    assert len(text.splitlines()) == 4 and "damaged" in text and r"\xff\x1b" in text
    assert flagsweep("show", 2).exit_code == 0

"""How each kind does, on a terminal: kinds."""

import json
import re

from calling import flagsweep


def test_kinds_shows_a_row_for_each(shop):
    shop.send.raise_many([(1,), (2,)])
    flagsweep("sweep")
    shop.send.raise_flag(3)
    text = flagsweep("kinds").stdout
    assert re.search(r"^kind +due +oldest due +a minute +success +half under +95% under +time a day$", text, re.MULTILINE)
    assert re.search(r"^send +1 +\d s +0\.[45]\d* +100% +\d+ ms +\d+ ms +\d+ ms$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) < 80
    assert re.search(r"^nightly +0 +- +0( +-){4}$", text, re.MULTILINE)
    found = json.loads(flagsweep("kinds", "--json").stdout)
    assert [(info["kind"], info["lane"], info["due"]) for info in found] == [
        ("greet", "default", 0),
        ("nightly", "default", 0),
        ("send", "mail", 1),
    ]


def test_where_no_kinds_are_known_it_says_so(shop, monkeypatch, db_path):
    monkeypatch.delenv("FLAGSWEEP_APP")
    monkeypatch.setenv("FLAGSWEEP_DATABASE", str(db_path))
    assert flagsweep("kinds").stdout == "no kinds\n"

"""What happened: `history`."""

import json

from calling import flagsweep, line
from rig import plain

COLUMNS = "at, flag, kind, key, event, reason, attempt, took"
INSERT = f"INSERT INTO flagsweep_history ({COLUMNS}) VALUES (?, 7, 'send', ?, ?, ?, 2, 2500)"


def test_history_shows_what_happened_newest_first(shop, db_path):
    now = shop.flags.clock.now()
    assert flagsweep("history").stdout == "nothing is noted\n" and json.loads(flagsweep("history", "--json").stdout) == []
    for n, event in enumerate(("failed", "failed", "dead")):
        plain(db_path, INSERT, now - (3 - n) * 3_600_000_000, f"k{n}", event, f"ValueError: {n} \x1b[31m\nmore")
    head, *rows = flagsweep("history").stdout.splitlines()
    assert head.split()[-1] == "reason" and [row.split()[5] for row in rows] == ["dead", "failed", "failed"]
    assert "2 ms" in rows[0] and "ValueError: 2" in rows[0] and "more" not in rows[0] and "\x1b" not in rows[0]
    result = flagsweep("history", "--limit", 1)
    assert len(result.stdout.splitlines()) == 2 and "--limit shows more" in line(result)
    found = json.loads(flagsweep("history", "--event", "failed", "--since", "150m", "--flag", 7, "--json").stdout)
    assert [each["key"] for each in found] == ["k1"] and found[0]["attempt"] == 2
    assert flagsweep("history", "--kind", "nightly").stdout == "nothing is noted\n"


def test_what_cannot_be_meant_is_refused(shop):
    assert "--since must be how long ago" in flagsweep("history", "--since", "soon", code=2).stderr
    flagsweep("history", "--event", "gone", code=2)

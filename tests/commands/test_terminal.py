"""What appears on a terminal: nothing that steers it, and tables and bars that fit it."""

import logging
import os
import pty
import re
import subprocess
import sys
from datetime import datetime

import pytest
from calling import flagsweep
from rig import plain

from flagsweep.commands.stderr_log import OneLine
from flagsweep.commands.tables import Column, print_table, width_of
from flagsweep.commands.words import span

STEERING = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202etxt.exe\u2066\u200b\x7f\u2028\x00"


def test_nothing_that_a_site_stores_steers_a_terminal(shop, db_path):
    shop.send.raise_flag(STEERING)
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead', key = ?, error = ?, died_at = 1", "k" + STEERING, "e" + STEERING)
    plain(db_path, "UPDATE flagsweep_flag SET kind = ?", "kind" + STEERING)
    outputs = [
        flagsweep(*c).output for c in (["list"], ["show", 1], ["status"], ["doctor"], ["list", "--json"], ["show", 1, "--json"])
    ]
    outputs.append(flagsweep("lower", "kind" + STEERING, "x", code=1).output)
    outputs.append(flagsweep("retry", "--kind", "kind" + STEERING, input="n\n", code=1).output)
    outputs.append(flagsweep("raise", "kind" + STEERING, code=2).output)
    for output in outputs:
        assert output.replace("\n", "").isprintable()
    assert sum("[2J" in output for output in outputs) >= 6


def test_the_log_is_one_line_a_record_whatever_it_says():
    formatter = OneLine(debug=False)
    record = logging.LogRecord("flagsweep", logging.WARNING, "f", 1, "%s failed", ("a\nb" + STEERING,), None)
    assert formatter.format(record).isprintable() and formatter.format(record).endswith("failed")
    record = logging.LogRecord("huey", logging.ERROR, "f", 1, "oh", (), (ValueError, ValueError("x\ny"), None))
    assert formatter.format(record).endswith(r"ERROR huey: oh: ValueError: x\ny")
    assert formatter.format(record).startswith(str(datetime.now().year))
    assert OneLine(debug=True).format(record).splitlines()[-2:] == ["ValueError: x", "y"]


def test_columns_are_aligned_in_korean_too(capsys):
    print_table([Column("name"), Column("n", right=True)], [["민지", "1"], ["Jo", "22"], ["é́", "3"]])
    assert capsys.readouterr().out == "name   n\n민지   1\nJo    22\né́      3\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h"), (200_000, "2 d"), (1e8, "3 y"), (-5, "0 s")]
)
def test_lengths_of_time_are_told_in_the_unit_that_suits(seconds, text):
    assert span(seconds) == text


def in_terminal(folder, env, *arguments, columns=80):
    """Call the command on a terminal; return what appears there."""
    main, end = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "flagsweep", "--app", "shop:flags", *arguments],
        stdin=end,
        stdout=end,
        stderr=end,
        cwd=folder,
        env={**env, "TERM": "xterm", "COLUMNS": str(columns), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    os.close(end)
    shown = b""
    try:
        while part := os.read(main, 65536):
            shown += part
    except OSError:
        pass  # Linux reports the end of a terminal as an error.
    finally:
        os.close(main)
        child.wait(10)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r\n", "\n"), child.returncode


@pytest.mark.long
def test_on_a_terminal_long_keys_are_cut_and_ids_never(shop, folder, env):
    shop.send.using(key="k" * 150).raise_flag(1)
    shop.send.using(key="가" * 100).raise_flag(2)
    plain(folder / "site.db", "UPDATE flagsweep_flag SET error = ?", "E" * 150)
    shown, code = in_terminal(folder, env, "list")
    assert code == 0 and "…" in shown and max(map(width_of, shown.splitlines())) <= 80
    assert re.search(r"^ ?1 +send +k+… +waiting +due \d s ago +0 +E+…", shown, re.MULTILINE)


@pytest.mark.long
def test_on_a_narrow_terminal_titles_take_two_lines_and_names_are_whole(shop, folder, env):
    shop.send.raise_flag(1)
    plain(folder / "site.db", "UPDATE flagsweep_flag SET kind = 'send_mails'")
    shown, code = in_terminal(folder, env, "kinds", columns=60)
    assert code == 0 and max(map(width_of, shown.splitlines())) <= 60
    assert re.search(r"^ +oldest +a +half +95% +time\nkind +due +due +minute +success +under +under +a day$", shown, re.MULTILINE)
    assert re.search(r"^send_mails +1 +\d s +0 ", shown, re.MULTILINE)


@pytest.mark.long
def test_on_a_terminal_a_sweep_shows_how_far_it_is_and_names_failures(shop, folder, env):
    shop.send.raise_many([(1, "fail"), *((n, "slow") for n in range(3))])
    shown, code = in_terminal(folder, env, "sweep")
    assert code == 0 and "sweeping" in shown and r"ValueError: no user \x1b[31m\u202e\x9b" in shown
    assert "swept 4 flags: 3 lowered, 1 again" in shown

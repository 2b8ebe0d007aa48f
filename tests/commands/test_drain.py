"""``drain``: what it says, its exit codes, and what is left behind."""

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest
from calling import flagsweep, line
from rig import plain

pytestmark = pytest.mark.long


@pytest.fixture
def busy(shop, command, until):
    """Have a consumer run one flag for half a minute."""
    shop.send.raise_flag(1, "endless")
    child = command("run")
    until(lambda: shop.flags.running().running)
    return child


def is_paused(shop):
    return any(gate.sort == "all" for gate in shop.flags.gates())


def test_where_nothing_runs_it_is_drained_until_it_is_resumed(shop):
    said = flagsweep("drain").stdout
    assert re.fullmatch(r"drained in \d s: nothing runs; 'flagsweep drain --resume' has it go on, .* by itself in 16 min\n", said)
    assert is_paused(shop)
    assert flagsweep("drain", "--resume").stdout == "all goes on\n" and not is_paused(shop)
    assert "nothing was drained" in flagsweep("drain", "--resume").stdout


def test_what_still_runs_is_named_the_exit_code_is_1_and_all_goes_on(busy, shop):
    result = flagsweep("drain", "--wait", "1", code=1)
    assert re.search(r"^flag 1: send \S+ runs for \d+ s \(consumer 1, pid \d+ on \S+\)$", result.stdout, re.MULTILINE)
    assert re.search(r"1 flag still in hand after \d s; all goes on again$", line(result)) and not is_paused(shop)


def test_with_keep_it_stays_drained(busy, shop):
    result = json.loads(flagsweep("drain", "--wait", "1", "--keep", "--json", code=1).stdout)
    assert (result["drained"], result["claimed"], result["paused"]) == (False, 1, True)
    assert result["running"][0]["kind"] == "send" and result["running"][0]["started"] is True
    assert 800 < result["goes_on_in_s"] <= 901 and is_paused(shop)
    assert json.loads(flagsweep("drain", "--resume", "--json").stdout) == {"resumed": True}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_undoes_it(busy, shop, command, until, number):
    child = command("drain", "--wait", "60")
    until(lambda: is_paused(shop))
    child.send_signal(number)
    assert child.wait(20) == 1
    assert f"stopped by {number.name}: all goes on again" in child.log.read_text() and not is_paused(shop)


def test_an_error_undoes_it(shop, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flagsweep.operations.running.consumers", fail)
    assert "No space left" in line(flagsweep("drain", code=1)) and not is_paused(shop)


def test_a_pause_of_somebody_elses_stays(shop):
    shop.flags.pause(reason="provider moves")
    assert "all was paused before, and stays so" in flagsweep("drain").stdout
    flagsweep("drain", "--resume")
    assert is_paused(shop)


def test_flags_of_who_is_gone_are_told(busy, shop, db_path):
    busy.kill()
    busy.wait()
    result = flagsweep("drain", "--wait", "5")
    assert "1 flag of a consumer that is gone: free at the next start\n" in result.stdout and "drained in" in result.stdout


def test_a_wait_that_is_none_is_refused(shop):
    assert "--wait must be how long" in flagsweep("drain", "--wait", "soon", code=2).stderr and not is_paused(shop)


def test_on_a_terminal_it_shows_what_is_in_hand(busy, shop, folder, env):
    main, end = pty.openpty()
    words = [sys.executable, "-m", "flagsweep", "--app", "shop:flags", "drain", "--wait", "1"]
    child = subprocess.Popen(words, stdin=end, stdout=end, stderr=end, cwd=folder, env={**env, "TERM": "xterm", "COLUMNS": "60"})
    os.close(end)
    shown = b""
    try:
        while part := os.read(main, 65536):
            shown += part
    except OSError:
        pass  # Linux reports the end of a terminal as an error.
    os.close(main)
    assert child.wait(20) == 1 and b"draining: 1 flag in hand" in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l"), "the cursor is shown again"


def test_control_characters_of_keys_steer_no_terminal(busy, shop, db_path):
    plain(db_path, "UPDATE flagsweep_flag SET key = ?", "k\x1b[2J")
    assert r"k\x1b[2J runs" in flagsweep("drain", "--wait", "1", code=1).stdout

"""``top``, in a terminal: what stands there, what the keys do, and that the terminal is as it was when it ends."""

import json
import os
import re
import signal
import sys
import time
from contextlib import closing

import pytest
from calling import flagsweep, kill_off
from rig import plain
from screens import Terminal

from flagsweep.commands.tables import width_of
from flagsweep.operations.watch import Watch

TOP = [sys.executable, "-m", "flagsweep", "--app", "shop:flags", "top", "--every", "200ms"]


@pytest.fixture
def top(shop, folder, env):
    """Give `top(columns, rows)`: it runs in a terminal of that size."""
    opened = []

    def start(columns=80, rows=24, *more, **environ):
        opened.append(Terminal([*TOP, *more], folder, {**env, **environ}, columns, rows))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def line_with(terminal, text):
    return next((line for line in terminal.lines if text in line), "")


def selected(terminal):
    return next((line for line in terminal.lines if line.startswith(">")), "")


@pytest.mark.long
@pytest.mark.parametrize("columns", [60, 80, 132])
def test_lanes_and_kinds_stand_in_place_and_change_there(top, shop, until, columns):
    terminal = top(columns)
    until(lambda: "no consumer runs" in terminal.text)
    row = next(number for number, line in enumerate(terminal.lines) if " send " in line)
    shop.send.raise_many([(n,) for n in range(12)])
    until(lambda: re.search(r" send +12 +\ds ", terminal.lines[row]))
    assert max(map(width_of, terminal.lines)) <= columns
    titles = line_with(terminal, "oldest").split()
    assert titles[-1] == ("closed" if columns >= 80 else "dead") and line_with(terminal, " mail ").split()[1] == "12"
    assert "q quit" in terminal.lines[-1] or "q quit" in terminal.text


@pytest.mark.long
def test_what_runs_is_named_with_how_long_it_has(top, shop, command, until):
    shop.send.raise_flag(1, "endless")
    command("run")
    terminal = top(100)
    until(lambda: re.search(r"send \{.*endless.*\} runs \d", terminal.text))
    assert re.search(r" send +\d+ +\S+ +1 ", line_with(terminal, " send "))
    assert re.search(r"consumer \d+ lives \(pid \d+ on ", terminal.text) and "1 running, 1 consumer" in terminal.lines[0]


@pytest.mark.long
def test_p_pauses_what_is_selected_and_has_it_go_on(top, shop, until):
    shop.send.raise_flag(1)
    terminal = top(100)
    until(lambda: selected(terminal))
    assert "default" in selected(terminal)
    for _ in range(4):  # default, greet, nightly, mail, send
        terminal.type("j")
    until(lambda: "send" in selected(terminal))
    terminal.type("\x1b[A")
    until(lambda: "mail" in selected(terminal))
    terminal.type("p")
    until(lambda: "lane mail is paused; p has it go on" in terminal.text)
    (gate,) = shop.flags.gates()
    assert (gate.sort, gate.name, gate.closed) == ("lane", "mail", True)
    until(lambda: re.search(r"> += +mail .*lane mail paused by", selected(terminal)))
    assert re.search(r"= +send ", line_with(terminal, " send "))
    terminal.type("p")
    until(lambda: "lane mail goes on" in terminal.text)
    assert shop.flags.gates() == []


@pytest.mark.long
def test_r_retries_the_dead_of_a_kind_and_asks_before(top, shop, db_path, until):
    shop.send.raise_many([(1,), (2,)])
    kill_off(db_path, 1, 2)
    terminal = top()
    until(lambda: selected(terminal))
    terminal.type("r")
    until(lambda: "select one that has any" in terminal.text)
    terminal.type("jjjj")
    until(lambda: "send" in selected(terminal))
    terminal.type("r")
    until(lambda: "retry 2 dead flags of send? y does it" in terminal.text)
    terminal.type("n")
    until(lambda: "nothing was changed" in terminal.text)
    assert len(shop.flags.find(state="dead")) == 2
    terminal.type("ry")
    until(lambda: "retried 2 flags of send" in terminal.text)
    assert shop.flags.find(state="dead") == []


@pytest.mark.long
def test_a_question_mark_explains_the_keys_and_q_ends_it(top, until):
    terminal = top(60)
    until(lambda: selected(terminal))
    terminal.type("?")
    until(lambda: "waits for longer than was promised" in terminal.text)
    assert max(map(width_of, terminal.lines)) <= 60
    terminal.type("?")
    until(lambda: selected(terminal))
    terminal.type("q")
    until(terminal.has_ended)
    assert terminal.code == 0 and terminal.is_given_back()


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 1), (signal.SIGHUP, 1)], ids=lambda each: getattr(each, "name", "")
)
def test_a_signal_ends_it_with_the_terminal_as_it_was(top, until, number, code):
    terminal = top()
    until(lambda: selected(terminal))
    assert not terminal.is_given_back()
    terminal.type("\x03") if number == signal.SIGINT else os.kill(terminal.pid, number)
    until(terminal.has_ended)
    assert terminal.code == code and terminal.is_given_back()


@pytest.mark.long
def test_an_error_ends_it_with_the_terminal_as_it_was(top, shop, folder, until):
    (folder / "sitecustomize.py").write_text(
        "import pathlib\n"
        "import flagsweep.commands.top_frame as frames\n"
        "whole = frames.frame\n"
        "def frame(*given):\n"
        "    if pathlib.Path('fail').exists(): raise ZeroDivisionError('drawn')\n"
        "    return whole(*given)\n"
        "frames.frame = frame\n"
    )
    terminal = top(PYTHONPATH=str(folder))
    until(lambda: selected(terminal))
    (folder / "fail").touch()
    until(terminal.has_ended)
    assert terminal.code == 1 and terminal.is_given_back() and "ZeroDivisionError: drawn" in terminal.text


@pytest.mark.long
@pytest.mark.parametrize("how", ["by its key", "by a signal that nobody hears"])
def test_a_stop_gives_the_terminal_back_and_going_on_takes_it_again(top, shop, until, how):
    terminal = top()
    until(lambda: selected(terminal))
    terminal.type("\x1a") if how == "by its key" else os.kill(terminal.pid, signal.SIGSTOP)
    until(lambda: _state(terminal.pid) == "T")
    assert terminal.is_given_back() or how != "by its key"
    shop.send.raise_many([(n,) for n in range(7)])
    os.kill(terminal.pid, signal.SIGCONT)
    until(lambda: re.search(r" send +7 ", line_with(terminal, " send ")))
    assert not terminal.is_given_back()
    terminal.type("q")
    until(terminal.has_ended)
    assert terminal.code == 0 and terminal.is_given_back()


def _state(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


@pytest.mark.long
def test_another_size_of_the_terminal_is_drawn_at_once(top, until):
    terminal = top(132, 24, "--every", "30s")
    until(lambda: "closed" in line_with(terminal, "oldest"))
    terminal.resize(60, 12)
    until(lambda: line_with(terminal, "oldest") and "closed" not in line_with(terminal, "oldest"))
    assert max(map(width_of, terminal.lines)) <= 60


@pytest.mark.long
def test_of_many_kinds_those_around_the_selected_one_are_shown(top, shop, db_path, until):
    for number in range(60):
        shop.send.using(key=str(number)).raise_flag(number)
    plain(db_path, "UPDATE flagsweep_flag SET kind = 'kind' || printf('%02d', key)")
    terminal = top(60, 20)
    until(lambda: selected(terminal))
    terminal.type("j" * 70)
    until(lambda: "kind59" in selected(terminal))
    assert "kind58" in terminal.text and "kind01" not in terminal.text and len(terminal.lines) == 20


@pytest.mark.long
def test_a_database_that_is_away_is_told_and_comes_back(top, db_path, until):
    terminal = top(100)
    until(lambda: selected(terminal))
    db_path.rename(db_path.with_name("elsewhere"))
    until(lambda: "there is no database" in terminal.text)
    db_path.with_name("elsewhere").rename(db_path)
    until(lambda: "there is no database" not in terminal.text)
    terminal.type("q")
    until(terminal.has_ended)
    assert terminal.code == 0


@pytest.mark.long
def test_nothing_that_a_site_stores_steers_the_terminal(top, shop, db_path, until):
    shop.send.raise_flag(1)
    plain(db_path, "UPDATE flagsweep_flag SET kind = ?", "k\x1b[2J\x9b31m\u202e")
    terminal = top(100)
    until(lambda: r"k\x1b[2J\x9b31m\u202e" in terminal.text)


def test_without_a_terminal_it_prints_one_frame(shop, db_path):
    shop.send.raise_many([(1,), (2,)])
    kill_off(db_path, 2)
    shop.flags.pause("nightly", reason="moves")
    for more in ((), ("--once",)):
        shown = flagsweep("top", *more).stdout
        assert re.search(r"^ +send +1 +\ds +0 +0.0 +0 +1\s*$", shown, re.MULTILINE) and "\x1b" not in shown
        assert re.search(r"= +nightly .*: moves *$", shown, re.MULTILINE) and "no consumer runs" in shown
    found = json.loads(flagsweep("top", "--json").stdout)
    assert [line["kind"] for line in found["lines"] if line["dead"]] == [None, "send"]
    assert "--every must be how long" in flagsweep("top", "--every", "soon", code=2).stderr


def test_a_question_that_takes_long_is_asked_seldom(shop):
    with closing(Watch(shop.flags)) as watch:
        shop.send.raise_flag(1)
        assert sum(line.due for line in watch.look().lines if line.kind) == 1
        asked = []

        def slow():
            asked.append(1)
            time.sleep(0.05)
            return []

        watch._counts._ask = slow
        for _ in range(20):
            watch.look()
        assert 1 <= len(asked) <= 2, "what took 50 ms twice is not asked again for half a minute"
        watch.forget()
        before = len(asked)
        watch.look()
        assert len(asked) == before + 1, "unless somebody has changed something"

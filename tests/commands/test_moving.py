"""``export``, ``import``, ``move`` and ``reconcile``, as a terminal sees them."""

import json
import signal
import time

import pytest
from calling import flagsweep, line
from rig import plain


def test_an_export_goes_to_the_standard_output_and_comes_back_from_the_standard_input(shop, folder, monkeypatch):
    shop.send.raise_many([(n,) for n in range(3)])
    result = flagsweep("export")
    lines = [json.loads(each) for each in result.stdout.splitlines()]
    assert [next(iter(each)) for each in lines] == ["flagsweep", "flag", "flag", "flag", "end"]
    assert line(result).startswith("exported 3 flags; sha256 ")
    monkeypatch.setenv("FLAGSWEEP_DATABASE", f"sqlite:///{folder / 'other.db'}")
    monkeypatch.delenv("FLAGSWEEP_APP")
    flagsweep("init")
    assert flagsweep("import", "-", "--dry-run", input=result.stdout).stdout == "would import 3 flags\n"
    assert flagsweep("import", "-", input=result.stdout).stdout == "imported 3 flags\n"
    again = flagsweep("import", "-", "--json", input=result.stdout)
    assert json.loads(again.stdout)["same"] == {"flag": 3}


def test_an_import_says_what_is_up_with_other_contents_and_fails_unless_told_what_becomes_of_it(shop, folder):
    shop.send.raise_flag(1)
    flagsweep("export", "--out", "saved.jsonl")
    shop.send.using(priority=3).raise_flag(1)
    result = flagsweep("import", "saved.jsonl", code=1)
    assert 'left as they are: 1 flag (flag 1 (send {"user_id":1}))' in result.stdout
    assert line(result).endswith("--replace takes the export's, --skip is content with it")
    flagsweep("import", "saved.jsonl", "--skip")
    assert "replaced: 1 flag" in flagsweep("import", "saved.jsonl", "--replace").stdout
    assert [flag.priority for flag in shop.flags.find()] == [0]
    assert "exclude each other" in flagsweep("import", "saved.jsonl", "--skip", "--replace", code=2).stderr


def test_a_damaged_export_and_a_missing_one_end_with_one_line(shop, folder):
    shop.send.raise_flag(1)
    flagsweep("export", "--out", "saved.jsonl")
    text = (folder / "saved.jsonl").read_text()
    (folder / "saved.jsonl").write_text(text[:-40])
    assert "line 3 is no line of an export" in line(flagsweep("import", "saved.jsonl", code=1))
    assert line(flagsweep("import", "nowhere.jsonl", code=1)) == "flagsweep: No such file or directory: nowhere.jsonl"
    assert line(flagsweep("export", "--out", "no/where", code=1)).startswith("flagsweep: No such file or directory")


def test_a_move_asks_says_what_was_done_and_what_comes_next_and_tells_no_password(shop, folder):
    shop.send.raise_many([(n,) for n in range(3)])
    assert "nothing was changed" in flagsweep("move", "--to", "sqlite:///new.db", input="n\n", code=1).stderr
    assert not (folder / "new.db").exists()
    result = flagsweep("move", "--to", "-", "--yes", input="sqlite:///new.db\n")
    assert "new.db: 3 flags" in result.stdout and "both databases agree, row for row" in result.stdout
    assert "flags of greet stand for rows of the site's tables" in result.stdout
    assert "next: set FLAGSWEEP_DATABASE to sqlite:///new.db" in result.stdout
    assert "was moved to" in flagsweep("gates").stdout
    assert plain(folder / "new.db", "SELECT count(*) FROM flagsweep_flag") == [(3,)]
    shop.send.raise_flag(99)
    again = flagsweep("move", "--to", "sqlite:///new.db", "--yes")
    assert "raised there just now, since they were raised here since: 1 flag" in again.stdout
    assert json.loads(flagsweep("move", "--to", "sqlite:///new.db", "--yes", "--json").stdout)["again"] is True
    unreached = flagsweep("move", "--to", "postgresql://ada:geheim@127.0.0.1:1/site", "--yes", code=1)
    assert "geheim" not in unreached.output and "127.0.0.1" in unreached.output


@pytest.mark.long
def test_a_move_beside_a_consumer_names_it(shop, folder, command, until):
    shop.send.raise_flag(1)
    consumer = command("run")
    until(lambda: not shop.flags.find())
    told = line(flagsweep("move", "--to", "sqlite:///new.db", "--yes", code=1))
    assert f"(pid {consumer.pid} on " in told and "stop it first" in told
    consumer.send_signal(signal.SIGTERM)
    assert consumer.wait(20) == 0
    flagsweep("move", "--to", "sqlite:///new.db", "--yes")


@pytest.mark.long
def test_ctrl_c_ends_a_move_between_two_pages_and_the_same_command_goes_on(shop, folder, command, until):
    shop.send.raise_many([(n,) for n in range(60_000)])
    child = command("move", "--to", "sqlite:///new.db", "--yes")
    until(lambda: (folder / "new.db").exists() and _rows(folder / "new.db"), limit=30)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) in (0, 1)
    assert child.returncode == 0 or "the same command goes on" in child.log.read_text()
    flagsweep("move", "--to", "sqlite:///new.db", "--yes")
    assert plain(folder / "new.db", "SELECT count(*), count(DISTINCT id) FROM flagsweep_flag") == [(60_000, 60_000)]


def _rows(path):
    try:
        return plain(path, "SELECT count(*) FROM flagsweep_flag")[0][0]
    except Exception:
        time.sleep(0.01)
        return 0


def test_reconcile_tells_asks_and_mends(shop, folder):
    with shop.flags.database.connection_context():
        shop.Person.insert_many([{"greet": True}] * 3).execute()
    result = flagsweep("reconcile", code=1)
    assert result.stdout.splitlines() == [
        "3 rows of greet meet their condition, and no flag is up for them (1, 2, 3)",
        "  -> --fix: flags are raised for them, as the next sweep would",
    ]
    assert [each["left"] for each in json.loads(flagsweep("reconcile", "--json", code=1).stdout)] == [3]
    assert "nothing was changed" in flagsweep("reconcile", "--fix", input="n\n", code=1).stderr
    assert flagsweep("reconcile", "--fix", "--yes").stdout.endswith("and no flag is up for them: mended\n")
    assert flagsweep("reconcile").stdout == "all fits together\n"
    assert len(shop.flags.find(kind="greet")) == 3


def test_reconcile_says_what_it_cannot_see_without_the_handlers(shop, monkeypatch):
    monkeypatch.delenv("FLAGSWEEP_APP")
    monkeypatch.setenv("FLAGSWEEP_DATABASE", "sqlite:///site.db")
    result = flagsweep("reconcile")
    assert result.stdout == "all fits together\n" and "without --app" in line(result)

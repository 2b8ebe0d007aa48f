"""Which FlagSweep: what ``--app`` names, and what is said where it names none."""

import importlib
import json
import sys

import pytest
from calling import flagsweep, kill_off, line


@pytest.mark.parametrize("arguments", [["run"], ["sweep"], ["status"], ["raise", "send"]], ids=lambda arguments: arguments[0])
def test_without_an_app_the_command_says_how_to_name_one(folder, arguments):
    text = line(flagsweep(*arguments, code=2))
    assert "--app module:attribute" in text and "FLAGSWEEP_APP" in text


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ("shop", "--app must be module:attribute, such as shop:flags, got 'shop'"),
        ("shop.py", "such as shop:flags"),
        ("shop.py:flags", "such as shop:flags"),
        ("./site/shop.py:flags", "such as site.shop:flags"),
        ("shop:make()", "such as shop:make"),
        (":flags", "--app must be module:attribute"),
        ("nowhere:flags", "there is no module 'nowhere' in {folder}"),
        ("shop.deep:flags", "there is no module 'shop.deep'"),
        ("shop:flag", "shop ({folder}/shop.py) has no 'flag'; it has shop:flags"),
        ("shop:number", "shop:number is of type int, not a FlagSweep; it has shop:flags"),
        ("shop:nightly", "shop:nightly is of type Handler, not a FlagSweep"),
        ("shop:FlagSweep", "shop:FlagSweep is a class, not a FlagSweep"),
        ("shop:make_nothing", "shop:make_nothing returns something of type NoneType, not a FlagSweep"),
        ("shop:make_trouble", "shop:make_trouble() failed: RuntimeError: not today"),
        ("queue:flags", "it hides {folder}/queue.py: give that file another name"),
    ],
)
def test_a_wrong_app_is_told_apart_in_one_line(shop, folder, app, expected):
    (folder / "queue.py").write_text("flags = 1\n")
    assert expected.format(folder=folder) in line(flagsweep("--app", app, "status", code=2))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\nimport reqeusts", "broken ({folder}/broken.py, line 2) imports 'reqeusts', which is not there"),
        ("import broken_too", "broken_too ({folder}/broken_too.py, line 1) imports 'reqeusts', which is not there"),
        ("from shop import nothing", "line 1) failed while it was imported: ImportError: cannot import name 'nothing'"),
        ("x = (", "the module 'broken' failed while it was imported: SyntaxError"),
        ("import sys\nsys.exit('no settings')", "line 2) failed while it was imported: SystemExit: no settings"),
        ("import json\njson.loads('{')", "broken ({folder}/broken.py, line 2) failed while it was imported: JSONDecodeError"),
        (
            "from flagsweep import FlagSweep\nflags = FlagSweep('oracle://root:secret@db/site')",
            "ConfigError: the database URL must begin with 'sqlite://', 'postgresql://' or 'mysql://', got 'oracle://***@",
        ),
    ],
    ids=["missing", "missing further on", "name", "syntax", "exit", "elsewhere", "settings"],
)
def test_a_module_that_does_not_import_says_which_line_of_the_site_failed(shop, folder, source, expected):
    (folder / "broken.py").write_text(source)
    (folder / "broken_too.py").write_text("import reqeusts")
    importlib.invalidate_caches()
    text = line(flagsweep("--app", "broken:flags", "status", code=2))
    assert expected.format(folder=folder) in text and "secret" not in text
    sys.modules.pop("broken_too", None)


def test_debug_shows_the_traceback_of_a_failed_import_too(shop, folder):
    (folder / "broken.py").write_text("1 / 0")
    importlib.invalidate_caches()
    result = flagsweep("--debug", "--app", "broken:flags", "status", code=2)
    assert "Traceback" in result.stderr and "1 / 0" in result.stderr


def test_a_function_that_returns_the_flagsweep_will_do(shop):
    assert "mail" in flagsweep("--app", "shop:make", "status").stdout


def test_the_current_folder_comes_last_so_that_it_hides_nothing(shop, folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    flagsweep("status")
    assert sys.path[-1] == str(folder) and sys.path.count(str(folder)) == 1


def test_looking_after_flags_takes_no_more_than_the_database(shop, db_path, monkeypatch):
    shop.send.raise_many([(1,), (2,)])
    kill_off(db_path, 2)
    monkeypatch.delenv("FLAGSWEEP_APP")
    monkeypatch.setenv("FLAGSWEEP_DATABASE", str(db_path))
    assert "known only with --app" in flagsweep("status").stdout
    assert json.loads(flagsweep("status", "--json").stdout)["lanes"]["-"]["dead"] == 1
    assert len(json.loads(flagsweep("list", "--json").stdout)) == 2
    flagsweep("show", 1), flagsweep("init"), flagsweep("doctor")
    flagsweep("retry", 2)
    assert "column" in line(flagsweep("lower", "send", '{"user_id":1}'))
    for command in (["run"], ["sweep"], ["raise", "send"]):
        assert "all commands but run, sweep and raise" in line(flagsweep(*command, code=2))

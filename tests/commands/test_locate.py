"""Which FlagSweep: what ``--app`` names, and what is said where it names none."""

import importlib
import json
import sys

import pytest
from calling import flagsweep, kill_off, line

from flagsweep import FlagSweep


@pytest.mark.parametrize("arguments", [["run"], ["sweep"], ["status"], ["raise", "send"]], ids=lambda arguments: arguments[0])
def test_without_an_app_the_command_says_how_to_name_one(folder, arguments):
    text = line(flagsweep(*arguments, code=2))
    assert "--app module:attribute" in text and "FLAGSWEEP_APP" in text and "in work.py, app.py, main.py or manage.py" in text


@pytest.mark.long
@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ("shop:", "--app must be module:attribute, such as shop:flags, got 'shop:'"),
        ("shop.py", "such as shop:flags"),
        ("shop.py:flags", "such as shop:flags"),
        ("./site/shop.py:flags", "such as site.shop:flags"),
        ("shop:make()", "such as shop:make"),
        (":flags", "--app must be module:attribute"),
        ("nowhere", "there is no module 'nowhere' in {folder}"),
        ("nowhere:flags", "there is no module 'nowhere' in {folder}"),
        ("queue", "has no FlagSweep; it hides {folder}/queue.py: give that file another name; say where it is: --app module:"),
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


def test_a_module_is_enough_where_its_flagsweep_is_called_flags_or_is_the_only_one(shop, folder):
    (folder / "broken.py").write_text("from flagsweep import FlagSweep\nwork = again = FlagSweep('site.db')\nother = 1\n")
    importlib.invalidate_caches()
    assert "mail" in flagsweep("--app", "shop", "status").stdout
    assert flagsweep("--app", "broken", "status").stderr == ""
    (folder / "broken.py").write_text(
        "from flagsweep import FlagSweep\none, two = FlagSweep('site.db'), FlagSweep('2.db')\n# more\n"
    )
    del sys.modules["broken"]
    importlib.invalidate_caches()
    text = line(flagsweep("--app", "broken", "status", code=2))
    assert "more than one FlagSweep: say which, --app broken:one or --app broken:two" in text


def test_a_package_is_enough_where_it_or_its_work_has_one(shop, folder):
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert "has no FlagSweep; say where it is" in line(flagsweep("--app", "pack", "status", code=2))
    (folder / "pack" / "work.py").write_text("from shop import flags\n")
    importlib.invalidate_caches()
    assert "mail" in flagsweep("--app", "pack", "status").stdout


OWN = "from flagsweep import FlagSweep\nflags = FlagSweep('site.db')\n@flags.handler(lane={lane!r})\ndef send(): ...\n"


@pytest.fixture
def beside(folder, db_path, spawn):
    """Give `beside(**files)`: what status says, and where it found the site, in a folder with these files: a process each, as
    a module may be called like one that this process has."""
    FlagSweep(db_path).init()

    def beside(code=0, **files):
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        child = spawn(sys.executable, "-P", "-c", "from flagsweep.cli import main; main()", "status")
        assert child.wait(60) == code
        return child.log.read_text()

    return beside


@pytest.mark.long
def test_one_in_main_py_is_found_as_well(beside):
    """FastAPI's documents put the application there."""
    assert "found in main.py, as with --app main:flags" in beside(main=OWN.format(lane="of_main"))


@pytest.mark.long
def test_without_an_app_it_is_found_beside_and_where_is_said_on_stderr(beside):
    text = beside(app=OWN.format(lane="of_app"))
    assert "flagsweep: found in app.py, as with --app app:flags" in text and "of_app" in text
    text = beside(work=OWN.format(lane="of_work").replace("flags ", "later ").replace("@flags", "@later"))
    assert "found in work.py, as with --app work:later" in text and "of_work" in text
    text = beside(work="number = 1\n")
    assert "found in app.py" in text, "a work.py that has none is no answer"
    assert "work (" in beside(code=2, work="import nowhere\n"), "a broken one is not passed over"


@pytest.mark.long
def test_a_sites_modules_that_are_called_like_ours_or_pythons_disturb_nothing(beside):
    trap = "raise SystemExit('the wrong module')"
    own = dict.fromkeys(("tasks", "models", "queue", "cli", "config", "types", "locate", "modules", "logging"), trap)
    assert "found in work.py" in beside(work=OWN.format(lane="mail"), **own)
    text = beside(work="import models, tasks\n" + OWN.format(lane=("mail")), **{**own, "models": "x = 1", "tasks": "x = 1"})
    assert "found in work.py" in text


@pytest.mark.long
def test_a_file_that_another_module_of_its_name_hides_is_not_silently_another(beside, folder, tmp_path, env):
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "work.py").touch()  # Before this folder in sys.path, which comes last.
    env["PYTHONPATH"] = str(folder / "elsewhere")
    assert f"hides {folder}/work.py" in beside(code=2, work=OWN.format(lane="mail"))


def test_what_the_environment_says_of_the_database_comes_before_what_is_found(shop, folder, db_path, monkeypatch):
    monkeypatch.delenv("FLAGSWEEP_APP")
    monkeypatch.setenv("FLAGSWEEP_DATABASE", str(db_path))
    (folder / "work.py").write_text("raise SystemExit('not to be imported')")
    assert flagsweep("status").stderr == ""


PROJECT = """
import atexit, sys
from flagsweep.cli import main
from django.conf import settings
atexit.register(lambda: print("settings", settings.SETTINGS_MODULE, settings.configured))
sys.argv[1:] = ["status"]
main()
"""


@pytest.mark.long
@pytest.mark.parametrize("given", [None, "shop_site.other"])
def test_a_django_project_is_set_up_by_the_settings_that_its_manage_names(folder, spawn, env, given):
    made = spawn(sys.executable, "-m", "django", "startproject", "shop_site", ".")
    assert made.wait(60) == 0, made.log.read_text()
    with (folder / "shop_site" / "settings.py").open("a") as settings:
        settings.write('INSTALLED_APPS.append("flagsweep.embed.django")\n')
    FlagSweep(folder / "db.sqlite3").init()
    (folder / "shop_site" / "other.py").write_text("from .settings import *\n")
    env.update({"DJANGO_SETTINGS_MODULE": given} if given else {})
    child = spawn(sys.executable, "-c", PROJECT)
    assert child.wait(60) == 0, child.log.read_text()
    text = child.log.read_text()
    assert "found in manage.py, as with --app flagsweep.embed.project:site" in text
    assert f"settings {given or 'shop_site.settings'} True" in text

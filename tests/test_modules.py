"""Modules: what a pattern imports, and names that are handed on once they are wanted."""

import importlib
import subprocess
import sys

import pytest

import flagsweep
from flagsweep import ConfigError, FlagSweep, testing

WORK = "from market import flags\n\n\n@flags.handler\ndef {name}(): ...\n"


@pytest.fixture
def market(tmp_path, monkeypatch):
    """Return the FlagSweep of a site of three parts, two of which have work, one without an `__init__.py`."""
    folder = tmp_path / "market"
    for part in ("orders", "users", "pages"):
        (folder / part).mkdir(parents=True)
    (folder / "__init__.py").write_text("from flagsweep import FlagSweep\nflags = FlagSweep('site.db')\n")
    (folder / "orders" / "__init__.py").touch()
    (folder / "orders" / "work.py").write_text(WORK.format(name="send_receipt"))
    (folder / "users" / "work.py").write_text(WORK.format(name="send_welcome"))
    (folder / "pages" / "views.py").write_text("raise SystemExit('not asked for')")
    (folder / "tasks.py").write_text(WORK.format(name="clean_up"))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield importlib.import_module("market").flags
    for name in [name for name in sys.modules if name.partition(".")[0] == "market"]:
        del sys.modules[name]


def test_autodiscover_imports_every_module_that_matches_and_returns_their_names(market):
    assert market.autodiscover("market.*.work") == ["market.orders.work", "market.users.work"]
    assert set(market.handlers) == {"send_receipt", "send_welcome"}
    assert market.autodiscover("market.t*", "market.*.work") == ["market.tasks", "market.orders.work", "market.users.work"]
    assert set(market.handlers) == {"send_receipt", "send_welcome", "clean_up"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.work", "must begin with the name of a package, as 'shop.*.work' does, got '*.work'"),
        ("market", "must begin with the name of a package"),
        ("market..work", "must begin with the name of a package"),
        (17, "got 17"),
        ("market.*.wrok", r"no module matches 'market.*.wrok': nothing below .*/market is called so"),
        ("nowhere.*.work", "there is no module 'nowhere'"),
    ],
)
def test_a_pattern_that_finds_nothing_is_an_error(market, pattern, expected):
    with pytest.raises(ConfigError, match=expected.replace("*.w", r"\*\.w")):
        market.autodiscover(pattern)


def test_a_broken_modules_error_names_it_and_its_line(market, tmp_path):
    (tmp_path / "market" / "pages" / "work.py").write_text("import os\nimport reqeusts\n")
    with pytest.raises(ConfigError, match=r"market.pages.work \(.*pages/work.py, line 2\) imports 'reqeusts'"):
        market.autodiscover("market.*.work")


@pytest.mark.parametrize("package", [flagsweep, testing], ids=["flagsweep", "testing"])
def test_every_name_that_a_package_hands_on_is_there_and_no_other(package):
    assert all(hasattr(package, name) for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.long
def test_importing_the_package_imports_none_of_its_modules_until_a_name_is_wanted(env):
    source = "import sys, flagsweep; print(any(n.startswith(('huey', 'peewee', 'flagsweep.app')) for n in sys.modules))"
    source += "; flagsweep.FlagSweep; print('peewee' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_a_flagsweep_that_is_handed_on_is_the_one_of_its_module():
    from flagsweep.app import FlagSweep as its_own

    assert FlagSweep is its_own is flagsweep.FlagSweep

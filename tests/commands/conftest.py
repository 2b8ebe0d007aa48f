"""A site in a folder of its own for each test, and the process left as it was."""

import importlib
import logging
import os
import signal
import sys

import pytest
from calling import SHOP


@pytest.fixture(autouse=True)
def as_found(monkeypatch):
    """Leave the process as it was: its environment, sys.path, modules, loggers and signals."""
    for name in [name for name in os.environ if name.startswith("FLAGSWEEP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before, handler = set(sys.modules), signal.getsignal(signal.SIGTERM)
    loggers = [logging.getLogger(name) for name in ("flagsweep", "huey")]
    state = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    yield
    signal.signal(signal.SIGTERM, handler)
    for logger, logger.level, logger.handlers, logger.propagate in state:
        logger.manager._clear_cache()
    for name in [name for name in sys.modules if name not in before and name.split(".")[0] in ("shop", "broken", "pack")]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shop(folder, monkeypatch):
    """Return the module of a site that stands in the current folder, with its tables."""
    (folder / "shop.py").write_text(SHOP)
    monkeypatch.setenv("FLAGSWEEP_APP", "shop:flags")
    importlib.invalidate_caches()
    monkeypatch.syspath_prepend(str(folder))
    module = importlib.import_module("shop")
    module.flags.init()
    with module.flags.database.connection_context():
        module.Person.create_table()
    return module


@pytest.fixture
def command(shop, spawn, env):
    """Give `command(*arguments)`: start `python -m flagsweep` in the site's folder."""
    return lambda *arguments, **options: spawn(
        sys.executable, "-m", "flagsweep", *arguments, **{"env": {**env, "FLAGSWEEP_APP": "shop:flags"}, **options}
    )

"""The log on stderr, whatever a site does with its own logging."""

import sys

import pytest

from flagsweep import FlagSweep

pytestmark = pytest.mark.long

LOGGING = {
    "nothing": ("", 1),
    "what disables all loggers that exist": ('logging.config.dictConfig({"version": 1})', 1),
    "a root that writes to the terminal": ("logging.basicConfig(level=logging.DEBUG)", 1),
    "a root that writes to stdout": ("logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)", 1),
    "a root that writes to a file": ("logging.basicConfig(level=logging.DEBUG, filename='root.log')", 2),
    "a handler of its own": (
        """logging.config.dictConfig({"version": 1, "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
           "formatters": {"own": {"format": "OWN %(message)s"}},
           "loggers": {"flagsweep": {"handlers": ["own"], "level": "INFO"}}})""",
        1,
    ),
    "a file of its own": ("logging.getLogger('flagsweep').addHandler(logging.FileHandler('own.log'))", 2),
}


@pytest.mark.parametrize("when", ["at the import", pytest.param("within a handler", marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", LOGGING)
def test_the_log_is_there_whatever_the_site_configures_and_no_line_comes_twice(tmp_path, spawn, env, db_path, what, when):
    text, times = LOGGING[what]
    early, late = (text, "pass") if when == "at the import" else ("", text)
    (tmp_path / "shop.py").write_text(f"""
import logging.config, sys
from flagsweep import FlagSweep
flags = FlagSweep({str(db_path)!r}, threads=1)
@flags.handler(max_attempts=1)
def work():
    {late}
    raise ValueError("no")
{early}
""")
    flags = FlagSweep(db_path)
    flags.init()
    flags.handler("work")(lambda: None).raise_flag()
    flags.connections.close_thread()
    child = spawn(sys.executable, "-m", "flagsweep", "--app", "shop:flags", "sweep")
    assert child.wait(20) == 0
    shown = child.log.read_text()
    written = "".join(path.read_text() for path in tmp_path.glob("*.log") if path != child.log)
    assert (shown + written).count("attempt 1 failed") == times, shown
    assert shown.count("attempt 1 failed") == 1
    assert ("OWN work" in shown) == (what == "a handler of its own")

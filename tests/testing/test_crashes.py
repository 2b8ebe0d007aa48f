"""Crash points: each says where it lies, and a process dies where it is told to."""

import subprocess
import sys

import pytest

from flagsweep import ConfigError, FlagSweep
from flagsweep.testing import POINTS, arm


def test_every_crash_point_says_where_it_lies():
    assert len(POINTS) >= 25
    assert all(point.name == name and 10 < len(point.text) < 90 for name, point in POINTS.items())


def test_without_the_variable_nothing_is_touched():
    before = [getattr(point.owner, point.method) for point in POINTS.values()]
    assert arm({}) is None
    assert [getattr(point.owner, point.method) for point in POINTS.values()] == before


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nowhere", "there are enlist.before"),
        ("claim.after:0", "n from 1"),
        ("claim.after:x", "n from 1"),
        (":2", "the point ''"),
    ],
)
def test_a_crash_point_that_does_not_exist_is_refused_at_once(text, problem):
    with pytest.raises(ConfigError, match=problem):
        arm({"FLAGSWEEP_CRASH_AT": text})


CRASH = """
import os
from flagsweep import FlagSweep, testing
testing.arm(os.environ)
flags = FlagSweep(os.environ["FILE"])
@flags.handler
def note(n): ...
flags.init()
for n in range(5):
    note.raise_flag(n)
"""


@pytest.mark.long
def test_a_process_dies_the_nth_time_it_reaches_its_point_and_leaves_the_name(db_path, tmp_path, env):
    log = tmp_path / "reached"
    names = {"FLAGSWEEP_CRASH_AT": "raise.after:3", "FLAGSWEEP_CRASH_LOG": str(log), "FILE": str(db_path)}
    done = subprocess.run([sys.executable, "-c", CRASH], env={**env, **names})
    assert done.returncode == -9 and log.read_text() == "raise.after\n"
    flags = FlagSweep(db_path)
    assert [flag.payload for flag in flags.find()] == [{"n": n} for n in range(3)]

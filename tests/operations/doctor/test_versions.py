"""What is found of versions: packages, servers whose time is over, and those with known bugs."""

import re
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from examined import found

from flagsweep import FlagSweep
from flagsweep.databases.postgresql.checks import PostgresqlChecks
from flagsweep.operations.doctor import versions

ROOT = Path(versions.__file__).parents[2]


def test_what_is_installed_here_is_what_flagsweep_asks_for(flags):
    assert found(flags, "packages").level == "ok"


def test_the_floors_are_those_of_the_project():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {bounds(each) for each in asked} <= {bounds(each) for each in requires("flagsweep")}


def bounds(requirement):
    """Return the name and its bounds, in whatever order they are written."""
    name, *rest = re.split("(?=[<>])", requirement.partition(";")[0].replace(" ", ""), maxsplit=1)
    return name, frozenset("".join(rest).split(","))


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("huey>=3.5.3,<4", None),
        ("huey<3", "where < 3 is asked for"),
        ("huey>=99", "where >= 99 is asked for"),
        ("no-such-package>=1", "no-such-package is not installed"),
        ('no-such-package>=1; extra == "redis"', None),
    ],
)
def test_a_package_that_was_never_tried_is_told(flags, monkeypatch, requirement, said):
    monkeypatch.setattr(versions, "requires", lambda name: [requirement])
    finding = found(flags, "packages")
    assert finding.level == ("warn" if said else "ok") and (said is None or said in finding.text)
    assert said is None or "no-such" in requirement or f"huey {version('huey')}" in finding.text


def test_a_python_that_is_mended_no_more_is_told_once_its_time_is_over(flags, monkeypatch):
    monkeypatch.setitem(versions.ENDS, ("Python", tuple(sys.version_info[:2])), "2020-12-31")
    finding = found(flags, "versions")
    assert finding.level == "warn" and "is mended no more since 2020-12-31" in finding.text and "newer Python" in finding.fix


@pytest.mark.parametrize(
    ("number", "said", "fix"),
    [
        ((13, 23), "PostgreSQL 13 is mended no more since 2025-11-13", "move to 14.21 or later"),
        ((15, 15), "may lose what LISTEN still reads", "update to 15.16 or later, or set notify='off'"),
        ((18, 1), "may lose what LISTEN still reads", "update to 18.2"),
        ((18, 2), "PostgreSQL 18.2", ""),
        ((19, 0), "PostgreSQL 19.0", ""),
    ],
)
def test_a_server_that_loses_what_listen_reads_is_told(postgres_url, monkeypatch, tmp_path, number, said, fix):
    flags = FlagSweep(postgres_url, state_dir=str(tmp_path))
    flags.init()
    monkeypatch.setattr(PostgresqlChecks, "server_version", lambda self, db: ("PostgreSQL", number, (13, 0)))
    finding = found(flags, "versions")
    assert said in finding.text and fix in finding.fix and (finding.level == "warn") == bool(fix)
    quiet = FlagSweep(postgres_url, state_dir=str(tmp_path), notify="off")
    assert "LISTEN" not in found(quiet, "versions").text
    for each in (flags, quiet):
        each.connections.close_thread()

"""What is found of the environment: variables that look like settings."""

import pytest

from flagsweep.operations.doctor import examine


def levels(flags):
    return {(each.level, each.text, each.fix) for each in examine.examine(flags) if each.what == "environment"}


def test_a_misspelt_variable_is_named_with_what_was_meant(flags, monkeypatch):
    monkeypatch.setenv("FLAGSWEEP_THREDS", "7")
    monkeypatch.setenv("FLAGSWEEP_XYZZY", "7")
    found = sorted(levels(flags))
    assert [(level, text) for level, text, _ in found] == [
        ("warn", "FLAGSWEEP_THREDS is no setting"),
        ("warn", "FLAGSWEEP_XYZZY is no setting"),
    ]
    assert found[0][2] == "did you mean 'THREADS'?"
    assert "APP, CONFIG" in found[1][2] and "LANES" in found[1][2]


@pytest.mark.parametrize("name", ["APP", "CONFIG", "LANES", "CRASH_AT", "TEST_REDIS", "SEED", "FAULTS_PACE"])
def test_a_variable_that_is_read_is_fine(flags, monkeypatch, name):
    monkeypatch.setenv(f"FLAGSWEEP_{name}", "x")
    assert {level for level, _, _ in levels(flags)} == {"ok"}

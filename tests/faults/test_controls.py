"""Positive controls: twelve bugs are planted in flagsweep, one at a time, and a check of this suite must find each.

Both the check and the consumers that it starts run in processes of their own, so that no bug outlives its test.
"""

import json
import sys
from importlib.util import find_spec

import controls
import pytest
from controls import CONTROLS
from planted import BUGS, PLANTED


@pytest.fixture
def look(spawn, env, tmp_path):
    """Give `look(bug, planted)`: return what the check of a bug finds wrong, with the bug or without."""

    def look(bug, planted):
        folder = tmp_path / ("with" if planted else "without")
        folder.mkdir()
        child = spawn(sys.executable, controls.__file__, bug, folder, env={**env, PLANTED: bug if planted else ""})
        assert child.wait(2 * controls.PATIENCE) == 0, child.log.read_text()
        return json.loads((folder / "found").read_text())

    return look


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug, look, report):
    if CONTROLS[bug].row == "F4" and not find_spec("apsw"):
        pytest.skip("power cuts need APSW, which requirements.txt leaves out for this Python")
    found = look(bug, planted=False)
    assert not found, f"found where no bug was planted: {found}"
    found = look(bug, planted=True)
    figure = f"caught by {CONTROLS[bug].row}: {'; '.join(found)}" if found else "NOT CAUGHT"
    report("controls", bug, figure, found)


def test_there_are_twelve_controls():
    assert BUGS.keys() == CONTROLS.keys() and len(BUGS) >= 12

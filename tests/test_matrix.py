"""``make matrix``: which Pythons it finds, that it says so, and that nothing of ours that is deprecated passes."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HERE = "{}.{}".format(*sys.version_info)
MAKEFILE = """
$(VENV)/.ready:
\t@$(PYTHON) -m venv --without-pip $(VENV) && touch $@
test: $(VENV)/.ready
\t@$(VENV)/bin/python test.py
"""
DEPRECATED = "import warnings; warnings.warn_explicit('old', DeprecationWarning, 'lane.py', 1, module={!r})"


@pytest.fixture
def matrix(tmp_path, env):
    """Give `matrix(*versions)`: call it in a checkout whose tests are ``test.py``, with this Python alone on the PATH."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "matrix", tmp_path / ".ci")
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / "test.py").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / f"python{HERE}").symlink_to(sys.executable)
    outer = {name: value for name, value in env.items() if not name.startswith("MAKE")}
    outer |= {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "PYENV_ROOT": str(tmp_path / "pyenv")}
    return lambda *versions: subprocess.run(
        [tmp_path / ".ci" / "matrix", *versions], capture_output=True, text=True, env=outer, timeout=60
    )


@pytest.mark.long
def test_it_says_which_versions_passed_and_which_are_not_there(matrix, tmp_path):
    done = matrix(HERE, "3.98")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Passed: Python {HERE}\n" in done.stdout and "not tried: Python 3.98\n" in done.stdout
    assert (tmp_path / "build" / "matrix" / HERE / "bin" / "python").exists()


@pytest.mark.long
def test_it_fails_where_the_tests_of_a_version_fail(matrix, tmp_path):
    (tmp_path / "test.py").write_text("raise SystemExit('no')")
    done = matrix(HERE)
    assert done.returncode == 1 and done.stderr.endswith(f"FAILED: Python {HERE}\n")


def test_it_fails_where_there_is_none_at_all(matrix):
    done = matrix("3.98", "3.99")
    assert done.returncode == 1 and "there is no Python of 3.98 3.99 on the PATH" in done.stderr


@pytest.mark.long
def test_it_takes_a_version_of_pyenvs_and_no_shim_that_refuses(matrix, tmp_path):
    shim = tmp_path / "bin" / f"python{HERE}"
    shim.unlink()
    shim.write_text('#!/bin/sh\necho "the command exists in these versions: 3.98" >&2\nexit 127\n')
    shim.chmod(0o755)
    of_pyenv = tmp_path / "pyenv" / "versions" / f"{HERE}.7" / "bin" / "python3"
    of_pyenv.parent.mkdir(parents=True)
    of_pyenv.symlink_to(sys.executable)
    found = matrix(HERE)
    assert found.returncode == 0 and str(shim) not in found.stdout


@pytest.mark.long
@pytest.mark.parametrize("module", ["flagsweep", "flagsweep.sweep.lane"])
def test_what_is_deprecated_and_ours_is_an_error_in_every_process(matrix, tmp_path, module):
    with pytest.raises(DeprecationWarning):
        warnings.warn_explicit("old", DeprecationWarning, "lane.py", 1, module=module)
    (tmp_path / "test.py").write_text(DEPRECATED.format(module))
    assert matrix(HERE).returncode == 1
    (tmp_path / "test.py").write_text(DEPRECATED.format("peewee"))
    assert matrix(HERE).returncode == 0

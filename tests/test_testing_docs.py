"""docs/testing.md: its programs run, and say what the page says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flagsweep

pytestmark = pytest.mark.long

TEXT = (Path(flagsweep.__file__).resolve().parent / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|text)\n(.*?)```", TEXT, re.DOTALL)
FILES = {match[1]: source for kind, source in BLOCKS if kind == "python" and (match := re.match(r"# (\w+\.py)\n", source))}
"""Whole files, by name."""


def _steps():
    """Yield the handler of each step, as the whole of work.py, with the lines that the page shows of its test."""
    whole, shown = None, []
    for kind, source in BLOCKS:
        if source.startswith("# work.py"):
            if source.startswith("# work.py\n"):
                whole = source.removeprefix("# work.py\n")
            else:
                handler = source.partition("\n")[2]
                whole = re.sub(
                    r"@flags\.handler\ndef welcome.*?\n\n\n", lambda _, new=handler: f"{new}\n\n", whole, flags=re.DOTALL
                )
        elif kind == "text":
            shown.append((whole, source.splitlines()))
    return shown


@pytest.fixture
def run(tmp_path, env):
    """Give `run(test, work)`: what pytest says of a test file of the page's, with this work.py."""

    def run(test, work):
        for name, source in {**FILES, "work.py": work}.items():
            (tmp_path / name).write_text(source.removeprefix(f"# {name}\n"), encoding="utf-8")
        command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:django", test)
        plain = {name: value for name, value in env.items() if name not in ("CI", "BUILD_NUMBER")}  # There pytest cuts no line.
        done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=120)
        return done.stdout

    return run


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_each_step_of_the_mail_handler_says_what_the_page_says(run, step):
    work, shown = _steps()[step - 1]
    text = [line.removeprefix("E ").strip() for line in run("test_work.py", work).splitlines()]
    missing = [line for line in shown if line.strip() not in text and not any(line.strip() in told for told in text)]
    assert not missing, "\n".join([*missing, "--", *text])
    if step < 4:
        assert [line for line in text if line.startswith("!")] == [line.strip() for line in shown if line.strip().startswith("!")]


@pytest.mark.parametrize("test", ["test_sign_up.py", "test_one_point.py"])
def test_the_other_tests_of_the_page_pass_with_the_last_step(run, test):
    text = run(test, _steps()[-1][0])
    assert re.search(r"^\d+ passed", text, re.MULTILINE) and "failed" not in text, text


def test_what_is_not_run_is_python():
    for kind, source in BLOCKS:
        if kind == "python":
            ast.parse(source)


def test_the_table_lists_every_fixture_of_the_plugin_and_no_other():
    from flagsweep.testing import plugin

    fixtures = {name for name, value in vars(plugin).items() if type(value).__name__ == "FixtureFunctionDefinition"}
    listed = set(re.findall(r"^\| `([a-z_]+)[`(]", TEXT, re.MULTILINE))
    assert listed == fixtures and len(fixtures) == 8

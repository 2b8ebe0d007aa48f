"""The documents tell the truth: the README's program runs, and what they name is there."""

import ast
import re
import subprocess
import sys
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import flagsweep
from flagsweep.cli import cli
from flagsweep.config import Settings

ROOT = Path(flagsweep.__file__).resolve().parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def site(tmp_path, env):
    (tmp_path / "work.py").write_text(blocks(README, "python")[0], encoding="utf-8")

    def run(*command):
        return subprocess.run([sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    return run


def test_the_first_program_of_the_readme_does_its_work(site):
    raised = site("work.py")
    assert (raised.returncode, raised.stderr) == (0, "")
    swept = site("-m", "flagsweep", "--app", "work:flags", "sweep")
    assert swept.returncode == 0, swept.stderr
    assert "Welcome, ada@example.com" in swept.stdout


def test_every_python_block_of_the_readme_is_python():
    for block in blocks(README, "python"):
        ast.parse(block)


def test_the_readme_shows_every_command_and_no_other():
    shown = set(re.findall(r"^\$ flagsweep (?:--app \S+ )?([a-z]+)", README, re.MULTILINE))
    assert shown == set(cli.commands)


def test_the_readme_lists_every_setting_and_no_other():
    table = README[README.index("| setting |") :]
    listed = set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE))
    assert listed == {f.name for f in fields(Settings)}


def test_the_reference_of_the_commands_is_as_they_are():
    spec = spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    spec.loader.exec_module(reference := module_from_spec(spec))
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run 'make docs': the commands say something else now"


def test_what_growing_moves_is_all_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sites = [flagsweep.FlagSweep(f"sqlite:///{name}.db") for name in ("site", "new")]
    for site in sites:
        site.handler("send", per="user_id", expires="1h")(lambda user_id: 1 / 0).every("1h", arguments=(1,))
    sites[0].init()
    sites[0].handlers["send"].raise_many([(1,), (2,)])
    sites[0].pause("send", reason="moves"), sites[0].schedules.add("nightly", "send", cron="0 4 * * *", arguments=(3,))
    (copy,) = blocks((ROOT / "docs" / "growing.md").read_text(encoding="utf-8"), "python")
    exec(re.sub(r"postgresql://[^\"]+", "sqlite:///new.db", copy), names := {})
    assert sites[0].resume()
    old, new = ([site.find(), site.schedules.list(), site.gates()] for site in sites)
    assert new == old and all(old)
    sites[1].resume("send")
    assert +sites[1].sweep() == {"again": 2}
    for site in (*sites, names["old"]):
        site.database.close()
        site.connections.close_thread()
        site.connections.close_engine()


def test_every_exported_name_has_a_docstring():
    for name in flagsweep.__all__:
        assert getattr(flagsweep, name).__doc__, name


def test_every_public_method_of_flagsweep_has_a_docstring():
    for name in dir(flagsweep.FlagSweep):
        if not name.startswith("_"):
            assert getattr(flagsweep.FlagSweep, name).__doc__, name


def test_every_file_that_the_documents_link_or_name_is_there():
    for document in DOCS:
        text = document.read_text(encoding="utf-8")
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        made = re.findall(r"^# (\w+\.py)$", text, re.MULTILINE)  # What a page has its reader write.
        named = [name for name in re.findall(r"`([a-z_/]+\.py)`", text) if name not in made]
        for target in [*links, *(name for name in named if (ROOT / name).exists() or document.name != "README.md")]:
            assert (document.parent / target).exists() or (ROOT / target).exists(), f"{document.name} names {target}"


def test_every_method_that_internals_names_is_in_the_code():
    aside = (ROOT / "tests", ROOT / "benchmarks", ROOT / "examples", ROOT / ".venv", ROOT / "build")
    files = (path for path in ROOT.rglob("*.py") if not any(map(path.is_relative_to, aside)))
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    text = (ROOT / "docs" / "internals.md").read_text(encoding="utf-8")
    for owner, name in re.findall(r"`([A-Z]\w+)\.(_?[a-z_]+)`", text):
        assert f"class {owner}" in code and f"def {name}(" in code, f"{owner}.{name}"


def test_no_registry_is_named_in_the_project():
    texts = [
        p.read_text(encoding="utf-8") for p in [*DOCS, ROOT / "Makefile", ROOT / "requirements.txt", ROOT / "pyproject.toml"]
    ]
    assert not [t for t in texts if re.search(r"pypi\.org|pythonhosted|index-url", t)]

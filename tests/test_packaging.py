"""The wheel holds the package and nothing else, disturbs no site, and importing it does nothing."""

import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
ASIDE = {"tests", "examples", "benchmarks", "docs", "build", "dist"}
NEEDED = {"__init__", "__main__", "app", "models", "tasks", "config", "cli"}


def _is_ours(path):
    """Whether a path below the root belongs to the package."""
    first = path.relative_to(ROOT).parts[0]
    return first not in ASIDE and not first.startswith(".")


SOURCES = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if _is_ours(path)}
MODULES = sorted({source.split("/")[0].removesuffix(".py") for source in SOURCES} - {"__init__", "__main__"})
"""Our modules and folders at the top, by which a site may call its own modules."""
HOSTED = {source for source in SOURCES if source.startswith("embed/django/") and source != "embed/django/__init__.py"}
"""What Django alone can load, once it is set up: tests/embed/ has it do so."""
EVERY = sorted(
    source.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for source in SOURCES - HOSTED if "/" in source
)


def _run(*command, **options):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    aside = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "*.db*")
    shutil.copytree(ROOT, folder / "tree", ignore=aside)
    _run("-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", folder, folder / "tree")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def site(wheel, tmp_path, env):
    """Return the folder of a site whose modules are called what ours are, with the wheel installed beside them."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text("OWNER = 'the site'\n")
    _run("-m", "pip", "install", "--no-index", "--no-deps", "--target", tmp_path, wheel, env=env)
    return tmp_path


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (top_level,) = (name for name in names if name.endswith(".dist-info/top_level.txt"))
        assert archive.read(top_level).split() == [b"flagsweep"]
    package = {name for name in names if not name.startswith("flagsweep-0.1.0.dist-info/")}
    assert package == {f"flagsweep/{source}" for source in SOURCES} | {"flagsweep/py.typed"}
    assert {f"flagsweep/{name}.py" for name in NEEDED} <= package


def test_the_source_distribution_has_the_pages_and_what_is_there_for_language_models(tmp_path):
    aside = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "*.db*")
    tree = shutil.copytree(ROOT, tmp_path / "tree", ignore=aside)
    _run("-c", "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])", tmp_path, cwd=tree)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"llms.txt", "CHANGELOG.md", "docs/operations.md", "docs/cli.md", "README.md", "app.py"} <= names


def test_installing_the_wheel_leaves_a_sites_own_modules_as_they_are(site):
    added = {path.name for path in site.iterdir()} - {f"{name}.py" for name in MODULES}
    assert added == {"flagsweep", "flagsweep-0.1.0.dist-info", "bin"}
    assert {(site / f"{name}.py").read_text() for name in MODULES} == {"OWNER = 'the site'\n"}


def _file_of(module):
    return f"{module}.py" if f"{module}.py" in SOURCES else f"{module}/__init__.py"


IMPORTS_BOTH = """
import importlib, json, sys
files = {name: importlib.import_module(name).__file__ for name in sys.argv[1:]}
json.dump(files, sys.stdout)
"""


@pytest.mark.parametrize("first", ["the site", "flagsweep"])
def test_a_site_and_flagsweep_each_import_their_own(site, env, first):
    theirs, ours = list(MODULES), ["flagsweep", *(f"flagsweep.{name}" for name in MODULES)]
    order = theirs + ours if first == "the site" else ours + theirs
    files = json.loads(_run("-c", IMPORTS_BOTH, *order, cwd=site, env=env))
    expected = {name: site / f"{name}.py" for name in theirs}
    expected |= {f"flagsweep.{name}": site / "flagsweep" / _file_of(name) for name in MODULES}
    expected |= {"flagsweep": site / "flagsweep" / "__init__.py"}
    assert {name: Path(file) for name, file in files.items()} == expected


def test_the_command_starts_in_a_site_with_modules_of_the_same_names(site, env):
    assert "Usage" in _run("-m", "flagsweep", "--help", cwd=site, env=env)


def _names_by_file():
    """Return the names under which each file of ours is loaded in this process."""
    names: dict[str, set[str]] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if file and (path := Path(file).resolve()).is_relative_to(ROOT) and not _is_made(path):
            names.setdefault(path.relative_to(ROOT).as_posix(), set()).add(name)
    return names


def _is_made(path):
    """Whether a path belongs to what `make` made, such as a virtual environment."""
    first = path.relative_to(ROOT).parts[0]
    return first == "build" or first.startswith(".")


def test_no_file_of_ours_is_loaded_under_two_names():
    for name in [*MODULES, *EVERY]:
        importlib.import_module(f"flagsweep.{name}")
    names = _names_by_file()
    # A module of tests may be collected, and be imported by the fault suite, which uses what it has.
    shared = {file: found for file, found in names.items() if not Path(file).name.startswith("test_")}
    assert {file: found for file, found in shared.items() if len(found) > 1} == {}
    ours = {file: found for file, found in names.items() if file in SOURCES}
    assert ours.pop("__init__.py") == {"flagsweep"}
    assert set(ours) >= SOURCES - HOSTED - {"__init__.py", "__main__.py"}


def test_the_guard_against_two_names_sees_a_second_one(monkeypatch):
    importlib.import_module("flagsweep")
    spec = importlib.util.spec_from_file_location("second_name", ROOT / "__init__.py")
    monkeypatch.setitem(sys.modules, "second_name", importlib.util.module_from_spec(spec))
    assert _names_by_file()["__init__.py"] == {"flagsweep", "second_name"}


IMPORT_WATCHED = """
import json, os, sys, threading
seen, starts = [], {"socket.__new__", "sqlite3.connect", "_thread.start_new_thread", "subprocess.Popen", "os.fork"}
def watch(event, args):
    if event in starts or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        seen.append(f"{event} {args!r}")
import huey, peewee, playhouse.db_url
before = set(sys.modules)
sys.addaudithook(watch)
from flagsweep import *
new = {name.partition(".")[0] for name in set(sys.modules) - before}
json.dump({"seen": seen, "threads": threading.active_count(), "new": sorted(new), "files": os.listdir()}, sys.stdout)
"""


def test_importing_opens_nothing_and_loads_no_more_than_it_must(tmp_path, env):
    found = json.loads(_run("-B", "-c", IMPORT_WATCHED, cwd=tmp_path, env=env))
    assert (found["seen"], found["threads"], found["files"]) == ([], 1, [])
    assert not {"rich", "redis", "psycopg", "pymysql", "flask"} & set(found["new"])

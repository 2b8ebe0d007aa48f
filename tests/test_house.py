"""The house: imports go down only, each thing that is borrowed has its room, and what stands at the top is a closed list.

Files are read, never imported, so that an import inside a function or for the type checker alone counts like any other.
"""

import ast
import re
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "flagsweep"

NOT_YET: dict[str, str] = {}
"""Rules that do not hold yet, each with its reason."""

FLOORS = (
    ("errors",),
    ("logs",),
    ("modules",),
    ("durations",),
    ("config",),
    ("payloads",),
    ("databases",),
    ("models",),
    ("adapters", "schedules", "gates"),
    ("handlers",),
    ("sweep",),
    ("queues",),
    ("tasks",),
    ("consumer",),
    ("operations",),
    ("telling",),
    ("app",),
    ("locate",),
    ("commands", "web", "testing"),
    ("cli",),
    ("embed",),
    ("__init__", "__main__"),
)
"""The rooms from the ground up. What stands side by side has nothing to say to each other."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

ROOMS_OF = {
    ("psycopg", "psycopg2", "pymysql", "MySQLdb", "mysql", "apsw", "sqlite3", "redis"): ("databases/", "queues/"),
    ("playhouse",): ("databases/",),
    ("peewee",): (
        "databases/",
        "models.py",
        "adapters/",
        "schedules/",
        "gates/",
        "sweep/",
        "queues/",
        "consumer/",
        "app.py",
        "commands/",
    ),
    ("huey",): ("tasks.py", "queues/", "consumer/runner.py", "consumer/beside.py"),
    ("click", "rich"): ("commands/", "cli.py"),
    ("sqlalchemy",): ("adapters/",),
    ("django.db",): ("adapters/", "embed/django/"),
    ("flask", "django", "fastapi", "starlette"): ("embed/",),
    ("pytest",): ("testing/plugin.py",),
}
"""What is borrowed, and the only rooms that know it. The longer name counts: ``django.db`` is not a part of ``django`` here."""

AT_THE_TOP = {room for rooms in FLOORS for room in rooms if not room.startswith("__")} | {
    *("__init__.py", "__main__.py", "py.typed", "pyproject.toml", "requirements.txt", "Makefile"),
    *("README.md", "CHANGELOG.md", "LICENSE", "llms.txt", "MANIFEST.in"),
    *("benchmarks", "docs", "examples", "tests"),
}
BESIDE = ("benchmarks", "docs", "examples", "tests")
"""Folders that are no part of the package."""
MADE = re.compile(r"\.|__pycache__$|build$|dist$|.*\.egg-info$|.*\.db(-.*)?$")
"""What tools and runs leave at the top."""

MOST_LINES = {"app.py": 300, "cli.py": 150}


class Import(NamedTuple):
    """One name that a file imports, with its line: a module of ours by its path without ``.py``, or another's dotted name."""

    line: int
    ours: str | None
    other: str | None


class House:
    """What a package's folder holds, as text."""

    def __init__(self, root: Path):
        self.root = root
        self.top = sorted(path for path in root.iterdir() if not MADE.match(path.name))
        self.folders = [
            path.relative_to(root).as_posix()
            for top in self.top
            if top.is_dir() and top.name not in BESIDE
            for path in (top, *sorted(top.rglob("*")))
            if path.is_dir() and not MADE.match(path.name)
        ]
        sources = [path for path in self.top if path.suffix == ".py"]
        sources += [path for folder in self.folders for path in sorted((root / folder).glob("*.py"))]
        self.texts = {path.relative_to(root).as_posix().removesuffix(".py"): path.read_text("utf-8") for path in sources}
        self.imports = {module: list(self._imports(module, ast.parse(text))) for module, text in self.texts.items()}

    def _imports(self, module, tree):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                source = "." * node.level + (node.module or "")
                for alias in node.names:
                    yield self._found(module, node.lineno, source, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield self._found(module, node.lineno, alias.name)
            elif name := _imported_by_a_call(node):
                yield self._found(module, node.lineno, name)

    def _found(self, module, line, source, name=""):
        """Return what is imported; ``from .folder import name`` means the module of that name where there is one."""
        up = len(source) - len(source.lstrip("."))
        if up:
            path = [*module.split("/")[:-up], *filter(None, source[up:].split("."))]
        elif source.partition(".")[0] == PACKAGE:
            path = source.split(".")[1:]
        else:
            return Import(line, None, f"{source}.{name}" if name else source)
        candidates = [[*path, name], [*path, name, "__init__"], path, [*path, "__init__"]]
        texts = ("/".join(filter(None, parts)) for parts in candidates)
        return Import(line, next((text for text in texts if text in self.texts), "/".join(path)), None)


def _imported_by_a_call(node):
    """Return what ``importlib.import_module("name")`` and ``__import__("name")`` import, where it stands there as text."""
    if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
        return None
    name = getattr(node.func, "attr", getattr(node.func, "id", None))
    return node.args[0].value if name in ("import_module", "__import__") else None


def _room(module):
    return module.split("/")[0]


def _where(module, line):
    return f"{module}.py:{line}"


# The rules: each returns what breaks it, in sentences.


def imports_go_down_only(house):
    broken = []
    for module, imports in house.imports.items():
        for line, ours, _ in imports:
            if ours is None or _room(ours) == _room(module) != "__init__":
                continue
            if _room(module) not in FLOOR or _room(ours) not in FLOOR:
                broken.append(f"{_where(module, line)} imports {ours}, and one of them is on no floor")
            elif FLOOR[_room(ours)] > FLOOR[_room(module)]:
                broken.append(f"{_where(module, line)} imports {ours}, which is above it")
            elif FLOOR[_room(ours)] == FLOOR[_room(module)] and _room(module) != "__main__":
                broken.append(f"{_where(module, line)} imports {ours}, which stands beside it")
    return broken


def no_module_imports_itself_by_a_circle(house):
    reached = {module: _reached_from(module, house) for module in house.imports}
    broken = []
    for module in sorted(module for module, others in reached.items() if module in others):
        circle = sorted(other for other in reached[module] if module in reached[other])
        broken.append(f"{module}.py is on a circle of {', '.join(circle)}")
    return broken


def _reached_from(module, house):
    reached, left = set(), [module]
    while left:
        found = {ours for _, ours, _ in house.imports[left.pop()] if ours in house.imports} - reached
        reached |= found
        left += found
    return reached


def what_is_borrowed_has_its_room(house):
    return [
        f"{_where(module, line)} imports {other}, which only {', '.join(_rooms_of(other))} may"
        for module, imports in house.imports.items()
        for line, _, other in imports
        if other is not None and not _is_in(_rooms_of(other), module)
    ]


def _rooms_of(other):
    names = [(name, rooms) for names, rooms in ROOMS_OF.items() for name in names]
    found = [(len(name), rooms) for name, rooms in names if f"{other}.".startswith(f"{name}.")]
    return max(found)[1] if found else ("",)


def _is_in(rooms, module):
    return any(f"{module}.py" == room or (not room.endswith(".py") and module.startswith(room)) for room in rooms)


def each_folder_says_what_lives_there(house):
    broken = []
    for folder in house.folders:
        text = house.texts.get(f"{folder}/__init__")
        docstring = ast.get_docstring(ast.parse(text)) if text is not None else None
        if docstring is None:
            broken.append(f"{folder}/ says nothing: give it an __init__.py with a docstring")
        elif not 1 <= len(re.findall(r"[.!?](?=\s|$)", docstring)) <= 2:
            broken.append(f"{folder}/__init__.py takes more than two sentences, or ends none")
    return broken


def what_stands_at_the_top_is_listed(house):
    names = [path.name if path.suffix != ".py" or path.stem.startswith("__") else path.stem for path in house.top]
    return [f"{name} is not on the list of what stands at the top" for name in names if name not in AT_THE_TOP]


def nothing_is_called_like_a_module_of_pythons_own(house):
    names = [*(path.stem for path in house.top if path.suffix == ".py"), *(Path(folder).name for folder in house.folders)]
    return [f"{name} is the name of a module of Python's own" for name in names if name in sys.stdlib_module_names - {"__main__"}]


def the_front_doors_are_short(house):
    lines = {name: house.texts.get(name.removesuffix(".py"), "").count("\n") for name in MOST_LINES}
    return [f"{name} has {lines[name]} lines" for name, most in MOST_LINES.items() if lines[name] >= most]


RULES = [
    imports_go_down_only,
    no_module_imports_itself_by_a_circle,
    what_is_borrowed_has_its_room,
    each_folder_says_what_lives_there,
    what_stands_at_the_top_is_listed,
    nothing_is_called_like_a_module_of_pythons_own,
    the_front_doors_are_short,
]


def _name(rule):
    return rule.__name__.replace("_", " ")


def _expected_to_hold(rule):
    reason = NOT_YET.get(_name(rule))
    return pytest.param(rule, id=_name(rule), marks=[pytest.mark.xfail(strict=True, reason=reason)] if reason else [])


@cache
def this_house():
    return House(ROOT)


@pytest.mark.parametrize("rule", [_expected_to_hold(rule) for rule in RULES])
def test_of_this_house(rule):
    broken = rule(this_house())
    assert not broken, "\n".join(broken)


def test_what_does_not_hold_yet_is_a_rule():
    assert set(NOT_YET) <= {_name(rule) for rule in RULES}


# Controls: a small house in which every rule holds, and what is planted in it.

SOUND = {
    "__init__.py": "from .app import FlagSweep",
    "__main__.py": "from .cli import main",
    "errors.py": "",
    "config.py": "from .errors import ConfigError",
    "databases/__init__.py": '"""What differs between databases. Drivers live here."""',
    "databases/sqlite/__init__.py": '"""What is special about SQLite."""',
    "databases/sqlite/flags.py": "import sqlite3\nfrom ...errors import NotReady\nfrom .. import dialect",
    "databases/dialect.py": "from ..config import Settings",
    "models.py": "import peewee\nfrom .databases.sqlite import flags",
    "adapters/__init__.py": '"""A data layer each."""',
    "adapters/rows.py": "def find():\n    from django.db import models",
    "schedules/__init__.py": '"""When a schedule fires."""',
    "schedules/times.py": "",
    "tasks.py": "import huey",
    "app.py": "from .models import Flag\nfrom flagsweep.tasks import make_huey\nimport json",
    "cli.py": "import click\nfrom .app import FlagSweep",
    "docs/states.md": "",
    "tests/queue/test_it.py": "from flagsweep.cli import main",
    ".venv/lib/token.py": "",
    "build/flagsweep/app.py": "",
    "Makefile": "",
}

PLANTED = [
    (imports_go_down_only, "models.py", "from .app import FlagSweep", "models.py:1 imports app, which is above"),
    (imports_go_down_only, "models.py", "def late():\n    from .app import F", "models.py:2 imports app"),
    (imports_go_down_only, "models.py", "if TYPE_CHECKING:\n    from . import app", "models.py:2 imports app"),
    (imports_go_down_only, "models.py", "import flagsweep.app", "models.py:1 imports app"),
    (imports_go_down_only, "models.py", "from flagsweep import FlagSweep", "models.py:1 imports __init__"),
    (imports_go_down_only, "models.py", "from . import FlagSweep", "models.py:1 imports __init__"),
    (imports_go_down_only, "models.py", "importlib.import_module('flagsweep.app')", "models.py:1 imports app"),
    (imports_go_down_only, "databases/sqlite/more.py", "from ...models import Flag", "databases/sqlite/more.py:1 imports models"),
    (imports_go_down_only, "adapters/other.py", "from ..schedules import times", "imports schedules/times, which stands beside"),
    (imports_go_down_only, "helpers.py", "from .errors import ConfigError", "is on no floor"),
    (imports_go_down_only, "app.py", "from .helpers import help", "is on no floor"),
    (no_module_imports_itself_by_a_circle, "databases/dialect.py", "from .sqlite.flags import F", "databases/dialect.py is on"),
    (no_module_imports_itself_by_a_circle, "databases/dialect.py", "def f():\n    from .sqlite import flags", "flags.py is on a"),
    (
        no_module_imports_itself_by_a_circle,
        "databases/dialect.py",
        "from . import dialect",
        "databases/dialect.py is on a circle",
    ),
    (what_is_borrowed_has_its_room, "app.py", "import sqlite3", "app.py:1 imports sqlite3, which only databases/"),
    (
        what_is_borrowed_has_its_room,
        "models.py",
        "def f():\n    from redis.retry import Retry",
        "models.py:2 imports redis.retry",
    ),
    (what_is_borrowed_has_its_room, "app.py", "if TYPE_CHECKING:\n    from huey import Huey", "app.py:2 imports huey.Huey"),
    (
        what_is_borrowed_has_its_room,
        "consumer/rescue.py",
        "from huey.consumer import C",
        "imports huey.consumer.C, which only tasks.py",
    ),
    (what_is_borrowed_has_its_room, "app.py", "import click", "app.py:1 imports click"),
    (what_is_borrowed_has_its_room, "models.py", "from playhouse import db_url", "imports playhouse.db_url"),
    (what_is_borrowed_has_its_room, "config.py", "from peewee import Database", "config.py:1 imports peewee.Database"),
    (
        what_is_borrowed_has_its_room,
        "embed/django.py",
        "from django.db import models",
        "imports django.db.models, which only adapters/",
    ),
    (
        what_is_borrowed_has_its_room,
        "adapters/django.py",
        "from django.http import H",
        "imports django.http.H, which only embed/",
    ),
    (what_is_borrowed_has_its_room, "models.py", "__import__('pymysql')", "models.py:1 imports pymysql"),
    (each_folder_says_what_lives_there, "web/page.py", "", "web/ says nothing"),
    (each_folder_says_what_lives_there, "adapters/__init__.py", "", "adapters/ says nothing"),
    (
        each_folder_says_what_lives_there,
        "databases/sqlite/__init__.py",
        '"""A. B? C."""',
        "databases/sqlite/__init__.py takes more",
    ),
    (each_folder_says_what_lives_there, "adapters/__init__.py", '"""Adapters"""', "or ends none"),
    (what_stands_at_the_top_is_listed, "utils.py", "", "utils is not on the list"),
    (what_stands_at_the_top_is_listed, "core/__init__.py", "", "core is not on the list"),
    (what_stands_at_the_top_is_listed, "NOTES.md", "", "NOTES.md is not on the list"),
    (nothing_is_called_like_a_module_of_pythons_own, "queue/__init__.py", "", "queue is the name"),
    (nothing_is_called_like_a_module_of_pythons_own, "databases/sqlite3/__init__.py", "", "sqlite3 is the name"),
    (nothing_is_called_like_a_module_of_pythons_own, "logging.py", "", "logging is the name"),
    (the_front_doors_are_short, "app.py", "a = 1\n" * 300, "app.py has 300 lines"),
    (the_front_doors_are_short, "cli.py", "a = 1\n" * 150, "cli.py has 150 lines"),
]


@pytest.fixture
def build(tmp_path):
    def build(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return House(tmp_path)

    return build


def test_nothing_is_found_in_a_sound_house(build):
    house = build(SOUND)
    assert {_name(rule): rule(house) for rule in RULES} == {_name(rule): [] for rule in RULES}


@pytest.mark.parametrize("rule, file, text, told", PLANTED)
def test_what_is_planted_is_found(build, rule, file, text, told):
    broken = rule(build({**SOUND, file: text}))
    assert [each for each in broken if told in each], broken


def test_every_rule_has_a_control():
    assert {rule for rule, *_ in PLANTED} == set(RULES)

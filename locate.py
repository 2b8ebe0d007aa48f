"""Find the site's FlagSweep: by ``module:attribute``, in a module, or in the files that stand beside."""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from .app import FlagSweep
from .errors import ConfigError
from .handlers import Handler
from .modules import described, import_site

NAME = "flags"
"""What a site's FlagSweep is called where nothing else is said."""
BESIDE = ("work.py", "app.py", "main.py", "manage.py")
"""The files in which one is looked for, in this order."""
OF_DJANGO = "flagsweep.embed.project:site"
"""What finds the one of a Django project, whose settings ``manage.py`` names."""


class Found(NamedTuple):
    """One that was found beside.

    :param file: where.
    :param app: how it is named.
    """

    flags: FlagSweep
    file: str
    app: str


def load(app: str) -> FlagSweep:
    """Return the FlagSweep that ``module:attribute`` names; the attribute may also be a function that returns one.

    :param app: where no attribute is given, ``flags`` of the module is taken, or else its only FlagSweep; of a package without
        one, that of its ``work``.
    :raises ConfigError: saying what is there instead.
    """
    module_name, colon, attribute = app.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*(:\w+(\.\w+)*)?", app) or module_name.endswith(".py"):
        raise ConfigError(f"--app must be module:attribute, such as {_example(module_name, attribute)}, got {app!r}")
    _let_import_from(os.getcwd())
    module = import_site(module_name)
    return _named(module, attribute, app) if colon else _in_module(module)[0]


def beside(folder: str = "") -> Found | None:
    """Return the FlagSweep in ``work.py``, ``app.py``, ``main.py`` or the project of ``manage.py`` in a folder, or None.

    :param folder: by default the current one.
    :raises ConfigError: where such a file is broken, or hidden by another module of its name.
    """
    here = Path(folder or os.getcwd()).absolute()
    _let_import_from(str(here))
    for path in (here / name for name in BESIDE):
        if not path.is_file():
            continue
        if path.name == "manage.py":
            return _of_django(path)
        module = import_site(path.stem)
        if not _is_from(module, path):
            raise ConfigError(f"{_place(module)} hides {path}: give that file another name, or say --app")
        if _names(module):
            flags, name = _in_module(module)
            return Found(flags, path.name, f"{module.__name__}:{name}")
    return None


def _let_import_from(folder: str) -> None:
    """Find the site's modules, last in line: its queue.py or types.py is never taken for the standard library's."""
    if folder not in sys.path:
        sys.path.append(folder)


def _named(module: ModuleType, attribute: str, app: str) -> FlagSweep:
    found = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ConfigError(f"{_place(module)} has no {name!r}{_instead(module)}")
        found = getattr(found, name)
    return _as_site(found, app, module)


def _in_module(module: ModuleType) -> tuple[FlagSweep, str]:
    """Return the FlagSweep of a module, and its name there."""
    names = _names(module)
    if not names and _has_work(module):
        return _in_module(import_site(f"{module.__name__}.work"))
    if NAME not in names and len({id(getattr(module, name)) for name in names}) > 1:
        raise ConfigError(f"{_place(module)} has more than one FlagSweep: say which, --app {_choices(module, ' or --app ')}")
    if not names:
        raise ConfigError(f"{_place(module)} has no FlagSweep{_instead(module)}; say where it is: --app module:attribute")
    name = NAME if NAME in names else names[0]
    return getattr(module, name), name


def _has_work(module: ModuleType) -> bool:
    return any(os.path.isfile(os.path.join(folder, "work.py")) for folder in getattr(module, "__path__", ()))


def _names(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, FlagSweep)]


def _choices(module: ModuleType, between: str) -> str:
    return between.join(f"{module.__name__}:{name}" for name in _names(module))


def _of_django(manage: Path) -> Found | None:
    """Return the FlagSweep of a Django project, set up as its ``manage.py`` does that; None where it is no Django's."""
    settings = _settings_of(manage)
    if settings is None:
        return None
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings)
    return Found(load(OF_DJANGO), manage.name, OF_DJANGO)


def _settings_of(manage: Path) -> str | None:
    """Return what a ``manage.py`` says is in ``DJANGO_SETTINGS_MODULE``: its text is read, and nothing of it run."""
    try:
        tree = ast.parse(manage.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{manage} cannot be read: {described(error)}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            texts: list[Any] = list(node.args)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            texts = [node.targets[0].slice, node.value]
        else:
            continue
        values = [text.value for text in texts if isinstance(text, ast.Constant)]
        if len(values) == 2 and values[0] == "DJANGO_SETTINGS_MODULE":
            return str(values[1])
    return None


def _is_from(module: ModuleType, file: str | Path) -> bool:
    path = getattr(module, "__file__", None)
    return path is not None and os.path.exists(path) and os.path.samefile(path, file)


def _example(module: str, attribute: str) -> str:
    """Return what was meant by a path such as ``shop/work.py`` or a call such as ``make()``."""
    names = re.findall(r"\w+", module.removesuffix(".py")) or ["work"]
    return f"{'.'.join(names)}:{''.join(re.findall(r'^[a-zA-Z_.]+', attribute)) or NAME}"


def _place(module: ModuleType) -> str:
    return f"{module.__name__} ({getattr(module, '__file__', None) or 'built in'})"


def _instead(module: ModuleType) -> str:
    """Return a hint: the names that would do, or the file that another module of its name hides."""
    if _names(module):
        return f"; it has {_choices(module, ', ')}"
    hidden = os.path.join(os.getcwd(), *module.__name__.split(".")) + ".py"
    if os.path.exists(hidden) and not _is_from(module, hidden):
        return f"; it hides {hidden}: give that file another name"
    return ""


def _as_site(found: Any, app: str, module: ModuleType) -> FlagSweep:
    made = found
    if callable(found) and not isinstance(found, (FlagSweep, Handler, type)):
        made = _call(found, app)
    if not isinstance(made, FlagSweep):
        what = "a class" if isinstance(made, type) else f"of type {type(made).__name__}"
        verb = "is" if made is found else "returns something"
        raise ConfigError(f"{app} {verb} {what}, not a FlagSweep{_instead(module)}")
    return made


def _call(factory: Callable[[], Any], app: str) -> Any:
    """Call what takes no arguments; return anything else as it is."""
    try:
        inspect.signature(factory).bind()
    except (TypeError, ValueError):
        return factory
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{app}() failed: {described(error)}") from error

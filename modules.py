"""Modules: the site's are imported by name or by a pattern, with the line that failed; ours once a name of theirs is wanted."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from .errors import ConfigError


def handed_on(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package that hands names on: modules are imported once a name is asked for.

    :param homes: the module of each name, as ``{"FlagSweep": ".app"}``.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__, lambda: sorted({*vars(sys.modules[package]), *homes})


def described(error: BaseException) -> str:
    """Return type and text of an error, whatever its ``__str__`` does."""
    try:
        text = str(error)
    except Exception:
        text = "(without a text)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def import_site(name: str) -> ModuleType:
    """Import a module of the site's.

    :raises ConfigError: saying exactly which import failed, and where.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(f"there is no module {error.name!r} in {os.getcwd()} or among what is installed") from error
        culprit = f"imports {error.name!r}, which is not there" if error.name else described(error)
        raise ConfigError(f"{_origin(error, name)} {culprit}: install it, or use the site's own Python") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{_origin(error, name)} failed while it was imported: {described(error)}") from error


def _origin(error: BaseException, name: str) -> str:
    """Return the line of the innermost module that was being imported, whatever that line called."""
    steps = list(traceback.walk_tb(error.__traceback__))
    places = [(frame, line) for frame, line in steps if frame.f_code.co_name == "<module>"]
    if not places:
        return f"the module {name!r}"
    frame, line = places[-1]
    return f"{frame.f_globals.get('__name__', name)} ({frame.f_code.co_filename}, line {line})"


def import_matching(pattern: str) -> list[str]:
    """Import every module whose dotted name matches, and the packages that they stand in; return their names, sorted.

    :param pattern: such as ``"shop.*.work"``: a ``*`` stands for any part of a name between two dots.
    :raises ConfigError: where nothing matches; or naming the module that is broken.
    """
    first, *rest = pattern.split(".") if isinstance(pattern, str) else [""]
    if not rest or not first.isidentifier() or not all(rest):
        raise ConfigError(f"a pattern must begin with the name of a package, as 'shop.*.work' does, got {pattern!r}")
    found = sorted(_matching(first, rest))
    if not found:
        raise ConfigError(f"no module matches {pattern!r}: nothing below {_place(import_site(first))} is called so")
    for name in found:
        import_site(name)
    return found


def _place(module: ModuleType) -> str:
    """Return the folder of a package, or the file of a module."""
    return str(next(iter(getattr(module, "__path__", ())), None) or getattr(module, "__file__", None) or module.__name__)


def _matching(package: str, parts: list[str]) -> Iterator[str]:
    """Yield the names below a package that match; packages on the way are imported, for it takes that to know their folders."""
    folders = list(getattr(import_site(package), "__path__", ()))
    for name in sorted(_names_in(folders)):
        if not fnmatchcase(name, parts[0]):
            continue
        whole = f"{package}.{name}"
        if len(parts) == 1:
            yield whole
        elif _is_package(whole, folders):
            yield from _matching(whole, parts[1:])


def _names_in(folders: list[str]) -> set[str]:
    """Return the names of modules, packages, and folders without ``__init__.py``, which are packages, too."""
    names = {found.name for found in pkgutil.iter_modules(folders)}
    for folder in filter(os.path.isdir, folders):
        names |= {entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name.isidentifier()}
    return names - {"__pycache__", "__main__"}


def _is_package(name: str, folders: list[str]) -> bool:
    spec = PathFinder.find_spec(name, folders)
    return spec is not None and spec.submodule_search_locations is not None

"""Find the site's FlagSweep: what ``--app module:attribute`` names."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from ..app import FlagSweep
from ..errors import ConfigError
from ..handlers import Handler
from .failure import Misuse
from .words import described

NO_APP = (
    "which FlagSweep? Say so with --app module:attribute or FLAGSWEEP_APP ('flags = FlagSweep(...)' in work.py is work:flags);"
    " FLAGSWEEP_DATABASE alone is enough for all commands but run, sweep and raise"
)


class Given(NamedTuple):
    """What was said before the command."""

    app: str | None
    debug: bool

    def site(self) -> FlagSweep:
        """Return the site's FlagSweep, with its handlers."""
        if not self.app:
            raise Misuse(NO_APP)
        return load(self.app)

    def any_site(self) -> FlagSweep:
        """Return the site's FlagSweep, or one that knows no handlers where only the environment names the database."""
        if not self.app and ("FLAGSWEEP_DATABASE" in os.environ or "FLAGSWEEP_CONFIG" in os.environ):
            return FlagSweep.from_env()
        return self.site()


def load(app: str) -> FlagSweep:
    """Return the FlagSweep that ``module:attribute`` names; the attribute may also be a function that returns one."""
    module_name, _, attribute = app.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", app) or module_name.endswith(".py"):
        raise ConfigError(f"--app must be module:attribute, such as {_example(module_name, attribute)}, got {app!r}")
    # Last in line: the site's modules are found, and its queue.py or types.py is never taken for the standard library's.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    module = import_site(module_name)
    found = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ConfigError(f"{_place(module)} has no {name!r}{_instead(module)}")
        found = getattr(found, name)
    return _as_site(found, app, module)


def _example(module: str, attribute: str) -> str:
    """Return what was meant by a path such as ``shop/work.py`` or a call such as ``make()``."""
    names = re.findall(r"\w+", module.removesuffix(".py")) or ["work"]
    return f"{'.'.join(names)}:{''.join(re.findall(r'^[a-zA-Z_.]+', attribute)) or 'flags'}"


def import_site(name: str) -> ModuleType:
    """Import a module, or say exactly which import failed."""
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


def _place(module: ModuleType) -> str:
    return f"{module.__name__} ({getattr(module, '__file__', None) or 'built in'})"


def _instead(module: ModuleType) -> str:
    """Return a hint: the names that would do, or the file that another module of its name hides."""
    names = [name for name, value in vars(module).items() if isinstance(value, FlagSweep)]
    if names:
        return f"; it has {', '.join(f'{module.__name__}:{name}' for name in names)}"
    hidden = os.path.join(os.getcwd(), *module.__name__.split(".")) + ".py"
    if os.path.exists(hidden) and not os.path.samefile(hidden, getattr(module, "__file__", None) or os.devnull):
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

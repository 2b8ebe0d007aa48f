"""Discovery: each app's ``work.py`` and ``tasks.py``, and those beside the site's urls."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from django.apps import apps
from django.conf import settings
from django.utils.module_loading import module_has_submodule

from ...app import FlagSweep
from ...modules import import_site
from .site import flags

MODULES = ("work", "tasks")


def discover() -> None:
    """Import what registers handlers and tasks.

    :raises ConfigError: where one of them cannot be imported, naming it and the line.
    """
    for package in _packages():
        for name in MODULES:
            if module_has_submodule(package, name):
                import_site(f"{package.__name__}.{name}")


def _packages() -> list[ModuleType]:
    found = [config.module for config in apps.get_app_configs() if config.module is not None]
    beside, _, _ = str(getattr(settings, "ROOT_URLCONF", None) or "").rpartition(".")
    if beside and (package := import_module(beside)) not in found:
        found.append(package)
    return found


def discovered() -> FlagSweep:
    """Return the site's FlagSweep with all of its handlers."""
    discover()
    return flags

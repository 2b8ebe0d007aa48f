"""A Django project from outside: ``flagsweep`` beside ``manage.py``, where ``DJANGO_SETTINGS_MODULE`` says which settings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..app import FlagSweep


def site() -> FlagSweep:
    """Set Django up, as ``manage.py`` does, and return the project's FlagSweep with all of its handlers."""
    import django

    django.setup()
    found: FlagSweep = import_module("flagsweep.embed.django.discovery").discovered()
    return found

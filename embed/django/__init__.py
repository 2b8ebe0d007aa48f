"""Django: ``"flagsweep.embed.django"`` in INSTALLED_APPS, and ``from flagsweep.embed.django import flags`` in ``work.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .site import flags

if TYPE_CHECKING:
    from .backend import FlagSweepBackend

__all__ = ["FlagSweepBackend", "flags"]


def __getattr__(name: str) -> Any:
    """Enter the backend of ``django.tasks`` where it is asked for: a site may have neither that nor its backport."""
    if name == "FlagSweepBackend":
        from .backend import FlagSweepBackend

        return FlagSweepBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

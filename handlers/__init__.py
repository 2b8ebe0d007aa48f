"""Handlers: the site's function for a kind, its options, and its raises."""

from .handler import Handler, Using
from .options import Options
from .registry import Handlers, Registry

__all__ = ["Handler", "Handlers", "Options", "Registry", "Using"]

"""Say in words what a count or a length of time is."""

from __future__ import annotations

from ..durations import span

__all__ = ["plural", "short_span", "span"]


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def short_span(seconds: float) -> str:
    """Return a length of time as ``span`` does, below two seconds in milliseconds."""
    return span(seconds) if seconds >= 2 else f"{1000 * seconds:.0f} ms"

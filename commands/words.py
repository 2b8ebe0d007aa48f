"""Say in words what a count or a length of time is."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def span(seconds: float) -> str:
    """Return a length of time in the unit that suits it."""
    for unit, size in (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def short_span(seconds: float) -> str:
    """Return a length of time as ``span`` does, below two seconds in milliseconds."""
    return span(seconds) if seconds >= 2 else f"{1000 * seconds:.0f} ms"

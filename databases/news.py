"""What a server tells who listens of a flag that is due, with the commit of its raise."""

from __future__ import annotations

from contextlib import suppress


def news(kind: str, priority: int) -> str:
    """Return what a server tells who listens of a flag that is due."""
    return f"{priority} {kind}"


def read_news(text: str) -> tuple[int, str] | None:
    """Return priority and kind of what a server told, or None where it says nothing, or anybody else wrote it."""
    priority, _, kind = text.partition(" ")
    with suppress(ValueError):
        return (int(priority), kind) if len(priority) <= 4 and kind else None
    return None

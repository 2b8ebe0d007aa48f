"""Who sweeps, as its lanes and threads see it: they read it, and are never told."""

from __future__ import annotations

from typing import Protocol

from .blackbox import BlackBox


class Member(Protocol):
    """Be the consumer for which lanes claim."""

    @property
    def id(self) -> int:
        """The id under which flags are claimed; a new one where others took this consumer for dead, and gave back what it had."""

    @property
    def box(self) -> BlackBox | None:
        """Where each thread writes down what it runs."""

    def may_claim(self, lane: str) -> bool:
        """Return whether the consumer's lease, and its seat in this lane, are its own just now."""

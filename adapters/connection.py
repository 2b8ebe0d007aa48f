"""The site's own connection, as a raise needs it: one statement on it, and word of the commit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any


class SiteConnection(ABC):
    """A connection of whatever data layer the site has. What is done on it is part of the transaction that it has open.

    Nothing of ours opens, commits, rolls back or closes it.
    """

    dialect: str
    """The name of the dialect that it speaks."""
    mark: str
    """How its layer writes a parameter: ``?``, ``%s`` or ``$``."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What people know it by, with the database that it goes to, and without a password."""

    @abstractmethod
    def known_by(self) -> Hashable | None:
        """Return what is the same for all connections to that database, so that one of them is checked; None: this one is."""

    @abstractmethod
    def execute(self, sql: str, parameters: Any) -> Any:
        """Execute one statement the layer's own way, so that it is seen wherever the layer counts or logs; return its cursor."""

    def renew(self) -> None:
        """Outside a transaction: replace it where it is of no use any more."""
        return None

    def lent(self) -> AbstractContextManager[Any]:
        """Hold it for what belongs to one raise."""
        return nullcontext()

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call once the open transaction has committed, or at once where none is open; never, where the layer does not tell."""
        return None

    def is_rolled_back(self, call: Callable[[], None]) -> bool:
        """Return whether what waited for a commit will never be called, since its part of the transaction was rolled back; False,
        where the layer does not tell."""
        return False

    def in_transaction(self) -> bool:
        """Return whether a transaction is open, of which others see nothing yet; False, where the layer does not tell."""
        return False

    def pending(self) -> Callable[[], bool]:
        """Return what tells whether the transaction that is open now still is, or, where the layer knows no better, any."""
        return self.in_transaction

    def is_waiting(self, call: Callable[[], None]) -> bool:
        """Return whether that will be called for the open transaction already."""
        return False

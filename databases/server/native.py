"""A server's own way to write what the servers have in common: placeholders, lists, words that are reserved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..dialect import Dialect


class Translated(dict[str, str]):
    """Keep statements in a server's own words, by how all servers have them: each is translated once, when it is first wanted."""

    def __init__(self, translate: Callable[[str], str]):
        super().__init__()
        self._translate = translate

    def __missing__(self, common: str) -> str:
        self[common] = native = self._translate(common)
        return native


class Native(Dialect):
    """A database server: what a subclass must say is how to write a placeholder, a list, and an insert that may meet a row."""

    among = ""
    """How ``id`` is compared with a list that is one parameter."""
    text = "?"
    """How text is written that a person gave, over a connection of the site's, which may have any character set."""

    def __init__(self, notify: str = "off") -> None:
        super().__init__(notify)
        self.sql = Translated(self.native)

    skips_locked = " FOR UPDATE SKIP LOCKED"

    def own(self, sql: str) -> str:
        return self.sql[sql]

    def native(self, sql: str) -> str:
        """Return a statement as the driver takes it.

        :param sql: with ``?`` for a parameter, ``{among}`` for how an id is compared with a list that is one, and ``{text}`` for
            one that a person wrote.
        """
        return sql.replace("{text}", self.text).replace("?", "%s").replace("{among}", self.among)

    def encoded(self, text: str) -> Any:
        """Return such a text as the driver takes it."""
        return text

    def listed(self, values: Sequence[int]) -> Any:
        """Return a list as the driver takes it for one parameter."""
        return values

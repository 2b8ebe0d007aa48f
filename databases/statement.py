"""A statement's text and parameters, apart from who executes it: our own connections, the site's, or one of another library's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Execute = Callable[[str, Any], Any]
"""What executes a text with its parameters on a connection, and returns the driver's cursor: Peewee's ``execute_sql``, say."""


class Statement(NamedTuple):
    """Hold one statement as the dialect's driver takes it.

    :param parameters: a sequence or a mapping, as the text asks for.
    """

    sql: str
    parameters: Any = ()

    def on(self, execute: Execute) -> Any:
        """Execute it; return the driver's cursor."""
        return execute(self.sql, self.parameters)


def statements(text: str) -> tuple[str, ...]:
    """Return the statements of a text; each ends with a semicolon at the end of a line."""
    return tuple(each.strip().removesuffix(";") for each in text.split(";\n") if each.strip())

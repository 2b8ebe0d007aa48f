"""MySQL and MariaDB: names of our columns that are words of its own."""

from __future__ import annotations

import re

_RESERVED = re.compile(r"\b(key|cursor)\b")


def quoted(sql: str) -> str:
    """Return a statement with such names in quotes."""
    return _RESERVED.sub(r"`\1`", sql)

"""SQLite: counts."""

from __future__ import annotations

from ..counts import COLUMNS, KEYS, adding
from ..dialect import Dialect

COUNT = f"""
INSERT INTO flagsweep_count AS old ({", ".join(COLUMNS)}) VALUES ({", ".join("?" * len(COLUMNS))})
ON CONFLICT ({", ".join(KEYS)}) DO UPDATE SET {adding("old.", "excluded.{}".format, "max")}
"""


class SqliteCounts(Dialect):
    """Count."""

    counting = COUNT

"""PostgreSQL: counts."""

from __future__ import annotations

from ..counts import COLUMNS, KEYS, adding
from ..server import Server

COUNT = f"""
INSERT INTO flagsweep_count AS old ({", ".join(COLUMNS)}) VALUES ({", ".join(["%s"] * len(COLUMNS))})
ON CONFLICT ({", ".join(KEYS)}) DO UPDATE SET {adding("old.", "excluded.{}".format, "greatest")}
"""


class PostgresqlCounts(Server):
    """Count."""

    counting = COUNT

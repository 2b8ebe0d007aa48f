"""How a statement writes its parameters, for connections whose layer wants them in another way than our driver."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import count

TABLE = "flagsweep_flag"

_MARKED = re.compile("%s|%%")
_NAMED = re.compile(rf"\b(INTO|FROM) {TABLE}\b")


@lru_cache(maxsize=256)  # The texts are few: those of raises.
def marked(sql: str, own: str, wanted: str, table: str = TABLE) -> str:
    """Return a statement with its parameters written in another way.

    :param own: how it has them: ``?``, or ``%s`` (then a percent sign is doubled).
    :param wanted: ``?``, ``%s``, or ``$`` for ``$1``, ``$2`` and so on.
    :param table: the flags' table with what tells it from one of the same name: a connection may have come to look elsewhere.
    """
    if table != TABLE:
        sql = _NAMED.sub(lambda found: f"{found[1]} {table if own == '?' else table.replace('%', '%%')}", sql)
    if own == wanted:
        return sql
    common = sql.replace("%", "%%").replace("?", "%s") if own == "?" else sql
    if wanted == "%s":
        return common
    numbers = count(1)
    return _MARKED.sub(lambda found: "%" if found[0] == "%%" else wanted if wanted == "?" else f"${next(numbers)}", common)

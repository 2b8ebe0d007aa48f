"""MySQL and MariaDB: what their errors mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DATABASE_ERRORS, OURS, driver_error
from ..server import Server


class MysqlErrors(Server):
    """Know an error by its number."""

    missing: Mapping[Any, str] = {  # By error number.
        f"{OURS} 1146": "run 'flagsweep init' (or call flags.init()) once",
        1049: "create the database, or mend its name in the database URL",
        1044: "check user, password and rights in the database URL",
        1045: "check user, password and rights in the database URL",
        1698: "check user, password and rights in the database URL",
        f"{OURS} 1142": "give this user rights on the tables of flagsweep",
    }
    passing: Mapping[Any, str] = {
        **dict.fromkeys((2002, 2003, 2005), "the server is away: see whether it runs"),
        **dict.fromkeys((2006, 2013, 2055, 1158, 1159, 1160, 1161), "the server has cut the connection"),
        **dict.fromkeys((1927, 1184, 1152, 4031), "the server ended the connection"),
        1053: "the server is stopping: wait a moment",
        **dict.fromkeys((1040, 1203, 1226), "the server has no connection left: raise max_connections, or close some"),
        **dict.fromkeys((1205, 3572), "another transaction holds the rows for too long: look for a long transaction"),
        1213: "two transactions waited for each other: do it again",
        1020: "another transaction changed the same rows: do it again",
        1412: "the tables were changed meanwhile: do it again",
        **dict.fromkeys((1317, 1969, 3024), "the server cancelled the statement: a time limit, or a person"),
        **dict.fromkeys((1290, 1792, 1836), "the server takes no writes just now: it is read-only"),
        **dict.fromkeys((1021, 1114), "the server's disk is full: free some space there"),
        **dict.fromkeys((1026, 1030), "the server's disk is full or failing: look into its log"),
        **dict.fromkeys((1037, 1038, 1041), "the server has no memory left"),
        0: "the connection is closed",
    }
    busy = frozenset((1205, 3572, 1213, 1020, 1412))
    masks = frozenset((1305,))

    def codes(self, error: BaseException) -> Sequence[Any]:
        """Return the number of an error; the server writes its text in any language."""
        number = next(iter(driver_error(error).args), None)
        if not isinstance(number, int) or not isinstance(error, DATABASE_ERRORS):
            return ()
        return (f"{OURS} {number}", number) if f".{OURS}" in str(error) else (number,)

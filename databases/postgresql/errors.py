"""PostgreSQL: what its errors mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import peewee

from ..errors import CONNECTION, OURS, driver_error
from ..server import Server

_DRIVERS = [driver for driver in (getattr(peewee, name, None) for name in ("psycopg", "psycopg2")) if driver is not None]
_OF_THE_CONNECTION = tuple(getattr(driver, name) for driver in _DRIVERS for name in ("OperationalError", "InterfaceError"))


class PostgresqlErrors(Server):
    """Know an error by its SQLSTATE."""

    missing: Mapping[Any, str] = {  # By SQLSTATE, or its class.
        f"{OURS} 42P01": "run 'flagsweep init' (or call flags.init()) once",
        "3D000": "check the names in the database URL",
        "3F000": "check the names in the database URL",
        "28": "check user and password in the database URL",
        f"{OURS} 42501": "give this user rights on the tables of flagsweep",
    }
    unconnected: Mapping[str, str] = {
        "does not exist": "check the names in the database URL",
        "authentication failed": "check user and password in the database URL",
    }
    passing: Mapping[Any, str] = {
        CONNECTION: "the server is away or refused the connection: see whether it runs, and check names and password in the URL",
        "08": "the server is away or cut the connection: see whether it runs",
        "57P03": "the server is starting or stopping: wait a moment",
        "57P": "the server ended the connection",
        "57014": "the server cancelled the statement: a statement_timeout, or a person",
        "25006": "the server takes no writes just now: a standby, or default_transaction_read_only",
        "53100": "the server's disk is full: free some space there",
        "53200": "the server has no memory left",
        "53300": "the server has no connection left: raise max_connections, or close some",
        "53": "the server has run out of something: look into its log",
        "58": "the server's disk is failing: look into its log",
        "XX": "the server found something damaged: look into its log",
        "55P03": "another transaction holds the rows for too long: look for a long transaction",
        "40P01": "two transactions waited for each other: do it again",
        "40001": "another transaction changed the same rows: do it again",
    }
    busy = frozenset(("55P03", "40P01", "40001"))

    def codes(self, error: BaseException) -> Sequence[Any]:
        """Return SQLSTATE, what it begins with, and its class; ``CONNECTION`` where libpq had no answer of the server's."""
        known = driver_error(error)
        state = getattr(known, "sqlstate", None) or getattr(known, "pgcode", None)
        if state is None:
            return (CONNECTION,) if isinstance(known, _OF_THE_CONNECTION) else ()
        diagnosis = getattr(known, "diag", None)
        ours = (f"{OURS} {state}",) if OURS in str(diagnosis and diagnosis.message_primary) else ()
        return (*ours, state, state[:3], state[:2])

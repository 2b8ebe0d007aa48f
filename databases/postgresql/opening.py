"""PostgreSQL: how one is reached."""

from __future__ import annotations

from typing import Any

import peewee
from peewee import PostgresqlDatabase

from ...config import hidden
from ...errors import ConfigError
from ..server.healing import Healing
from ..server.opening import Kind
from .dialect import Postgresql


class PostgresqlSite(Healing, PostgresqlDatabase):
    """A PostgreSQL database that gets over a lost connection."""


def _refuse_unknown(url: Any, given: dict[str, Any]) -> None:
    """Refuse parameters of a URL that the driver would, without telling a value: libpq knows what it takes."""
    if (psycopg := getattr(peewee, "psycopg", None)) is not None:
        names = sorted(set(given) - {"database"})
        try:
            psycopg.conninfo.make_conninfo(**dict.fromkeys(names, "1"))
        except psycopg.ProgrammingError as error:
            raise ConfigError(f"{hidden(str(url))!r} has a parameter that PostgreSQL's library does not know: {error}") from None


_ALIVE = {"connect_timeout": 5, "keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 1, "keepalives_count": 3}
_PATIENT = "-c lock_timeout=50ms -c default_transaction_isolation=read\\ committed"

KIND = Kind(
    dialect=Postgresql,
    made=PostgresqlSite,
    ours=PostgresqlSite,
    driver="psycopg",
    extra="postgres",
    port=5432,
    site={"prefer_psycopg3": True, **_ALIVE},
    engine={"options": _PATIENT},
    refuse=_refuse_unknown,
)

"""How a server is reached: with a URL, or as the site's own Peewee database reaches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Any

import peewee
from peewee import Database

from ...errors import ConfigError
from ..connections import Connections
from ..dialect import Dialect
from ..url import host_of, parameters_of


def _refuse_nothing(url: Any, given: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Kind:
    """Describe how a server is reached.

    :param made: the class of the site's database where it gives a URL.
    :param ours: the class of our own.
    :param driver: what Peewee calls its driver.
    :param extra: what of ours a site installs to have it.
    :param port: the port where none is named.
    :param site: what every connection gets, so that a request that meets a dead server fails and does not hang.
    :param engine: what ours get besides.
    :param refuse: refuses a URL and its parameters where the driver does not know one of them.
    """

    dialect: type[Dialect]
    made: type[Any]
    ours: type[Any]
    driver: str
    extra: str
    port: int
    site: dict[str, Any]
    engine: dict[str, Any] = field(default_factory=dict)
    refuse: Callable[[Any, dict[str, Any]], None] = _refuse_nothing

    def open(self, scheme: str, database: Any, notify: str) -> Connections:
        """Return the connections to a server's database. Opens nothing.

        :param database: a URL or the site's own Peewee database.
        :param notify: the setting: who tells of a flag.
        :raises ConfigError: where it is none that flagsweep can use.
        """
        if isinstance(database, Database):
            site, name, given = database, database.database, dict(database.connect_params)
            if not name:
                raise ConfigError("the Peewee database has no name yet: call its init(...) before flags are used")
        else:
            given = parameters_of(database)
            self.refuse(database, given)
            name = given.pop("database")
            site = _made_by(self, self.made, name, {**self.site, **given})
        ours = {**self.site, **given, **self.engine}
        if "options" in given and "options" in ours:
            ours["options"] = f"{given['options']} {ours['options']}"
        where = f"{scheme}://{_hosts(given)}/{name}"
        # Never connected again by itself: locks and subscriptions are gone with the session they belonged to.
        session = partial(_made_by, self, self.ours, name, {**ours, "thread_safe": False, "autoconnect": False})
        return Connections(site, _made_by(self, self.ours, name, ours), self.dialect(notify), where, session=session)


def _hosts(given: dict[str, Any]) -> str:
    """Return the hosts with their ports, as a URL has them."""
    hosts, ports = host_of(given).split(","), [part for part in str(given.get("port") or "").split(",") if part]
    return ",".join(f"{host}:{port}" if port else host for host, port in zip_longest(hosts, ports, fillvalue=""))


def _made_by(kind: Kind, made: type[Any], name: str, parameters: dict[str, Any]) -> Any:
    if getattr(peewee, kind.driver, None) is None:
        raise ConfigError(f"{kind.dialect.name} needs its driver: pip install 'flagsweep[{kind.extra}]'")
    return made(name, **parameters)

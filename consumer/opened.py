"""What a FlagSweep makes of its settings once it is used: the store, and what the consumers and the site share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peewee import Database, Proxy

from ..config import Clock, Settings
from ..databases.opening import name_of, open_store
from ..errors import ConfigError
from ..sweep.claims import Store

if TYPE_CHECKING:
    from ..queues.client import SharedQueue


@dataclass(frozen=True)
class Opened:
    """Hold what is made of the settings.

    :param nudges: whether a raise tells consumers through the queue.
    """

    settings: Settings
    store: Store
    path: Path | None
    queue: SharedQueue | None
    nudges: bool

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Opened:
        """Make it of the settings; this connects to nothing.

        :raises ConfigError: where there is no database yet, or it does not go with the queue.
        """
        store, path = open_store(settings.database, settings.driver)
        store.dialect.notify = settings.notify
        queue = _shared_queue(settings, clock, store, path)
        unseen = store.dialect.shared and not store.dialect.notifies
        nudges = queue is not None and (settings.nudge == "on" or (settings.nudge == "auto" and unseen))
        return cls(settings, store, path, queue, nudges)

    def check(self) -> None:
        """Refuse to go on where the site's proxy or database object has become another database since."""
        given = self.settings.database
        now = given.obj if isinstance(given, Proxy) else given
        if isinstance(now, Database) and (now is not self.store.site or now.database != self.store.name):
            raise ConfigError(
                f"the database is {name_of(now)} now, and flagsweep is in use with {self.store.where}: make a FlagSweep for each"
            )


def _shared_queue(settings: Settings, clock: Clock, store: Store, path: Path | None) -> SharedQueue | None:
    if settings.queue == "memory":
        return None
    from ..queues.client import SharedQueue, identity_of

    if store.in_memory:
        raise ConfigError("a database in memory is nobody else's: leave the queue in memory, too")
    queue = SharedQueue(settings.queue, settings.queue_key, clock, partial(identity_of, store))
    if path is not None and queue.path is not None and path.resolve() == queue.path.resolve():
        raise ConfigError(f"the queue needs a file of its own, one that may be lost: {path} is the database")
    return queue


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were said; None counts as not said."""
    return {name: value for name, value in settings.items() if value is not None}


def same(one: Any, other: Any) -> bool:
    """Return whether a setting was said twice in the same way. Peewee's databases are the same if they are one object."""
    if isinstance(one, (Database, Proxy)) or isinstance(other, (Database, Proxy)):
        return one is other
    if isinstance(one, os.PathLike) or isinstance(other, os.PathLike):
        return str(one) == str(other)
    return bool(one == other)

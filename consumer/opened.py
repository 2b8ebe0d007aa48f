"""What a FlagSweep makes of its settings once it is used: the store, and what the consumers and the site share."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peewee import Database, Proxy

from ..adapters.rows import OwnRows
from ..config import Clock, Overrides, Settings
from ..databases.connections import Connections
from ..databases.doorbell import Doorbell
from ..databases.opening import open_connections
from ..databases.places import name_of, refuse_other_database
from ..databases.state_folder import folder_of, path_on_host
from ..errors import ConfigError
from ..handlers import Handlers
from ..models import SiteVerbs
from ..schedules.declared import Declarations
from ..sweep.claims import Store

if TYPE_CHECKING:
    from ..queues.client import SharedQueue


@dataclass(frozen=True)
class Opened:
    """Hold what is made of the settings.

    :param nudges: whether a raise tells consumers through the queue.
    """

    settings: Settings
    connections: Connections
    verbs: SiteVerbs
    store: Store
    queue: SharedQueue | None
    nudges: bool
    doorbell: Doorbell | None = None

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Opened:
        """Make it of the settings; this connects to nothing.

        :raises ConfigError: where there is no database yet, or it does not go with the queue.
        """
        connections = open_connections(settings.database, settings.driver, settings.notify)
        store = Store(connections)
        queue = _shared_queue(settings, clock, store)
        unseen = connections.dialect.shared and not connections.dialect.notifies
        nudges = queue is not None and (settings.nudge == "on" or (settings.nudge == "auto" and unseen))
        verbs = SiteVerbs(connections)
        return cls(settings, connections, verbs, store, queue, nudges, _doorbell(connections, store, settings.state_dir))

    def tell(self, lane: str, kind: str, priority: int) -> None:
        """Tell consumers, once the open transaction commits, that a flag is due. Never raises, never waits."""
        if self.doorbell is not None:
            self.doorbell.ring_after_commit(self.connections.site, kind, priority)
        self.nudge(lane)

    def nudge(self, lane: str) -> None:
        """Tell consumers of other hosts of a lane, where they would otherwise see its flag a second later, and the setting
        ``nudge`` does not forbid it."""
        if self.nudges and self.queue is not None:
            self.queue.nudge(lane, self.connections.site)

    def check(self) -> None:
        """Refuse to go on where the site's proxy or database object has become another database since."""
        given = self.settings.database
        now = given.obj if isinstance(given, Proxy) else given
        if isinstance(now, Database) and (now is not self.connections.site or now.database != self.connections.name):
            raise ConfigError(
                f"the database is {name_of(now)} now, and flagsweep is in use with {self.connections.where}: "
                "make a FlagSweep for each"
            )


def _doorbell(connections: Connections, store: Store, state_dir: str) -> Doorbell | None:
    """Return what a raise rings; None where nobody could hear it, or the server tells who listens."""
    if connections.in_memory or (connections.dialect.shared and connections.dialect.notifies):
        return None
    if connections.file is not None:
        return Doorbell(partial(folder_of, connections.file))

    def folder() -> Path:
        mine = connections.engine.is_closed()  # Not over the site's, whose transaction an error of ours would end.
        try:
            return path_on_host(f"{connections.where} {store.made_at()}", state_dir).expanduser()
        finally:
            if mine:
                connections.close_engine()

    return Doorbell(folder)


def _shared_queue(settings: Settings, clock: Clock, store: Store) -> SharedQueue | None:
    if settings.queue == "memory":
        return None
    path = store.connections.file
    from ..queues.client import SharedQueue
    from ..queues.place import identity_of

    if store.connections.in_memory:
        raise ConfigError("a database in memory is nobody else's: leave the queue in memory, too")
    queue = SharedQueue(settings.queue, settings.queue_key, clock, partial(identity_of, store))
    if path is not None and queue.path is not None and path.resolve() == queue.path.resolve():
        raise ConfigError(f"the queue needs a file of its own, one that may be lost: {path} is the database")
    return queue


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were said; None counts as not said."""
    return {name: value for name, value in settings.items() if value is not None}


def _same(one: Any, other: Any) -> bool:
    """Return whether a setting was said twice in the same way. Peewee's databases are the same if they are one object."""
    if isinstance(one, (Database, Proxy)) or isinstance(other, (Database, Proxy)):
        return one is other
    if isinstance(one, os.PathLike) or isinstance(other, os.PathLike):
        return str(one) == str(other)
    return bool(one == other)


def overrides_of(settings: Settings) -> Overrides:
    """Return what settings say of kinds, with where that stands."""
    return settings.kinds if isinstance(settings.kinds, Overrides) else Overrides(settings.kinds)


class Opening:
    """Gather settings and handlers until the first use, and open the database then: that of the handlers' own rows, too.

    :param settings: what is said already.
    :raises ConfigError: naming every bad setting at once.
    """

    def __init__(self, clock: Clock, settings: Mapping[str, Any]):
        self.clock = clock
        self.handlers = Handlers(self)
        self._said = _given(settings)
        Settings.load(self._said, {})  # What is wrong with what is said here is told here.
        self._opened: Opened | None = None
        self._lock = threading.RLock()

    @property
    def declared(self) -> Declarations:
        """What handlers declare to be raised again and again."""
        return self.handlers.schedules

    def say(self, settings: Mapping[str, Any]) -> None:
        """Say more.

        :raises ConfigError: where it is bad, disagrees with what was said before, or comes too late.
        """
        more = _given(settings)
        with self._lock:
            other = [name for name, value in more.items() if name in self._said and not _same(self._said[name], value)]
            if other:
                raise ConfigError([f"{name} was set to something else before: say it once, or the same" for name in other])
            fresh = sorted(set(more) - set(self._said))
            if fresh and self._opened is not None:
                raise ConfigError(f"{', '.join(fresh)} came too late: {self._opened.connections.where} is in use already")
            Settings.load({**self._said, **more})
            self._said.update(more)

    def opened(self) -> Opened:
        """Return what is made of the settings, at the first use, whichever thread comes first."""
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    opened = Opened.of(Settings.load(self._said), self.clock)
                    self.handlers.override(overrides_of(opened.settings))
                    for handler in self.handlers.by_kind.values():
                        if handler.rows is not None:
                            refuse_other_database(handler.rows.model, opened.connections)
                    self._opened = opened
        self._opened.check()
        return self._opened

    def overrides(self) -> Overrides:
        """Return what settings say of kinds, once they are known; until then nothing."""
        return Overrides() if self._opened is None else overrides_of(self._opened.settings)

    def refuse_other_database(self, rows: OwnRows) -> None:
        """Refuse own rows that our connections would never find, where the database is known already."""
        if self._opened is not None:
            refuse_other_database(rows.model, self._opened.connections)

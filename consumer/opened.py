"""What a FlagSweep makes of its settings once it is used: the store, and what the consumers and the site share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peewee import Database, Proxy

from ..adapters.connection import SiteConnection
from ..adapters.over import Over, VerbsOver
from ..adapters.rows import OwnRows
from ..config import Clock, Overrides, Settings
from ..databases.connections import Connections
from ..databases.doorbell import Doorbell
from ..databases.library import is_apsw, two_libraries
from ..databases.opening import open_connections
from ..databases.places import name_of
from ..databases.state_folder import folder_of, path_on_host
from ..errors import ConfigError, FlagSweepError
from ..handlers import Handlers
from ..models import SiteVerbs
from ..schedules.declared import Declarations
from ..sweep.claims import Store
from ..sweep.perform import Surrounding
from .inline import Inline

if TYPE_CHECKING:
    from ..queues.client import SharedQueue


Commits = Database | SiteConnection
"""What tells of a commit."""


@dataclass(frozen=True)
class Opened:
    """Hold what is made of the settings.

    :param over: the verbs of a raise over connections of the site's other layers.
    :param nudges: whether a raise tells consumers through the queue.
    """

    settings: Settings
    connections: Connections
    verbs: SiteVerbs
    over: Over
    store: Store
    queue: SharedQueue | None
    nudges: bool
    doorbell: Doorbell | None = None
    inline: Inline | None = None

    @classmethod
    def of(cls, settings: Settings, clock: Clock, connection: Any = None, inline: Inline | None = None) -> Opened:
        """Make it of the settings; this connects to nothing.

        :raises ConfigError: where there is no database yet, or it does not go with the queue.
        """
        connections = open_connections(settings.database, settings.driver, settings.notify)
        _refuse_a_second_library(connections, connection)
        store = Store(connections)
        queue = _shared_queue(settings, clock, store)
        unseen = connections.dialect.shared and not connections.dialect.notifies
        nudges = queue is not None and (settings.nudge == "on" or (settings.nudge == "auto" and unseen))
        verbs = SiteVerbs(connections)
        doorbell = _doorbell(connections, store, settings.state_dir)
        inline = inline if settings.mode == "inline" else None
        over = Over(connections, connection)
        return cls(settings, connections, verbs, over, store, queue, nudges, doorbell, inline)

    def verbs_over(self, connection: Any) -> SiteVerbs | VerbsOver:
        """Return the verbs of a raise.

        :param connection: the one to raise over; None: the one that all raises go over.
        :raises ConfigError: where it goes to our file through another SQLite library.
        """
        _refuse_a_second_library(self.connections, connection)
        given = self.over.usual if connection is None else connection
        return self.verbs if given is None or given is self.connections.site else self.over.verbs(given)

    async def awaited(self, connection: Any, do: Callable[[SiteVerbs | VerbsOver], Any]) -> Any:
        """Do something with these verbs where the connection's layer has to be waited for."""
        _refuse_a_second_library(self.connections, connection)
        given = self.over.usual if connection is None else connection
        if given is None or given is self.connections.site:
            return do(self.verbs)
        return await self.over.awaited(given, do)

    def tell(self, commits: Commits, lane: str, kind: str, priority: int) -> None:
        """Tell consumers, once the open transaction commits, that a flag is due. Never raises, never waits.

        :param commits: tells of that commit.
        """
        if self.doorbell is not None:
            self.doorbell.ring_after_commit(commits, kind, priority)
        self.nudge(lane, commits)
        if self.inline is not None:
            self.inline.sweep_after_commit(commits, self.connections, kind, self.over.set_aside)

    def nudge(self, lane: str, commits: Commits | None = None) -> None:
        """Tell consumers of other hosts of a lane, where they would otherwise see its flag a second later, and the setting
        ``nudge`` does not forbid it."""
        if self.nudges and self.queue is not None:
            self.queue.nudge(lane, commits or self.connections.site)

    def check(self) -> None:
        """Refuse to go on where the site's proxy or database object has become another database since."""
        given = self.settings.database
        now = given.obj if isinstance(given, Proxy) else given
        if isinstance(now, Database) and (now is not self.connections.site or now.database != self.connections.name):
            raise ConfigError(
                f"the database is {name_of(now)} now, and flagsweep is in use with {self.connections.where}: "
                "make a FlagSweep for each"
            )


def _refuse_a_second_library(connections: Connections, connection: Any) -> None:
    """Refuse a connection of the site's other layers to a file that our own open through APSW.

    :raises ConfigError: where one process would open the file through two libraries.
    """
    if connection is None or connections.file is None or not is_apsw(connections.engine):
        return
    if not is_apsw(connection.obj if isinstance(connection, Proxy) else connection):
        raise ConfigError(two_libraries("a connection of another data layer"))


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


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether the same database would be opened with the same settings."""
    names = (one.keys() | other.keys()) - {"connection"}
    return all(name in one and name in other and _same(one[name], other[name]) for name in names)


def _refuse_another(more: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Refuse settings that were said already, in another way."""
    other = [name for name, value in more.items() if name in said and not _same(said[name], value)]
    if other:
        raise ConfigError([f"{name} was set to something else before: say it once, or the same" for name in other])


def _loaded(said: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Return all settings, of what was said; ``connection`` is none of them, but an object of the site's."""
    return Settings.load({name: value for name, value in said.items() if name != "connection"}, environ)


def overrides_of(settings: Settings) -> Overrides:
    """Return what settings say of kinds, with where that stands."""
    return settings.kinds if isinstance(settings.kinds, Overrides) else Overrides(settings.kinds)


class Opening:
    """Gather settings and handlers until the first use, and open the database then: that of the handlers' own rows, too.

    :param settings: what is said already.
    :param inline: what sweeps after a raise, in that mode.
    :raises ConfigError: naming every bad setting at once.
    """

    def __init__(self, clock: Clock, settings: Mapping[str, Any], inline: Inline | None = None):
        self.clock = clock
        self._inline = inline
        self.handlers = Handlers(self)
        self._said = _given(settings)
        self._lent: Mapping[str, Any] = {}
        self._outdated = False
        self._sort = Opened
        _loaded(self._said, {})  # What is wrong with what is said here is told here.
        self._adopted: dict[str, dict[str, Any]] = {}
        self.within: Surrounding | None = None
        """What is around all that is the site's own."""
        self.ask: Callable[[], Mapping[str, Any]] | None = None
        """Asked once, at the first use, for what a host's own settings say."""
        self.prepare: Callable[[Opened], None] | None = None
        """Called once settings are known."""
        self._opened: Opened | None = None
        self._lock = threading.RLock()

    @property
    def declared(self) -> Declarations:
        """What handlers declare to be raised again and again."""
        return self.handlers.schedules

    @property
    def in_use(self) -> Opened | None:
        """What is made of the settings, once they are used."""
        return self._opened

    def said(self, name: str) -> Any:
        """Return what was said of a setting, or None."""
        return self._all().get(name)

    def say(self, settings: Mapping[str, Any]) -> None:
        """Say more.

        :raises ConfigError: where it is bad, disagrees with what was said before, or comes too late.
        """
        more = _given(settings)
        with self._lock:
            _refuse_another(more, self._all())
            fresh = sorted(set(more) - set(self._all()) - {"connection"})
            if fresh and self._opened is not None and not self._lent:
                raise ConfigError(f"{', '.join(fresh)} came too late: {self._opened.connections.where} is in use already")
            _loaded({**self._all(), **more})
            self._check(more.get("connection"))
            self._said.update((name, value) for name, value in more.items() if name == "connection" or not self._lent)
            self._have_raises_go_over()

    def adopt(self, host: str, settings: Mapping[str, Any], otherwise: Mapping[str, Any], sweeps: bool) -> None:
        """Take what an application says instead of what an earlier one of the same host said.

        :param otherwise: what holds where nothing else says anything: no code, no application, no environment.
        :param sweeps: whether what is open is in use by a sweep.
        :raises ConfigError: where it is bad, or disagrees with what the code said.
        :raises FlagSweepError: where it would change the database under a sweep.
        """
        with self._lock:
            others = {name: theirs for name, theirs in self._adopted.items() if name != host}
            said = {**self._said, **{name: value for theirs in others.values() for name, value in theirs.items()}}
            more = _given(settings)
            _refuse_another(more, said)
            known = {"connection": None, **vars(_loaded({**said, **more})), **said, **more}
            if isinstance(known["database"], (Database, Proxy)):  # Said to be what raises go over.
                known["connection"] = known["connection"] or known["database"]
            more.update((name, value) for name, value in _given(otherwise).items() if known[name] is None)
            _loaded({**said, **more})
            other = not _alike({**said, **more}, self._all())
            if self._lent:
                self._outdated = self._outdated or other
            elif other or not self._still_holds():
                if sweeps:
                    raise FlagSweepError(f"another {host} application came while this FlagSweep sweeps: stop() it first")
                self._close()
            self._check({**said, **more}.get("connection"))
            self._adopted = {**others, host: more}
            self._have_raises_go_over()

    def _all(self) -> dict[str, Any]:
        """Return what the code and the applications have said."""
        return {**self._said, **{name: value for theirs in self._adopted.values() for name, value in theirs.items()}}

    def _have_raises_go_over(self) -> None:
        """Have raises that say nothing of a connection go over the one that was said, which may come after the database."""
        if self._opened is not None:
            self._opened.over.usual = self._all().get("connection")

    def _check(self, connection: Any) -> None:
        """Refuse a connection that does not go with what is open; what is not open yet is looked at then."""
        if self._opened is not None:
            _refuse_a_second_library(self._opened.connections, connection)

    def _surroundings(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.within is None else self.within()

    def _still_holds(self) -> bool:
        """Return whether what is open is still the site's database."""
        try:
            if self._opened is not None:
                self._opened.check()
        except ConfigError:
            return False
        return True

    def _close(self) -> None:
        """Forget what is open. A Peewee object of the site's is the site's to close."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.connections.close_engine()
            if not isinstance(opened.settings.database, (Database, Proxy)) and not opened.connections.site.is_closed():
                opened.connections.site.close()

    def opened(self) -> Opened:
        """Return what is made of the settings, at the first use, whichever thread comes first."""
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    asked = {} if self.ask is None else self.ask()
                    self.say(asked)
                    said = {**asked, **self._all()}
                    settings = _loaded({**said, **self._lent})
                    opened = self._sort.of(settings, self.clock, said.get("connection"), self._inline)
                    opened.over.within = self._surroundings
                    self.handlers.override(overrides_of(opened.settings))
                    for handler in self.handlers.by_kind.values():
                        if handler.rows is not None:
                            handler.rows.enter(opened.connections, opened.over)
                    self._opened = opened
                    if self.prepare is not None:
                        self.prepare(opened)
        self._opened.check()
        return self._opened

    @contextmanager
    def lent(self, settings: Mapping[str, Any], sort: type[Opened] = Opened) -> Iterator[Opened]:
        """Be in use with these settings meanwhile, whatever was said and will be: for tests.

        :param settings: of another database, and what else differs.
        :param sort: what is made of them.
        """
        with self._lock:
            before = self._opened, self._lent, self._sort
            self._opened, self._lent, self._sort = None, settings, sort
        try:
            yield self.opened()
        finally:
            with self._lock:
                self._opened, self._lent, self._sort = before
                if self._outdated and not self._lent:  # An application has come meanwhile.
                    self._outdated = False
                    self._close()

    def overrides(self) -> Overrides:
        """Return what settings say of kinds, once they are known; until then nothing."""
        return Overrides() if self._opened is None else overrides_of(self._opened.settings)

    def enter(self, rows: OwnRows) -> None:
        """Have own rows take note of the database, where it is known already."""
        if self._opened is not None:
            rows.enter(self._opened.connections, self._opened.over)

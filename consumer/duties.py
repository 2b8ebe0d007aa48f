"""Duties: what whoever sweeps has to do, with what, and by whose clock."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..config import TASKS, Clock, Settings
from ..errors import ConfigError
from ..handlers import Handler, Options
from ..schedules.declared import Declarations
from ..sweep.claims import Store
from ..sweep.lane import OnOutage
from ..sweep.notices import OnFailed
from ..sweep.perform import Surrounding
from .firing import Firing
from .outlook import Watch

MOST_THREADS = 4096
"""Threads and tasks of all lanes of a consumer: a thread has a stack and a connection or two, each a slot in the black box."""


OWN_LANE = "flagsweep"
"""The lane of what flagsweep does itself, which needs no more than a thread."""


class Promises(Protocol):
    """Look whether lanes keep what is promised of them."""

    @property
    def every(self) -> float:
        """Seconds from one look to the next."""

    def look(self) -> None:
        """Look once."""


@dataclass(frozen=True)
class Duties:
    """Hold what a consumer, or a sweep, works with.

    :param handlers: by kind, aliases included.
    :param on_failed: called with each flag that failed for the first time, or died.
    :param schedules: those that code declares.
    :param on_outage: called with a kind whose provider has gone, or is back.
    :param around: what each handler runs within, the first outermost.
    :param watch: makes what monitoring asks.
    :param promises: looks whether lanes keep what is promised of them.
    :param also: the site's own Huey, which runs beside a consumer that stays.
    """

    store: Store
    settings: Settings
    clock: Clock
    handlers: Mapping[str, Handler]
    on_failed: OnFailed
    schedules: Declarations
    on_outage: OnOutage = lambda kind, event, why: None
    around: Sequence[Surrounding] = ()
    also: Any = None
    watch: Watch | None = None
    promises: Promises | None = None

    @property
    def path(self) -> Path | None:
        """The database file; None for one on a server, or in memory."""
        return self.store.connections.file

    @property
    def app(self) -> str:
        """The modules that the handlers are in: by these people know which application it is."""
        return ", ".join(sorted({handler.module for handler in self.handlers.values()}))

    def served(self) -> dict[str, str]:
        """Return who serves each kind, as is noted for the time when nobody does any more."""
        host = platform.node()
        own = {handler.kind: handler for handler in self.handlers.values() if not handler.spare}
        return {
            kind: json.dumps({"app": handler.module, "host": host, "lane": handler.lane}) for kind, handler in sorted(own.items())
        }

    def firing(self) -> Firing:
        """Return what fires schedules, once those that code declares are written."""
        firing = Firing(self.store, self.handlers, self.clock)
        firing.declare(self.schedules, self.settings.timezone)
        return firing

    def options_of(self, kind: str) -> Options | None:
        """Return the options of a kind's handler, if there is one."""
        return self.handlers[kind].options if kind in self.handlers else None

    def overridden(self) -> list[str]:
        """Return what settings say of kinds instead of the code, a sentence for each."""
        where = getattr(self.settings.kinds, "where", "settings")
        own = {each.kind: each for each in self.handlers.values() if each.overrides}
        return [
            f"{kind}: {', '.join(f'{name} {value}' for name, value in handler.overrides.items())} (says {where})"
            for kind, handler in sorted(own.items())
        ]

    def unknown_kinds(self) -> list[str]:
        """Return the kinds of which settings say something, and for which there is no handler."""
        known = {each.kind for each in self.handlers.values()}
        return sorted(kind for kind in self.settings.kinds if kind not in known)

    def lanes(self) -> dict[str, dict[str, Handler]]:
        """Return the handlers of each lane that settings or handlers name."""
        by_lane: dict[str, dict[str, Handler]] = {name: {} for name in self.settings.lanes}
        for kind, handler in self.handlers.items():
            by_lane.setdefault(handler.lane, {})[kind] = handler
        return by_lane

    def threads(self) -> dict[str, int]:
        """Return how many threads each lane has.

        :raises ConfigError: where they are more than a process should have.
        """
        usual = {OWN_LANE: 1}
        threads = {name: self.settings.lanes.get(name, usual.get(name, self.settings.threads)) for name in self.lanes()}
        tasks = self.tasks().values()
        if (total := sum(threads.values()) + sum(tasks)) > MOST_THREADS:
            most = ", ".join(f"{name} {count}" for name, count in sorted(threads.items(), key=lambda item: -item[1])[:5])
            raise ConfigError(
                f"the lanes have {total:,} threads{' and tasks' if tasks else ''} in all, and {MOST_THREADS:,} are the most: "
                f"give them fewer ({most}), "
                "or some lanes a consumer of their own"
            )
        return threads

    def tasks(self) -> dict[str, int]:
        """Return how many flags of async handlers each lane runs at the same time that has any such handler."""
        tasks = self.settings.tasks
        lanes = [name for name, handlers in self.lanes().items() if any(handler.is_async for handler in handlers.values())]
        return {name: tasks if isinstance(tasks, int) else tasks.get(name, TASKS) for name in lanes}

    def users(self) -> dict[str, int]:
        """Return how many of the site's connections each lane may use at the same time: its event loop has one, too."""
        tasks = self.tasks()
        return {name: threads + (name in tasks) for name, threads in self.threads().items()}

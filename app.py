"""``FlagSweep``: where handlers are registered, flags are looked after, and a sweep or a consumer is started."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peewee import Database

from .config import Clock, Settings, address
from .consumer.application import InApplication
from .consumer.duties import Duties
from .consumer.embedding import Embedding
from .consumer.inline import Inline
from .consumer.once import Once
from .consumer.opened import Opening
from .databases import schema
from .databases.connections import Connections
from .databases.places import is_late
from .errors import ConfigError, FlagSweepError, LeaseHeld
from .handlers import Registry
from .models import SiteVerbs
from .operations.desk import Desk
from .sweep.claims import Store
from .sweep.perform import Surrounding
from .telling.teller import Teller, Tells

if TYPE_CHECKING:
    from .consumer.runner import Runner
    from .queues.client import SharedQueue
    from .tasks import SweepHuey


class FlagSweep(Registry, Desk, Tells, InApplication):
    """Keep work that is owed as flags in the site's own database, and sweep them.

    :param database: a URL (``sqlite:///site.db``), a path, or the site's own Peewee ``Database``.
    :param queue: ``memory``, or what consumers and the site share: ``sqlite:///queue.db``, ``redis://...``, ``postgresql://...``.
    :param settings: as ``config.Settings`` lists them, such as ``lanes={"mail": 4}`` or ``shutdown_timeout=8``; and
        ``connection``: what raises go over where the site has another data layer than Peewee, as for ``Handler.using``; and
        ``also``: the site's own Huey, whose tasks ``run()`` runs, too (or ``{"huey": huey, "workers": 4}``).
    :raises ConfigError: naming every bad setting at once.

    Creating one opens nothing. What is not given here is read from ``FLAGSWEEP_<SETTING>`` and the TOML file that
    ``FLAGSWEEP_CONFIG`` names. The database may come later: leave it out, and call ``configure``; or pass a ``DatabaseProxy``
    or a Peewee database without a name, and initialize that. Then the rest is read at the first use.
    """

    def __init__(self, database: str | os.PathLike[str] | Database | None = None, queue: str | None = None, **settings: Any):
        self.clock: Clock = settings.pop("clock", None) or Clock()
        self.also: Any = settings.pop("also", None)
        self._opening = Opening(self.clock, {"database": database, "queue": queue, **settings}, Inline(self._duties))
        super().__init__(self._opening.handlers)
        self._teller = Teller(self._opening)
        self._opening.prepare = lambda opened: self._teller.prepare(opened, self._handlers, self._send_daily)
        self._around: list[Surrounding] = []
        self.host: Any = None
        """The application that this is embedded in: the last, where several were made."""
        self._starting = threading.Lock()
        self._runner: Runner | None = None
        self._sweeps: list[Once] = []
        self._huey: SweepHuey | None = None
        self._embedding = Embedding(self._opening, self._duties, self._flush)
        if not is_late(database):
            self._opening.opened()

    def configure(self, database: Any = None, queue: str | None = None, **settings: Any) -> None:
        """Say later what the constructor was not told: where the application is made, and no longer while it is imported.

        :param settings: as for the constructor. What is said twice must be the same; what is not said here or there is read from
            the environment and the TOML file.
        :raises ConfigError: naming every bad setting at once; where it disagrees with what was said before; or where the database
            is in use already, and this would change anything.
        """
        self._opening.say({"database": database, "queue": queue, **settings})

    @property
    def settings(self) -> Settings:
        """Every setting, from wherever it came."""
        return self._opening.opened().settings

    @property
    def store(self) -> Store:
        """What a sweep does with flags."""
        return self._opening.opened().store

    @property
    def verbs(self) -> SiteVerbs:
        """What the site does with flags."""
        return self._opening.opened().verbs

    @property
    def connection(self) -> Any:
        """What raises go over that say nothing of it: an object or alias of the site's other data layer; None: ``database``."""
        return self._opening.opened().over.usual

    @property
    def connections(self) -> Connections:
        """The connections to the database."""
        return self._opening.opened().connections

    @property
    def path(self) -> Path | None:
        """The file of the database, if it is one."""
        return self.connections.file

    @property
    def queue(self) -> SharedQueue | None:
        """What the setting ``queue`` names; None for ``memory``."""
        return self._opening.opened().queue

    @classmethod
    def from_env(cls) -> FlagSweep:
        """Return one whose settings all come from the environment: ``FLAGSWEEP_DATABASE`` and so on."""
        return cls()

    @property
    def database(self) -> Database:
        """The Peewee database: the site's own, or the one made from the URL."""
        return self.connections.site

    @property
    def huey(self) -> SweepHuey:
        """The Huey that drives the sweeps."""
        if self._huey is None:
            from .tasks import make_huey  # Here and in run(): Huey takes as much memory as all of ours.

            self._huey = make_huey()
        return self._huey

    def init(self) -> bool:
        """Create the tables, or upgrade them; return whether anything was created. Calling it again does no harm.

        A SQLite file is put into WAL mode, so that the site reads while a sweep writes.

        :raises NotReady: where the database cannot be made, or is newer than this code.
        :raises FlagSweepError: inside an open transaction, which would hold the writer that it needs.
        """
        return schema.init_file(self.connections, self.clock.now())

    # Sweeping.

    def sweep(
        self,
        lane: str | None = None,
        limit: int | None = None,
        raise_errors: bool = False,
        progress: Callable[[Counter[str]], None] | None = None,
        force: bool = False,
    ) -> Counter[str]:
        """Do all that is due, in this process, and return how many flags met which outcome.

        :param lane: this lane only.
        :param limit: claim at most so many flags in each lane.
        :param raise_errors: for tests: handlers run in this thread, no breaker spares a flag, and when done the first error of a
            handler is raised.
        :param progress: called with the counts so far, now and then.
        :param force: sweep what is paused, too.
        :return: counts of ``lowered``, ``again`` (failed, or raised anew while it ran), ``snoozed``, ``discarded``, ``expired``
            (not worth doing any more), ``dead``, ``released`` and ``lost`` (lowered by somebody else while its handler ran).
        :raises FlagSweepError: inside an open transaction, which would hide what the sweep writes.
        :raises DatabaseAway: where the database could not be written for ``shutdown_timeout`` seconds; nothing is lost.
        :raises LaneStuck: where a thread died, as it may when memory ends; what it ran is free once this process has ended.
        """
        self._check_sweep(lane, limit)
        once = Once(self._duties(), lane, breakers=not raise_errors, force=force, inline=raise_errors)
        self._sweeps.append(once)
        try:
            with self.connections.explained("nothing was swept"):
                total = once.sweep(limit, progress)
        finally:
            self._sweeps.remove(once)
        self._flush()
        if raise_errors and once.first_error is not None:
            raise once.first_error
        return +total

    def _check_sweep(self, lane: str | None, limit: int | None) -> None:
        if lane is not None and lane not in self.lane_names():
            raise ConfigError(f"no handler is in lane {lane!r}; lanes are {', '.join(self.lane_names()) or 'none'}")
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
            raise ConfigError(f"limit must be a whole number from 0, got {limit!r}")
        if self.connections.is_site_in_transaction():
            raise FlagSweepError("sweep() cannot run inside an open transaction: leave 'with database.atomic():' first")

    def run(self, listen: str | None = None) -> bool:
        """Be the consumer, in the foreground, until SIGTERM, SIGINT or ``stop()``.

        :param listen: the address at which it answers monitoring, as ``127.0.0.1:9108``, instead of the setting's.
        :return: True when all ended in time; False when handlers still run after ``shutdown_timeout``. They hold their flags
            until this process ends, so end it.
        :raises LeaseHeld: where another consumer runs on this database.
        :raises LaneStuck: where a lane could do nothing any more: a thread of it died, or its handlers hang for ``stuck_after``.
        :raises NotReady: where the tables are missing, or the database is in memory.
        """
        if self.connections.in_memory:
            raise ConfigError("run() needs a database that other processes can see, not one in memory: call sweep() instead")
        from .consumer.runner import Runner

        runner = Runner(self._duties(), self.huey, self.queue, listen=address(listen) if listen else self.settings.listen)
        with self._starting:  # From here on stop() reaches this run, however early it is called.
            if self._runner is not None:
                raise LeaseHeld("this FlagSweep runs already, in this process: stop() it first; one consumer is enough")
            self._runner = runner
        try:
            with self.connections.explained("the consumer did not start"):
                schema.require(self.connections)
                return runner.run()
        finally:
            self._runner = None
            self._flush()
            self.connections.close_engine()

    def start(self) -> None:
        """Sweep in this process, which serves the site, or stand by while another worker of it does; return at once.

        For ``mode="embedded"``. Call it in the process that answers requests, and after it was forked: at the first request, or
        in a hook of the server's. To call it again does no harm. It ends with the interpreter, within ``shutdown_timeout``.

        :raises ConfigError: in another mode; where the database is in memory, or another FlagSweep of this process sweeps it; or
            where gevent or eventlet have replaced the threads of this process.
        """
        self._embedding.start()

    @property
    def sweeping(self) -> bool:
        """Whether this process sweeps, by ``start()``: of a server's workers one does."""
        return self._embedding.sweeping

    def stop(self, wait: bool = False) -> None:
        """Ask a running ``run()`` or ``sweep()``, or what ``start()`` began, to stop: what runs may finish, what has not started
        is given back.

        :param wait: return only when what ``start()`` began sweeps no more.
        """
        self._embedding.stop(wait)
        if runner := self._runner:
            runner.stop("stop() was called")
        for once in list(self._sweeps):
            once.stop()

    def _flush(self) -> None:
        self._teller.flush()

    def _duties(self) -> Duties:
        return Duties(
            self.store,
            self.settings,
            self.clock,
            dict(self._handlers.by_kind),
            self._teller.failed,
            self._handlers.schedules,
            self._teller.outages.tell,
            self._surroundings(),
            self.also,
            self._watched,
            self._teller.promises(),
        )

    def nudge(self, lane: str) -> None:
        """Tell consumers on other hosts, once the open transaction commits, that a flag of this lane is due: where they would
        otherwise see it a second later, and the setting ``nudge`` does not forbid it. Never raises, never waits."""
        self._opening.opened().nudge(lane)

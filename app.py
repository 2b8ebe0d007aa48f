"""``FlagSweep``: where handlers are registered, flags are looked after, and a sweep or a consumer is started."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from huey import Huey
from peewee import Database

from .adapters.rows import OwnRows
from .config import SECOND, Backoff, Clock, Settings
from .consumer.file_lease import Lease, folder_of
from .consumer.membership import Enlisted, open_lease
from .consumer.opened import Opened, given, same
from .consumer.runner import Runner, go_on_as, make_lanes, threads_of_lanes
from .consumer.session_lease import SessionLease
from .databases.opening import is_late, name_if_other
from .errors import ConfigError, DatabaseAway, FlagSweepError, LeaseHeld, NotReady, UnknownKind
from .handlers import Handler, Options
from .models import AWAY, Flag
from .operations.info import FlagInfo, moment
from .sweep.claims import Claimed, Store
from .sweep.deaths import DeathNotices, OnDead
from .sweep.lane import Lane
from .tasks import Away, make_huey

if TYPE_CHECKING:
    from .queues.client import SharedQueue

log = logging.getLogger("flagsweep")

P = ParamSpec("P")
R = TypeVar("R")

NOBODY = "-"
"""The lane under which flags of a kind without handler are shown."""
STATES = ("waiting", "claimed", "dead")


class FlagSweep:
    """Keep work that is owed as flags in the site's own database, and sweep them.

    :param database: a URL (``sqlite:///site.db``), a path, or the site's own Peewee ``Database``.
    :param queue: ``memory``, or what consumers and the site share: ``sqlite:///queue.db``, ``redis://...``, ``postgresql://...``.
    :param settings: as ``config.Settings`` lists them, such as ``lanes={"mail": 4}`` or ``shutdown_timeout=8``.
    :raises ConfigError: naming every bad setting at once.

    Creating one opens nothing. What is not given here is read from ``FLAGSWEEP_<SETTING>`` and the TOML file that
    ``FLAGSWEEP_CONFIG`` names. The database may come later: leave it out, and call ``configure``; or pass a ``DatabaseProxy``
    or a Peewee database without a name, and initialize that. Then the rest is read at the first use.
    """

    def __init__(self, database: str | os.PathLike[str] | Database | None = None, queue: str | None = None, **settings: Any):
        self.clock: Clock = settings.pop("clock", None) or Clock()
        self._given = given({"database": database, "queue": queue, **settings})
        Settings.load(self._given, {})  # What is wrong with what is said here is told here.
        self._opened: Opened | None = None
        self._opening = threading.RLock()
        self._handlers: dict[str, Handler] = {}
        self._deaths = DeathNotices()
        self._runner: Runner | None = None
        self._starting = threading.Lock()
        self._lanes: dict[int, list[Lane]] = {}
        self._stopping = False
        self._huey: Huey | None = None
        if not is_late(database):
            self._open()

    def configure(self, database: Any = None, queue: str | None = None, **settings: Any) -> None:
        """Say later what the constructor was not told: where the application is made, and no longer while it is imported.

        :param settings: as for the constructor. What is said twice must be the same; what is not said here or there is read from
            the environment and the TOML file.
        :raises ConfigError: naming every bad setting at once; where it disagrees with what was said before; or where the database
            is in use already, and this would change anything.
        """
        more = given({"database": database, "queue": queue, **settings})
        with self._opening:
            other = [name for name, value in more.items() if name in self._given and not same(self._given[name], value)]
            if other:
                raise ConfigError([f"{name} was set to something else before: say it once, or the same" for name in other])
            fresh = sorted(set(more) - set(self._given))
            if fresh and self._opened is not None:
                raise ConfigError(f"{', '.join(fresh)} came too late: {self.store.where} is in use already")
            Settings.load({**self._given, **more})
            self._given.update(more)

    def _open(self) -> Opened:
        """Return what is made of the settings, at the first use, whichever thread comes first."""
        if self._opened is None:
            with self._opening:
                if self._opened is None:
                    opened = Opened.of(Settings.load(self._given), self.clock)
                    for handler in self.handlers.values():
                        if handler.rows is not None:
                            _refuse_other_database(handler.rows, opened.store)
                    self._opened = opened
        self._opened.check()
        return self._opened

    @property
    def settings(self) -> Settings:
        """Every setting, from wherever it came."""
        return self._open().settings

    @property
    def store(self) -> Store:
        """The verbs on the database."""
        return self._open().store

    @property
    def path(self) -> Path | None:
        """The file of the database, if it is one."""
        return self._open().path

    @property
    def queue(self) -> SharedQueue | None:
        """What the setting ``queue`` names; None for ``memory``."""
        return self._open().queue

    @classmethod
    def from_env(cls) -> FlagSweep:
        """Return one whose settings all come from the environment: ``FLAGSWEEP_DATABASE`` and so on."""
        return cls()

    @property
    def database(self) -> Database:
        """The Peewee database: the site's own, or the one made from the URL."""
        return self.store.site

    @property
    def huey(self) -> Huey:
        """The Huey that drives the sweeps."""
        if self._huey is None:
            self._huey = make_huey()
        return self._huey

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handlers by kind; aliases are not listed."""
        return {kind: handler for kind, handler in self._handlers.items() if kind == handler.kind}

    @property
    def handled(self) -> Collection[str]:
        """The kinds that there are handlers for, aliases included."""
        return self._handlers.keys()

    def init(self) -> bool:
        """Create the tables, or upgrade them; return whether anything was created. Calling it again does no harm.

        A SQLite file is put into WAL mode, so that the site reads while a sweep writes.

        :raises NotReady: where the database cannot be made, or is newer than this code.
        :raises FlagSweepError: inside an open transaction, which would hold the writer that it needs.
        """
        if not self.store.in_memory and self.database.in_transaction():
            raise FlagSweepError("init() cannot run inside an open transaction: leave 'with database.atomic():' first")
        self.store.create_file()
        with self._explained("the tables were not created"):
            try:
                return self.store.init(self.clock.now())
            finally:
                self.store.close_engine()

    # Handlers.

    @overload
    def handler(self, function: Callable[P, R], /) -> Handler[P, R]: ...
    @overload
    def handler(
        self,
        kind: str | None = None,
        lane: str = "default",
        max_attempts: int = 8,
        backoff: Backoff | object = None,
        priority: int = 0,
        unique: bool = True,
        atomic: bool = False,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = BaseException,
        discard_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        aliases: str | Iterable[str] = (),
        slow_after: object = None,
    ) -> Callable[[Callable[P, R]], Handler[P, R]]: ...

    def handler(
        self,
        kind: Any = None,
        lane: str = "default",
        max_attempts: int = 8,
        backoff: Backoff | object = None,
        priority: int = 0,
        unique: bool = True,
        atomic: bool = False,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = BaseException,
        discard_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        aliases: str | Iterable[str] = (),
        slow_after: object = None,
    ) -> Any:
        """Make a function the handler of a kind. It stays an ordinary function, and gets ``raise_flag`` and the like.

        :param kind: the stable name of the work; by default the function's name. Never a dotted path.
        :param lane: flags of one lane are swept together and share its threads.
        :param max_attempts: after that many failed attempts the flag is dead.
        :param backoff: the wait before the next attempt: a ``Backoff``, or one duration for all.
        :param priority: -100 to 100, the higher the sooner.
        :param unique: raised again with the same arguments, it is the same flag; a handler without arguments has one flag for
            everybody. False: every raise is a flag of its own.
        :param atomic: the handler and the lowering commit together, on ``flags.database``: exactly once for what it writes there.
            On SQLite it holds the only writer, so keep slow work out of it.
        :param retry_on: what is tried again; any other exception buries the flag at once.
        :param discard_on: exceptions that lower the flag, with a line of history.
        :param aliases: former kinds, whose flags this handler takes over.
        :param slow_after: a handler that runs longer is reported once a minute.
        :raises ConfigError: naming every bad option at once, a second handler of a kind, or a signature that cannot be kept
            by name.
        """
        options = {
            "lane": lane,
            "max_attempts": max_attempts,
            "backoff": Backoff() if backoff is None else backoff,
            "priority": priority,
            "unique": unique,
            "atomic": atomic,
            "retry_on": retry_on,
            "discard_on": discard_on,
            "aliases": aliases,
            "slow_after": slow_after,
        }
        if (callable(kind) or isinstance(kind, classmethod)) and not isinstance(kind, str):
            return self._register(kind, None, options, None)
        return lambda function: self._register(function, kind, options, None)

    def when(
        self, what: Any, *, lower: str = "after", kind: str | None = None, **options: Any
    ) -> Callable[[Callable[P, R]], Handler[P, R]]:
        """Make a function the handler of the site's own rows: work is whatever a column or condition finds.

        :param what: a Boolean column (true: owed), a nullable column (not null: owed), any condition on one model, or a
            function that returns a condition and is asked anew each time.
        :param lower: ``after``: the column comes down with the flag, so false means done; setting a Boolean again while its
            handler runs cannot be seen. ``before``: it comes down when the flag is claimed, so setting it again is new work.
        :param options: as for ``handler``.

        The handler gets the model's instance. A condition that has no column must be made false by the handler.
        """
        rows = OwnRows(what, lower)
        if self._opened is not None:
            _refuse_other_database(rows, self.store)

        def decorate(function: Callable[P, R]) -> Handler[P, R]:
            defaults = {"lane": "default", "max_attempts": 8, "backoff": Backoff(), "priority": 0, "atomic": False}
            more = {"retry_on": BaseException, "discard_on": (), "aliases": (), "slow_after": None}
            unknown = sorted(set(options) - set(defaults) - set(more))
            if unknown:
                raise ConfigError(
                    f"flags.when does not know {', '.join(unknown)}; known are lower, kind, {', '.join([*defaults, *more])}"
                )
            return self._register(function, kind, {**defaults, **more, **options, "unique": True}, rows)

        return decorate

    def _register(self, function: Any, kind: str | None, options: dict[str, Any], rows: OwnRows | None) -> Handler:
        if isinstance(function, Handler):
            function = function.function
        kind = kind if kind is not None else kind_of(function)
        checked = Options.checked(kind, options)
        for name in (checked.kind, *checked.aliases):
            if name in self._handlers:
                other = self._handlers[name]
                raise ConfigError(
                    f"the kind {name!r} has a handler already ({where_is(other.function)}): give this one another kind="
                )
        handler: Handler = Handler(self, function, checked, rows)
        self._handlers.update(dict.fromkeys((checked.kind, *checked.aliases), handler))
        return handler

    def on_dead(self, function: OnDead) -> OnDead:
        """Call ``function(kind, key, payload, error)`` once for every flag that dies, so that the site can tell someone.

        It runs in a thread of its own; its errors are logged and harm nothing. Usable as a decorator.
        """
        self._deaths.listeners.append(function)
        return function

    # Sweeping.

    def sweep(
        self,
        lane: str | None = None,
        limit: int | None = None,
        raise_errors: bool = False,
        progress: Callable[[Counter[str]], None] | None = None,
    ) -> Counter[str]:
        """Do all that is due, in this process, and return how many flags met which outcome.

        :param lane: this lane only.
        :param limit: claim at most so many flags in each lane.
        :param raise_errors: when done, raise the first error of a handler: for tests.
        :param progress: called with the counts so far, now and then.
        :return: counts of ``lowered``, ``again`` (failed, or raised anew while it ran), ``snoozed``, ``discarded``, ``dead``,
            ``released`` and ``lost`` (lowered by somebody else while its handler ran).
        :raises FlagSweepError: inside an open transaction, which would hide what the sweep writes.
        :raises DatabaseAway: where the database could not be written for ``shutdown_timeout`` seconds; nothing is lost.
        """
        self._check_sweep(lane, limit)
        total: Counter[str] = Counter()
        with self._explained("nothing was swept"), self._lanes_of_a_sweep(lane) as lanes:
            for each in lanes:
                if self._stopping:  # stop() may have come before there was a lane that it could tell.
                    break
                total.update(self._sweep_lane(each, limit, progress, total.copy()))
        self._deaths.flush()
        first = next((each.first_error for each in lanes if each.first_error), None)
        if raise_errors and first is not None:
            raise first
        return +total

    @contextmanager
    def _lanes_of_a_sweep(self, only: str | None) -> Iterator[list[Lane]]:
        """Be enlisted for a sweep: free what the dead had claimed, and give the lanes; ``stop()`` reaches them meanwhile."""
        with ExitStack() as stack:
            stack.callback(self.store.close_engine)
            self.store.check_schema(self.store.version())
            threads = sum(threads_of_lanes(self.settings, self._handlers).values())
            enlisted = Enlisted(self.store, self.path, self.clock, "sweep", self.settings, threads)
            stack.callback(enlisted.leave)
            enlisted.rescue(self._options_of, self._on_dead)
            self.store.release_orphans(self.clock.now())
            crew = (self.settings, self._handlers, self.store, self.clock, enlisted, lambda: self._stopping, self._on_dead)
            lanes = list(make_lanes(*crew, only, flat_out=True).values())
            enlisted.follow(partial(go_on_as, lanes))
            self._lanes[id(lanes)] = lanes
            stack.callback(self._lanes.pop, id(lanes))
            yield lanes

    def _check_sweep(self, lane: str | None, limit: int | None) -> None:
        if lane is not None and lane not in self.lane_names():
            raise ConfigError(f"no handler is in lane {lane!r}; lanes are {', '.join(self.lane_names()) or 'none'}")
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
            raise ConfigError(f"limit must be a whole number from 0, got {limit!r}")
        db = self.database
        if db.in_transaction() or (not db.is_closed() and self.store.dialect.in_transaction(db)):
            raise FlagSweepError("sweep() cannot run inside an open transaction: leave 'with database.atomic():' first")
        self._stopping = False

    def _sweep_lane(
        self,
        lane: Lane,
        limit: int | None,
        progress: Callable[[Counter[str]], None] | None,
        before: Counter[str],
    ) -> Counter[str]:
        """Sweep one lane, trying again while the database is away; on Ctrl-C give back what has not started."""
        total: Counter[str] = Counter()
        report = None if progress is None else lambda counts: progress(before + counts)
        away, since, settled = Away(), time.monotonic(), 0
        try:
            while True:
                try:
                    left = None if limit is None else limit - total.total() - lane.pool.outstanding
                    lane.sweep(left, report, total)
                    if not lane.kept_out:
                        return total
                    raise DatabaseAway("its session broke, so that nothing may be claimed until the lease is ours again")
                except AWAY as error:
                    if total.total() > settled:  # It had come back meanwhile.
                        away, since, settled = Away(), time.monotonic(), total.total()
                    wait = away.wait(error)
                    if time.monotonic() - since + wait > self.settings.shutdown_timeout:
                        raise DatabaseAway(
                            f"{self.store.where} could not be written: {error}; what is not settled will run again"
                        ) from error
                    time.sleep(wait)
        except KeyboardInterrupt:
            lane.stop()
            lane.sweep(total=total)
            raise
        finally:
            lane.pool.close()

    def run(self) -> bool:
        """Be the consumer, in the foreground, until SIGTERM, SIGINT or ``stop()``.

        :return: True when all ended in time; False when handlers still run after ``shutdown_timeout``. They hold their flags
            until this process ends, so end it.
        :raises LeaseHeld: where another consumer runs on this database.
        :raises LaneStuck: where a lane could do nothing any more: a thread of it died, or its handlers hang for ``stuck_after``.
        :raises NotReady: where the tables are missing, or the database is in memory.
        """
        if self.store.in_memory:
            raise ConfigError("run() needs a database that other processes can see, not one in memory: call sweep() instead")
        runner = Runner(
            self.store, self.path, self.settings, self.clock, dict(self._handlers), self.huey, self._on_dead, self.queue
        )
        with self._starting:  # From here on stop() reaches this run, however early it is called.
            if self._runner is not None:
                raise LeaseHeld("this FlagSweep runs already, in this process: stop() it first; one consumer is enough")
            self._runner = runner
        try:
            with self._explained("the consumer did not start"):
                self.store.check_schema(self.store.version())
                return runner.run()
        finally:
            self._runner = None
            self._deaths.flush()
            self.store.close_engine()

    def stop(self) -> None:
        """Ask a running ``run()`` or ``sweep()`` to stop: what runs may finish, what has not started is given back."""
        self._stopping = True
        if runner := self._runner:
            runner.stop("stop() was called")
        for lanes in list(self._lanes.values()):
            for lane in lanes:
                lane.stop()

    # Looking after flags.

    def lane_names(self) -> list[str]:
        """Return the lanes that settings or handlers name."""
        return sorted({*self.settings.lanes, *(h.lane for h in self._handlers.values())})

    def status(self) -> dict[str, Any]:
        """Return what is up: ``lanes`` with counts and the oldest due flag's age in seconds, and ``consumers``.

        Flags of kinds without a handler are counted under the lane ``-``.
        """
        now = self.clock.now()
        lanes: dict[str, dict[str, Any]] = {
            name: dict.fromkeys(("waiting", "due", "claimed", "dead"), 0) for name in self.lane_names()
        }
        for entry in lanes.values():
            entry["oldest_due_s"] = None
        for kind, state, count, due, earliest in self.store.counts(now):
            empty = {**dict.fromkeys(("waiting", "due", "claimed", "dead"), 0), "oldest_due_s": None}
            entry = lanes.setdefault(self._lane_of(kind), empty)
            entry[state] += count
            entry["due"] += due
            if due:
                age = round((now - (earliest or now)) / SECOND, 3)
                entry["oldest_due_s"] = max(entry["oldest_due_s"] or 0.0, age)
        return {"lanes": lanes, "consumers": self._consumers()}

    def _consumers(self) -> list[dict[str, Any]]:
        with ExitStack() as stack:
            lease = self._lease(stack)
            return [
                {
                    "id": c.id,
                    "mode": c.mode,
                    "pid": c.pid,
                    "host": c.host,
                    "started_at": moment(c.started_at).isoformat(),  # type: ignore[union-attr]
                    "alive": lease.is_held(c.id) if lease else None,
                }
                for c in self.store.consumers()
            ]

    def _lease(self, stack: ExitStack) -> Lease | SessionLease | None:
        """Return the leases for looking, or None where there are none that this user may see."""
        if self.path is not None and not os.access(folder_of(self.path) / "lease", os.R_OK | os.W_OK):
            return None
        try:
            lease = open_lease(self.store, self.path)
        except NotReady:
            return None
        if lease is not None:
            stack.callback(lease.close)
        return lease

    def find(
        self,
        kind: str | None = None,
        state: str | None = None,
        key: str | None = None,
        lane: str | None = None,
        id: int | Iterable[int] | None = None,
        due: bool | None = None,
        limit: int | None = 100,
    ) -> list[FlagInfo]:
        """Return flags that meet all that is given, lowest id first.

        :param state: ``waiting``, ``claimed`` or ``dead``.
        :param lane: ``-`` stands for kinds without a handler.
        :param due: whether a waiting flag's time has come.
        :param limit: the most flags; None for all.
        """
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise ConfigError(f"limit must be a whole number from 0, got {limit!r}")
        return [
            FlagInfo.of(flag, self._lane_of(flag.kind))
            for flag in self.store.find(self._where(kind, state, key, lane, id, due), limit)
        ]

    def _where(
        self,
        kind: str | None = None,
        state: str | None = None,
        key: str | None = None,
        lane: str | None = None,
        id: int | Iterable[int] | None = None,
        due: bool | None = None,
    ) -> list[Any]:
        if state is not None and state not in STATES:
            raise ConfigError(f"state must be one of {', '.join(STATES)}, got {state!r}")
        where: list[Any] = [Flag.kind == kind] if kind is not None else []
        where += [Flag.state == state] if state is not None else []
        where += [Flag.key == key] if key is not None else []
        if id is not None:
            where.append(Flag.id.in_([id] if isinstance(id, int) else list(id)))
        if lane is not None:
            kinds = [k for k, h in self._handlers.items() if lane in (h.lane, NOBODY)]
            where.append(Flag.kind.not_in(kinds) if lane == NOBODY else Flag.kind.in_(kinds))
        if due is not None:
            is_due = (Flag.state == "waiting") & (Flag.due_at <= self.clock.now())
            where.append(is_due if due else ~is_due)
        return where

    def retry(
        self,
        id: int | Iterable[int] | None = None,
        kind: str | None = None,
        key: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Let dead flags wait again from scratch, due now, and flags that are backing off be due now; return how many.

        Without an argument: all of them. Many are done in short transactions, between which the site finds its turn; within a
        transaction of the caller's they are a part of it.

        :param progress: called between two transactions with how many are done; an exception that it raises ends the work there.
        """
        where = self._where(kind=kind, key=key, id=id)
        return self.store.retry(where, self.clock.now(), progress)

    def discard(
        self,
        id: int | Iterable[int] | None = None,
        kind: str | None = None,
        key: str | None = None,
        reason: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Drop dead flags, keeping a line of history for each; return how many. An own row's column is lowered with its flag.

        Without an argument: all of them. Transactions and ``progress`` are as with ``retry``.
        """
        where, own = self._where(kind=kind, key=key, id=id), [k for k, h in self._handlers.items() if h.rows is not None]
        reason = reason or "by hand"
        return self.store.discard(where, reason, self.clock.now(), own, self._lower_rows, progress)

    def lower(self, kind: str, key: str) -> bool:
        """Take a flag down, whatever its state; return whether it was up. A handler that runs just now is not stopped."""
        with self._explained("the flag was not lowered"), self.store.borrowed() as db, db.atomic():
            flags = self.store.find(self._where(kind=kind, key=key))
            lowered = self.store.lower_one(kind, key, self.clock.now())
            self._lower_rows(flags)
        return lowered

    def _lower_rows(self, flags: Iterable[Flag]) -> None:
        """Lower columns of own rows within the open transaction, each by itself: a table may be gone, a key may be none."""
        db, dialect = self.database, self.store.dialect
        for flag in flags:
            handler = self._handlers.get(flag.kind)
            if handler is not None and handler.rows is not None:
                try:
                    with dialect.undoable(db):
                        handler.rows.lower(db, dialect, flag.key)
                except Exception as error:
                    if dialect.is_away(error) or not dialect.in_transaction(db):
                        raise

    def doctor(self) -> list[Any]:
        """Check the surroundings; return findings, each with its level, what was found, and the fix."""
        from .operations.doctor.examine import examine

        return examine(self)

    def handler_of(self, kind: str) -> Handler:
        """Return the handler of a kind or of one of its aliases.

        :raises UnknownKind: naming the kinds there are.
        """
        if kind not in self._handlers:
            raise UnknownKind(
                f"no handler is registered for the kind {kind!r}; there are {', '.join(sorted(self._handlers)) or 'none'}"
            )
        return self._handlers[kind]

    # Within.

    def _lane_of(self, kind: str) -> str:
        return self._handlers[kind].lane if kind in self._handlers else NOBODY

    def _options_of(self, kind: str) -> Options | None:
        return self._handlers[kind].options if kind in self._handlers else None

    def _on_dead(self, claimed: Claimed, error: str) -> None:
        self._deaths.tell(claimed.kind, claimed.key, claimed.payload, error)

    def nudge(self, lane: str) -> None:
        """Tell consumers on other hosts, once the open transaction commits, that a flag of this lane is due: where they would
        otherwise see it a second later, and the setting ``nudge`` does not forbid it. Never raises, never waits."""
        opened = self._open()
        if opened.nudges and opened.queue is not None:
            opened.queue.nudge(lane, opened.store.site)

    def _explained(self, failed: str) -> AbstractContextManager[None]:
        return self.store.explained(failed)


def kind_of(function: Any) -> str:
    """Return the kind that a function has where none is given."""
    name = getattr(function, "__name__", "")
    if name == "<lambda>":
        raise ConfigError("a lambda has no name that could be its kind: write a function, or give kind='...'")
    return name


def where_is(function: Any) -> str:
    """Return module and name of a function."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


def _refuse_other_database(rows: OwnRows, store: Store) -> None:
    """Refuse a model whose rows our own connections would never find."""
    other = name_if_other(rows.model._meta.database, store)
    if other is not None:
        raise ConfigError(
            f"{rows.model.__name__} lives in {other}, and the flags in {store.where}: give flagsweep the database "
            "of the model, or raise a flag where the row is written"
        )

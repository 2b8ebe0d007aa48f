"""The desk: what a FlagSweep offers to those who look after its flags."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from ..consumer.opened import Opening
from ..consumer.outlook import Running
from ..handlers import Handler, Handlers
from ..models import Raised
from .site import Site

if TYPE_CHECKING:  # Each view is entered when it is asked for: a consumer, and a site that only raises, start without them.
    from .carrying.exporting import Exported
    from .carrying.importing import Imported
    from .carrying.move import Moved
    from .dead import Dead, DeadGroup
    from .doctor.finding import Finding
    from .drain import Drain
    from .flags import Flags
    from .gate_info import GateInfo
    from .gates import Gates
    from .health import Health
    from .history import HistoryLines
    from .info import FlagInfo
    from .kinds import KindInfo
    from .outlook import Outlook
    from .prune import Pruned
    from .reconcile import Discrepancy
    from .restored import Restored
    from .results import Result
    from .running import InHand
    from .schedules import Schedules
    from .why.answer import Why


class Desk(Site):
    """Look after flags."""

    _opening: Opening
    _handlers: Handlers

    def _by_kind(self) -> Mapping[str, Handler]:
        """Return the handlers by kind, aliases included."""
        return {kind: self.handler_of(kind) for kind in self.handled}

    def lane_names(self) -> list[str]:
        """Return the lanes that settings or handlers name."""
        return sorted({*self.settings.lanes, *(handler.lane for handler in self._by_kind().values())})

    def status(self) -> dict[str, Any]:
        """Return what is up: ``lanes`` with counts and the oldest due flag's age in seconds, ``consumers``, and
        ``overdue_schedules``: those that are due and have no handler here.

        Where a server has not counted all within a fifth of a second, ``exact`` is there, and False: there are at least so many.

        Flags of kinds without a handler are counted under the lane ``-``.
        """
        from .status import status

        return status(self.store, self.verbs, self.lane_names(), self._by_kind(), self.clock)

    def check(self, dead_since: Any = "24h", needs_consumer: bool = True) -> Health:
        """Return how the site is: whether a consumer ticks and sweeps, what breaks the promise of its lane, and what died lately.

        ``level`` is ``ok``, ``warning``, ``critical`` or ``unknown``, ``code`` 0 to 3, and ``line`` says all in one line. It asks
        no more beside a million flags than beside ten. A database that does not answer is critical: nothing is swept, either.

        :param dead_since: flags that died within this duration are worth a warning; 0: none is.
        :param needs_consumer: whether nobody sweeping is critical; False for a site that calls ``sweep`` from elsewhere.
        """
        from .health import checked

        return checked(self, dead_since, needs_consumer)

    def _watched(self, running: Running) -> Outlook:
        from .outlook import Outlook

        return Outlook(self, running)

    def why(self, what: int | str | None = None, key: Any = None, *, lane: str | None = None, schedule: str | None = None) -> Why:
        """Return why something does not run: the reason, since when, when it will, what happened last, and what would change it.

        ``str`` of the answer is its text; ``docs/why-not.md`` lists the reasons. It asks no more beside a million flags than
        beside ten, and answers where the database does not, or is the wrong one.

        :param what: a flag's id; the name of a kind, or of a lane or a schedule where no kind has that name; None: the site.
        :param key: with a kind, the flag of that key: its text, or the arguments of the raise as a dict.
        :raises ConfigError: where more than one thing is named.
        """
        from .why.ask import why

        return why(self, what, key, lane, schedule)

    def kinds(self) -> list[KindInfo]:
        """Return how each kind does, by name: what is due, how much is done, how well, and how long it takes.

        Kinds that have a handler here, flags, or runs within the last day.
        """
        from .kinds import kinds

        return kinds(self.connections, self.verbs, self._by_kind(), self.clock)

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
        return self._flags().find(limit, kind=kind, state=state, key=key, lane=lane, id=id, due=due)

    def count_dead(self, **which: Any) -> int:
        """Return how many dead flags are meant.

        :param which: ``id``, ``kind``, ``key``, ``group``, ``error``, ``before`` and ``after``, as with ``retry``.
        """
        return self._dead().count(**which)

    def some_dead(self, limit: int, **which: Any) -> list[FlagInfo]:
        """Return some of the dead flags that are meant in that way."""
        return self._dead().some(limit, **which)

    def dead(self, kind: str | None = None, *, sort: str = "latest", limit: int | None = 100) -> list[DeadGroup]:
        """Return the dead flags grouped by kind and by what they died of, each group with its count, an example, and an id that
        ``retry`` and ``discard`` take.

        :param sort: ``latest``, that of which one died last first, or ``count``.
        :param limit: the most groups; None for all.
        """
        return self._dead().groups(kind, sort, limit)

    def result(self, raised: Raised) -> Result:
        """Return what became of a raise: ``state``, and ``value`` or ``error``; ``result(raised).wait(timeout)`` waits for it.

        Where the raise met a flag that was up, it is that of the first run that began after it. A value is there where the
        handler has ``result=True``, for as long as history is kept.

        :param raised: what ``raise_flag`` returned; its transaction must have committed.
        """
        from .results import Results

        return Results(self.store, self.verbs, self.settings).of(raised)

    def retry(
        self,
        id: int | Iterable[int] | None = None,
        kind: str | None = None,
        key: str | None = None,
        progress: Callable[[int], None] | None = None,
        *,
        group: str | Iterable[str] | None = None,
        error: str | None = None,
        before: object = None,
        after: object = None,
        rate: object = None,
        backing_off: bool = True,
    ) -> int:
        """Let dead flags wait again from scratch, due now, and flags that are backing off be due now; return how many.

        Without an argument: all of them. Many are done in short transactions, between which the site finds its turn; within a
        transaction of the caller's they are a part of it.

        :param progress: called between two transactions with how many are done; an exception that it raises ends the work there.
        :param group: the dead of these groups of ``dead``; ``error``, those whose error has this text in it; ``before`` and
            ``after``, those that died then: a ``datetime`` with a time zone, or how long ago. With any of these, or with a
            rate, flags that back off are left alone.
        :param rate: at most so many, such as ``"10/m"``: each gets a due time of its own in its row, so that nobody need stay.
        :param backing_off: whether flags that back off are due now, too.
        """
        filters = {"group": group, "error": error, "before": before, "after": after}
        if backing_off and rate is None and all(value is None for value in filters.values()):
            return self._flags().retry(id, kind, key, progress)
        return self._dead().retry_dead(rate, progress, id=id, kind=kind, key=key, **filters)

    def discard(
        self,
        id: int | Iterable[int] | None = None,
        kind: str | None = None,
        key: str | None = None,
        reason: str = "",
        progress: Callable[[int], None] | None = None,
        *,
        group: str | Iterable[str] | None = None,
        error: str | None = None,
        before: object = None,
        after: object = None,
    ) -> int:
        """Drop dead flags, keeping a line of history for each; return how many. An own row's column is lowered with its flag.

        Without an argument: all of them. Transactions, ``progress``, ``group``, ``error``, ``before`` and ``after`` are as with
        ``retry``.
        """
        filters = {"group": group, "error": error, "before": before, "after": after}
        return self._dead().discard_dead(reason, progress, id=id, kind=kind, key=key, **filters)

    def lower(self, kind: str, key: str) -> bool:
        """Take a flag down, whatever its state; return whether it was up. A handler that runs just now is not stopped."""
        return self._flags().lower(kind, key)

    @property
    def schedules(self) -> Schedules:
        """The schedules, to ``list``, ``add``, ``edit``, ``pause``, ``resume``, ``run_now``, ``remove`` and ``reset``."""
        from .schedules import Schedules

        opened = self._opening.opened()
        return Schedules(self, self._by_kind(), self._handlers.schedules, partial(opened.tell, opened.verbs.commits))

    def pause(
        self,
        kind: str | None = None,
        *,
        lane: str | None = None,
        schedule: str | None = None,
        reason: str = "",
        until: object = None,
        by: str | None = None,
    ) -> None:
        """Have no flag of a kind start, none of a lane, or, where nothing is named, none at all. What runs goes on, and so does
        raising; schedules of what is paused do not fire, and their ``missed`` decides when it goes on.

        It commits with the site's transaction. A running consumer sees it within a second, and gives back what it has claimed
        and not started. ``sweep()`` obeys, ``sweep(force=True)`` does not.

        :param until: when it goes on by itself: a ``datetime`` with a time zone, or how long from now: seconds, a ``timedelta``
            or text such as ``"2h"``. Without it, it waits for ``resume``.
        :param by: who pauses; by default the name of this user on this host.
        :raises UnknownKind, UnknownSchedule, ConfigError: naming the nearest names there are; without handlers, those of kinds
            and lanes are taken as they are.
        """
        self._gates().pause(kind, lane, schedule, reason, until, by)

    def resume(
        self, kind: str | None = None, *, lane: str | None = None, schedule: str | None = None, by: str | None = None
    ) -> bool:
        """Let go on what was paused by that name; without one, only what the pause of all has stopped. Return whether it was
        paused.

        :param by: who has it go on: for the log.
        """
        return self._gates().resume(kind, lane, schedule, by)

    def set_threads(self, lane: str, threads: int | None) -> None:
        """Give a lane so many threads, in consumers that run as well; None: as many as the settings say.

        More begin at once, fewer as they end what they do. It commits with the site's transaction.

        :raises ConfigError: for what is no number from 1 to 1000, or a lane that nobody has.
        """
        self._gates().set_threads(lane, threads)

    def gates(self) -> list[GateInfo]:
        """Return what is closed or limited just now, and why: all first, then lanes, kinds and schedules."""
        return self._gates().infos()

    def _gates(self) -> Gates:
        from .gates import Gates

        return Gates(self.connections, self.settings, self._by_kind(), self.lane_names(), self.clock)

    def running(self) -> InHand:
        """Return what consumers have in hand: which flags run, since when, and where."""
        from .running import in_hand

        return in_hand(self.store, self._by_kind(), self.settings.state_dir, self.clock.now())

    def drain(self, until: object = "15m", by: str | None = None) -> Drain:
        """Have nothing start any more, for a deploy: ``drain().wait(60)`` returns what still runs then, nothing where all has
        ended; ``undrain()`` has it go on.

        It is a pause of all with the reason "drain", and holds as each does: over all consumers, once it has committed.

        :param until: when it goes on by itself, as for ``pause``: a deploy that fails leaves no pause behind.
        :param by: who drains; by default the name of this user.
        """
        drain = self._drain()
        drain.begin(until, by)
        return drain

    def undrain(self) -> bool:
        """Have all go on that was drained; return whether it was. What is paused for another reason stays so."""
        return self._drain().resume()

    def _drain(self) -> Drain:
        from .drain import Drain

        return Drain(self.connections, self._gates(), self.running, self.clock)

    @property
    def restored(self) -> Restored | None:
        """Why all is paused until somebody confirms the database, and what would be done then: it seems to be a backup that was
        restored, or a copy. None: it is not held back."""
        from .restored import restored

        return restored(self)

    def confirm(self, drop: bool = False, by: str | None = None, progress: Callable[[int], None] | None = None) -> int:
        """Take the database for the right one, wherever it is swept from now on, and have it go on; return how many flags were
        dropped.

        To call it before the first start of a copy spares the pause. A pause that a person had made before stays.

        :param drop: take down all flags that wait, first, with a line of history for each. Rows that ``when`` finds are found
            again.
        :param by: who confirms; by default the name of this user.
        :param progress: as for ``retry``.
        """
        from .restored import confirm

        return confirm(self, drop, by, progress)

    def doctor(self) -> list[Finding]:
        """Check the surroundings; return findings, each with its level, what was found, and the fix."""
        from .doctor.examine import examine

        return examine(self)

    def reconcile(self, fix: bool = False, progress: Callable[[str], Any] | None = None) -> list[Discrepancy]:
        """Return what does not fit together: rows that are work and have no flag, flags whose own row is gone, claims of nobody,
        kinds that no handler takes, schedules that cannot fire.

        All is looked at some at a time, in short statements.

        :param fix: mend what a sweep would: raise, give back, or drop with a line of history; the rest takes a person.
        :param progress: called with what is looked at.
        """
        from .reconcile import Reconcile

        return Reconcile(self, fix, progress).all()

    def export(
        self,
        to: str | os.PathLike[str] | IO[bytes],
        kind: str | None = None,
        state: str | None = None,
        history: bool = True,
        progress: Callable[[int], Any] | None = None,
    ) -> Exported:
        """Write flags, schedules, gates, history and counts as lines of JSON, all of one moment; return how many.

        :param to: a path, at which a file is put once it is whole, or a binary file.
        :param kind: only what is of this kind.
        :param state: only flags in this state.
        :param progress: called with how many rows were read.
        """
        from .carrying.exporting import Export, export_to

        return export_to(Export(self.connections, self.clock, kind, state, history), to, progress)

    def import_(
        self,
        file: str | os.PathLike[str] | IO[bytes],
        replace: bool = False,
        dry_run: bool = False,
        progress: Callable[[int], Any] | None = None,
    ) -> Imported:
        """Read what ``export`` wrote; return what was new, there already, and there with other contents.

        All lines are verified before the first is imported. What is there to the letter is left alone, so that the same import
        goes on where it was cut off. Flags that were claimed come waiting.

        :param file: a path, or a binary file that can go back to its beginning.
        :param replace: what is up by the same kind and key, or is there by the same name, is replaced; else it stays.
        :param dry_run: only tell what would be done.
        """
        from .carrying.importing import Import, import_from

        return import_from(Import(self.connections, self.clock, replace, dry_run), file, progress)

    def move(self, to: Any, progress: Callable[[str, int, int], Any] | None = None) -> Moved:
        """Move flags, schedules, gates, history and counts to another database, and leave this one paused; return what was done.

        Both databases must be without a living consumer, and the other one without flags. All is compared at the end; what came
        here meanwhile is moved, too. Whatever ends it, the same call goes on where it was; afterwards it raises there what was
        raised here since.

        :param to: a URL, a path or a Peewee database. Its tables are made.
        :param progress: called with what is done, with how many rows, and of how many in all; what it raises ends it there.
        :raises LeaseHeld: where a consumer lives in either, or another move goes on.
        :raises FlagSweepError: where the other database has flags of its own.
        """
        from .carrying.move import move

        return move(self, to, progress)

    def history(
        self,
        kind: str | None = None,
        key: str | None = None,
        flag: int | None = None,
        event: str | None = None,
        since: object = None,
        until: object = None,
        limit: int | None = 100,
    ) -> HistoryLines:
        """Return what happened to flags, newest first, for as long as that is kept.

        :param event: ``failed``, ``dead``, ``succeeded``, ``discarded``, ``expired``, ``skipped`` or ``lowered by hand``.
        :param since: a ``datetime`` with a time zone, or how long ago: seconds, a ``timedelta`` or text such as ``"2h"``. So is
            ``until``.
        :param limit: the most lines; None for all.
        """
        from .history import history

        wanted = {"kind": kind, "key": key, "flag": flag, "event": event, "since": since, "until": until}
        return history(self.connections, self.clock, limit, **wanted)

    def prune(
        self,
        older_than: Any = None,
        *,
        dead: bool = False,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Pruned:
        """Delete history and counts that are older than they are kept; return how many lines of each. Consumers do the same by
        and by, as the settings say.

        :param older_than: seconds, a ``timedelta`` or text such as ``"30d"``: whatever is older goes. Without it, as the
            settings keep_history, history_rows and keep_counts say.
        :param dead: discard flags that have been dead for so long, too, with a line of history for each.
        :param dry_run: only count.
        :param progress: called between two transactions with how many are done.
        :raises ConfigError: for the dead without ``older_than``.
        """
        from .prune import prune

        return prune(self, older_than, dead, dry_run, progress)

    def _dead(self) -> Dead:
        from .dead import Dead

        return Dead(self.verbs, self._by_kind(), self.clock)

    def _flags(self) -> Flags:
        from .flags import Flags

        return Flags(self.verbs, self._by_kind(), self.clock)

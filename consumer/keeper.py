"""The keeper, which looks after the database."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..config import LONGEST, SECOND
from ..logs import AS_EVENT, Seldom, printable, tell_event
from ..models import AWAY
from ..sweep.lane import Lane
from ..sweep.records import Records
from .chores import Chore, Chores
from .duties import Duties
from .firing import Firing

log = logging.getLogger("flagsweep")

Gate = tuple[str, str]
"""Its sort and its name."""

OVERDUE = 30
"""Seconds after which a due flag that has no handler here counts as nobody's: another application would have begun it."""


class Keeper(Chores):
    """Look after what nobody else does in the database: free what the dead had claimed, mend times, ask for what is overdue.

    :param ask: asks for a sweep of a lane.
    :param rescue: frees what dead consumers had claimed; returns how many flags.
    :param id: returns that of its consumer.
    :param look_at_stamp: stamps the database, and pauses all where it went back in time.
    """

    LONG_LOG = 64 * 1024 * 1024
    """Bytes of a write-ahead log that are worth a line in ours."""

    def __init__(
        self,
        duties: Duties,
        lanes: Mapping[str, Lane],
        ask: Callable[[str], None],
        rescue: Callable[[], int],
        firing: Firing,
        id: Callable[[], int],
        look_at_stamp: Callable[[], None] | None = None,
    ):
        store, clock = duties.store, duties.clock
        # On a server a lock must have been free for a while: to take over within two seconds, it is looked at more often.
        tick, now = 0.25 if store.connections.dialect.shared else 1.0, clock.monotonic()
        self._mending = Chore(self._mend_times, math.inf, now)
        chores = [
            Chore(self._free_the_dead, tick, now + tick),
            Chore(self._fire_schedules, tick, now + tick),
            Chore(self._check_clock, 1, now + 1),
            self._mending,
            Chore(self._trim_log, 5),
            Chore(self._say_it_goes_on, 60, now + 1),
            Chore(self._release_strays, 15, now + 15),
            Chore(self._ask_for_the_overdue, 30, now + 30),
            Chore(self._name_unknown_kinds, 20),
            Chore(self._prune, 600, now + 60),
            Chore(self._roll_counts, 3600, now + 90),
            Chore(self._forget_gates, 900, now + 120),
        ]
        if (promises := duties.promises) is not None:
            chores.append(Chore(self._watch_promises, promises.every, now + promises.every))
        if look_at_stamp is not None:
            chores.append(Chore(look_at_stamp, 1, now + 1))
        super().__init__("flagsweep-keeper", tick, chores, clock)
        self._store = store
        self._lanes = lanes
        self._ask = ask
        self._rescue = rescue
        self._firing = firing
        self._settings = duties.settings
        self._records = Records(store.connections)
        self._offset = self._clock_offset()
        self._duties = duties
        self._id = id
        self._noted_at = 0
        self._unknown: set[str] = set()
        self._pulse = store.pulse()  # What is there at the start each lane reads by itself.
        self._pauses: set[Gate] = set()
        self._told_of_log = Seldom()

    def _end(self) -> None:
        self._store.connections.close_thread()

    def _free_the_dead(self) -> None:
        if self._rescue():
            for name in self._lanes:
                self._ask(name)

    def _fire_schedules(self) -> None:
        """Fire what nobody waits for: a schedule that was changed elsewhere just now, or without a watcher.

        Gates that were changed are looked at, too: a commit of that alone tells nobody on a server.
        """
        kinds = {kind for _, kind in self._firing.fire()}
        changed = self._firing.pulse != self._pulse
        self._pulse = self._firing.pulse
        self._tell_of_pauses()
        for name, lane in self._lanes.items():
            if changed:
                lane.look_at_gates(self._pulse)
            if changed or kinds.intersection(lane.kinds):
                self._ask(name)

    def _tell_of_pauses(self) -> None:
        """Say what waits since somebody paused it, and what goes on: whoever did so was in another process."""
        pauses = self._firing.shut.all_pauses(self._clock.now())
        for sort, name in sorted(pauses.keys() - self._pauses):
            log.info("%s waits: %s", printable(f"{sort} {name}".strip()), printable(pauses[sort, name].why), extra=AS_EVENT)
            tell_event("paused", of=sort, name=name, why=pauses[sort, name].why)
        for sort, name in sorted(self._pauses - pauses.keys()):
            log.info("%s goes on", printable(f"{sort} {name}".strip()), extra=AS_EVENT)
            tell_event("resumed", of=sort, name=name)
        self._pauses = set(pauses)

    def _say_it_goes_on(self) -> None:
        """Say that this consumer goes on: its lease tells that it lives, this that it does not only live.

        Once an hour it is noted who serves which kinds, for the day on which nobody does and somebody asks who had.
        """
        now = self._clock.now()
        with suppress(*AWAY):  # The lanes tell of a database that is away; this is said again a minute later.
            self._store.tick(self._id(), json.dumps({name: lane.told() for name, lane in self._lanes.items()}), now)
            if now - self._noted_at >= 3600 * SECOND:
                self._store.note_served(self._duties.served(), now)
                self._noted_at = now

    def _clock_offset(self) -> float:
        return self._clock.now() / SECOND - self._clock.monotonic()

    def _check_clock(self) -> None:
        """Mend due times where the wall clock was set back: what it had dated would wait for the old time to come again."""
        offset = self._clock_offset()
        jump, self._offset = offset - self._offset, offset
        if abs(jump) >= 2:
            log.warning("the clock jumped by %+.0f s", jump)
            self._mending.due = self._clock.monotonic()

    def _mend_times(self) -> None:
        now = self._clock.now()
        mended = self._store.heal_clock(now, now + int((LONGEST + 86400) * SECOND))
        if mended:
            log.warning("mended the due times of %d flags that a wrong clock had written", mended)
        self._firing.mend()

    def _release_strays(self) -> None:
        """Give back claims of which nobody knows: a server may carry one out after its consumer gave up waiting, or died."""
        for lane in self._lanes.values():
            lane.release_strays()
        freed = self._store.release_orphans(self._clock.now())
        if freed:
            log.warning("%d flags are free again that were claimed by a consumer which is gone", freed)

    def _ask_for_the_overdue(self) -> None:
        """Do the minute's work where Huey's scheduler does not."""
        for name, lane in self._lanes.items():
            if not lane.busy and lane.has_due():
                lane.demand.lose()  # What was asked for half a minute ago was lost with the queue.
                self._ask(name)

    def _trim_log(self) -> None:
        """Shorten the write-ahead log. A reader that never ends keeps anybody from that, so it is told of once a minute."""
        size = self._store.trim_log()
        if size > self.LONG_LOG and self._told_of_log.may_tell(self._clock.monotonic()):
            log.warning(
                "the database's log has %d MiB and cannot be written back: some program leaves a query or a transaction open",
                size >> 20,
            )

    def _name_unknown_kinds(self) -> None:
        """Tell of kinds that nobody serves: flags that are overdue and have no handler here, nor, it seems, elsewhere."""
        now = self._clock.now()
        served = {kind for lane in self._lanes.values() for kind in lane.kinds}
        unknown = set(self._store.waiting_kinds()) - served
        overdue = (
            {kind for kind, _, due in self._store.agenda(list(unknown)) if due <= now - OVERDUE * SECOND} if unknown else set()
        )
        if overdue - self._unknown:
            log.warning(
                "flags of kinds without a handler wait: %s; no other application has begun them for %d s, either",
                ", ".join(sorted(printable(str(kind)) for kind in overdue)),
                OVERDUE,
            )
        self._unknown = overdue

    def _watch_promises(self) -> None:
        """Have an alarm begin where a lane breaks its promise, and end where it keeps it again."""
        if self._duties.promises is not None:
            self._duties.promises.look()

    def _prune(self) -> None:
        self._records.prune(self._settings.keep_history, self._settings.history_rows, self._clock.now())

    def _forget_gates(self) -> None:
        self._records.forget_gates(self._clock.now())

    def _roll_counts(self) -> None:
        self._records.roll(self._settings.keep_counts, self._clock.now())

"""The watcher, which sees commits, and what became due."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from ..config import SECOND, Clock
from ..models import AWAY
from ..sweep.claimer import Due
from ..sweep.claims import Store
from ..sweep.lane import Lane
from .firing import Firing
from .wakeups import Bell

log = logging.getLogger("flagsweep")

_BLIND: tuple[type[Exception], ...] = (*AWAY, OSError)


class Watcher(threading.Thread):
    """Ask for a sweep as soon as a commit made a flag due, or its time has come.

    A write to the log is seen a little before its commit can be read, so the database's ``data_version`` is asked for a while
    after each: every 0.3 ms at first, then less and less often, until nothing has changed for ten seconds.
    """

    FIRST, GROWTH, LAST, WINDOW = 0.0003, 1.5, 0.25, 10.0
    BUSY = 0.005
    """Seconds between two looks while a sweep runs: its own commits ring, too."""
    LATER = 0.02
    """Seconds until a look where the server has told what is due: not beside the claim of that."""

    def __init__(
        self, store: Store, lanes: Mapping[str, Lane], ask: Callable[[str], None], bell: Bell, clock: Clock, firing: Firing
    ):
        super().__init__(name="flagsweep-watcher", daemon=True)
        self._store = store
        self._lanes = lanes
        self._ask = ask
        self._bell = bell
        self._clock = clock
        self._firing = firing
        self._lane_of = {kind: name for name, lane in lanes.items() for kind in lane.kinds}
        self._kinds: dict[tuple[str, ...], str] = {}
        """Kinds that are open, as a JSON array."""
        self._version: int | None = None
        self._unlooked = False
        """Whether something has changed since the last look: what was told of is not all that a commit may hold."""
        self._next_due: float = 0.0
        self._looked_at = 0.0
        """When it last looked, in seconds of the monotonic clock."""
        self._stopping = False

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._bell.close()
        if self.ident is None:  # It was never started, and frees nothing.
            self._bell.free()

    def run(self) -> None:
        """Watch until stopped; a database that is away is asked again every second."""
        alert, window = None, 0.0
        while not self._stopping:
            try:
                rung = self._bell.wait(self._until_due(), alert)
                told = self._pass_on(self._bell.heard())
                changed = self._has_changed()
                self._unlooked = self._unlooked or changed
                now = self._clock.monotonic()
                if told:
                    self._next_due = min(self._next_due, now + self.LATER)
                if now >= self._next_due or (not told and (changed or self._may_a_lane_see(now))):
                    self._look(self._unlooked)
                    self._unlooked = False
            except Exception as error:  # Out of memory, too: without a watcher only the sweep of the minute would find work.
                level = logging.DEBUG if isinstance(error, _BLIND) else logging.ERROR
                log.log(level, "the watcher cannot look: %s", error)
                with suppress(Exception):
                    self._store.connections.close_thread()
                self._next_due = self._clock.monotonic() + 1
                time.sleep(0.2)
                continue
            if (rung or changed) and self._bell.rings_early:
                alert, window = self.BUSY if self._is_busy() else self.FIRST, now + self.WINDOW
            elif alert is not None:
                alert = min(self.LAST, alert * self.GROWTH) if now < window else None
        self._store.connections.close_thread()
        self._bell.free()

    def _until_due(self) -> float:
        return max(0.0, min(self._next_due - self._clock.monotonic(), 1.0 if self._is_busy() else 30.0))

    def _is_busy(self) -> bool:
        return any(lane.busy for lane in self._lanes.values())

    def _may_a_lane_see(self, now: float) -> bool:
        """Return whether a lane that was asked too early to look for own rows may look since we last looked: it says so only
        once asked."""
        wake_at = [lane.discovery.wake_at for lane in self._lanes.values()]
        return any(at is not None and self._looked_at < at <= now for at in wake_at)

    def _has_changed(self) -> bool:
        version = self._store.changes()
        changed = version != self._version
        self._version = version
        return changed

    def _pass_on(self, heard: set[Due]) -> bool:
        """Have what was told of claimed, which spares a look; return whether there was anything."""
        due = self._by_lane(heard)
        for name, what in due.items():
            if not self._lanes[name].claim_at_once(what):
                self._lanes[name].claimer.hint(what)
                self._ask(name)
        return bool(due)

    def _look(self, changed: bool) -> None:
        """Fire schedules, have each lane do what is due, and take note when to look next."""
        self._firing.fire()
        now, clock = self._clock.now(), self._clock.monotonic()
        self._looked_at, next_due = clock, clock + 30
        if (fires_at := self._firing.next_at(now)) is not None:
            next_due = min(next_due, clock + max(0.001, (fires_at - now) / SECOND))
        found = []
        next_due = min(next_due, self._next_opening(now, clock, changed))
        for kind, priority, earliest in self._store.agenda_of(self._open_kinds(now)):
            if earliest <= now:
                found.append((priority, kind))
            else:
                next_due = min(next_due, clock + (earliest - now) / SECOND)
        due, wanted = self._by_lane(found), set()
        for name, lane in self._lanes.items():
            wake_at = lane.discovery.wake_at
            if wake_at is not None and wake_at > clock:
                next_due = min(next_due, max(wake_at, clock + 0.001))
            if lane.discovery.has_rows and (changed or (wake_at is not None and wake_at <= clock)):
                wanted.add(name)  # Its sweep looks for them; where that waits for a locked file, to ask at once again would spin.
        if due or wanted:
            next_due = min(next_due, clock + 1)
        self._next_due = next_due
        wanted.update(name for name, what in due.items() if not self._lanes[name].claim_at_once(what))
        for name in wanted:
            self._ask(name)

    def _open_kinds(self, now: int) -> str:
        """Return the kinds that no gate keeps closed, as a JSON array."""
        kinds = tuple(kind for lane in self._lanes.values() for kind in lane.gates.known.open(lane.kinds, now))
        if kinds not in self._kinds:
            self._kinds = {kinds: json.dumps(sorted(kinds))}
        return self._kinds[kinds]

    def _next_opening(self, now: int, clock: float, changed: bool) -> float:
        """Return when the next gate opens by itself, in seconds of the monotonic clock, once all were read that have changed."""
        times = []
        for lane in self._lanes.values():
            lane.look_at_gates(self._firing.pulse)
            if changed:
                lane.gates.known.stir(now)
            if (opens_at := lane.gates.known.opens_at(now)) is not None:
                times.append(clock + max(0.001, (opens_at - now) / SECOND))
        return min(times, default=math.inf)

    def _by_lane(self, due: Iterable[Due]) -> dict[str, list[Due]]:
        """Return what is due of each lane; what has no handler here is nobody's."""
        by_lane: dict[str, list[Due]] = defaultdict(list)
        for priority, kind in due:
            if kind in self._lane_of:
                by_lane[self._lane_of[kind]].append((priority, kind))
        return by_lane

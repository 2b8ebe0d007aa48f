"""Alarms: a lane breaks its promise, and keeps it again. Each is told once, whichever consumer sees it, and over restarts."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..config import SECOND, Settings
from ..durations import span
from ..handlers import Handler
from ..logs import AS_EVENT, printable, tell_event
from ..models import Fact, facts
from ..operations.flags import NOBODY
from ..operations.promises import Wait, promise_of, waits
from ..sweep.claims import Store
from .turns import is_new

log = logging.getLogger("flagsweep")

PREFIX = "promise:"
"""What the name of a note begins with that says that an alarm is on; the rest is the lane."""

LEAST, MOST = 2.0, 15.0
"""Seconds from one look to the next: a quarter of the shortest promise, within these."""

CALM = 60.0
"""Seconds for which a lane must have kept half of its promise before its alarm ends; no longer than the promise itself."""


@dataclass(frozen=True)
class Alarm:
    """Tell that a lane breaks its promise, or keeps it again.

    :ivar event: ``began`` or ``ended``.
    :ivar kind: of the flag that waits for the longest, or did when it began.
    :ivar waited_s: for how long that waited when it began; ``promised_s``, how long it should at the most.
    :ivar lasted_s: for how long the alarm was on; 0.0 where it begins.
    :ivar text: all of it in a sentence.
    """

    lane: str
    event: str
    kind: str
    waited_s: float
    promised_s: float
    lasted_s: float
    text: str


class Alarms:
    """Look whether lanes keep their promises.

    :param handlers: by kind, aliases included: lanes of others are looked after by others.
    :param write: called within the transaction that notes an alarm.
    :param tell: called once it has committed.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        handlers: Mapping[str, Handler],
        now: Callable[[], int],
        write: Callable[[Alarm], Any],
        tell: Callable[[Alarm], Any],
    ):
        self._connections = store.connections
        self._settings = settings
        self._handlers = handlers
        self._now = now
        self._write = write
        self._tell = tell
        self._late: set[str] = set()
        self._well: dict[str, int] = {}
        """Since when lanes with an alarm have been seen to be well, in microseconds UTC."""

    @property
    def every(self) -> float:
        """Seconds from one look to the next."""
        return min(MOST, max(LEAST, min(self._settings.promise.values(), default=MOST) / 4))

    def look(self) -> None:
        """Look once: what is late twice in a row begins an alarm, and what has been well for a while ends it."""
        now, db = self._now(), self._connections.engine
        found = waits(db, self._connections.dialect, self._settings, self._handlers, now)
        ours = [wait for wait in found if wait.said and wait.lane != NOBODY]
        late: dict[str, Wait] = {}
        for wait in ours:
            if wait.broken and wait.by is None:  # Who has paused it knows that it waits.
                late.setdefault(wait.lane, wait)
        on = {note.name.removeprefix(PREFIX): note for note in facts(db, PREFIX)}
        for lane in late.keys() - on.keys():
            if lane in self._late:
                self._begin(late[lane], now)
        for lane, note in on.items():
            if self._is_well(lane, note, ours, now):
                self._end(lane, note, now)
        self._late = set(late)

    def _begin(self, wait: Wait, now: int) -> None:
        held = f": {wait.held}" if wait.held else ""
        waited = f"{wait.kind} waits for {span(wait.waited_s)}, promised are {span(wait.promised_s)}{held}"
        text = printable(f"lane {wait.lane} breaks its promise: {waited}")
        alarm = Alarm(wait.lane, "began", wait.kind, wait.waited_s, wait.promised_s, 0.0, text)
        value = json.dumps({"kind": wait.kind, "waited_s": wait.waited_s})
        with self._connections.write():
            if not is_new(self._connections, PREFIX + wait.lane, value, now):
                return
            self._write(alarm)
        log.warning("%s", text, extra=AS_EVENT)
        self._told(alarm)

    def _is_well(self, lane: str, note: Fact, ours: list[Wait], now: int) -> bool:
        """Return whether an alarm may end: nothing of the lane waits for half of its promise, and has not for a while."""
        promised, said = promise_of(lane, self._settings)
        if _of(note).get("kind") not in self._handlers or not said:
            return False
        if any(wait.lane == lane and not wait.quiet and wait.waited_s > promised / 2 for wait in ours):
            self._well.pop(lane, None)
            return False
        return now - self._well.setdefault(lane, now) >= min(CALM, promised) * SECOND

    def _end(self, lane: str, note: Fact, now: int) -> None:
        self._well.pop(lane, None)
        began, told = note.at if isinstance(note.at, int) else now, _of(note)
        lasted = max(0.0, (now - began) / SECOND)
        text = printable(f"lane {lane} keeps its promise again, after {span(lasted)}")
        promised, waited = promise_of(lane, self._settings)[0], told.get("waited_s", 0.0)
        alarm = Alarm(lane, "ended", str(told["kind"]), waited, promised, lasted, text)
        with self._connections.write() as db:
            if not Fact.delete().where(Fact.name == note.name, Fact.at == note.at).execute(db):
                return  # Another consumer was first.
            self._write(alarm)
        log.info("%s", text, extra=AS_EVENT)
        self._told(alarm)

    def _told(self, alarm: Alarm) -> None:
        level = logging.WARNING if alarm.event == "began" else logging.INFO
        tell_event(f"alarm {alarm.event}", level, lane=alarm.lane, kind=alarm.kind, text=alarm.text)
        self._tell(alarm)


def _of(note: Fact) -> dict[str, Any]:
    try:
        told = json.loads(note.value)
    except (TypeError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}

"""Crash points: places in the life of a flag at which a process can be made to kill itself."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..consumer.membership import Enlisted
from ..consumer.rescue import Rescuer
from ..consumer.runner import Runner
from ..errors import ConfigError
from ..handlers import Handler
from ..models import SiteVerbs
from ..schedules.book import Book
from ..sweep.blackbox import BlackBox
from ..sweep.claimer import Claimer
from ..sweep.claims import Store
from ..sweep.gatekeeper import Gatekeeper
from ..sweep.lane import Lane
from ..sweep.perform import Performer
from ..sweep.settler import Settler
from ..sweep.threads import Pool
from ..tasks import SweepTasks

AT = "FLAGSWEEP_CRASH_AT"
LOG = "FLAGSWEEP_CRASH_LOG"


@dataclass(frozen=True)
class CrashPoint:
    """Name a place in the life of a flag at which a process can be made to kill itself.

    :param text: what is done at this point, and what is not.
    :param owner: the class whose ``method`` is wrapped.
    :param after: whether the place is behind the call, not before it.
    :param when: takes the call's result (None before it) and arguments, and returns whether the call counts.
    """

    name: str
    text: str
    owner: type
    method: str
    after: bool = False
    when: Callable[..., Any] = lambda result, *args: True


def _of(argument: int) -> Callable[..., Any]:
    """Return a condition: this argument, counted from ``self``, is not empty."""
    return lambda result, *args: args[argument]


def _some(result: Any, *_: Any) -> Any:
    return result


def _again(result: Any, *_: Any) -> bool:
    return result[0] == "again"


def _own_row(result: Any, settler: Settler, claimed: Any, outcome: Any, handler: Handler, now: int) -> bool:
    return handler.rows is not None and result == "lowered"


def _turn(part: str) -> Callable[..., Any]:
    return lambda result, lane, turn: getattr(turn, part)


_TABLE = (
    CrashPoint("enlist.before", "a consumer starts and has entered nothing", Store, "enlist"),
    CrashPoint("enlist.held", "it holds the lease of its id, whose row is not committed", Enlisted, "_hold", after=True),
    CrashPoint("enlist.after", "its row is committed, it has no black box", Store, "enlist", after=True),
    CrashPoint("box.after", "it has a black box, no crash log", BlackBox, "__init__", after=True),
    CrashPoint("rescue.before", "it has found a dead consumer and freed nothing", Rescuer, "_rescue"),
    CrashPoint("rescue.planned", "it knows who is to blame and has freed nothing", Store, "rescue", when=_of(2)),
    CrashPoint("rescue.freed", "the dead one's claims are free, its black box is still there", Store, "rescue", after=True),
    CrashPoint("rescue.after", "nothing is left of the dead one", Rescuer, "_rescue", after=True),
    CrashPoint("declare.after", "a schedule is declared and not committed", Book, "_write_one", after=True, when=_some),
    CrashPoint("start.after", "watcher, keeper and guard run, no sweep is asked for", Runner, "_start", after=True),
    CrashPoint("ask.after", "a sweep is asked for", SweepTasks, "ask", after=True),
    CrashPoint("sweep.before", "a sweep begins", Lane, "sweep"),
    CrashPoint("fire.before", "a schedule is due and has not fired", Book, "fire"),
    CrashPoint("fire.moved", "a schedule has its next time, its flag is not raised", Book, "_advance", after=True, when=_some),
    CrashPoint("fire.raised", "a schedule has raised its flag, nothing is committed", Book, "_raise", after=True, when=_of(3)),
    CrashPoint("fire.committed", "a schedule has fired, which is committed", Book, "fire", after=True, when=_some),
    CrashPoint("discover.before", "own rows are found, no flag is made of them", Store, "discover"),
    CrashPoint("discover.after", "flags are made of own rows and not committed", Store, "discover", after=True),
    CrashPoint("claim.before", "flags are due and not claimed", Store, "claim"),
    CrashPoint("claim.after", "flags are claimed and not committed", Store, "claim", after=True, when=_some),
    CrashPoint("claim.committed", "a claim is committed, no thread has it", Claimer, "committed", True, _of(1)),
    CrashPoint("give.after", "the threads have what was claimed", Pool, "give", after=True, when=_of(1)),
    CrashPoint("perform.before", "the black box names a flag whose handler has not begun", Performer, "perform"),
    CrashPoint("perform.after", "a handler is done, its outcome is with nobody", Performer, "perform", after=True),
    CrashPoint("atomic.before", "an atomic flag has no transaction yet", Performer, "_in_transaction"),
    CrashPoint("atomic.done", "an atomic handler is done, its flag is up, nothing is committed", Store, "settle_within"),
    CrashPoint("atomic.lowered", "an atomic flag is lowered and not committed", Store, "settle_within", after=True),
    CrashPoint("atomic.committed", "an atomic flag is lowered and committed", Performer, "_in_transaction", after=True),
    CrashPoint("progress.before", "a handler has come some way and not kept it", Store, "progress"),
    CrashPoint("progress.after", "a handler has kept how far it came", Store, "progress", after=True),
    CrashPoint("raise.before", "a handler raises a flag that is not written", SiteVerbs, "raise_"),
    CrashPoint("raise.after", "a handler has raised a flag and goes on", SiteVerbs, "raise_", after=True),
    CrashPoint("collect.after", "outcomes are taken from the threads and not settled", Pool, "collect", after=True, when=_some),
    CrashPoint("settle.before", "a transaction is open, none of its outcomes is settled", Settler, "settle", when=_of(1)),
    CrashPoint("lower.before", "flags are about to be lowered", Store, "lower"),
    CrashPoint("lower.after", "flags are lowered and not committed", Store, "lower", after=True),
    CrashPoint("row.lowered", "an own row's column is lowered with its flag, uncommitted", Settler, "_lower", True, _own_row),
    CrashPoint("again.after", "a failed attempt is written and not committed", Settler, "_settle_one", True, _again),
    CrashPoint("settle.after", "all outcomes are settled and not committed", Settler, "settle", after=True, when=_of(1)),
    CrashPoint("settle.committed", "outcomes are settled and committed", Lane, "_write", after=True, when=_turn("outcomes")),
    CrashPoint("noted.before", "a schedule's flag is settled, how it ended is not noted", Book, "ended"),
    CrashPoint("noted.after", "how a schedule's flag ended is noted", Book, "ended", after=True),
    CrashPoint("sweep.after", "a sweep has ended, its lock is held", Lane, "sweep", after=True, when=_some),
    CrashPoint("stop.before", "the consumer was told to stop and has given nothing back", Runner, "_wind_down"),
    CrashPoint("release.before", "what has not started is about to be given back", Store, "release"),
    CrashPoint("release.after", "it is given back and not committed", Store, "release", after=True),
    CrashPoint("release.committed", "it is given back and committed", Lane, "_write", after=True, when=_turn("recalled")),
    CrashPoint("strike.before", "all is settled, the consumer is still entered", Store, "strike"),
    CrashPoint("strike.after", "the consumer is struck off, its lease is held", Store, "strike", after=True),
    CrashPoint("close.after", "lease and black box are gone, the process is still there", Enlisted, "close", after=True),
)


def _granted(result: Any, gates: Gatekeeper) -> Any:
    return gates._holds._granted


def _probe(result: Any, gates: Gatekeeper, grant: Any, taken: Any, now: int) -> bool:
    return grant.probe is not None and bool(taken)


def _probing(result: Any, gates: Gatekeeper) -> Any:
    return gates._probing


_GATES = (
    CrashPoint("gate.locked", "a kind's gate is locked, nothing is claimed", Gatekeeper, "enter", after=True, when=_some),
    CrashPoint("gate.held", "slots are held and not committed", Gatekeeper, "_take_slots", after=True, when=_some),
    CrashPoint("gate.taken", "tokens are taken and not committed", Gatekeeper, "leave", after=True, when=_of(2)),
    CrashPoint("gate.committed", "tokens and slots are committed, none has started", Gatekeeper, "committed", when=_granted),
    CrashPoint("gate.noted", "what flags tell of a gate is written, not committed", Gatekeeper, "_write_note", True, _some),
    CrashPoint("gate.closed", "a gate is closed for some time and not committed", Gatekeeper, "_close", after=True, when=_some),
    CrashPoint("gate.told", "an outage has begun or ended, nobody is told", Gatekeeper, "_tell"),
    CrashPoint("gate.probing", "a probe is claimed and not committed", Gatekeeper, "leave", after=True, when=_probe),
    CrashPoint("gate.probed", "a probe is claimed and committed, it has not started", Gatekeeper, "committed", when=_probing),
    CrashPoint("gate.freed", "slots are given up and not committed", Gatekeeper, "free", after=True, when=_some),
)

POINTS: Mapping[str, CrashPoint] = {point.name: point for point in (*_TABLE, *_GATES)}
"""Every crash point by name; its ``text`` says where it lies."""


def arm(environ: Mapping[str, str] = os.environ) -> str | None:
    """Make this process kill itself with -9 where ``FLAGSWEEP_CRASH_AT`` says, and return the point's name.

    Without that variable nothing is touched, so that a consumer pays nothing for its crash points.

    :param environ: ``FLAGSWEEP_CRASH_AT=name:n`` means the n-th time that the point of this name is reached, the first where n is
        left out; the name is first written to the file that ``FLAGSWEEP_CRASH_LOG`` names.
    :raises ConfigError: where there is no such point, or n is no number from 1.
    """
    text = environ.get(AT)
    if not text:
        return None
    name, _, count = text.partition(":")
    if name not in POINTS:
        raise ConfigError(f"{AT} names the point {name!r}; there are {', '.join(POINTS)}")
    if not (count or "1").isdecimal() or int(count or "1") < 1:
        raise ConfigError(f"{AT} must be name or name:n with n from 1, got {text!r}")
    _wrap(POINTS[name], _Fuse(name, int(count or "1"), environ.get(LOG)))
    return name


class _Fuse:
    """Kill this process the n-th time it is called, by whatever thread."""

    def __init__(self, name: str, count: int, log: str | None) -> None:
        self._name = name
        self._left = count
        self._log = log
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._burn()

    def _burn(self) -> None:
        if self._log:
            with open(self._log, "a", encoding="utf-8") as log:
                log.write(f"{self._name}\n")
        os.kill(os.getpid(), signal.SIGKILL)


def _wrap(point: CrashPoint, reached: Callable[[], None]) -> None:
    original = getattr(point.owner, point.method)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not point.after and point.when(None, *args):
            reached()
        result = original(*args, **kwargs)
        if point.after and point.when(result, *args):
            reached()
        return result

    setattr(point.owner, point.method, wrapper)

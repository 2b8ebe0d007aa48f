"""Crash tests of a site's handlers: each is killed at a point, in a child process, and what became of its effects is told."""

from __future__ import annotations

import inspect
import linecache
import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any, NamedTuple, NoReturn

from ..app import FlagSweep
from ..config import SECOND, microseconds
from ..databases.inherited import inheritance
from ..errors import ConfigError, FlagSweepError
from ..handlers import Handler
from .clock import FakeClock
from .crashes import AT, arm
from .lending import clocked, empty

Effects = Callable[[], int | Mapping[str, int]]
"""Counts what handlers have done, outside of any process: files, rows, messages. Several effects are told apart by name."""

OURS = {
    "before_handler": ("before the handler", "perform.before", "atomic.before"),
    "after_handler": ("when the handler was done", "perform.after", "atomic.done"),
    "before_commit": ("when the flag was lowered, before the commit", "settle.after", "atomic.lowered"),
    "after_commit": ("when that was committed", "settle.committed", "atomic.committed"),
}
"""The points around a handler: where they lie, and the crash points that they are, without ``atomic`` and with it."""
OF_COROUTINES = {"before_handler": "", "after_handler": "collect.after"}
"""Those that differ for an ``async def`` handler: it begins in the lane's loop, and its outcome is collected with the others."""
AFTER_EFFECT = "after_effect"
PATIENCE = 60.0
"""Seconds after which a child counts as hung."""
MOST_SWEEPS = 100
LIBRARIES = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")})
OWN = f"{__name__.partition('.')[0]}."


class _Line(NamedTuple):
    """A line of a handler at which a process is killed before it is run.

    :param times: the how-maniest time that it is come to.
    """

    code: CodeType
    number: int
    times: int

    def __str__(self) -> str:
        source = linecache.getline(self.code.co_filename, self.number).strip()
        file = os.path.basename(self.code.co_filename)
        return f"before line {self.number} of {file}{', the second time' * (self.times - 1)}: {source}"


@dataclass(frozen=True)
class CrashReport:
    """Tell what became of a handler's effects whose process was killed, and whose flag was then swept to the end.

    :param point: where it was killed.
    :param place: the same, for people.
    :param reached: whether the handler came there at all.
    :param effects: how often each took place, over both runs.
    :param error: that of a flag which is not done even now.
    """

    point: str
    place: str
    reached: bool
    effects: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None

    @property
    def lost(self) -> list[str]:
        """The effects that never took place."""
        return [name for name, count in self.effects.items() if count < 1]

    @property
    def repeated(self) -> list[str]:
        """The effects that took place more than once."""
        return [name for name, count in self.effects.items() if count > 1]

    @property
    def once(self) -> bool:
        """Whether each effect took place once, and the flag is done."""
        return not (self.lost or self.repeated or self.error)

    def __str__(self) -> str:
        told = ", ".join(f"{name} {_outcome(count)}" for name, count in self.effects.items())
        after = f"; the flag is not done: {self.error}" if self.error else ""
        return f"{'killed' if self.reached else 'never came'} {self.place}: {told}{after}"


def _outcome(count: int) -> str:
    return "once" if count == 1 else "lost" if count < 1 else f"repeated ({count} times)"


def crash_points(handler: Handler, within: Iterable[Callable[..., Any]] = ()) -> list[str]:
    """Return the points at which a handler can be killed, in order: for ``@pytest.mark.parametrize``.

    :param within: functions whose lines count, too, such as those that it calls.
    """
    before, *after = OURS
    return [before, *_lines(handler, within), *after]


class CrashTest:
    """Kill the site's handlers in child processes, and say what became of their effects.

    :param flags: whose handlers they are, in a database of its own.
    """

    def __init__(self, flags: FlagSweep):
        self._flags = flags

    def __call__(
        self,
        point: str,
        handler: Handler,
        /,
        *args: Any,
        effects: Effects,
        within: Iterable[Callable[..., Any]] = (),
        **kwargs: Any,
    ) -> CrashReport:
        """Raise a flag, have the process killed at a point of its handler, sweep to the end in another, and report.

        :param point: ``before_handler``, ``line 12`` (before that line of the file), ``after_effect`` (at the first line of the
            site's after an effect took place), ``after_handler``, ``before_commit`` or ``after_commit``.
        :param args: what the flag is raised with; ``kwargs``, too.
        :param effects: returns how often the effect has taken place, or that of each effect by name, counted where it outlives a
            process: in files, rows or a server.
        :param within: functions whose lines count, too.
        :raises ConfigError: where there is no such point.
        :raises AssertionError: where other flags are up, or a child hangs.
        """
        place, burn = self._planned(point, handler, effects, within)
        self._check(handler)
        clock = self._flags.clock
        with nullcontext() if isinstance(clock, FakeClock) else clocked(self._flags, FakeClock(clock.now())):
            before = _counts(effects)
            handler.raise_flag(*args, **kwargs)
            reached = self._in_child(lambda: (burn(), self._flags.sweep()))
            self._in_child(self._finish)
            after = _counts(effects)
        counts = {name: after.get(name, 0) - before.get(name, 0) for name in {**before, **after}}
        return CrashReport(point, place, reached, counts, self._error())

    def every_point(
        self,
        handler: Handler,
        /,
        *args: Any,
        effects: Effects,
        reset: Callable[[], Any] | None = None,
        within: Iterable[Callable[..., Any]] = (),
        **kwargs: Any,
    ) -> Iterator[CrashReport]:
        """Yield a report for each point that the handler comes to: before it, at each of its lines, and around the commit.

        :param reset: called before each, so that one leaves nothing to the next.
        """
        for point in crash_points(handler, within):
            if reset is not None:
                reset()
            empty(self._flags.connections)
            report = self(point, handler, *args, effects=effects, within=within, **kwargs)
            if point == "before_handler" and not report.reached:
                raise AssertionError(f"{handler.kind} did not run at all: quiet hours, a limit or its own delay held it back")
            if report.reached:
                yield report
        empty(self._flags.connections)

    def assert_once(self, handler: Handler, /, *args: Any, **named: Any) -> None:
        """Assert that each effect takes place once, wherever the process is killed.

        :param named: as for ``every_point``.
        :raises AssertionError: with what becomes of the effects at each point.
        """
        __tracebackhide__ = True
        reports = list(self.every_point(handler, *args, **named))
        if not all(report.once for report in reports):
            lines = "\n".join(f"  {'' if report.once else '! '}{report}" for report in reports)
            hint = "" if any(any(report.effects.values()) for report in reports) else NOTHING_SEEN
            raise AssertionError(f"{handler.kind} is not safe from crashes:\n{lines}{hint}")

    def _planned(
        self, point: str, handler: Handler, effects: Effects, within: Iterable[Callable[..., Any]]
    ) -> tuple[str, Callable[[], Any]]:
        """Return where a point lies, and what has a process killed there."""
        if point in OURS:
            place, *ways = OURS[point]
            code = _code_of(handler.function)
            if code is not None and code.co_flags & inspect.CO_COROUTINE and point in OF_COROUTINES:
                at = OF_COROUTINES[point]
                return place, lambda: arm({AT: at}) if at else threading.settrace(_AtCall(code))
            return place, lambda: arm({AT: ways[handler.options.atomic]})
        if point == AFTER_EFFECT:
            return "after its first effect", lambda: threading.settrace(_AfterEffect(effects))
        lines = _lines(handler, within)
        if point not in lines:
            raise ConfigError(f"{handler.kind} has no point {point!r}; it has {AFTER_EFFECT}, {', '.join(crash_points(handler))}")
        line = lines[point]
        return str(line), lambda: threading.settrace(_AtLine(line))

    def _check(self, handler: Handler) -> None:
        if not hasattr(os, "fork"):
            raise ConfigError("crash_at kills a forked child process, and this system has no fork: run it on Linux or macOS")
        if self._flags.handlers.get(handler.kind) is not handler:
            raise ConfigError(f"{handler!r} is of another FlagSweep than the fixture flags: say which with flagsweep_app")
        if self._flags.connections.is_site_in_transaction():
            raise FlagSweepError("other processes see nothing of an open transaction: leave it before crash_at")
        if up := self._flags.find(limit=1):
            raise AssertionError(f"flag {up[0].id} of {up[0].kind} is up already: lower it first, as with sweep_all()")

    def _in_child(self, work: Callable[[], Any]) -> bool:
        """Have a forked child do something; return whether it was killed.

        :raises AssertionError: where it hangs, or ends in another way.
        """
        self._flags.connections.close_thread()
        inheritance.add(self._flags.database)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # That of other threads: none of them is needed there.
            child = os.fork()
        if not child:
            _be_child(work)
        code = _ended(child)
        if code not in (0, -signal.SIGKILL):
            raise AssertionError(f"the child process of crash_at ended with {code}: its error is on stderr")
        return code != 0

    def _finish(self) -> None:
        """Sweep until nothing but dead flags is up, whatever they wait for."""
        for _ in range(MOST_SWEEPS):
            self._flags.sweep()
            waiting = [flag.due_at for flag in self._flags.find(state="waiting", limit=None) if flag.due_at is not None]
            if not waiting:
                return
            clock = self._flags.clock
            assert isinstance(clock, FakeClock)
            wait = (microseconds(min(waiting)) - clock.now()) / SECOND
            clock.advance(wait if wait > 0 else 60)  # What is due already waits for its gate.

    def _error(self) -> str | None:
        left = self._flags.find(limit=1)
        return (left[0].headline or f"it is {left[0].state}") if left else None


NOTHING_SEEN = (
    "\nNo effect was ever seen: it must be counted outside of the process, as files, rows or messages of a server, not in a list"
)


def _counts(effects: Effects) -> dict[str, int]:
    found = effects()
    return dict(found) if isinstance(found, Mapping) else {"effect": found}


def _lines(handler: Handler, within: Iterable[Callable[..., Any]]) -> dict[str, _Line]:
    """Return the lines of a handler by the names of their points: those of its own file by number alone."""
    codes = [code for each in (handler.function, *within) if (code := _code_of(each))]
    found: dict[str, _Line] = {}
    for code in codes:
        file = "" if code.co_filename == codes[0].co_filename else f"{os.path.basename(code.co_filename)} "
        for number, times in _numbers(code):
            found[f"{file}line {number}{' again' * (times - 1)}"] = _Line(code, number, times)
    return found


def _code_of(function: Callable[..., Any]) -> CodeType | None:
    return getattr(inspect.unwrap(function), "__code__", None)


def _numbers(code: CodeType) -> list[tuple[int, int]]:
    """Return the lines of a function's body, with the how-maniest time; the second time is where it is left, as by ``with``."""
    runs: list[int] = []
    for _, _, number in code.co_lines():
        if number is not None and runs[-1:] != [number]:
            runs.append(number)
    body = sorted({number for number in runs if number > code.co_firstlineno}) or [code.co_firstlineno]
    return [(number, times) for number in body for times in (1, 2)[: runs.count(number)]]


def _be_child(work: Callable[[], Any]) -> NoReturn:
    """Do it, and end at once: nothing of the test's own process is run in its fork."""
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)


def _ended(child: int) -> int:
    """Return how a child ended: its exit code, or the signal that killed it, negative."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"the child process of crash_at hangs for {PATIENCE:g} s")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _AtCall:
    """Trace threads, and kill the process where a function begins."""

    def __init__(self, code: CodeType):
        self._code = code

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is self._code:
            _kill()


class _AtLine:
    """Trace threads, and kill the process before a line is run."""

    def __init__(self, line: _Line):
        self._line = line
        self._left = line.times

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is not self._line.code:
            return None
        if event == "line" and frame.f_lineno == self._line.number:
            self._left -= 1
            if not self._left:
                _kill()
        return self


def _is_sites(frame: FrameType) -> bool:
    """Return whether it is the site's code that runs: no library's, and not ours."""
    file, module = frame.f_code.co_filename, frame.f_globals.get("__name__", "")
    return not (file.startswith((*LIBRARIES, "<frozen")) or str(module).startswith(OWN))


class _AfterEffect:
    """Trace threads, and kill the process at the first line of the site's at which an effect has taken place."""

    def __init__(self, effects: Effects):
        self._effects = effects
        self._before = _counts(effects)
        self._looking = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if self._looking or not _is_sites(frame):
            return None
        if event in ("line", "return"):
            self._looking = True
            try:
                if _counts(self._effects) != self._before:
                    _kill()
            finally:
                self._looking = False
        return self

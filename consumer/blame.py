"""Who is to blame for the death of a consumer: which of its flags are charged, and how each goes on."""

from __future__ import annotations

from collections.abc import Callable

from ..config import SECOND, Backoff
from ..handlers import Options
from ..models import Flag
from ..sweep.claims import CRASHES, STRIKES, Step


def suspect(flags: list[Flag], options_of: Callable[[str], Options | None], now: int) -> list[tuple[Flag, Step]]:
    """Return how the flags of a consumer go on of which nothing is known: it died on another host.

    Each becomes a suspect, which runs alone; one that was a suspect before and is among them again is charged an attempt.
    """
    steps = []
    for flag in flags:
        step = _unexplained(flag, options_of(flag.kind), now)
        if not flag.suspect:
            step = step._replace(state="waiting", attempts=flag.attempts, bumped_attempts=flag.attempts, error=None, strikes=0)
        steps.append((flag, step))
    return steps


def charge(
    flags: list[Flag], crashed: set[int], report: str, options_of: Callable[[str], Options | None], now: int
) -> list[tuple[Flag, Step]]:
    """Return which flags are to blame for a death, and how each goes on.

    A recorded crash (segfault, abort) names its thread: that flag alone is charged, and dead after three. A death without a
    record (kill -9, out of memory, power) charges one attempt to what was running; where suspects of an earlier such death
    were among it, to those alone.
    """
    if any(f.id in crashed for f in flags):
        return [(f, _crash(f, report, options_of(f.kind), now)) for f in flags if f.id in crashed]
    suspects = [f for f in flags if f.suspect] or flags
    return [(f, _unexplained(f, options_of(f.kind), now)) for f in suspects]


def _crash(flag: Flag, report: str, options: Options | None, now: int) -> Step:
    last = flag.crashes + 1 >= CRASHES
    error = f"it crashed the process (time {flag.crashes + 1} of {CRASHES}):\n{report[:4000]}"
    due = _due_again(flag, options, last, now)
    state, due_at = _dead_or_waiting(last), min(flag.due_at, now)
    return Step(state, flag.attempts, due_at, flag.attempts, due, error=error, crashed=1, died_as="crashed")


def _unexplained(flag: Flag, options: Options | None, now: int) -> Step:
    attempts, most = flag.attempts + 1, options.max_attempts if options else Options.max_attempts
    last = attempts >= most or flag.strikes + STRIKES >= STRIKES * most
    error = f"its process died while it ran, without a record (kill -9, out of memory, power): attempt {attempts} of {most}"
    due = _due_again(flag, options, last, now)
    fresh = 0 if last else attempts
    state, due_at = _dead_or_waiting(last), min(flag.due_at, now)
    return Step(state, attempts, due_at, fresh, due, error=error, suspect=True, strikes=STRIKES, died_as="its process died")


def _dead_or_waiting(last: bool) -> str:
    return "dead" if last else "waiting"


def _due_again(flag: Flag, options: Options | None, last: bool, now: int) -> int:
    """Return when a flag that was raised again while it ran is due: at once; but where it would be dead, it must not spin."""
    backoff = options.backoff if options else Backoff()
    return now + int(backoff.longest() * SECOND) if last else min(flag.due_at, now)

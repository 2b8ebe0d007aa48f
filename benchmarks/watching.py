"""What monitoring costs: a scrape of /metrics, and flags.check(), beside many flags of which half are dead."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import in_process
import plain
import work
from measure import Plan, Row, at_most, paired, row_of, seconds_of

from flagsweep import FlagSweep
from flagsweep.consumer.listening import Listener
from flagsweep.consumer.outlook import Running
from flagsweep.operations.outlook import Outlook
from flagsweep.sweep.totals import Totals

KINDS = 20
"""Kinds of which flags wait, and others of which they are dead."""


def watching(plan: Plan) -> list[Row]:
    """Milliseconds of a scrape and of a check beside an empty table, with nothing remembered from the one before."""
    many, rows = plan.size(1_000_000, 50_000), []
    with ExitStack() as stack:
        full, empty = (stack.enter_context(_site(plan, size)) for size in (many, 0))
        for what, ask, limit in (("a scrape of /metrics", _scraping, 50.0), ("flags.check()", _checking, 300.0)):
            sides = {name: stack.enter_context(ask(flags)) for name, flags in (("full", full), ("empty table", empty))}
            samples = paired({name: partial(_ms, once) for name, once in sides.items()}, plan.size(51, 3))
            rows.append(row_of(f"{what} beside {many:,} flags, half dead", "ms", samples, "full", "empty table", at_most(limit)))
    return rows


@contextmanager
def _site(plan: Plan, size: int) -> Iterator[FlagSweep]:
    """Give a site with so many flags, half of them due and half dead, of many kinds and causes."""
    path = plan.new_file("watched")
    with work.flagsweep_on(path, promise="1m") as flags:
        model, now = in_process.flag_model(plan), flags.clock.now()
        for kind in range(KINDS if size else 0):
            work.noop_handler(flags, f"kind{kind}")
            _fill(path, model, size // KINDS, kind, now)
        yield flags


def _fill(path: Path, model: plain.Model, count: int, kind: int, now: int) -> None:
    plain.fill(path, model, count // 2, {"kind": f"kind{kind}", "due_at": now})
    plain.fill(path, model, count // 2, {"kind": f"dead{kind}", "state": "dead", "died_at": now, "died_as": f"Cause{kind % 5}"})


@contextmanager
def _scraping(flags: FlagSweep) -> Iterator[Callable[[], object]]:
    listener = Listener(("127.0.0.1", 0), _Forgetful(flags, Running({}, Totals(), lambda: 1)))
    listener.start()
    try:
        yield lambda: urllib.request.urlopen(f"{listener.where}/metrics", timeout=60).read()
    finally:
        listener.stop()
        listener.join()


class _Forgetful(Outlook):
    """Ask the database anew each time, the dead included."""

    def answer(self, path):
        self._health = self._metrics = self._examiner = None
        return super().answer(path)


@contextmanager
def _checking(flags: FlagSweep) -> Iterator[Callable[[], object]]:
    yield flags.check


def _ms(once: Callable[[], object]) -> float:
    return 1000 * seconds_of(once)

"""What schedules cost where many are due at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count as numbers
from time import monotonic_ns, time_ns

import processes
import work
from as_service import new_marks
from measure import Bound, Plan, Row, Samples, alternate, at_most, row_of
from servers import environment_of, on_each, settings_of

from flagsweep import FlagSweep

AHEAD = 0.05
"""Seconds for each schedule, from when they are written to when they are due: who adds one is told which others it meets."""


def due_at_once(plan: Plan) -> list[Row]:
    """Seconds until the last of many flags has started whose schedules are due at the same moment."""
    path = plan.new_file("schedules")
    with work.flagsweep_on(path) as flags:
        environment = {"FLAGSWEEP_DATABASE": f"sqlite:///{path}"}
        return [_row(plan, "SQLite", flags, environment, at_most(1)), *on_each("schedules", _on_server, plan)]


def _on_server(plan: Plan, server: str, url: str) -> list[Row]:
    with work.flagsweep_at(url, **settings_of(plan)) as flags:
        return [_row(plan, server, flags, environment_of(plan, url), at_most(2))]


def _row(plan: Plan, server: str, flags: FlagSweep, environment: Mapping[str, str], bound: Bound) -> Row:
    many, marks = plan.size(200, 20), new_marks(plan.new_file("marks"))
    stamp, slots = work.stamp_handler(flags, marks.set_now), numbers()

    def schedule(slot: int, at: datetime) -> None:
        flags.schedules.add(f"at-{slot}", stamp.kind, at=at, arguments={"n": slot})

    def delay(slot: int, at: datetime) -> None:
        stamp.using(at=at).raise_flag(n=slot)

    def last_start(write: Callable[[int, datetime], None]) -> float:
        """Write what is due together; return the seconds from that moment to the start of the last."""
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2 + AHEAD * many)
        mine = [next(slots) for _ in range(many)]
        with flags.database.atomic():
            for slot in mine:
                write(slot, at)
        due_ns = monotonic_ns() + int(at.timestamp() * 10**9) - time_ns()
        return (max(consumer.wait_for_stamp(marks, slot) for slot in mine) - due_ns) / 1e9

    with processes.flagsweep_at(environment, marks) as consumer:
        first = next(slots)
        stamp.raise_flag(n=first)
        consumer.wait_for_stamp(marks, first)
        sides = {"schedules": partial(last_start, schedule), "as many delayed flags": partial(last_start, delay)}
        taken = alternate(sides, plan.size(5, 1))
    return row_of(f"{server}: {many} schedules due at one moment, start of the last", "s", Samples(taken), *sides, bound)

"""What flagsweep costs in one process: raising, draining by sweep(), threads, and claiming beside many other flags."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import hueys
import plain
import work
from measure import Plan, Row, paired, ratio_at_least, ratio_at_most, row_of, seconds_of

from flagsweep import FlagSweep

NAPS, NAP_SECONDS, THREADS = 500, 0.010, 8
WAIT_SECONDS, TASKS = 0.100, 100
MONTH = 30 * 86_400 * 1_000_000
"""In microseconds, as due times are."""


def raise_one(plan: Plan) -> list[Row]:
    """Raises a second on an open connection, one commit each."""
    model, count = flag_model(plan), plan.size(2000, 300)
    sides = {
        "flagsweep": lambda: _raise_rate(plan.new_file("raise"), count),
        "sqlite3 INSERT + commit": lambda: plain.insert_rate(plan.new_file("insert"), model, count),
        "SqliteHuey": lambda: hueys.enqueue_rate(plan.new_file("huey"), count),
    }
    samples = paired(sides, plan.size(9, 3))
    what = "raise, one commit each"
    return [
        row_of(what, "/s", samples, "flagsweep", "sqlite3 INSERT + commit", ratio_at_least(0.7, 0.9)),
        row_of("", "/s", samples, "flagsweep", "SqliteHuey", ratio_at_least(0.8, 1)),
    ]


def raise_many(plan: Plan) -> list[Row]:
    """Raises a second of one raise_many."""
    model, count = flag_model(plan), plan.size(100_000, 20_000)
    sides = {
        "flagsweep": lambda: _raise_many_rate(plan.new_file("raise"), count),
        "sqlite3 executemany": lambda: plain.insert_many_rate(plan.new_file("insert"), model, count),
        "Peewee insert_many": lambda: plain.peewee_insert_many_rate(plan.new_file("insert"), model, count),
    }
    samples = paired(sides, plan.size(5, 2))
    what = f"raise_many of {count:,}"
    return [
        row_of(what, "/s", samples, "flagsweep", "sqlite3 executemany", ratio_at_least(0.6, 1)),
        row_of("", "/s", samples, "flagsweep", "Peewee insert_many"),
    ]


def drain(plan: Plan) -> list[Row]:
    """Flags a second that sweep() lowers whose handler does nothing, at default settings."""
    model, count, tasks = flag_model(plan), plan.size(100_000, 20_000), plan.size(20_000, 2_000)
    sides = {
        "flagsweep": lambda: drain_rate(plan.new_file("drain"), count),
        "sqlite3, batches of 100": lambda: plain.drain_rate(plan.new_file("plain"), model, count, 100),
        "sqlite3, batches of 1000": lambda: plain.drain_rate(plan.new_file("plain"), model, count, 1000),
        "SqliteHuey": lambda: hueys.drain_rate(plan.new_file("huey"), tasks, fsync=None),
        "SqliteHuey(fsync=False)": lambda: hueys.drain_rate(plan.new_file("huey"), tasks, fsync=False),
    }
    samples = paired(sides, plan.size(5, 2))
    bounds = dict(zip(sides, (None, *(ratio_at_least(must, aim) for must, aim in _DRAIN_RATIOS)), strict=True))
    measured = Row(f"drain of {count:,} no-op flags", "/s", samples.median("flagsweep"))
    return [measured] + [
        row_of("", "/s", samples, "flagsweep", side, bound) for side, bound in bounds.items() if side != "flagsweep"
    ]


_DRAIN_RATIOS = ((0.3, 0.5), (0.3, 0.5), (15, None), (4, None))


def threads(plan: Plan) -> list[Row]:
    """Handlers a second that sleep 10 ms, on eight threads."""
    sides = {
        "flagsweep": lambda: _nap_rate(plan.new_file("naps")),
        "ideal": lambda: THREADS / NAP_SECONDS,
        "plain threads": _plain_nap_rate,
    }
    samples = paired(sides, plan.size(7, 2))
    what = f"{NAPS} handlers of 10 ms on {THREADS} threads"
    return [
        row_of(what, "/s", samples, "flagsweep", "ideal", ratio_at_least(0.9, 0.97)),
        row_of("", "/s", samples, "flagsweep", "plain threads"),
    ]


def tasks(plan: Plan) -> list[Row]:
    """Async handlers a second that wait 100 ms, a hundred at a time, on one lane."""
    waits, quick = plan.size(1000, 300), plan.size(20_000, 2_000)
    sides = {
        "flagsweep": lambda: _wait_rate(plan.new_file("waits"), waits),
        "ideal": lambda: TASKS / WAIT_SECONDS,
        "asyncio and a semaphore": lambda: _plain_wait_rate(waits),
    }
    samples = paired(sides, plan.size(5, 2))
    drained = paired(
        {
            "async": lambda: drain_rate(plan.new_file("async"), quick, make=work.async_noop_handler),
            "threads": lambda: drain_rate(plan.new_file("threads"), quick),
        },
        plan.size(5, 2),
    )
    return [
        row_of(f"{waits:,} async handlers of 100 ms, 100 tasks", "/s", samples, "flagsweep", "ideal", ratio_at_least(1 / 3, 0.8)),
        row_of("", "/s", samples, "flagsweep", "asyncio and a semaphore"),
        row_of(f"drain of {quick:,} no-op flags, async", "/s", drained, "async", "threads"),
    ]


def claims(plan: Plan) -> list[Row]:
    """Milliseconds of a sweep over 1,000 due flags in a table that is full of others."""
    model, many = flag_model(plan), plan.size(1_000_000, 50_000)
    later = {"due_at": model.flag["due_at"] + MONTH}
    full_of = {
        "empty table": (0, {}),
        f"{many // 10:,} future": (many // 10, later),
        f"{many:,} future": (many, later),
        f"{many:,} future, higher priority": (many, {**later, "priority": 50}),
        f"{many:,} dead": (many, {"state": "dead", "attempts": 8, "died_at": model.flag["due_at"], "error": "failed"}),
        f"{many:,} without handler": (many, {"kind": "nobody"}),
    }
    with ExitStack() as stack:
        sides = {}
        for name, (count, changes) in full_of.items():
            path = plan.new_file("claims")
            flags = stack.enter_context(work.flagsweep_on(path))
            if count:
                plain.fill(path, model, count, changes)
            sides[name] = partial(sweep_ms, flags, work.noop_handler(flags), 1000)
        samples = paired(sides, plan.size(51, 5))
    bound = ratio_at_most(1.2, 1.05)
    return [row_of(f"claim beside {s}", "ms", samples, s, "empty table", bound) for s in full_of if s != "empty table"]


def flag_model(plan: Plan) -> plain.Model:
    """Return the table and a flag as this flagsweep writes them."""
    path = plan.new_file("model")
    with work.flagsweep_on(path) as flags:
        work.noop_handler(flags).raise_flag(user_id=0)
    return plain.model_of(path)


def _raise_rate(path: Path, count: int) -> float:
    with work.flagsweep_on(path) as flags:
        raise_flag = work.noop_handler(flags).raise_flag
        start = time.perf_counter()
        for n in range(count):
            raise_flag(user_id=n)
        return count / (time.perf_counter() - start)


def _raise_many_rate(path: Path, count: int) -> float:
    with work.flagsweep_on(path) as flags:
        noop = work.noop_handler(flags)
        return count / seconds_of(lambda: noop.raise_many({"user_id": n} for n in range(count)))


def drain_rate(path: Path, count: int, make: Callable[..., Any] = work.noop_handler, **options: object) -> float:
    """Return the flags a second of a sweep over no-op flags of a kind with these options."""
    with work.flagsweep_on(path) as flags:
        make(flags, **options).raise_many({"user_id": n} for n in range(count))
        return count / sweep_seconds(flags, count)


def _nap_rate(path: Path) -> float:
    with work.flagsweep_on(path, lanes={"default": THREADS}) as flags:
        work.nap_handler(flags, NAP_SECONDS).raise_many({"user_id": n} for n in range(NAPS))
        return NAPS / sweep_seconds(flags, NAPS)


def _wait_rate(path: Path, count: int) -> float:
    with work.flagsweep_on(path, tasks=TASKS) as flags:
        work.wait_handler(flags, WAIT_SECONDS).raise_many({"user_id": n} for n in range(count))
        return count / sweep_seconds(flags, count)


def _plain_wait_rate(count: int) -> float:
    """Return the waits a second of bare coroutines, a hundred at a time."""

    async def wait(turns: asyncio.Semaphore) -> None:
        async with turns:
            await asyncio.sleep(WAIT_SECONDS)

    async def wait_for_all() -> None:
        turns = asyncio.Semaphore(TASKS)
        await asyncio.gather(*(wait(turns) for _ in range(count)))

    return count / seconds_of(lambda: asyncio.run(wait_for_all()))


def sweep_ms(flags: FlagSweep, noop, count: int) -> float:
    """Raise so many flags, and return the milliseconds of the sweep that lowers them."""
    noop.raise_many({"user_id": n} for n in range(count))
    return 1000 * sweep_seconds(flags, count)


def sweep_seconds(flags: FlagSweep, count: int) -> float:
    """Return the seconds of a sweep that must lower exactly `count` flags."""
    start = time.perf_counter()
    outcomes = flags.sweep()
    elapsed = time.perf_counter() - start
    if outcomes["lowered"] != count:
        raise RuntimeError(f"the sweep was to lower {count} flags, but gave {dict(outcomes)}")
    return elapsed


def _plain_nap_rate() -> float:
    """Return the naps a second of bare threads on a bare queue."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for n in range(NAPS):
        todo.put(n)
    crew = [threading.Thread(target=_nap_until_empty, args=(todo,)) for _ in range(THREADS)]
    start = time.perf_counter()
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return NAPS / (time.perf_counter() - start)


def _nap_until_empty(todo: queue.SimpleQueue[int]) -> None:
    while True:
        try:
            todo.get_nowait()
        except queue.Empty:
            return
        time.sleep(NAP_SECONDS)

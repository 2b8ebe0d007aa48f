"""What `flagsweep run` gives as a process of its own: latency, idle cost, room for the site, start-up."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import hueys
import plain
import processes
import work
from measure import Bound, Plan, Row, Samples, Skipped, alternate, paired, quantile, ratio_at_most, row_of, seconds_of
from redis_queue import redis_queue
from stamps import Stamps

from flagsweep import FlagSweep

BETWEEN_SHOTS = 0.050
BETWEEN_INSERTS = 0.005
DRAIN_LIMIT = 300
"""Seconds after which a drain by `run` counts as stuck."""


class Shot(NamedTuple):
    """Milliseconds to the start of a handler: from the call of its raise, and from the raise's return, after the commit."""

    from_call: float
    from_commit: float


def latency_rows(taken: Mapping[str, Sequence[Shot]], bounds: Mapping[str, Bound], prefix: str = "") -> list[Row]:
    """Return the rows of shots on each side, ours first: beside the peer from the call, by itself from the commit.

    :param bounds: by the row's name, such as ``call to handler start, p50``.
    """
    ours, *peers = taken
    rows = []
    for since in ("call", "commit"):
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            found = {side: quantile([getattr(shot, f"from_{since}") for shot in shots], share) for side, shots in taken.items()}
            what, beside = f"{since} to handler start, {name}", peers[0] if peers else ""
            peer = found.get(beside)
            ratio = None if peer is None else found[ours] / peer
            rows.append(Row(prefix + what, "ms", found[ours], beside, peer, ratio, bounds.get(what)))
    return rows


class Range:
    """Raise work one by one for a consumer that is idle, and see when it starts."""

    def __init__(self, raise_one: Callable[[int], object], consumer: processes.Consumer, marks: Stamps) -> None:
        self._raise_one = raise_one
        self._consumer = consumer
        self._marks = marks
        self._fired = 0

    def shoot(self, count: int) -> list[Shot]:
        """Return for each raise the milliseconds to the start of its handler."""
        fired = []
        for slot in range(self._fired, self._fired + count):
            called = time.monotonic_ns()
            self._raise_one(slot)
            fired.append((slot, called, time.monotonic_ns()))
            time.sleep(BETWEEN_SHOTS)
        self._fired += count
        started = [self._consumer.wait_for_stamp(self._marks, slot) for slot, *_ in fired]
        return [
            Shot((start - called) / 1e6, (start - returned) / 1e6)
            for start, (_, called, returned) in zip(started, fired, strict=True)
        ]


def latency(plan: Plan) -> list[Row]:
    """Milliseconds to the start of a handler at an idle consumer, raised by another process."""
    with ExitStack() as stack:
        ranges = {"flagsweep": stack.enter_context(_flagsweep_range(plan))}
        try:
            ranges["Huey on Redis"] = stack.enter_context(_redis_range(plan))
            note = ""
        except Skipped as reason:
            note = f"without the peer, Huey on Redis: {reason}"
        for shots in ranges.values():
            shots.shoot(5)
        sides = {side: partial(shots.shoot, plan.size(50, 10)) for side, shots in ranges.items()}
        taken = {side: list(chain(*blocks)) for side, blocks in alternate(sides, plan.size(4, 2)).items()}
    bounds = {
        "call to handler start, p50": ratio_at_most(1.6, 1.3),
        "call to handler start, p95": ratio_at_most(4, 2),
        "commit to handler start, p50": ratio_at_most(4, 1.3),
        "commit to handler start, p95": ratio_at_most(6, 2),
    }
    return latency_rows(taken, bounds) + ([Row("beside Huey on Redis", note=note)] if note else [])


@contextmanager
def _flagsweep_range(plan: Plan) -> Iterator[Range]:
    path = plan.new_file("latency")
    marks = new_marks(path)
    with work.flagsweep_on(path) as flags, processes.flagsweep_run(path, marks) as consumer:
        stamp = work.stamp_handler(flags, marks.set_now)
        _grow_log(flags)
        yield Range(lambda n: stamp.raise_flag(n=n), consumer, marks)


def _grow_log(flags: FlagSweep) -> None:
    """Have the write-ahead log reach the length that it keeps: while a new one grows, each commit waits longer for the disk."""
    noop = work.noop_handler(flags)
    for _ in range(4):
        noop.raise_many({"user_id": n} for n in range(1000))
        flags.sweep()


@contextmanager
def _redis_range(plan: Plan) -> Iterator[Range]:
    marks = new_marks(plan.new_file("redis"))
    with redis_queue(marks.path.parent) as (port, name):
        stamp = hueys.stamp_task(hueys.redis_huey(port, name), marks.set_now)
        with processes.huey_consumer(f"redis:{port}:{name}", marks) as consumer:
            yield Range(stamp, consumer, marks)


def idle(plan: Plan) -> list[Row]:
    """CPU seconds a minute, and resident memory, of consumers with nothing to do; run-time packages only."""
    python = processes.runtime_python(plan.folder)
    window, windows = plan.size(20, 3), plan.size(3, 1)
    with warm_flagsweep(plan, python) as ours, _warm_huey(plan, python) as theirs:
        consumers = {"flagsweep": ours, "huey_consumer": theirs}
        cpu = idle_cpu(consumers, window, windows)
        memory = paired({side: consumer.resident_mib for side, consumer in consumers.items()}, 1)
        for consumer in consumers.values():
            consumer.must_live()
    return [
        row_of("idle consumer, CPU seconds a minute", "s", cpu, *consumers, ratio_at_most(1.5, 1)),
        row_of("idle consumer, resident memory", "MiB", memory, *consumers, ratio_at_most(1.6, 1.4)),
    ]


def idle_cpu(consumers: dict[str, processes.Consumer], seconds: int, windows: int) -> Samples:
    """Return the CPU seconds a minute of all consumers over the same windows of time, once their start is over."""
    time.sleep(3)
    values: dict[str, list[float]] = {side: [] for side in consumers}
    for _ in range(windows):
        before = {side: consumer.cpu_seconds() for side, consumer in consumers.items()}
        time.sleep(seconds)
        for side, consumer in consumers.items():
            values[side].append((consumer.cpu_seconds() - before[side]) * 60 / seconds)
    return Samples(values)


@contextmanager
def warm_flagsweep(
    plan: Plan, python: str, app: str = "app_flagsweep", prepare: Callable[[FlagSweep], object] = lambda flags: None
) -> Iterator[processes.Consumer]:
    """Yield a consumer that has done a flag.

    :param prepare: called before it starts.
    """
    path = plan.new_file("idle")
    marks = new_marks(path)
    _raise_stamp(path, marks, 0)
    with work.flagsweep_on(path) as flags:
        prepare(flags)
    with processes.flagsweep_run(path, marks, python, app) as consumer:
        consumer.wait_for_stamp(marks, 0)
        yield consumer


@contextmanager
def _warm_huey(plan: Plan, python: str) -> Iterator[processes.Consumer]:
    """Yield a consumer that has done a task."""
    path = plan.new_file("idle")
    marks = new_marks(path)
    _enqueue_stamp(path, marks, 0)
    with processes.huey_consumer(f"sqlite:{path}", marks, python) as consumer:
        consumer.wait_for_stamp(marks, 0)
        yield consumer


def startup(plan: Plan) -> list[Row]:
    """Seconds from the spawn of the process to the start of the first handler; run-time packages only."""
    python = processes.runtime_python(plan.folder)
    sides = {"flagsweep": _Starter(plan, python, of_huey=False), "huey_consumer": _Starter(plan, python, of_huey=True)}
    for starter in sides.values():
        starter()
    samples = paired(sides, plan.size(7, 3))
    return [row_of("start-up to the first handler", "s", samples, *sides, ratio_at_most(3, 1.5))]


def help_startup(plan: Plan) -> list[Row]:
    """Seconds that `--help` takes; each command in a venv with nothing but its own packages, bytecode kept."""
    sides = {
        "flagsweep --help": partial(_help_of, Path(processes.runtime_python(plan.folder)).with_name("flagsweep")),
        "celery --help": partial(_help_of, Path(processes.python_with(plan.folder, "celery")).with_name("celery")),
    }
    for call in sides.values():
        call()
    return [row_of("start of --help", "s", paired(sides, plan.size(21, 5)), *sides, ratio_at_most(0.25))]


def _help_of(command: Path) -> float:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    called = partial(subprocess.run, [command, "--help"], stdout=subprocess.DEVNULL, env=environ, check=True)
    return seconds_of(called)


class _Starter:
    """Start a consumer again and again on a file that holds one flag, or task, to do."""

    def __init__(self, plan: Plan, python: str, of_huey: bool) -> None:
        self._path = plan.new_file("startup")
        self._marks = new_marks(self._path)
        self._python = python
        self._of_huey = of_huey
        self._starts = 0

    def __call__(self) -> float:
        slot, self._starts = self._starts, self._starts + 1
        (_enqueue_stamp if self._of_huey else _raise_stamp)(self._path, self._marks, slot)
        with self._run() as consumer:
            return (consumer.wait_for_stamp(self._marks, slot) - consumer.started_ns) / 1e9

    def _run(self):
        if self._of_huey:
            return processes.huey_consumer(f"sqlite:{self._path}", self._marks, self._python)
        return processes.flagsweep_run(self._path, self._marks, self._python)


def site_inserts(plan: Plan) -> list[Row]:
    """Milliseconds of a site's own INSERT + commit, every 5 ms, while `run` drains no-op flags flat out."""
    count = plan.size(200_000, 30_000)
    sides = {
        "beside run": lambda: _inserts_beside_run(plan, count),
        "no consumer": lambda: (_inserts_alone(plan, plan.size(5, 2)), 0.0),
    }
    taken = alternate(sides, plan.size(3, 1))
    rates = [rate for _, rate in taken["beside run"]]
    rows = [Row(f"run drains {count:,} flags beside the site", "/s", Samples({"": rates}).median(""))]
    for name, share, bound in (("p50", 0.5, None), ("p99", 0.99, ratio_at_most(25, 10)), ("max", 1, None)):
        found = {side: [quantile(inserts, share) for inserts, _ in rounds] for side, rounds in taken.items()}
        rows.append(row_of(f"site's own insert, {name}", "ms", Samples(found), *sides, bound))
    return rows


def _inserts_beside_run(plan: Plan, count: int) -> tuple[list[float], float]:
    """Return the site's inserts in ms from the first lowered flag to the last, and the flags a second meanwhile."""
    path = plan.new_file("site")
    marks = new_marks(path)
    with work.flagsweep_on(path) as flags:
        work.noop_handler(flags).raise_many({"user_id": n} for n in range(count))
    with _site(path) as site, processes.flagsweep_run(path, marks) as consumer:
        first = lowest_id(site)
        wait_until(lambda: lowest_id(site) != first, consumer)
        start, left = time.monotonic(), site.execute(f"SELECT count(*) FROM {plain.TABLE}").fetchone()[0]
        inserts = _insert_while(site, lambda: _still_draining(site, start, consumer))
        return inserts, left / (time.monotonic() - start)


def _inserts_alone(plan: Plan, seconds: float) -> list[float]:
    path = plan.new_file("site")
    with work.flagsweep_on(path), _site(path) as site:
        end = time.monotonic() + seconds
        return _insert_while(site, lambda: time.monotonic() < end)


@contextmanager
def _site(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection as a site has it: sqlite3's own defaults, which wait 5 s for a lock."""
    with closing(sqlite3.connect(path)) as site:
        site.execute("CREATE TABLE shop_order (id INTEGER PRIMARY KEY, email TEXT NOT NULL, placed_at REAL NOT NULL)")
        yield site


def _insert_while(site: sqlite3.Connection, going_on: Callable[[], bool]) -> list[float]:
    """Insert and commit every 5 ms; return the milliseconds of each."""
    took = []
    while going_on():
        start = time.perf_counter()
        site.execute("INSERT INTO shop_order (email, placed_at) VALUES (?, ?)", ("a@example.org", start))
        site.commit()
        elapsed = time.perf_counter() - start
        took.append(1000 * elapsed)
        time.sleep(max(0.0, BETWEEN_INSERTS - elapsed))
    return took


def lowest_id(site: sqlite3.Connection) -> int | None:
    """Return the id of the flag that was raised first, of those that are up."""
    return site.execute(f"SELECT min(id) FROM {plain.TABLE}").fetchone()[0]


def _still_draining(site: sqlite3.Connection, start: float, consumer: processes.Consumer) -> bool:
    consumer.must_live()
    if time.monotonic() - start > DRAIN_LIMIT:
        raise RuntimeError(f"not drained after {DRAIN_LIMIT} s; the consumer's log ends:\n{consumer.last_words()}")
    return lowest_id(site) is not None


def wait_until(condition: Callable[[], bool], consumer: processes.Consumer, seconds: float = 30) -> None:
    """Wait for what the consumer is to do; raise with the end of its log if it does not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        consumer.must_live()
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing swept within {seconds} s; the log ends:\n{consumer.last_words()}")
        time.sleep(0.01)


def new_marks(path: Path) -> Stamps:
    """Return new stamps in a folder of their own: the consumer watches the database's."""
    folder = path.parent / "marks"
    folder.mkdir()
    return Stamps(folder / "stamps")


def _raise_stamp(path: Path, marks: Stamps, slot: int) -> None:
    with work.flagsweep_on(path) as flags:
        work.stamp_handler(flags, marks.set_now).raise_flag(n=slot)


def _enqueue_stamp(path: Path, marks: Stamps, slot: int) -> None:
    huey = hueys.sqlite_huey(path)
    hueys.stamp_task(huey, marks.set_now)(slot)
    huey.storage.close()

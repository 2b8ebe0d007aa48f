"""What gates cost: a claim that takes from one, a claim beside closed ones, and buckets that take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

import in_process
import plain
import processes
import work
from as_service import Range, Shot, idle_cpu, lowest_id, new_marks, wait_until, warm_flagsweep
from measure import Plan, Row, Samples, alternate, at_most, paired, quantile, ratio_at_least, ratio_at_most, row_of

from flagsweep import FlagSweep

FAR_ABOVE = "1000000/s"
"""A rate that no drain reaches."""


def gated_drain(plan: Plan) -> list[Row]:
    """Flags a second of kinds that take from their gate, beside those of a kind without."""
    count = plan.size(50_000, 5_000)
    kinds: dict[str, dict[str, object]] = {f"rate={FAR_ABOVE}": {"rate": FAR_ABOVE}, "limit=8": {"limit": 8}, "plain kind": {}}
    sides = {name: partial(_drain_rate, plan, count, options) for name, options in kinds.items()}
    samples = paired(sides, plan.size(11, 2))
    bound = ratio_at_least(0.8)
    *gated, beside = sides
    return [row_of(f"drain of {count:,} no-op flags, {side}", "/s", samples, side, beside, bound) for side in gated]


def _drain_rate(plan: Plan, count: int, options: dict[str, object]) -> float:
    return in_process.drain_rate(plan.new_file("gated"), count, **options)


def closed_gates(plan: Plan) -> list[Row]:
    """Milliseconds of a sweep over 1,000 due flags in a table full of due ones whose kind may not start."""
    model, many = in_process.flag_model(plan), plan.size(1_000_000, 50_000)
    closed_by: dict[str, Callable[[FlagSweep], None]] = {"of a paused kind": _pause, "whose rate is used up": _use_up}
    with ExitStack() as stack:
        sides = {}
        for name, close in {"empty table": None, **closed_by}.items():
            path = plan.new_file("closed")
            flags = stack.enter_context(work.flagsweep_on(path))
            if close is not None:
                close(flags)
                plain.fill(path, model, many, {"kind": "held"})
            sides[name] = partial(in_process.sweep_ms, flags, work.noop_handler(flags), 1000)
        samples = paired(sides, plan.size(101, 5))
    bound = ratio_at_most(1.05)
    return [row_of(f"claim beside {many:,} {side}", "ms", samples, side, "empty table", bound) for side in closed_by]


def _pause(flags: FlagSweep) -> None:
    work.noop_handler(flags, "held")
    flags.pause("held")


def _use_up(flags: FlagSweep) -> None:
    """Take the one token that comes in a day."""
    work.noop_handler(flags, "held", rate="1/d").raise_flag(user_id=0)
    in_process.sweep_seconds(flags, 1)


def buckets(plan: Plan) -> list[Row]:
    """Flags a second where buckets take turns, beside the same flags without; and how long a fresh bucket waits for a flood."""
    count, many = plan.size(100_000, 5_000), plan.size(10_000, 500)
    sides = {name: partial(_bucket_rate, plan, count, many, per) for name, per in (("with per", "customer"), ("without", None))}
    samples = paired(sides, plan.size(5, 2))
    return [
        row_of(f"drain of {count:,} flags in {many:,} buckets", "/s", samples, *sides, ratio_at_least(0.3)),
        *_fresh_bucket(plan),
    ]


def _bucket_rate(plan: Plan, count: int, many: int, per: str | None) -> float:
    with work.flagsweep_on(plan.new_file("buckets")) as flags:
        shared = work.shared_handler(flags, per=per)
        shared.raise_many({"customer": f"c{n % many}", "n": -1 - n} for n in range(count))
        return count / in_process.sweep_seconds(flags, count)


def _fresh_bucket(plan: Plan) -> list[Row]:
    """Return how long the first flag of a bucket waits in `run` behind the flood of another one, beside an empty table."""
    many, shots = plan.size(1_000_000, 50_000), plan.size(50, 10)
    paths = {f"behind {many:,}": plan.new_file("flood"), "empty table": plan.new_file("fresh")}
    sides = {}
    for (name, path), flood in zip(paths.items(), (many, 0), strict=True):
        _fill_bucket(path, flood)
        sides[name] = partial(_shoot, plan, path, flood, shots)
    taken = {side: list(chain(*blocks)) for side, blocks in alternate(sides, plan.size(4, 1)).items()}
    rows = []
    for name, share, bound in (("p50", 0.5, None), ("p95", 0.95, at_most(50)), ("max", 1, None)):
        found = Samples({side: [quantile([shot.from_commit for shot in fired], share)] for side, fired in taken.items()})
        what = f"fresh bucket behind {many:,} flags of another, commit to start, {name}"
        rows.append(row_of(what, "ms", found, *sides, bound))
    return rows


def _fill_bucket(path: Path, flood: int) -> None:
    with work.flagsweep_on(path) as flags:
        if flood:
            work.shared_handler(flags, per="customer").raise_flag(customer="flood")
            model = plain.model_of(path)
            plain.fill(path, model, flood, {"payload": model.flag["payload"]})


def _shoot(plan: Plan, path: Path, flood: int, count: int) -> list[Shot]:
    with _range(plan, path, flood) as shots:
        shots.shoot(5)
        return shots.shoot(count)


@contextmanager
def _range(plan: Plan, path: Path, flood: int) -> Iterator[Range]:
    """Yield a consumer, in the midst of the flood where there is one, and the raises of buckets that have no other flag."""
    marks = new_marks(plan.new_file("marks"))
    with work.flagsweep_on(path) as flags, processes.flagsweep_run(path, marks) as consumer:
        shared = work.shared_handler(flags, per="customer")
        site = flags.database.connection()
        first = lowest_id(site)
        if flood:
            wait_until(lambda: lowest_id(site) != first, consumer)
        yield Range(lambda n: shared.raise_flag(customer=f"fresh-{n}", n=n), consumer, marks)
        if flood and lowest_id(site) is None:
            raise RuntimeError("the flood was over before the last flag had started")


def gated_idle(plan: Plan) -> list[Row]:
    """CPU seconds a minute of a consumer with 100 schedules and 20 gates and nothing to do; run-time packages only."""
    python = processes.runtime_python(plan.folder)
    with warm_flagsweep(plan, python, "app_gated", _pause_some) as gated, warm_flagsweep(plan, python) as bare:
        consumers = {"gated": gated, "without": bare}
        cpu = idle_cpu(consumers, plan.size(20, 3), plan.size(3, 1))
        for consumer in consumers.values():
            consumer.must_live()
    what = "idle consumer with 100 schedules and 20 gates, CPU seconds a minute"
    return [row_of(what, "s", cpu, *consumers, at_most(0.12))]


def _pause_some(flags: FlagSweep) -> None:
    for kind in work.gated_handlers(flags):
        flags.pause(kind)

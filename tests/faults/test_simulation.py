"""F36: a seeded simulation of years in which sites, consumers, people and clocks do whatever they like; ``world.py`` has it."""

import time
from collections import Counter

from world import live, quick_folder


def test_f36_a_world_of_faults_keeps_every_promise(tmp_path, seed, sized, report):
    steps, seen, days, began = sized(10_000, 1_000_000, 2_000), Counter(), 0, time.monotonic()
    with quick_folder(tmp_path) as folder:
        for life in range(-(-steps // 10_000)):
            (folder / str(life)).mkdir()
            world = live(folder / str(life), seed + life, min(steps, 10_000))
            seen += world.seen
            days += world.days()
    report(
        "F36",
        "a seeded simulation over the real store, lanes, keeper and lease",
        f"{steps} steps, {days:,.0f} virtual days: {seen['raise_one']} raises, {seen['runs']} runs, {seen['repeats']} repeats, "
        f"{seen['vanished']} consumers vanished, {seen['set_clock']} times the clock was set: lost 0, two owners 0, "
        f"repeats without a cause 0, stuck 0, effects by half 0; {steps / (time.monotonic() - began):.0f} steps/s",
        seen["vanished"] > 0 and seen["repeats"] > 0,
    )


def test_f36_a_seed_replays(tmp_path, seed, report):
    seen = []
    with quick_folder(tmp_path) as folder:
        for life in ("once", "again"):
            (folder / life).mkdir()
            seen.append(live(folder / life, seed, 1_000).seen)
    report("F36", "the same seed twice", f"{sum(seen[0].values())} events, the same both times", seen[0] == seen[1])

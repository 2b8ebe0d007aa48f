"""F18 and F19: a process that stands still for a while, and a clock that is set to and fro."""

import os
import signal
import time
from collections import Counter

import pytest
from slots import Answered, occurrences
from timetable import TABLE, Timetable
from work import Ledger, freeze
from world import OUTCOMES, World, live, quick_folder

from flagsweep.schedules.declared import POLICIES

THREADS, BATCH = 4, 20


class ClockWorld(World):
    """A world in which consumers live for ever, and clocks do not."""

    weights = (30, 30, 12, 1, 0, 0, 20, 12, 3)
    outcomes = OUTCOMES[:-1]  # Nobody vanishes.
    fuses = 0
    calm_after = 30


def test_f19_no_flag_is_stuck_whatever_the_clock_does(tmp_path, seed, sized, report):
    days, seen, lived = sized(1_000, 10_000, 100), Counter(), 0
    with quick_folder(tmp_path) as folder:
        while lived < days:
            place = folder / str(int(lived))
            place.mkdir()
            world = live(place, seed + int(lived), days=min(days - lived, 1_000), sort=ClockWorld)
            seen += world.seen
            lived += world.days()
    report(
        "F19",
        "an injected clock, set by +-90 s, +-1 h, +-1 d, +10 y and back at random",
        f"{lived:,.0f} virtual days, the clock set {seen['set_clock']} times, {seen['raise_one']} raises, {seen['runs']} runs: "
        "lost 0, repeats without a cause 0, stuck beyond twice their wait 0",
        seen["set_clock"] > 0,
    )


def test_f19_no_time_of_a_schedule_is_missed_or_fires_twice_whatever_the_clock_does(tmp_path, seed, sized, report):
    days, seen, lived, answered = sized(100, 10_000), Counter(), 0, 0
    with quick_folder(tmp_path) as folder:
        while lived < days:
            place = folder / str(int(lived))
            place.mkdir()
            world = live(place, seed + int(lived), days=min(days - lived, 500), sort=Timetable)
            seen += world.seen
            lived += world.days()
            answered += sum(line.ran for line in world.lines.values())
    report(
        "F19",
        f"{len(TABLE)} schedules of each policy in {len({zone for _, _, zone, _ in TABLE})} zones, while consumers vanish",
        f"{lived:,.0f} virtual days, the clock set {seen['set_clock']} times, {seen['vanished']} consumers vanished, "
        f"{seen['overtaken']} stood still as they were about to fire: {seen['link']} firings, {answered:,} times answered for: "
        "missed 0, doubled 0, stuck 0",
        seen["set_clock"] > 0 and seen["vanished"] > 0 and seen["overtaken"] > 0 and answered > 0,
    )


def test_f18_a_consumer_that_was_suspended_goes_on_and_repeats_nothing(backend, until, sized, bound, report):
    """It is nobody's prey meanwhile: it still holds its lease."""
    seconds = sized(10, 600, 3)
    site = backend.site()
    child = backend.consume()
    until(lambda: "flagsweep sweeps" in child.log.read_text())
    site.raise_many("work", range(300), do="slow", seconds=0.01)
    site.raise_many("exact", range(1000, 1050), do="effect")
    for n in range(2000, 2010):
        site.flags.handlers["work"].using(delay=seconds / 2).raise_flag(n=n)
        site.journal.write("raised", f"work:{n}")
    until(lambda: len(site.journal.flags("end")) > 20)
    freeze(child, backend.database)
    began = time.monotonic()
    for n in range(3000, 3010):
        site.raise_("work", n)
    refused = backend.name != "sqlite"  # On a server a second consumer may help.
    if not refused:
        second = backend.consume()
        until(lambda: second.poll() is not None or time.monotonic() - began > seconds, limit=seconds + 5)
        refused = second.poll() == 1 and "LeaseHeld" in second.log.read_text()
    until(lambda: time.monotonic() - began >= seconds, limit=seconds + 5, every=0.05)
    during = [event for event in site.journal.events("start") if began < event.at]
    os.kill(child.pid, signal.SIGCONT)
    resumed = time.monotonic()
    first = until(lambda: [event.at for event in site.journal.events("start") if event.at > resumed])[0]
    until(site.is_idle, limit=20)
    child.terminate()
    assert child.wait(10) == 0
    ledger = Ledger(site.journal.events())
    report(
        "F18",
        f"SIGSTOP for {seconds} s amid 360 flags",
        f"lost {len(ledger.lost())}, repeats {len(ledger.repeats())}, effects {len(site.effects())} of 50, "
        f"first job {first - resumed:.2f} s <= {bound(2):g} s after SIGCONT; run meanwhile {len(during)}"
        + (", a second consumer was refused" if backend.name == "sqlite" and refused else ""),
        not ledger.lost()
        and not ledger.repeats()
        and len(site.effects()) == 50
        and first - resumed <= bound(2)
        and not during
        and refused,
        backend=backend.name,
    )


def test_f18_the_schedules_of_a_suspended_consumer_catch_up_once(backend, until, sized, bound, report):
    """What was to fire meanwhile fires as its policy says, and the next times as ever."""
    seconds, site = sized(10, 600, 3), backend.site()
    for number, missed in enumerate(POLICIES):
        site.add_schedule(missed, "work", number, "1s", missed)
    times = {name: row.next_at for name, row in site.schedules().items()}
    child = backend.consume()
    until(lambda: len(occurrences(site)) >= 6)
    freeze(child, backend.database)
    began = time.monotonic()
    until(lambda: time.monotonic() - began >= seconds, limit=seconds + 5, every=0.05)
    os.kill(child.pid, signal.SIGCONT)
    resumed = time.monotonic()
    until(lambda: len({run.flag for run in occurrences(site) if run.at > resumed}) == 3)
    first = max(min(run.at for run in occurrences(site) if run.at > resumed and run.flag == f"work:{n}") for n in range(3))
    until(lambda: len([run for run in occurrences(site) if run.at > resumed + 1]) >= 6)
    site.pause_schedules()
    until(site.is_idle)
    child.terminate()
    assert child.wait(10) == 0
    answered = [Answered(site, f"work:{n}", row, times[row.name]) for n, row in enumerate(map(site.schedules().get, POLICIES))]
    report(
        "F18",
        f"SIGSTOP for {seconds} s of a consumer with a schedule of every second for each policy",
        f"{sum(each.count for each in answered)} times: fired twice {sum(each.twice for each in answered)}, neither run nor "
        f"skipped {sum(each.missed for each in answered)}; all caught up {first - resumed:.2f} s <= {bound(2):g} s after SIGCONT",
        not any(each.twice or each.missed for each in answered) and first - resumed <= bound(2),
        backend=backend.name,
    )


@pytest.mark.parametrize("kills", [0, 1])
def test_f18_two_consumers_that_fire_at_once_fire_each_time_once(backend, until, sized, report, kills):
    """On SQLite there is one consumer; beside it sweeps go on and on, which fire, too."""
    seconds, site, deaths = sized(20, 300, 5), backend.site(), {}
    names = [f"s{number}" for number in range(50)]
    for number, name in enumerate(names):
        site.add_schedule(name, "work", number, "1s", "all")
    times = {name: row.next_at for name, row in site.schedules().items()}
    modes = ("run", "sweep") if backend.name == "sqlite" else ("run", "run")
    children = [backend.consume(mode=mode, sweepers=2, batch=BATCH) for mode in modes]
    until(lambda: len(occurrences(site)) >= 50)
    began = time.monotonic()
    if kills:
        until(lambda: time.monotonic() - began >= seconds / 2, limit=seconds)
        children[0].kill()
        children[0].wait()
        deaths[children[0].pid] = time.monotonic()
        children[0] = backend.consume(mode=modes[0], sweepers=2, batch=BATCH)
    until(lambda: time.monotonic() - began >= seconds, limit=seconds + 5, every=0.05)
    site.pause_schedules()
    until(site.is_idle, limit=20)
    backend.journal.with_suffix(".stop").touch()
    for child, mode in zip(children, modes, strict=True):
        if mode == "run":
            child.terminate()
        assert child.wait(10) == 0, child.log.read_text()
    rows, by = site.schedules(), Counter(run.pid for run in occurrences(site))
    answered = [Answered(site, f"work:{n}", rows[name], times[name], deaths) for n, name in enumerate(names)]
    repeated, most = sum(each.repeated for each in answered), kills * (THREADS + 2 * BATCH)
    report(
        "F18",
        f"two consumers, 50 schedules of every second for {seconds} s" + (", SIGKILL of one amid it" if kills else ""),
        f"{sum(each.count for each in answered)} times, run by {len(by)} processes: fired twice "
        f"{sum(each.twice for each in answered)}, missed {sum(each.missed + each.skipped for each in answered)}, "
        f"run again after the death of their process {repeated} <= {most}",
        len(by) >= 2 and repeated <= most and not any(each.twice or each.missed or each.skipped for each in answered),
        backend=backend.name,
    )

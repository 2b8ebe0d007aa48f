"""F18 and F19: a process that stands still for a while, and a clock that is set to and fro."""

import os
import signal
import time
from collections import Counter

from work import Ledger, freeze
from world import OUTCOMES, World, live, quick_folder

NO_SCHEDULES = "schedules do not exist yet: what is due is flags, delayed, backing off and snoozed"


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
        why=NO_SCHEDULES,
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
    freeze(child)
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
        why=NO_SCHEDULES,
    )

"""Controls: the checks of this suite that must find the bugs of planted.py. A suite that lets one pass is worth nothing.

``python tests/faults/controls.py BUG FOLDER`` does the check of a bug in an empty folder, and writes into the file FOLDER/found,
as JSON, what was wrong. Only where PLANTED_BUG names that bug in the environment is there something to be found.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections import Counter
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import planted
from peewee import SqliteDatabase
from work import Ledger, freeze
from worse import Worse

from flagsweep import FlagSweep
from flagsweep.config import SECOND
from flagsweep.schedules.declared import POLICIES
from flagsweep.testing import FakeClock

PATIENCE = 120.0  # seconds for which a check waits at the most: a slow machine may take them.
NOW = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC


# Each check does what a row of this suite does, at gates and conditions, never at a moment that it hopes for. It returns what was
# wrong, nothing where all was well. What keeps it from looking at all is an error, which nobody takes for a bug that was found.


def until(condition, limit=PATIENCE, every=0.005):
    """Wait as the fixture of this name does, but with the patience of a check."""
    end = time.monotonic() + max(limit, PATIENCE)
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"still not so after {PATIENCE} s: {condition}")
        time.sleep(every)
    return value


class Place:
    """A folder with a site in it, and consumers that have the bug of this process: to a row's check what its `backend` is."""

    def __init__(self, folder):
        self.folder = folder
        self.database = str(folder / "site.db")
        self.journal = folder / "journal"
        self.children = []

    def site(self, **settings):
        return Worse(self.database, self.journal, **settings).prepare()

    def consume(self, environ=None, mode="run", **settings):
        settings = json.dumps({"backoff": 0.01, "shutdown_timeout": 2, **settings})
        command = sys.executable, planted.__file__, mode, self.database, self.journal, settings
        log = self.folder / f"child-{len(self.children)}.log"
        with log.open("wb") as output:
            out = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            child = subprocess.Popen(list(map(str, command)), env=os.environ | (environ or {}), **out)
        child.log = log
        self.children.append(child)
        return child

    def end(self):
        for child in self.children:
            child.kill()
            child.wait()


def kills(place):
    """F2: a consumer is killed before the handler that it was about to call."""
    site, deaths = place.site(), {}
    site.raise_("work", 1)
    child = place.consume({"FLAGSWEEP_CRASH_AT": "perform.before"})
    code = child.wait(PATIENCE)
    assert code == -signal.SIGKILL, child.log.read_text()
    deaths[child.pid] = time.monotonic()
    site.flags.sweep()
    ledger = Ledger(site.journal.events(), deaths)
    return _what(lost=ledger.lost(site.up()), runs_without_a_cause=len(ledger.unexplained()))


def misuse(place):
    """F34: atomic handlers misuse their transaction, and return as if nothing were."""
    from test_atomic import MISUSE

    site = SqliteDatabase(place.database, pragmas={"journal_mode": "wal"}, timeout=20)
    flags = FlagSweep(site, threads=1)
    flags.init()
    site.execute_sql("CREATE TABLE effect (n PRIMARY KEY, owner)")
    site.close()

    @flags.handler(atomic=True, max_attempts=1)
    def atomic(n, how):
        site.execute_sql("INSERT INTO effect VALUES (?, NULL)", (n,))
        if how:
            MISUSE[how](site)

    kinds = [name for name in MISUSE if name not in ("journal", "disk full")]
    atomic.raise_many([{"n": n, "how": how} for n, how in enumerate([None, *kinds, None])])
    flags.sweep()
    with closing(sqlite3.connect(place.database)) as plain:
        effects = {n for (n,) in plain.execute("SELECT n FROM effect")}
    up = {flag.payload["n"] for flag in flags.find(limit=None)}
    hollow = sorted(set(range(len(kinds) + 2)) - up - effects)
    return _what(lowered_without_effect=hollow, well_behaved_and_up=sorted(up & {0, len(kinds) + 1}))


def power_cuts(place):
    """F4: the power goes at two hundred moments of a site's life."""
    from test_power import lives

    found = lives(place.folder, 1, 200)
    return _what(**{name.replace(" ", "_"): number for name, number in found.items() if name != "cuts with a loss"})


def zombies(place):
    """F17: a consumer that stood still while another took over goes on."""
    from test_processes import zombie

    accepted, late, apart = zombie(place, until)
    assert late
    return _what(completions_of_a_zombie_accepted=accepted, effects_apart_from_their_flags=apart)


def two_sweeps(place):
    """F16: one sweeps beside another that holds a flag. What opens the gate for that flag is raised later, and runs beside."""
    site, gate = place.site(), str(place.folder / "gate")
    child = place.consume(lanes={"default": 1})
    site.raise_("work", 1, do="wait", gate=gate)
    until(lambda: "work:1" in site.journal.flags("start"))
    site.raise_("work", 2, do="touch", gate=gate)
    site.flags.sweep()
    until(site.is_idle)
    return _twice(site, child)


def suspended(place):
    """F18: a consumer stands still within a handler. It is alive, whatever the others think of it."""
    site, gate = place.site(), str(place.folder / "gate")
    child = place.consume()
    site.raise_("work", 1, do="wait", gate=gate)
    until(lambda: "work:1" in site.journal.flags("start"))
    freeze(child, place.database)
    site.raise_("work", 2, do="touch", gate=gate)
    site.flags.sweep()
    child.send_signal(signal.SIGCONT)
    until(site.is_idle)
    return _twice(site, child)


def _twice(site, child):
    child.terminate()
    assert child.wait(PATIENCE) == 0, child.log.read_text()
    ledger = Ledger(site.journal.events())
    return _what(two_owners=len(ledger.overlaps()), runs_without_a_cause=len(ledger.unexplained()), lost=ledger.lost(site.up()))


def dead_queue(place):
    """F10: a site raises flags while its queue cannot be opened."""
    (place.folder / "queue.db").mkdir()
    site = place.site(queue=f"sqlite:///{place.folder}/queue.db", queue_key="k" * 40, nudge="on")
    failed = []
    for n in range(20):
        try:
            with site.flags.database.connection_context(), site.flags.database.atomic():
                site.raise_("exact", n, do="effect")
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")
    site.flags.sweep()
    failed = [f"{len(failed)} of 20, {failed[0]}"] if failed else []
    return _what(raises_failed=failed, effects_missing=20 - len(site.effects()))


def poison(place):
    """F20: a handler always raises."""
    site = place.site(attempts=3, backoff=0)
    site.raise_("work", 1, do="fail")
    site.flags.sweep(limit=20)
    told, up = Ledger(site.journal.events()).attempts("work:1"), site.up()
    parked = "work:1" in up and up["work:1"].state == "dead"
    return _what(attempts_instead_of_three=0 if told == [1, 2, 3] else len(told), not_parked=[] if parked else ["work:1"])


def time_zones(place):
    """F19: sites in several time zones ask for work in an hour."""
    clock, off = FakeClock(NOW), []
    flags = FlagSweep(place.database, clock=clock)
    flags.init()
    ran = []
    work = flags.handler("work")(lambda n: ran.append(n))
    for n, zone in enumerate(("UTC0", "EST5", "IST-5:30")):  # As POSIX writes them: no table of zones is needed.
        os.environ["TZ"] = zone
        time.tzset()
        at = datetime.fromtimestamp(clock.now() / SECOND, timezone(timedelta(hours=2))) + timedelta(hours=1)
        work.using(at=at).raise_flag(n)
        clock.advance("59m")
        flags.sweep()
        early = n in ran
        clock.advance("1m")
        flags.sweep()
        off += [f"{zone}: {'early' if early else 'late'}"] if early or n not in ran else []
    return _what(not_at_its_time=off)


def odd_exceptions(place):
    """F22: handlers raise what is no Exception, in each thread of a lane."""
    site = place.site()
    child = place.consume(lanes={"default": 2}, attempts=3)
    until(lambda: "flagsweep sweeps" in child.log.read_text())
    for n, do in enumerate(("sysexit", "interrupt")):
        site.raise_("work", n, do=do)
    until(lambda: site.is_idle() or child.poll() is not None)
    ended = [child.poll()] if child.poll() is not None else []
    child.terminate()
    code = child.wait(PATIENCE)
    lost = Ledger(site.journal.events()).lost()
    return _what(consumer_ended_by_itself_with=ended, not_done=lost, ended_badly_with=[code] if code and not ended else [])


def lost_claims(place):
    """F36: the state machine of test_lifecycle.py, led by hand: who was taken for dead settles what another has claimed since."""
    from test_lifecycle import Lifecycle

    machine = Lifecycle()
    try:
        machine.raise_flag("work", "a", 0, 0)
        machine.claim("work", 1, 50)
        machine.die_and_be_rescued(1, 0, False)
        machine.claim("work", 2, 50)
        for outcome in ("error", "final", "after", "snooze", "parked", "release", "success"):
            machine.settle_a_claim_that_is_lost(0, outcome)
        machine.the_database_is_what_the_model_says()
    except AssertionError as error:
        return [f"fails at {traceback.extract_tb(error.__traceback__)[-1].line}"]
    finally:
        machine.teardown()
    return []


def fired_by_two(place):
    """F18: of two consumers each stands still while the other fires, and then fires what it had found due."""
    clock = FakeClock(NOW)
    flags, ran = FlagSweep(place.database, clock=clock), []
    flags.init()
    work = flags.handler("work")(lambda policy, flag: ran.append((policy, flag.intended, flag.missed)))
    for policy in POLICIES:
        work.every("1h", name=policy, missed=policy, arguments={"policy": policy})
    firings = [flags._duties().firing() for _ in range(2)]
    for _ in range(4):
        for firing in firings:
            firing.fire()
            flags.sweep()
        clock.advance("1h")
    runs = Counter((policy, intended) for policy, intended, _ in ran)
    twice = [f"{policy} {intended:%H:%M}" for (policy, intended), times in runs.items() if times > 1]
    return _what(fired_twice=twice, times_not_fired=9 - len(runs), told_of_times_missed=sum(missed for *_, missed in ran))


def _what(**found):
    """Name what was found, without what is empty."""
    text = {name: ", ".join(map(str, what)) if isinstance(what, list) else what for name, what in found.items()}
    return [f"{name.replace('_', ' ')}: {text[name]}" for name, what in found.items() if what]


class Control(NamedTuple):
    """Name the row whose check must find a bug."""

    row: str
    check: object


CONTROLS = {
    "lower before run": Control("F2", kills),
    "no guard savepoint": Control("F34", misuse),
    "synchronous NORMAL": Control("F4", power_cuts),
    "unfenced completion": Control("F17", zombies),
    "lock only in Huey": Control("F16", two_sweeps),
    "heartbeat ignored": Control("F18", suspended),
    "kick inside the transaction": Control("F10", dead_queue),
    "retry without limit": Control("F20", poison),
    "naive datetime": Control("F19", time_zones),
    "catch Exception only": Control("F22", odd_exceptions),
    "claim without token": Control("F36", lost_claims),
    "no schedule uniqueness": Control("F18", fired_by_two),
}


def main(bug, folder):
    planted.plant()
    place = Place(Path(folder))
    try:
        found = CONTROLS[bug].check(place)
    finally:
        place.end()
    place.folder.joinpath("found").write_text(json.dumps(found))
    os._exit(0)  # Threads of ours may still run.


if __name__ == "__main__":
    main(*sys.argv[1:])

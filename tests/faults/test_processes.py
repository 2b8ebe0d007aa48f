"""Consumers that are killed, signalled, stopped, started twice, and starved: F1, F2, F3, F16, F17, F31, F32."""

import json
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Thread

import pytest
import worse
from test_crash import check as check_all
from test_crash import check_schedules, script
from work import Ledger, freeze
from worse import MIB

from flagsweep.testing import POINTS

READY = "flagsweep sweeps"
THREADS, BATCH = 4, 20


def is_ready(child):
    """Return whether a consumer sweeps, or has ended already."""
    return READY in child.log.read_text() or child.poll() is not None


def ended(child, deaths, limit=20):
    code = child.wait(limit)
    deaths[child.pid] = time.monotonic()
    return code


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


# F1: kill -9 at random times.


def test_f1_consumers_are_killed_at_any_time(backend, chance, sized, until, bound, report):
    """Three sites at a time: most of it is waiting."""
    kills = sized(200, 2000, 20) if backend.name == "sqlite" else sized(45, 2000, 6)
    backends = backend, backend.another(), backend.another()
    chains = [Chain(each, chance.random(), until, (kills + index) // 3) for index, each in enumerate(backends)]
    threads = [Thread(target=chain.run) for chain in chains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for chain in chains:
        chain.finish()
    recovery = [second for chain in chains for second in chain.recovery]
    worst = max(most for chain in chains for most in chain.repeats.values() or [0])
    repeats = sum(sum(chain.repeats.values()) for chain in chains)
    lost, apart = sum(len(chain.lost) for chain in chains), sum(chain.apart for chain in chains)
    wrong = sum(chain.unexplained for chain in chains)
    flags, most, p99 = sum(chain.raised for chain in chains), THREADS + 2 * BATCH, percentile(recovery, 0.99)
    report(
        "F1",
        f"SIGKILL 0.1 to 1.5 s after the start, {kills} times, 50 flags each",
        f"{flags} flags: lost {lost}, exactly-once difference {apart}, repeats {repeats} (at most {worst} a kill <= {most}), "
        f"without a cause {wrong}, p99 of {len(recovery)} recoveries {p99:.2f} s <= {bound(2):g} s",
        not lost and not apart and not wrong and worst <= most and p99 <= bound(2) and all(chain.sound for chain in chains),
        backend.name,
    )


class Chain:
    """Kill one consumer after the other on one site, while flags are raised: half of them atomic."""

    def __init__(self, backend, seed, until, kills):
        self.backend = backend
        self.until = until
        self.kills = kills
        self.site = backend.site()
        self.deaths, self.born = {}, {}
        self._numbers = count(1)
        self._chance = random.Random(seed)

    def run(self):
        for _ in range(self.kills):
            self._raise(25)
            child = self._start()
            end = self.born[child.pid] + self._chance.uniform(0.1, 1.5)
            for left in range(25, 0, -1):
                time.sleep(max(0.0, end - time.monotonic()) / left * self._chance.random())
                self._raise(1)
            time.sleep(max(0.0, end - time.monotonic()))
            child.kill()
            child.wait()
            self.deaths[child.pid] = time.monotonic()

    def _start(self):
        began = time.monotonic()
        child = self.backend.consume(batch=BATCH)
        self.born[child.pid] = began
        return child

    def _raise(self, count):
        for _ in range(count):
            n = next(self._numbers)
            if n % 2:
                self.site.raise_("work", n, do="slow", seconds=self._chance.uniform(0, 0.03))
            else:
                self.site.raise_("exact", n, do="effect")

    def finish(self):
        """Have the rest done, and look at it all."""
        self._raise(25)
        last = self._start()
        self.until(lambda: is_ready(last) and self.site.is_idle(), limit=30)
        last.terminate()
        assert last.wait(10) == 0, last.log.read_text()
        events = self.site.journal.events()
        ledger = Ledger(events, self.deaths)
        self.lost, self.unexplained = ledger.lost(self.site.up()), len(ledger.unexplained()) + len(ledger.overlaps())
        self.raised = len(ledger.raised)
        exact = Counter(int(flag.split(":")[1]) for flag in ledger.raised if flag.startswith("exact"))
        wrote = Counter(self.site.effects())
        self.apart = sum(((exact - wrote) + (wrote - exact)).values())
        self.repeats = Counter(before.pid for before, after in ledger._pairs() if before.how != "fail")
        first = {}
        for event in events:
            if event.what == "start":
                first.setdefault(event.pid, event.at)
        self.recovery = [first[pid] - at for pid, at in self.born.items() if pid in first]
        self.sound = self.backend.is_sound()


# F2: kill -9 at named points.


def test_f2_consumers_are_killed_at_every_named_point(backend, chance, sized, until, report, tmp_path):
    """The first time that each comes to a point, and at seeds after the first at a later time where there is one."""
    seeds, runs = sized(5, 20, 1), []
    jobs = [(point, 1 if seed == 0 else chance.randint(1, 4)) for seed in range(seeds) for point in POINTS]
    again, later = crashed(backend, jobs, tmp_path / "first"), 0
    for run in again:
        later += run.nth > 1 and run.was_reached
    missed = [(run.point, 1) for run in again if not run.was_reached]
    runs = again + crashed(backend, missed, tmp_path / "second")
    reached = {(run.point, number) for number, run in enumerate(runs) if run.was_reached}
    unreached = set(POINTS) - {point for point, _ in reached}
    bad = [f"{run.point}:{run.nth}: {text}" for run in runs if (text := run.trouble(until))]
    deaths = len(reached)
    report(
        "F2",
        f"{len(POINTS)} points, {seeds} times each",
        f"{deaths} deaths at a point (never reached {len(unreached)}; {later} of them at the 2nd to 4th time): "
        f"lost or repeated without cause {len(bad)} {bad[:2] or ''}",
        not unreached and not bad and deaths >= seeds * len(POINTS) and len(POINTS) >= 25,
        backend.name,
    )


def crashed(backend, jobs, folder):
    """Have consumers kill themselves, each on a database of its own."""
    sites, listed = [], []
    folder.mkdir()
    for point, nth in jobs:
        each = backend.another()
        site = each.site()
        script(site)
        sites.append(each)
        listed.append([point, nth, str(each.folder), str(each.database)])
    file = folder / "jobs"
    file.write_text(json.dumps(listed))
    subprocess.run([sys.executable, worse.__file__, "crash", file], check=True, stdin=subprocess.DEVNULL)
    by_folder = {str(each.folder): each for each in sites}
    return [CrashRun(by_folder[item[2]], *item) for item in json.loads(file.read_text())]


class CrashRun:
    """A consumer that was to kill itself when it came to a point for the n-th time."""

    def __init__(self, backend, point, nth, folder, database, pid, code, at):
        self.backend = backend
        self.point = point
        self.nth = nth
        self.deaths = {pid: at}
        self.code = code
        left = Path(folder, "reached")
        self.was_reached = code == -signal.SIGKILL and left.exists() and left.read_text() == f"{point}\n"

    def trouble(self, until):
        """Return what is wrong after the next sweep, if anything is."""
        if self.code not in (0, -signal.SIGKILL):
            return Path(self.backend.folder, "log").read_text()[-300:]
        site = self.backend.site(schedules=True)
        until(lambda: (site.flags.sweep(), site.is_idle())[1], limit=30)
        try:
            check_all(site, (self.backend.database, self.backend.journal), self.deaths)
            check_schedules(site)
        except AssertionError as error:
            return str(error).splitlines()[0]
        return ""


# F3: signals.


def test_f3_signals_drain(backend, chance, sized, until, bound, report):
    cycles, site, deaths, numbers = sized(50, 500, 8), backend.site(), {}, count(1)
    codes, slow, drained, worst = [], [], 0, 0.0
    for cycle in range(cycles):
        how = ("TERM", "INT", "HUP", "twice at once", "twice", "hung")[cycle % 6]
        site.raise_many("work", [next(numbers) for _ in range(100)], do="slow", seconds=0.002)
        gate = f"{backend.folder}/gate-{cycle}"
        if how in ("hung", "twice"):
            site.raise_("slow", next(numbers), do="wait", gate=gate)
        child = backend.consume(shutdown_timeout=1)
        until(lambda child=child: is_ready(child))
        if how in ("hung", "twice"):
            until(lambda: any(flag.state == "claimed" for flag in site.flags.find(kind="slow")))
        time.sleep(chance.uniform(0, 0.15))
        began = time.monotonic()
        send(child, how, chance)
        codes.append((how, ended(child, took := {}, 15)))
        spent = took[child.pid] - began
        worst = max(worst, spent)
        slow += [(how, spent)] if spent > 1 + bound(1) else []
        if how in ("hung", "twice"):
            deaths.update(took)
            Path(gate).touch()
        drained += how not in ("hung", "twice")
    until(lambda: (site.flags.sweep(), site.is_idle())[1], limit=30)
    ledger = Ledger(site.journal.events(), deaths)
    lost, wrong, bad = ledger.lost(site.up()), ledger.unexplained(), [code for code in codes if code[1] != 0]
    charged = [flag for flag, runs in ledger.runs.items() if runs[-1].attempt > 1]
    report(
        "F3",
        f"TERM, INT, HUP, two of them, and a hung handler, {cycles} times",
        f"lost {len(lost)}, repeats after {drained} clean drains {len(wrong)}, charged {len(charged)}, "
        f"ended other than well {len(bad)} {sorted(set(bad)) or ''}, slowest end {worst:.2f} s <= 1 + {bound(1):g} s",
        not (lost or wrong or bad or slow or charged) and backend.is_sound(),
        backend.name,
    )


def send(child, how, chance):
    """Signal a consumer: once, twice at one instant, or a second time later."""
    kinds = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "HUP": signal.SIGHUP}
    first = kinds.get(how) or chance.choice(list(kinds.values()))
    child.send_signal(first)
    if how == "twice at once":
        child.send_signal(chance.choice(list(kinds.values())))
    if how == "twice":
        time.sleep(0.4)
        child.send_signal(chance.choice(list(kinds.values())))


# F16: two consumers by mistake.


def test_f16_of_several_consumers_that_start_at_once_one_runs(backend, chance, sized, until, report):
    """On SQLite the others end and say who runs; on a server they stand by."""
    times, numbers, started, silent, crowded = sized(50, 500, 5), count(1), 0, [], 0
    site, deaths = backend.site(), {}
    for _ in range(times):
        children = [backend.consume() for _ in range(chance.randint(2, 5))]
        started += len(children)
        site.raise_many("work", [next(numbers) for _ in range(20)], do="slow", seconds=0.002)
        if backend.name == "sqlite":
            until(lambda children=children: sum(child.poll() is None for child in children) <= 1, limit=30)
        until(lambda children=children: all(is_ready(child) for child in children) and site.is_idle(), limit=30)
        others = [child for child in children if child.poll() is not None]
        silent += [child for child in others if child.returncode != 1 or "LeaseHeld" not in child.log.read_text()]
        runs = [child for child in children if child not in others]
        ran = {event.pid for event in site.journal.events("start")}
        crowded += sum(child.pid in ran for child in runs) != 1
        for child in runs:
            child.kill()
            ended(child, deaths)
    ledger = Ledger(site.journal.events(), deaths)
    overlaps, lost, twice = ledger.overlaps(), ledger.lost(site.up()), ledger.unexplained()
    others = "ended without saying who runs" if backend.name == "sqlite" else "ended instead of standing by"
    report(
        "F16",
        f"2 to 5 consumers at once, {times} times",
        f"{started} started: overlaps {len(overlaps)}, not one alone at work {crowded}, {others} {len(silent)}, "
        f"lost {len(lost)}, repeats {len(twice)}",
        not (overlaps or lost or silent or twice or crowded),
        backend.name,
    )


# F17: a zombie.


def test_f17_nothing_that_a_zombie_completes_is_accepted(backend, sized, until, report):
    """Stopped, its flags given to another by the store's rescue, which a take-over by lease does, too; then it goes on."""
    times, accepted, late, apart = sized(5, 30, 1), 0, 0, 0
    for _ in range(times):
        site_of_one = backend.another()
        found = zombie(site_of_one, until)
        accepted, late, apart = accepted + found[0], late + found[1], apart + found[2]
    report(
        "F17",
        f"SIGSTOP, rescued, another takes over, SIGCONT, {times} times",
        f"{late} completions came late: accepted {accepted}, exactly-once difference {apart}",
        not accepted and not apart and late > 0,
        backend.name,
        why="forced: a stopped process keeps its lock, so its flags are given back by calling the store's rescue"
        if backend.name == "sqlite"
        else "",
    )


def zombie(backend, until):
    """Return how many completions of a zombie were accepted, how many there were, and how far effects are from their flags."""
    site, lanes = backend.site(), {"default": 1, "slow": 1, "mail": 1}
    gate = str(backend.folder / "gate")
    child = backend.consume(lanes=lanes)
    until(lambda: is_ready(child))
    site.raise_many("exact", range(100, 150), do="effect")
    site.raise_many("work", range(100, 150))
    until(site.is_idle)
    with site.flags.database.connection_context(), site.flags.database.atomic():
        site.work.using(priority=1).raise_flag(n=1, do="wait", gate=gate)
        site.raise_many("exact", range(1, 21), do="effect")
        site.raise_many("work", range(2, 21))
    until(lambda: "work:1" in site.journal.flags("start") and len(site.flags.find(state="claimed", limit=None)) > 1)
    freeze(child, backend.database)
    (consumer,) = [each["id"] for each in site.flags.status()["consumers"]]
    with site.flags.database.connection_context():
        stolen = len(site.flags.find(state="claimed", limit=None))
        site.flags.store.rescue(consumer, (), site.flags.clock.now())
    site.flags.connections.close_engine()
    heir = backend.consume(mode="sweep", lanes=lanes)
    until(lambda: site.journal.flags("start").count("work:1") == 2)
    freeze(heir, backend.database)
    before = set(site.up())
    child.send_signal(signal.SIGCONT)
    Path(gate).touch()
    until(lambda: [e.pid for e in site.journal.events("end") if e.flag == "work:1"] == [child.pid])
    child.terminate()
    child.wait(20)
    accepted = len(before - set(site.up()) - {f"{kind}:{n}" for kind in ("work", "exact") for n in range(2, 21)})
    heir.send_signal(signal.SIGCONT)
    until(site.is_idle, limit=20)
    Path(f"{backend.journal}.stop").touch()
    assert heir.wait(10) == 0, heir.log.read_text()
    wrote = Counter(site.effects())
    wanted = Counter([*range(1, 21), *range(100, 150)])
    return accepted, stolen, sum(((wrote - wanted) + (wanted - wrote)).values())


# F31: fork after the database was used.


def test_f31_workers_forked_after_the_database_was_used_share_nothing(backend, sized, until, report):
    forks = sized(100, 1000, 20)
    site = backend.site()
    child = backend.consume()
    until(lambda: is_ready(child))
    parent = backend.spawn(sys.executable, worse.__file__, "preload", backend.database, backend.journal, forks, env=backend.env)
    code = parent.wait(300)
    until(site.is_idle, limit=30)
    child.terminate()
    assert child.wait(10) == 0, child.log.read_text()
    ledger = Ledger(site.journal.events())
    exact = sorted(int(flag.split(":")[1]) for flag in ledger.raised if flag.startswith("exact"))
    lost, repeats, apart = ledger.lost(site.up()), ledger.unexplained(), site.effects() != exact
    middle = re.findall(r"in mid-transaction: (-?\d+)", parent.log.read_text())
    sound, failed = backend.is_sound(), parent.log.read_text()[-300:] if code else ""
    report(
        "F31",
        f"{forks} forks of a process that has the database open",
        f"{len(ledger.raised)} flags raised: workers failed {bool(code):d} {failed}, lost {len(lost)}, repeats {len(repeats)}, "
        f"exactly-once difference {apart:d}, file {'sound' if sound else 'DAMAGED'}",
        not (code or lost or repeats or apart) and sound and len(exact) >= forks and middle in (["0"], ["3"]),
        backend.name,
        why="a worker forked in mid-transaction cannot write on SQLite, whose locks in memory it inherits: it is told so"
        if middle == ["3"]
        else "",
    )


# F32: resources run out.

STARVED = {
    "64 descriptors, a handler takes them all": ("files", {"RLIMIT_NOFILE": 64}),
    "20 descriptors from the start": ("ok", {"RLIMIT_NOFILE": 20}),
    "a handler starts all threads that can be": ("threads", {"RLIMIT_AS": 700 * MIB}),
    "a handler takes all memory": ("eat", {"RLIMIT_AS": 1500 * MIB}),
}
ENDS = {0, 1, -signal.SIGABRT, -signal.SIGSEGV}  # The latter two where C code finds no memory: of Python's doing, not of ours.


@pytest.mark.parametrize("starved", STARVED)
def test_f32_resources_run_out(backend, sized, until, report, starved):
    """After some seconds there is enough again: the consumer goes on, or has ended, and the next one goes on."""
    do, limits = STARVED[starved]
    site, deaths, codes, slowest = backend.site(), {}, Counter(), 0.0
    rounds = sized(3, 30, 1)
    for number in range(rounds):
        begin = number * 1000
        site.raise_("slow", begin, do=do, seconds=0.3)
        site.raise_many("work", range(begin + 1, begin + 101), do="slow", seconds=0.004)
        site.raise_many("exact", range(begin + 201, begin + 221), do="effect")
        child = backend.consume(attempts=50, backoff=0.2, options={"preexec_fn": lambda: set_limits(limits)})
        wait_for(lambda child=child: child.poll() is not None or (is_ready(child) and site.is_idle()), 3)
        relieve(child, limits)
        relieved = time.monotonic()
        wait_for(lambda child=child: child.poll() is not None or site.is_idle(), 30)
        slowest = max(slowest, time.monotonic() - relieved)
        if child.poll() is None:
            child.terminate()
        codes[ended(child, deaths)] += 1
    last = backend.consume(attempts=50)
    until(lambda: is_ready(last) and site.is_idle(), limit=30)
    last.terminate()
    assert last.wait(10) == 0, last.log.read_text()
    ledger = Ledger(site.journal.events(), deaths)
    exact = sorted(int(flag.split(":")[1]) for flag in ledger.raised if flag.startswith("exact"))
    lost, apart, owners = ledger.lost(site.up()), site.effects() != exact, ledger.overlaps()
    # Where memory ends between a handler's end and its record, the attempt has failed, and the next one knows.
    failed, repeats = [], []
    for before, after in ledger.unexplained():
        (failed if after.attempt > before.attempt and "RLIMIT_AS" in limits else repeats).append(after)
    report(
        "F32",
        starved,
        f"{rounds} rounds ended with {dict(codes)}: lost {len(lost)}, exactly-once difference {apart:d}, "
        f"two owners {len(owners)}, repeats without a cause {len(repeats)}, all done or ended {slowest:.1f} s after there was "
        "enough again",
        not (lost or apart or owners or repeats or set(codes) - ENDS or site.up()) and slowest < 30 and backend.is_sound(),
        backend.name,
        why=f"memory ended between a handler's end and its record {len(failed)} times, and the attempt failed" if failed else "",
    )


def wait_for(condition, limit):
    end = time.monotonic() + limit
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


def set_limits(limits):
    for name, value in limits.items():
        number = getattr(resource, name)
        resource.setrlimit(number, (value, resource.getrlimit(number)[1]))


def relieve(child, limits):
    """Take the limits away again."""
    for name in limits:
        number = getattr(resource, name)
        with suppress(ProcessLookupError):
            hard = resource.prlimit(child.pid, number)[1]
            resource.prlimit(child.pid, number, (hard, hard))

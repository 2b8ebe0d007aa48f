"""Handlers that fail, crash, hang, fork and misuse what they are lent, and a storm of asks: F20 to F24, F29, F34."""

import gc
import os
import resource
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest
from peewee import DatabaseError, SqliteDatabase
from test_atomic import LEAKS, MISUSE
from work import Ledger, running
from worse import MIB

from flagsweep import FlagSweep
from flagsweep.tasks import SweepTasks

READY = "flagsweep sweeps"


def is_ready(child):
    """Return whether a consumer sweeps, or has ended already."""
    return READY in child.log.read_text() or child.poll() is not None


def ended(child, deaths, limit=20):
    code = child.wait(limit)
    deaths[child.pid] = time.monotonic()
    return code


def supervise(start, deaths, is_done, limit=60, clean=True):
    """Start a consumer again whenever it has ended, until all is done; return how each ended before that.

    :param clean: whether the last one is to end well when it is told to. One without memory may not: then it is killed.
    """
    codes, end = [], time.monotonic() + limit
    while time.monotonic() < end:
        child = start()
        while child.poll() is None and not (is_ready(child) and is_done()) and time.monotonic() < end:
            time.sleep(0.02)
        if child.poll() is None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(10)
            assert child.poll() == 0 or not clean, child.log.read_text()
            child.kill()
            ended(child, deaths)
            return codes
        codes.append(ended(child, deaths))
    raise AssertionError(f"not done after {limit} s; ended with {codes}")


def raise_mixed(site, payloads, kind="work"):
    """Raise flags of different payloads in one transaction, in the order given."""
    site.flags.handlers[kind].raise_many(payloads)
    for payload in payloads:
        site.journal.write("raised", f"{kind}:{payload['n']}")


# F20: handlers that always raise.


def test_f20_poison_is_parked_and_the_healthy_go_on(backend, chance, sized, until, report):
    count, attempts = sized(5000, 20_000, 500), 3
    site = backend.site(attempts=attempts)
    child = backend.consume(attempts=attempts, backoff=0.05)
    until(lambda: is_ready(child))
    healthy = [{"n": n, "do": "slow", "seconds": 0.004} for n in range(count * 9 // 10)]
    raise_mixed(site, healthy)
    until(site.is_idle, limit=120)
    alone = rate(site, range(len(healthy)))
    mixed = [{**payload, "n": payload["n"] + count} for payload in healthy]
    poison = [{"n": n, "do": "fail"} for n in range(2 * count, 2 * count + count // 10)]
    chance.shuffle(both := mixed + poison)
    raise_mixed(site, both)
    until(site.is_idle, limit=120)
    beside = rate(site, range(count, count + len(mixed)))
    child.terminate()
    assert child.wait(10) == 0, child.log.read_text()
    ledger, up = Ledger(site.journal.events()), site.up()
    exact = sum(ledger.attempts(f"work:{p['n']}") == list(range(1, attempts + 1)) for p in poison)
    parked = sum(name in up and up[name].state == "dead" for name in (f"work:{p['n']}" for p in poison))
    lost, repeats = ledger.lost(up), ledger.unexplained()
    report(
        "F20",
        f"10 % of {count} flags always raise, {attempts} attempts",
        f"{exact} of {len(poison)} tried exactly {attempts} times, {parked} parked, lost {len(lost)}, repeats {len(repeats)}; "
        f"healthy {beside:.0f} flags/s beside them, {alone:.0f} without: {beside / alone:.0%}",
        exact == parked == len(up) == len(poison) and not lost and not repeats and beside >= 0.9 * alone,
        backend.name,
    )


def rate(site, numbers):
    """Return how many of these flags were done in a second."""
    names = {f"work:{n}" for n in numbers}
    times = [event.at for event in site.journal.events() if event.flag in names and event.what in ("start", "end")]
    return len(names) / (max(times) - min(times))


# F21: handlers that end the process.

RECORDED = {"segfault", "abort", "overflow"}


@pytest.mark.parametrize("crash", ["segfault", "abort", "exit", "overflow", "gorge"])
def test_f21_a_handler_that_ends_the_process_is_parked_and_no_other(backend, sized, report, crash):
    rounds, deaths, codes, site = sized(2, 20, 1), {}, [], backend.site(attempts=3)
    most = 0
    for number in range(rounds):
        begin = number * 100
        culprit = f"work:{begin}"
        innocent = [{"n": n, "do": "slow", "seconds": 0.02} for n in range(begin + 1, begin + 61)]
        raise_mixed(site, [*innocent[:3], {"n": begin, "do": crash, "seconds": 0.1}, *innocent[3:]])

        def is_done(culprit=culprit):
            up = site.up()
            return culprit in up and all(flag.state == "dead" for flag in up.values())

        settings = {"attempts": 3, "backoff": 0.05}
        if crash == "gorge":
            settings["backoff"] = 0.5  # What its neighbours try meanwhile finds no memory, either.
            settings["options"] = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (1500 * MIB, 1500 * MIB))}
        died = supervise(lambda settings=settings: backend.consume(**settings), deaths, is_done, clean=crash != "gorge")
        most = max(most, len(died))
        codes += died
    ledger, up = Ledger(site.journal.events(), deaths), site.up()
    culprits = {f"work:{number * 100}" for number in range(rounds)}
    blamed = sorted(up.keys() - culprits)
    charged = {flag for flag, runs in ledger.runs.items() if flag not in culprits and any(run.attempt > 1 for run in runs)}
    lost, overlaps = ledger.lost(up), ledger.overlaps()
    charges_wrongly = charged if crash in RECORDED else set()
    report(
        "F21",
        {"gorge": "all memory, 1,500 MiB allowed", "overflow": "stack overflow", "exit": "os._exit"}.get(crash, crash),
        f"ended {len(codes)} times {sorted(set(codes)) or ''}, at most {most} a culprit <= 3; parked "
        f"{len(culprits & up.keys())} of {rounds}, innocents parked {len(blamed)}, "
        f"told of an earlier attempt {len(charged)}, lost {len(lost)}, two owners {len(overlaps)}",
        most <= 3 and culprits <= up.keys() and not (blamed or charges_wrongly or lost or overlaps) and backend.is_sound(),
        backend.name,
        why=""
        if crash in RECORDED or not codes
        else "an end without a record counts as an attempt of all that ran, three asked for",
    )


# F22: exceptions that are no Exception.

UNUSUAL = {
    "system_exit": "SystemExit",
    "keyboard_interrupt": "KeyboardInterrupt",
    "generator_exit": "GeneratorExit",
    "unheard": "Unheard",
}


def test_f22_no_exception_costs_a_thread(backend, sized, until, report):
    each, site = sized(100, 1000, 20), backend.site()
    child = backend.consume(attempts=2, kinds={"work": {"breaker": None}})  # All is to be tried, at once.
    until(lambda: is_ready(child))
    assert four_run_at_once(site, backend, until, 10_000)
    threads = len(os.listdir(f"/proc/{child.pid}/task"))
    wanted = {}
    for index, (do, name) in enumerate(UNUSUAL.items()):
        site.raise_many("work", range(index * each, index * each + each), do=do)
        wanted.update({f"work:{n}": name for n in range(index * each, index * each + each)})
    until(site.is_idle, limit=60)
    up = site.up()
    recorded = sum(
        up[flag].state == "dead" and up[flag].attempts == 2 and name in up[flag].headline for flag, name in wanted.items()
    )
    still = four_run_at_once(site, backend, until, 20_000)
    lost_threads = threads - len(os.listdir(f"/proc/{child.pid}/task"))
    child.terminate()
    assert child.wait(10) == 0, child.log.read_text()
    report(
        "F22",
        f"{each} each of {', '.join(UNUSUAL.values())}",
        f"recorded {recorded} of {len(wanted)}, worker threads lost {lost_threads}, "
        f"four at once afterwards: {'yes' if still else 'NO'}",
        recorded == len(wanted) and lost_threads <= 0 and still and "Traceback" not in child.log.read_text(),
        backend.name,
    )


def four_run_at_once(site, backend, until, begin):
    gate = backend.folder / f"gate-{begin}"
    site.raise_many("work", range(begin, begin + 4), do="wait", gate=str(gate))
    until(lambda: {f"work:{n}" for n in range(begin, begin + 4)} <= set(site.journal.flags("start")))
    gate.touch()
    until(lambda: {f"work:{n}" for n in range(begin, begin + 4)} <= set(site.journal.flags("end")))
    return True


# F23: handlers that hang.


@pytest.mark.parametrize("how", ["sleep", "call", "lock", "regex"])
def test_f23_hung_handlers_are_reported_and_hold_up_no_other(backend, until, bound, report, how):
    """In a lane of two threads: one hangs, then both do. A regular expression stops the whole process: none goes on beside it."""
    site, deaths, settings = backend.site(), {}, {"stuck_after": 4, "shutdown_timeout": 1, "attempts": 5}
    child, reported = backend.consume(**settings), None
    until(lambda: is_ready(child))
    site.raise_("hung", 1, do=f"hang_{how}", seconds=60)
    until(lambda: "hung:1" in site.journal.flags("start"))
    began = time.monotonic()
    if how != "regex":
        site.raise_many("hung", range(100, 120))
        site.raise_many("work", range(20))
        until(lambda: len(site.journal.flags("end")) == 40, limit=10)
        until(lambda: "hung (flag" in child.log.read_text(), limit=10)
        reported = time.monotonic() - began
        assert child.poll() is None, "one hung handler is no reason to end"
        site.raise_("hung", 2, do=f"hang_{how}", seconds=60)
        until(lambda: "hung:2" in site.journal.flags("start"))
        began = time.monotonic()
    code = ended(child, deaths, 40)
    until_end = time.monotonic() - began
    site.raise_many("work", range(200, 220))
    again = backend.consume(**settings)
    until(site.is_idle, limit=30)
    recycled = min(event.at for event in site.journal.events("start") if event.pid == again.pid) - began
    again.terminate()
    assert again.wait(10) == 0, again.log.read_text()
    ledger = Ledger(site.journal.events(), deaths)
    lost, owners = ledger.lost(site.up()), ledger.overlaps() + ledger.unexplained()
    told = (
        "reported by the traceback with which it ends"
        if reported is None
        else f"reported after {reported:.1f} s <= {1 + bound(5):g} s"
    )
    seen = "Timeout" in child.log.read_text() if reported is None else reported <= 1 + bound(5)
    report(
        "F23",
        how,
        f"{told}, all stuck: ended with {code} after {until_end:.1f} s, recycled after {recycled:.1f} s <= {bound(30):g} s, "
        f"two owners {len(owners)}, lost {len(lost)}",
        seen and code == 1 and recycled <= bound(30) and not (lost or owners or site.up()),
        backend.name,
        why="with stuck_after=4; a handler that keeps the interpreter to itself lets no other go on until the process has ended"
        if how == "regex"
        else "with stuck_after=4",
    )


# F24: handlers that leave children behind.


@pytest.mark.parametrize("how", ["fork", "multiprocessing", "popen"])
def test_f24_children_of_a_handler_keep_no_lease_alive(backend, sized, until, bound, report, how):
    rounds, site, deaths, waited = sized(3, 30, 1), backend.site(), {}, []
    child = backend.consume()
    for number in range(rounds):
        gate = backend.folder / f"gate-{number}"
        until(lambda child=child: is_ready(child))
        site.raise_("slow", number, do=how, gate=str(gate))
        until(lambda gate=gate: Path(f"{gate}.child").exists() and Path(f"{gate}.child").read_text())
        site.raise_many("work", range(number * 1000, number * 1000 + 200), do="slow", seconds=0.01)
        until(lambda number=number: f"work:{number * 1000}" in site.journal.flags("start"))
        child.kill()
        ended(child, deaths)
        began = time.monotonic()
        child = backend.consume()
        until(lambda child=child: any(event.pid == child.pid for event in site.journal.events("start")))
        waited.append(next(event.at for event in site.journal.events("start") if event.pid == child.pid) - began)
        assert is_alive(int(Path(f"{gate}.child").read_text())), "the child was to outlive its parent"
        gate.touch()
    until(site.is_idle, limit=30)
    child.terminate()
    assert child.wait(10) == 0, child.log.read_text()
    ledger = Ledger(site.journal.events(), deaths)
    lost, wrong = ledger.lost(site.up()), ledger.unexplained() + ledger.overlaps()
    report(
        "F24",
        how,
        f"{rounds} kills with a child alive: slowest take-over {max(waited):.2f} s <= {bound(2):g} s, lost {len(lost)}, "
        f"two owners or repeats without a cause {len(wrong)}",
        max(waited) <= bound(2) and not lost and not wrong,
        backend.name,
    )


def is_alive(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


# F29: a storm of asks.


def test_f29_a_storm_of_asks_is_one_sweep(backend, sized, until, bound, report):
    seconds, site, asked, most = sized(3, 60, 1), backend.site(), Counter(), Counter()
    with running(site.flags, until):
        site.raise_("work", 0)
        until(site.is_idle)
        (tasks,) = [each for each in gc.get_objects() if isinstance(each, SweepTasks) and each.huey is site.flags.huey]
        sweeps = counted_sweeps(tasks.lanes["default"])
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=storm, args=(tasks, end, asked, number)) for number in range(2)]
        for thread in threads:
            thread.start()
        number = 0
        while time.monotonic() < end:
            queued = [task for task in site.flags.huey.pending() if task.name == "default"]
            most["queued"] = max(most["queued"], len(queued))
            most["running"] = max(most["running"], sweeps["running"])
            if number < 300:
                site.raise_("work", number := number + 1)
        for thread in threads:
            thread.join()
        until(site.is_idle)
        until(lambda: not site.flags.huey.pending_count() and not sweeps["running"], limit=2)
    ledger = Ledger(site.journal.events())
    lost, repeats, rate = ledger.lost(site.up()), ledger.unexplained(), sum(asked.values()) / seconds
    report(
        "F29",
        f"{rate:,.0f} asks/s for {seconds} s on the queue in memory",
        f"queued sweeps at most {most['queued']} <= 1, running {most['running']} <= 1, nothing queued or running 2 s later, "
        f"{sweeps['done']} sweeps for {sum(asked.values()):,} asks, lost {len(lost)}, repeats {len(repeats)}",
        most["queued"] <= 1 and most["running"] <= 1 and rate >= 10_000 / bound(1) and not lost and not repeats,
        backend.name,
        why="a queue in memory has no backlog after hours of being down",
    )


def counted_sweeps(lane):
    """Count the sweeps of a lane, and those that run at this moment."""
    counts, sweep = Counter(), lane.sweep

    def counted(*arguments, **options):
        counts["running"] += 1
        try:
            return sweep(*arguments, **options)
        finally:
            counts["running"] -= 1
            counts["done"] += 1

    lane.sweep = counted
    return counts


def storm(tasks, end, asked, number):
    while time.monotonic() < end:
        for _ in range(60):
            tasks.ask("default")
        asked[number] += 60
        time.sleep(0.005)


# F34: handlers that misuse the transaction.


def test_f34_no_misuse_of_the_transaction_costs_an_effect(db_path, chance, sized, report):
    """All kinds of misuse at random, in four threads, while the site writes, too."""
    count = sized(1000, 10_000, 200)
    site = SqliteDatabase(db_path, pragmas={"journal_mode": "wal"}, timeout=20)
    flags = FlagSweep(site, lanes={"default": 4, "loose": 4}, shutdown_timeout=60)
    flags.init()
    site.execute_sql("CREATE TABLE effect (n PRIMARY KEY, owner)")
    site.execute_sql("CREATE TABLE visit (n PRIMARY KEY)")
    site.close()

    def write(n):
        site.execute_sql("INSERT INTO effect VALUES (?, NULL)", (n,))

    @flags.handler(atomic=True, max_attempts=1, breaker=None)
    def atomic(n, misuse, then):
        write(n)
        if misuse:
            MISUSE[misuse](site)
            if then == "raise":
                raise ValueError("after all")

    @flags.handler(lane="loose", max_attempts=1, breaker=None)
    def loose(n, leak, then):
        if leak:
            LEAKS[leak](site)
            with suppress(DatabaseError):
                write(n)
            if then == "raise":
                raise ValueError("after all")
        else:
            with site.atomic():
                write(n)

    kinds = [name for name in MISUSE if name not in ("journal", "disk full")]
    thens = ("return", "raise")
    misused = [{"n": n, "misuse": chance.choice([None, *kinds]), "then": chance.choice(thens)} for n in range(count)]
    leaking = [{"n": n, "leak": chance.choice([None, *LEAKS]), "then": chance.choice(thens)} for n in range(count, 2 * count)]
    atomic.raise_many(misused)
    loose.raise_many(leaking)
    done, visits, failures = threading.Event(), [], []
    visitor = threading.Thread(target=visit, args=(db_path, done, visits, failures))
    visitor.start()
    try:
        flags.sweep()
    finally:
        done.set()
        visitor.join()
    with closing(sqlite3.connect(db_path)) as plain:
        effects = {n for (n,) in plain.execute("SELECT n FROM effect")}
        kept = {n for (n,) in plain.execute("SELECT n FROM visit")}
        sound = plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    up = {flag.payload["n"]: flag.state for flag in flags.find(limit=None)}
    lowered = set(range(2 * count)) - up.keys()
    hollow, gone = lowered - effects, set(visits) - kept
    good = {p["n"] for p in misused if p["misuse"] is None} | {p["n"] for p in leaking if p["leak"] is None}
    parked = good & up.keys()
    gc.collect()
    report(
        "F34",
        f"{len(kinds)} kinds of misuse and {len(LEAKS)} leaks at random among {2 * count} flags, the site writing beside",
        f"lowered without effect {len(hollow)} of {len(lowered)}, commits of the site lost {len(gone)} of {len(visits)} "
        f"(failed {len(failures)}), well-behaved flags parked {len(parked)} of {len(good)}",
        not (hollow or gone or failures or parked) and sound and set(up.values()) <= {"dead"},
        why="a full disk is F6",
    )


def visit(path, done, visits, failures):
    """Commit one row after the other, as a site's requests do."""
    number = 0
    while not done.wait(0.005):
        number += 1
        with closing(sqlite3.connect(path, timeout=20)) as connection:
            try:
                connection.execute("INSERT INTO visit VALUES (?)", (number,))
                connection.commit()
                visits.append(number)
            except sqlite3.Error as error:
                failures.append(error)

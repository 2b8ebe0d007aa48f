"""Rates, limits and breakers of consumers that claim at once, and are killed meanwhile: F38 to F41."""

import time
from collections import Counter
from itertools import count, islice, pairwise

from gated import LIMIT, RATE, Gated, consume, too_many
from gated_world import GatedWorld
from work import Event, Ledger
from world import live, quick_folder

from flagsweep.sweep.threads import Pool

READY = "flagsweep sweeps"


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def is_ready(child):
    return READY in child.log.read_text()


class Rush:
    """Consumers that claim flags of limited kinds at once, for some seconds.

    :param kill_every: seconds after which one of them is killed, the next one by turns, and started again; None: never.
    """

    def __init__(self, backend, chance, until, seconds, consumers, kill_every=None):
        self.backend, self.chance, self.until = backend, chance, until
        self.seconds, self.kill_every = seconds, kill_every
        self.deaths, self.ready = {}, {}
        self.site = Gated(backend.database, backend.journal).prepare()
        backend._sites.append(self.site)
        self.children = [self._start() for _ in range(consumers)]
        until(lambda: all(is_ready(child) for child in self.children))
        self.ready = {child.pid: time.monotonic() for child in self.children}
        self._raise()
        self.began = time.monotonic()
        self._go_on()
        self.ended = time.monotonic()
        for child in self.children:
            self._kill(child)

    def _start(self):
        return consume(self.backend, sweepers=2)

    def _raise(self):
        for kind, longest in (("paced", 0.02), ("both", 0.15)):
            many = int(20 * self.seconds)
            for index in range(0, many, 50):
                self.site.raise_many(kind, range(index, index + 50), do="slow", seconds=self.chance.uniform(0, longest))
        self.site.raise_many("narrow", range(int(200 * self.seconds)), do="slow", seconds=0.02)

    def _go_on(self):
        """Kill one as often as was asked, counted from when the one before is there again."""
        end, turn = self.began + self.seconds, 0
        while self.kill_every and time.monotonic() + self.kill_every < end:
            time.sleep(self.kill_every)
            turn = (turn + 1) % len(self.children)
            self._kill(self.children[turn])
            self.children[turn] = self._start()
            self.until(lambda turn=turn: is_ready(self.children[turn]))
            self.ready[self.children[turn].pid] = time.monotonic()
        time.sleep(max(0.0, end - time.monotonic()))

    def _kill(self, child):
        child.kill()
        child.wait()
        self.deaths[child.pid] = time.monotonic()

    def served(self):
        """Return for how many seconds there was a consumer that was ready, of those that it went on."""
        edges = [(at, 1) for at in self.ready.values()] + [(at, -1) for at in self.deaths.values()]
        spent, ready, since = 0.0, 0, self.began
        for at, step in sorted(edges):
            at = min(max(at, self.began), self.ended)
            spent, ready, since = spent + (at - since) * (ready > 0), ready + step, at
        return spent

    def findings(self, least, late):
        """Return what is told of it, and whether all of it holds.

        :param least: the share of a rate that must be used, by kind.
        :param late: seconds by which this machine may begin a run too late.
        """
        ledger, found, good, served = Ledger(self.site.journal.events(), self.deaths), [], True, self.served()
        for kind, share in least.items():
            starts = [run.start for run in ledger.of(kind)]
            over, used = too_many(starts, late), sum(self.began <= at <= self.ended for at in starts) / (RATE * served)
            good = good and over <= 0 and used >= share
            found.append(
                f"{kind}: {len(starts)} starts, {max(0.0, over):.1f} too many, {used:.0%} of the rate used >= {share:.0%}"
            )
        for kind in ("narrow", "both"):
            most = ledger.most_at_once(kind)
            good = good and most <= LIMIT
            found.append(f"{kind}: at most {most} at once <= {LIMIT}")
        shared = len({run.pid for run in ledger.of("narrow")})
        found.append(f"{len(ledger.of('narrow'))} narrow ones, by {shared} processes, in {served:.0f} s with a consumer")
        overlaps, repeats = len(ledger.overlaps()), len(ledger.unexplained())
        found.append(f"two owners {overlaps}, repeats without a cause {repeats}")
        return ", ".join(found), good and not overlaps and not repeats


def late(bound):
    """Return by how many seconds more than ``Pool.LATE`` a run may begin after its token was taken, on a slow machine."""
    return bound(Pool.LATE) - Pool.LATE


def test_f38_two_consumers_keep_rates_and_limits(backend, chance, sized, until, bound, report):
    seconds, consumers = sized(20, 60, 6), 1 if backend.name == "sqlite" else 2
    told, good = Rush(backend, chance, until, seconds, consumers).findings({"paced": 0.9, "both": 0.9}, late(bound))
    report("F38", f"{consumers} consumers of 8 threads for {seconds} s", told, good, backend.name)


def test_f39_consumers_are_killed_and_keep_rates_and_limits(backend, chance, sized, until, bound, report):
    """On a server the slots of the dead are free once it is found dead, and one may have had all of them."""
    seconds, consumers, every = sized(20, 60, 8), *((1, 2) if backend.name == "sqlite" else (2, 3))
    least = {"paced": 0.8, "both": 0.8 if backend.name == "sqlite" else 0.6}
    told, good = Rush(backend, chance, until, seconds, consumers, every).findings(least, late(bound))
    report("F39", f"of {consumers} one killed every {every} s, for {seconds} s", told, good, backend.name)


# F40: the provider is away, and flags are poisoned.


class Provider:
    """A site whose mails go to a provider that is away for some seconds, beside flags that need none."""

    EVERY = 0.02  # seconds from one plain flag to the next
    TAKES = 0.02  # seconds of a mail

    def __init__(self, backend, until, consumers):
        self.backend, self.until, self.consumers = backend, until, consumers
        self.file = backend.folder / "away"
        self.site = Gated(backend.database, backend.journal).prepare()
        backend._sites.append(self.site)
        self.plain = 0

    def start(self, **settings):
        settings = {"sweepers": self.consumers, "provider": str(self.file), **settings}
        self.children = [consume(self.backend, **settings) for _ in range(self.consumers)]
        self.until(lambda: all(is_ready(child) for child in self.children))

    def stop(self):
        for child in self.children:
            child.terminate()
        for child in self.children:
            assert child.wait(15) == 0, child.log.read_text()

    def mails(self, payloads):
        """Raise mails in one transaction."""
        self.site.flags.handlers["mails"].raise_many([{"do": "mail", "seconds": self.TAKES, **each} for each in payloads])

    def raise_plain(self, seconds):
        """Raise plain flags for some seconds, and as many mails; return when each of the former was raised."""
        raised, end = {}, time.monotonic() + seconds
        while time.monotonic() < end:
            self.plain += 1
            self.mails([{"n": self.plain}])
            raised[f"plain:{self.plain}"] = time.monotonic()
            self.site.raise_("plain", self.plain)
            time.sleep(self.EVERY)
        return raised

    def round(self, many, numbers, chance, poison):
        """Have so many healthy mails be sent, beside a tenth of poison or none; return within how many seconds they were."""
        healthy = list(islice(numbers, many))
        mails = [{"n": n} for n in healthy] + [
            {"n": next(numbers), "do": "poison", "seconds": 0} for _ in range(poison * many // 10)
        ]
        chance.shuffle(mails)
        with self.site.flags.database.connection_context(), self.site.flags.database.atomic():
            for index in range(0, len(mails), 10):  # What is raised at once is raised in the order of its keys: the poison last.
                self.mails(mails[index : index + 10])
        wanted = {f"mails:{n}" for n in healthy}
        self.until(lambda: len(wanted.intersection(self.site.journal.flags("end"))) == many, limit=60, every=0.1)
        runs = [run for run in Ledger(self.site.journal.events()).of("mails") if run.flag in wanted]
        return max(run.end for run in runs) - min(run.start for run in runs)

    def away(self, seconds):
        """Have the provider be away for so long, while mails wait; return when each plain flag was raised meanwhile."""
        self.file.touch()
        self.gone = time.monotonic()
        self.mails({"n": n} for n in range(100_000, 100_500))
        raised = self.raise_plain(seconds)
        self.file.unlink()
        self.back = time.monotonic()
        return raised


def slowest(ledger, raised):
    """Return within how many seconds 95 % of flags began."""
    return percentile([ledger.runs[flag][0].start - at for flag, at in raised.items()], 0.95)


def test_f40_a_provider_that_is_away_holds_up_no_other_kind_and_burns_one_claim(backend, sized, until, bound, report):
    seconds = sized(10, 60, 6)
    consumers = 1 if backend.name == "sqlite" else 2
    site = Provider(backend, until, consumers)
    site.start()
    site.raise_plain(0.5)
    calm, stormy = site.raise_plain(seconds / 2), site.away(seconds)
    until(site.site.is_idle, limit=120)
    site.stop()
    ledger = Ledger(site.site.journal.events())
    before, during = slowest(ledger, calm), slowest(ledger, stormy)
    most, claim = max(3 * before, bound(0.02)), int(8 * Pool.AHEAD / site.TAKES) + 8
    failed = sorted((run for run in ledger.of("mails") if run.how == "fail"), key=lambda run: run.start)
    probes = [run for run in failed if run.start > site.gone + bound(2)]
    burnt = Counter(run.pid for run in failed if run not in probes)
    crowded = sum(after.start < before.end for before, after in pairwise(probes))
    unsent = {f"mails:{n}" for n in range(100_000, 100_500)} - {run.flag for run in ledger.of("mails") if run.how == "end"}
    dead = sum(flag.state == "dead" for flag in site.site.up().values())
    report(
        "F40",
        f"provider away for {seconds} s, {consumers} consumers",
        f"p95 of another kind {during * 1000:.0f} ms <= {most * 1000:.0f} ms ({before * 1000:.0f} ms before), attempts burnt "
        f"{sorted(burnt.values())} <= {claim} claimed ahead, {len(probes)} probes failed, at the same time {crowded}, "
        f"dead {dead}, unsent {len(unsent)}",
        during <= most and max(burnt.values()) <= claim and not (crowded or dead or unsent),
        backend.name,
    )


def test_f40_poison_beside_healthy_flags_costs_them_little(backend, chance, sized, until, report):
    """After a first crowd of them: until ten times a success followed on it, five in a row close the gate for some seconds."""
    many, numbers, spent = sized(1000, 5000, 400), count(1), {0: 0.0, 1: 0.0}
    site = Provider(backend, until, 1 if backend.name == "sqlite" else 2)
    site.start(attempts=4)
    site.round(many // 2, numbers, chance, 1)
    for poison in (0, 1, 0, 1):
        spent[poison] += site.round(many, numbers, chance, poison)
    until(lambda: {flag.state for flag in site.site.flags.find(limit=None)} <= {"dead"}, limit=60)
    site.stop()
    poison, dead = (many * 2 + many // 2) // 10, len(site.site.flags.find(state="dead", limit=None))
    rates = {each: 2 * many / seconds for each, seconds in spent.items()}
    report(
        "F40",
        f"10 % poison flags beside {many} healthy ones, twice",
        f"{rates[1]:.0f} healthy a second, {rates[0]:.0f} without: {rates[1] / rates[0]:.0%} >= 90 %, dead {dead} of {poison}",
        rates[1] >= 0.9 * rates[0] and dead == poison,
        backend.name,
    )


# F41: everything at once, from a seed.


def test_f41_a_world_of_gates_lets_nothing_through_that_it_should_not(tmp_path, seed, sized, report):
    steps, lives, seen = sized(5_000, 100_000, 1_000), sized(5, 50, 1), Counter()
    with quick_folder(tmp_path) as folder:
        for life in range(lives):
            (folder / str(life)).mkdir()
            seen += live(folder / str(life), seed + life, steps // lives, sort=GatedWorld).seen
    report(
        "F41",
        "a seeded simulation with rate, budget, limit, breaker, pauses, Retry(all=True), kills and rollbacks",
        f"{steps} steps in {lives} lives: {seen['raise_one']} raises, {seen['runs']} runs, {seen['vanished']} vanished, "
        f"{seen['pauses']} pauses, {seen['all']} times all others waited: tokens, slots or budget exceeded 0, doubled notes 0, "
        "stuck 0",
        seen["vanished"] > 0 and seen["all"] > 0 and seen["pauses"] > 0,
    )


def test_the_receiving_side_sees_too_many_and_too_many_at_once():
    """A control: what judges can find something."""
    assert too_many([0.0] * 12) == 1 and too_many([0.0] * 11) == 0
    assert too_many([0.0] * 10 + [1.0] * 12) > 0 and too_many([index / 10 for index in range(100)]) <= 0
    seen = [(0.0, 1, "start", "a"), (0.5, 2, "start", "b"), (0.9, 3, "start", "c"), (1.0, 1, "end", "a")]
    events = [Event(at, pid, 1, what, f"work:{flag}", {"attempt": 1}) for at, pid, what, flag in seen]
    assert Ledger(events, {2: 0.8}).most_at_once("work") == 2 and Ledger(events, {2: 0.95}).most_at_once("work") == 3

"""A world of sites, consumers, people and clocks, driven step by step from one seed through years of its own time.

One thread does everything. The store, the lanes, the performer, the keeper and the lease are the real ones; what stands still is
the clock, and what is told is when a consumer vanishes: within a handler, within a transaction, or between two of them. A handler
lets the world go on while it runs, so that consumers overlap.
"""

import copy
import os
import random
import sys
import tempfile
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from peewee import OperationalError
from rig import locked

from flagsweep import Backoff, Discard, FlagSweep, Retry, Snooze
from flagsweep.config import SECOND
from flagsweep.consumer.duties import Duties
from flagsweep.consumer.keeper import Keeper
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.rescue import Rescuer
from flagsweep.databases.connections import Connections
from flagsweep.databases.pacer import Pacer
from flagsweep.models import Flag
from flagsweep.sweep.claims import Store
from flagsweep.sweep.lane import Lane, Shared
from flagsweep.sweep.perform import Performer
from flagsweep.sweep.threads import Pool
from flagsweep.testing import FakeClock

NOW = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC
HOUR, DAY, YEAR = 3600, 86400, 365 * 86400
KEYS = "abcdefgh"
DELAYS = (0, 0, 0, 0, 5, 300, DAY)
OUTCOMES = (*["ok"] * 10, "fail", "fail", "retry", "snooze", "discard", "exit", "vanish")
JUMPS = (90, -90, HOUR, -HOUR, DAY, -DAY, 10 * YEAR)
LONGEST_WAIT = 2 * DAY + 2 * HOUR  # What a raise asks for at the most, twice, since a wrong clock may double it; and a backoff.


WHOLE = ("begin", "commit", "committed", "claim", "claimed")
"""Where any error fails a turn as a whole, which is then taken part by part; elsewhere it may be one flag's."""


class Vanished(BaseException):
    """End a consumer as a power cut would: nothing of it happens any more."""


class MortalConnections(Connections):
    """The connections of one consumer, who may vanish before or after any transaction."""

    @classmethod
    def of(cls, crew, connections):
        made = copy.copy(connections)
        made.__class__, made.files = cls, copy.copy(connections.files)
        made.crew, made.fuse, made.heals = crew, None, False
        return made

    def reach(self, point):
        if self.fuse is not None:
            self.fuse -= 1
        if self.fuse == 0 and self.heals and not self.crew.gone:
            raise OperationalError(point) if point in WHOLE else locked()
        if self.crew.gone or self.fuse == 0:
            self.crew.gone = True
            raise Vanished(point)

    @contextmanager
    def write(self, only_claims=False, together=True):
        self.crew.world.before_writing(self.crew)
        self.reach("begin")
        done = self.crew.settling
        try:
            with super().write(only_claims, together) as db:
                yield db
                self.reach("commit")
        except BaseException:
            done.update({key: "to be settled anew" for key, how in done.items() if how == "settled"})
            raise
        for key in [key for key in done if done[key] == "settled"]:
            del done[key]
            self.crew.world.settled(key)
        self.crew.world.committed()
        self.reach("committed")


class MortalStore(Store):
    """The store as one consumer sees it, who may vanish before or after any of its verbs."""

    def __init__(self, connections):
        super().__init__(connections)
        self.reach = connections.reach

    def claim(self, kind, priority, limit, consumer, now, *more):
        self.reach("claim")
        claimed = super().claim(kind, priority, limit, consumer, now, *more)
        for each in claimed:
            self.crew.world.claimed(each, now)
        self.reach("claimed")
        return claimed

    def claim_these(self, kind, ids, consumer, now, *more):
        self.reach("claim")
        claimed = super().claim_these(kind, ids, consumer, now, *more)
        for each in claimed:
            self.crew.world.claimed(each, now)
        self.reach("claimed")
        return claimed

    def lower(self, ids, token):
        self.reach("lower")
        found = super().lower(ids, token)
        for id in ids:
            self.crew.note_settled(id, token)
        self.reach("lowered")
        return found

    def settle_one(self, id, token, step, now):
        self.reach("settle")
        state = super().settle_one(id, token, step, now)
        self.crew.note_settled(id, token)
        self.reach("settled")
        return state

    def settle_within(self, claimed, *rest):
        self.reach("settle within")
        how = super().settle_within(claimed, *rest)
        self.reach("settled within")
        return how


class Hands(Pool):
    """A pool that performs in the thread that waits, claims ahead as much as it is told, and writes into the black box.

    It performs all that it has before the next turn, or so many.
    """

    ahead = 1
    at_a_time = sys.maxsize

    def room(self, kind):
        return self.ahead - len(self.todo)

    def free_places(self, kind):
        return self.room(kind)

    def learn(self, kind, count, spent):
        """Learn nothing: what a run took is of this machine, and would make the next one another."""

    def wait(self):
        with self._performer.store.connections.spare.performing():
            self._perform_some(self.slot, self.at_a_time)

    def _one(self, claimed, slot):
        cells = self._member.box.cells
        cells[slot + 1], cells[slot] = claimed.token, claimed.id
        outcome = self._performer.perform(claimed)
        if self.crew.gone:  # The performer takes anything for a failure: here it is the end.
            raise Vanished("within a handler")
        cells[slot] = 0
        return outcome


class FrankKeeper(Keeper):
    """Fail where a chore does."""

    def _failed(self, chore, error, now):
        raise error


class Crew:
    """One consumer."""

    def __init__(self, world):
        flags = world.flags
        self.world = world
        self.gone = False
        self.busy = False
        self.settling = {}  # (id, token) of runs that are done, until a commit has settled them.
        self.store = MortalStore(MortalConnections.of(self, flags.connections))
        self.store.crew = self
        self.duties = Duties(self.store, flags.settings, flags.clock, flags.handlers, world.died, flags._handlers.schedules)
        self.enlisted = Enlisted(self.duties)
        self.rescuer = Rescuer(self.enlisted, self.duties.options_of, world.died)
        performer = Performer(self.store, flags.handlers, flags.clock, lambda: False)
        self.pool = Hands("default", 0, performer, self.enlisted)
        self.pool.crew, self.pool.slot = self, self.enlisted.box.slot()
        shared = Shared(self.store, flags.clock, Pacer(1.0, 1000), self.enlisted, world.died)
        self.lane = Lane("default", flags.handlers, self.pool, shared)
        lanes = {"default": self.lane}
        me = lambda: self.enlisted.id  # noqa: E731
        self.keeper = FrankKeeper(self.duties, lanes, lambda name: None, self.rescue, self.duties.firing(), me)
        self.keeper._mend_times()  # As its thread does first of all.

    def keep(self):
        """Do what the keeper's thread does once a second, while a handler runs, too."""
        if self.busy:
            self.store.connections.fuse, fuse = None, self.store.connections.fuse
            if not self.gone:
                self.keeper.run_once(self.world.clock.monotonic())
            self.store.connections.fuse = fuse
            return True
        return self.alive(self.keeper.run_once, self.world.clock.monotonic())

    def rescue(self):
        return self.rescuer.free_the_dead()

    def note_settled(self, id, token):
        if (id, token) in self.settling:
            self.settling[id, token] = "settled"

    def alive(self, do, *arguments):
        """Do something; return whether the consumer still lives."""
        self.busy = True
        try:
            do(*arguments)
        except Vanished:
            pass
        finally:
            self.busy = False
        if self.gone:
            self.vanish()
        return not self.gone

    def vanish(self):
        """Leave as a killed process does: the kernel drops the lease, all else stays."""
        self.gone = True
        self.enlisted.box.forget()
        self.enlisted._close_lease()
        self.world.vanished(self)


class World:
    """What happens, and what must hold."""

    weights = (30, 30, 12, 4, 2, 3, 12, 4, 5)
    limits = MappingProxyType({})  # Options of kinds besides, by kind.
    outcomes = OUTCOMES
    keys = KEYS
    aheads = (1, 4)  # The least and the most that a consumer claims at once.
    fuses = 0.2
    calm_after = 200  # steps

    def __init__(self, database, seed):
        self.chance = random.Random(seed)
        random.seed(seed)  # The jitter of a backoff.
        self.clock = FakeClock(NOW)
        self.truth = NOW
        self.flags = FlagSweep(database, clock=self.clock)
        self.flags.init()
        options = {"max_attempts": 3, "backoff": Backoff(first=10, factor=4, cap="1h")}
        for kind in ("work", "mail"):
            self.flags.handler(kind, **options, **self.limits.get(kind, {}))(self.act)
        self.flags.handler("exact", atomic=True, **options)(self.exactly)
        self.flags.database.connect()
        self.flags.database.execute_sql("CREATE TABLE effect (n INTEGER)")
        self.crews = []
        self.raises = self.steps = 0
        self.owed = defaultdict(set)  # By name: the raises that no run has answered for.
        self.covers = {}  # By (id, token): what a claim's run will answer for.
        self.running = {}  # By id: who runs it.
        self.excuses = Counter()  # By id: runs that may come although nothing is owed, since the last one's end was lost.
        self.seen = Counter()
        self.broken = []
        self.exact = set()
        self.calm = False
        self.depth = 0
        self.on_stage = []

    def close(self):
        for crew in self.crews:
            crew.store.crew.gone = False
            crew.store.connections.fuse = None
            crew.enlisted.close()
        self.flags.connections.close_thread()

    # The handlers.

    def act(self, n, flag=None):
        crew, name = self.on_stage[-1], (flag.kind, flag.key)
        excused = self.begins(crew, flag, name)
        try:
            if not self.calm and self.depth < 2 and self.chance.random() < 0.3:
                self.depth += 1
                for _ in range(self.chance.randint(1, 4)):
                    self.step()
                self.depth -= 1
            self.ends(crew, flag, name)
        finally:
            self.excuses[flag.id] += (
                excused and (flag.id, flag._claimed.token) not in crew.settling
            )  # It is still up, and will be tried again.
            if self.running.get(flag.id) is crew:
                del self.running[flag.id]

    def begins(self, crew, flag, name):
        if crew.gone:
            raise Vanished("before a handler")
        self.seen["runs"] += 1
        self.must(self.running.get(flag.id) is None, f"flag {flag.id} runs twice at one time")
        self.running[flag.id] = crew
        if not self.owed[name]:
            self.must(self.excuses[flag.id], f"{name} (flag {flag.id}) runs again without a cause")
            self.excuses[flag.id] -= 1
            self.seen["repeats"] += 1
            return True
        return False

    def ends(self, crew, flag, name):
        if crew.gone:
            raise Vanished("within a handler")
        how = "ok" if self.calm else self.chance.choice(self.outcomes)
        self.seen[how] += 1
        if how == "vanish":
            crew.gone = True
            raise Vanished("within a handler")
        if how in ("ok", "discard"):
            self.owed[name] -= self.covers[flag.id, flag._claimed.token]
            crew.settling[flag.id, flag._claimed.token] = name
        if how != "ok":
            raise {
                "fail": RuntimeError("asked to"),
                "retry": Retry(after=self.chance.choice((None, 0, 60, HOUR))),
                "all": Retry(after=self.chance.choice((1, 60, HOUR)), all=True),
                "snooze": Snooze(self.chance.choice((0, 5, HOUR))),
                "discard": Discard("asked to"),
                "exit": SystemExit(1),
            }[how]

    def exactly(self, n, flag):
        crew = self.on_stage[-1]
        if crew.gone:
            raise Vanished("before a handler")
        self.must(self.running.get(flag.id) is None, f"flag {flag.id} runs twice at one time")
        self.flags.database.execute_sql(f"INSERT INTO effect (n) VALUES ({int(n)})")
        how = "ok" if self.calm else self.chance.choice(("ok", "ok", "ok", "fail", self.outcomes[-1]))
        self.seen[f"exact {how}"] += 1
        if how == "vanish":
            crew.gone = True
            raise Vanished("within an atomic handler")
        if how == "fail":
            raise RuntimeError("asked to")

    # What the store tells.

    def claimed(self, claimed, now):
        self.covers[claimed.id, claimed.token] = set(self.owed[claimed.kind, claimed.key])

    def died(self, claimed, error):
        self.seen["died"] += 1

    def before_writing(self, crew):
        """Let something happen just before a consumer's transaction begins."""

    def committed(self):
        """Take note that a consumer has committed."""

    def settled(self, claim):
        """Take note that the run of a claim, (id, token), is settled for good."""

    def vanished(self, crew):
        self.seen["vanished"] += 1
        self.crews.remove(crew)
        for id in [id for id, runner in self.running.items() if runner is crew]:
            del self.running[id]
        for id, _ in crew.settling:
            self.excuses[id] += 1

    # What happens.

    def days(self):
        return (self.truth - NOW) / SECOND / DAY

    def step(self):
        self.steps += 1
        what = self.chance.choices(
            (self.raise_one, self.sweep, self.keep, self.come, self.go, self.fall, self.pass_time, self.set_clock, self.meddle),
            self.weights,
        )[0]
        self.seen[what.__name__] += 1
        what()

    def raise_one(self):
        self.raises += 1
        kind = self.chance.choice(("work", "work", "mail", "exact"))
        key, delay = self.chance.choice(self.keys), self.chance.choice(DELAYS)
        handler, db = self.flags.handlers[kind], self.flags.database
        if kind == "exact":
            key = str(self.raises)
        using = handler.using(key=key, delay=delay, priority=self.chance.choice((0, 0, 5)))
        undone = self.chance.random() < 0.1
        with suppress(ZeroDivisionError), db.atomic():
            using.raise_flag(n=self.raises)
            if undone:
                raise ZeroDivisionError("the site rolls back")
        if not undone:
            self.exact.add(self.raises) if kind == "exact" else self.owed[kind, key].add(self.raises)

    def sweep(self, limit=None):
        crew = self.free_crew()
        if crew is None:
            return self.come()
        crew.pool.ahead = self.chance.randint(*self.aheads)
        crew.store.connections.fuse = None if self.calm or self.chance.random() >= self.fuses else self.chance.randint(1, 25)
        self.on_stage.append(crew)
        try:
            crew.alive(crew.lane.sweep, None if self.calm else self.chance.choice((None, 1, 5)))
        finally:
            self.on_stage.pop()
            crew.store.connections.fuse = None

    def free_crew(self):
        free = [crew for crew in self.crews if not crew.busy]
        return self.chance.choice(free) if free else None

    def keep(self):
        crew = self.free_crew()
        if crew is not None and crew.keep() and crew.alive(crew.rescue):
            self.check_rescued()

    def come(self):
        if len(self.crews) < 4:
            self.crews.append(Crew(self))

    def go(self):
        crew = self.free_crew()
        if crew is not None:
            crew.alive(crew.enlisted.close)
            self.crews.remove(crew)

    def fall(self):
        crew = self.free_crew()
        if crew is not None:
            crew.vanish()

    def pass_time(self):
        self.advance(self.chance.choice((1, 5, 15, 60, 300, HOUR, 6 * HOUR, DAY, 5 * DAY)))

    def advance(self, seconds):
        self.clock.advance(seconds)
        self.truth += int(seconds * SECOND)

    def set_clock(self):
        off = self.chance.choice((*JUMPS, 0, 0, 0, 0, 0, 0, 0))
        self.clock.set(self.truth + off * SECOND)
        self.advance(1)
        for crew in list(self.crews):
            crew.keep()

    def meddle(self):
        what = self.chance.choice(("retry", "discard", "lower"))
        if what == "retry":
            self.flags.retry()
        elif what == "discard":
            kind, key = self.chance.choice(("work", "mail")), self.chance.choice(self.keys)
            if self.flags.discard(kind=kind, key=key):
                self.owed[kind, key].clear()
        else:
            kind, key = self.chance.choice(("work", "mail")), self.chance.choice(self.keys)
            up = self.flags.find(kind=kind, key=key)
            if self.flags.lower(kind, key):
                self.owed[kind, key].clear()
                self.excuses[up[0].id] += up[0].state == "claimed"

    # What must hold.

    def must(self, holds, what):
        """Note a broken promise: raised within a handler, it would be taken for the handler's failure."""
        if not holds:
            self.broken.append(what)

    def rows(self):
        fields = (Flag.id, Flag.kind, Flag.key, Flag.state, Flag.due_at, Flag.claimed_by)
        return list(Flag.select(*fields).tuples().execute(self.flags.database))

    MISTAKES = ("AttributeError", "KeyError", "NameError", "TypeError")
    """What no handler is asked to fail with: then the world itself is wrong, and checks less than it says."""

    def check(self):
        assert not self.broken, self.broken
        errors = [error for (error,) in self.flags.database.execute_sql("SELECT error FROM flagsweep_flag WHERE error > ''")]
        assert not [error for error in errors if any(mistake in error for mistake in self.MISTAKES)], errors
        rows = self.rows()
        up = {(kind, key) for _, kind, key, *_ in rows}
        lost = {name for name, raises in self.owed.items() if raises} - up
        assert not lost, f"lost: {lost}"
        self.check_exact({int(key) for kind, key in up if kind == "exact"})

    def check_exact(self, up):
        effects = [n for (n,) in self.flags.database.execute_sql("SELECT n FROM effect").fetchall()]
        assert len(effects) == len(set(effects)), "an atomic handler took effect twice"
        assert up ^ set(effects) == self.exact and not up & set(effects), "an effect and its flag disagree"
        if len(effects) > 200:  # What is settled is settled.
            self.flags.database.execute_sql("DELETE FROM effect")
            self.exact -= set(effects)

    def check_rescued(self):
        alive = {crew.enlisted.id for crew in self.crews}
        left = [row for row in self.rows() if row[3] == "claimed" and row[5] not in alive]
        self.must(not left, f"claimed by nobody who lives: {left}")

    def calm_down(self):
        """Let the faults end and the clock be right: everything that is owed gets done, however long it waited."""
        self.calm = True
        self.clock.set(self.truth)
        self.come()
        crew = self.free_crew()
        self.advance(2)
        assert crew.keep() and crew.alive(crew.rescue)
        self.flags.retry()
        began = self.truth
        while waiting := [row for row in self.rows() if row[3] != "dead"]:
            assert not [row for row in waiting if row[3] == "claimed" and row[5] not in {c.enlisted.id for c in self.crews}]
            due = min(row[4] for row in waiting)
            assert due - began <= LONGEST_WAIT * SECOND, f"stuck for {(due - began) / SECOND / DAY:.1f} days: {waiting}"
            self.advance(max(0, due - self.truth) / SECOND)
            self.sweep()
        assert not self.rows(), f"dead although nothing failed: {self.flags.find()}"
        assert not any(self.owed.values()), "something is owed, and nothing is up"
        self.check()
        self.covers.clear()
        self.excuses.clear()
        self.calm = False


def live(folder, seed, steps=0, days=0, sort=World):
    """Let a world live for so many steps and days of its own; return it. A failure names the seed and the step."""
    world = sort(folder / "site.db", seed)
    try:
        while world.steps < steps or world.days() < days:
            for _ in range(world.calm_after):
                world.step()
                world.check()
            world.calm_down()
    except BaseException:
        print("seed", seed, "step", world.steps)
        raise
    finally:
        world.close()
    return world


@contextmanager
def quick_folder(other):
    """Give a folder in memory where there is one: a million commits take too long on a disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else other
    with tempfile.TemporaryDirectory(prefix="flagsweep-", dir=place) as folder:
        yield Path(folder)

"""The world of ``world.py`` with gates: a rate and a budget, a limit, a breaker, pauses, and a database that is away."""

from collections import Counter, defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType

from gated import too_many
from world import HOUR, OUTCOMES, World

from flagsweep.config import SECOND
from flagsweep.models import AWAY, Gate, bump

BURST, BUDGET, LIMIT = 6, 40, 2


class GatedWorld(World):
    """``work`` has a rate and a budget, ``mail`` a limit and a breaker that is quick to close."""

    weights = (90, 40, 12, 4, 2, 3, 16, 0, 4)
    keys = "abcdefghijklmnopqrstuvwxyz"
    aheads = (2, 8)
    limits = MappingProxyType(
        {"work": {"rate": f"240/h burst {BURST}", "budget": f"{BUDGET}/d"}, "mail": {"limit": LIMIT, "breaker": 2}}
    )
    outcomes = (*OUTCOMES, "all", "all", "fail")
    fuses = 0.4

    def __init__(self, database, seed):
        super().__init__(database, seed)
        self.taken_at = {}  # By (id, token): when a claim took its token.
        self.starts = []  # The tokens of those that ran.
        self.ran_on = Counter()
        self.mails = set()

    # What happens.

    def sweep(self, limit=None):
        crew = self.free_crew()
        if crew is not None:
            crew.store.connections.heals = self.chance.random() < 0.6
            crew.pool.at_a_time = self.chance.choice((1, 2, 4))
        with suppress(*AWAY):
            super().sweep(limit)

    def go(self):
        crew = self.free_crew()
        if crew is not None:
            crew.store.connections.heals = False
            crew.lane.stop()
            if crew.alive(crew.lane.settle_rest):
                crew.alive(crew.enlisted.close)
                self.crews.remove(crew)

    def meddle(self):
        if self.chance.random() < 0.5:
            return super().meddle()
        kind, until = self.chance.choice(("work", "mail")), self.chance.choice((None, 60, HOUR))
        db, now = self.flags.database, self.clock.now()
        Gate.insert(sort="kind", name=kind).on_conflict_ignore().execute(db)
        paused = self.chance.random() < 0.5 and not self.calm
        values = {"paused_at": now, "paused_until": until and now + until * SECOND} if paused else {"paused_at": None}
        Gate.update(values).where(Gate.sort == "kind", Gate.name == kind).execute(db)
        bump(db)
        self.seen["pauses"] += paused

    # What must hold.

    def claimed(self, claimed, now):
        super().claimed(claimed, now)
        self.taken_at[claimed.id, claimed.token] = now

    def begins(self, crew, flag, name):
        ran = super().begins(crew, flag, name)
        if flag.kind == "work":
            now = self.taken_at[flag.id, flag._claimed.token]
            self.starts.append(now / SECOND)
            self.ran_on[datetime.fromtimestamp(now / SECOND, UTC).toordinal()] += 1
        else:
            self.mails.add(flag.id)
            at_once = len(self.mails & self.running.keys())
            self.must(at_once <= LIMIT, f"{at_once} mails at the same time")
        return ran

    def check(self):
        super().check()
        over = too_many(self.starts[-60:], rate=240 / HOUR, burst=BURST - 1)
        assert over <= 0, f"{over} tokens too many"
        assert not self.ran_on or max(self.ran_on.values()) <= BUDGET, f"beyond the budget: {self.ran_on}"
        ask = self.flags.database.execute_sql
        for day, used in ask("SELECT day, used FROM flagsweep_gate WHERE name = 'work' AND day IS NOT NULL").fetchall():
            assert self.ran_on[day] <= used <= BUDGET, f"{self.ran_on[day]} ran of {used} used: something was given back twice"
        alive = {crew.enlisted.id for crew in self.crews}
        held = defaultdict(int)
        for kind, consumer, slots in ask("SELECT kind, consumer, slots FROM flagsweep_hold").fetchall():
            held[kind] += slots * (consumer in alive)
        assert all(slots <= LIMIT for slots in held.values()), f"slots beyond the limit: {held}"

    def calm_down(self):
        """Let the faults end: all that is owed is done, as soon as the gates let it through."""
        self.calm = True
        Gate.update(paused_at=None).execute(self.flags.database)
        bump(self.flags.database)
        self.come()
        self.advance(2)
        crew = self.free_crew()
        crew.store.connections.heals = False
        assert crew.keep() and crew.alive(crew.rescue)
        self.flags.retry()
        most = 3 * 24 * 60 + len(self.rows()) * 24 * 60 // BUDGET * 2
        for _ in range(most):
            waiting = [row for row in self.rows() if row[3] != "dead"]
            if not waiting:
                break
            self.advance(max(60, (min(row[4] for row in waiting) - self.truth) / SECOND))
            self.sweep()
        assert not self.rows(), f"not done after {most} minutes: {self.flags.find()}"
        assert not any(self.owed.values()), "something is owed, and nothing is up"
        self.check()
        self.covers.clear()
        self.excuses.clear()
        self.calm = False

"""The life of flags as a state machine: any order of raises, claims, outcomes, deaths and people's wishes, against a small model.

The model is what docs/states says, written down once more, in memory. After each step the database must be the same, and
nothing that was raised may be lost.
"""

import sqlite3
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from flagsweep import Backoff, FlagSweep
from flagsweep.config import SECOND
from flagsweep.consumer.blame import charge
from flagsweep.databases.raising import Form, Terms
from flagsweep.databases.sqlite import flags as texts
from flagsweep.payloads import Item
from flagsweep.sweep.claims import CRASHES
from flagsweep.sweep.outcomes import Failed, Parked, Snoozed
from flagsweep.testing import FakeClock

pytestmark = pytest.mark.long

NOW = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC
CONSUMERS = (1, 2)
MAX_ATTEMPTS = 3
FIRST, CAP = 10, 25  # seconds of backoff: 10, 20, 25


def backoff(attempt):
    return min(FIRST * 2 ** (attempt - 1), CAP) * SECOND


@dataclass
class Up:
    """What the model knows of one flag that is up. ``owed`` are the raises that no run has answered for."""

    id: int
    due: int
    priority: int
    state: str = "waiting"
    generation: int = 1
    attempts: int = 0
    crashes: int = 0
    suspect: int = 0
    consumer: int | None = None
    bumped: bool = False
    owed: set = field(default_factory=set)

    def wait(self, due, attempts=None):
        self.state, self.due, self.consumer, self.bumped = "waiting", due, None, False
        self.attempts = self.attempts if attempts is None else attempts

    def die(self, attempts):
        self.wait(self.due, attempts)
        self.state = "dead"

    def afresh(self, due):
        self.wait(due, 0)
        self.crashes = self.suspect = 0

    def shown(self):
        due = None if self.state == "dead" else self.due  # When a dead flag was due is no longer of interest.
        return (
            self.id,
            self.state,
            self.generation,
            self.attempts,
            self.crashes,
            self.suspect,
            self.priority,
            self.consumer,
            due,
        )


@dataclass
class Claim:
    """A claim that a consumer holds, or believes to hold. ``covers`` are the raises that came before it."""

    flag: object
    name: tuple
    consumer: int
    covers: set


KEYS = st.sampled_from("abc")
KINDS = st.sampled_from(["mail", "work"])
DELAYS = st.sampled_from([0, 0, 0, 5, 60])
PRIORITIES = st.sampled_from([-1, 0, 0, 7])
PICK = st.integers(0, 11)
OUTCOMES = st.sampled_from(["success", "success", "error", "error", "final", "after", "snooze", "parked", "release"])


class Lifecycle(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="flagsweep-")
        path = Path(self.folder.name) / "site.db"
        self.clock = FakeClock(NOW)
        self.flags = FlagSweep(path, clock=self.clock)
        self.flags.init()
        self.store, self.verbs = self.flags.store, self.flags.verbs
        options = {"max_attempts": MAX_ATTEMPTS, "backoff": Backoff(first=FIRST, factor=2, cap=CAP, jitter=0)}
        self.handlers = {kind: self.flags.handler(kind, **options)(lambda: None) for kind in ("mail", "work")}
        self.flags.database.connect()
        self.look = sqlite3.connect(path, isolation_level=None)
        self.up = {}
        self.held, self.lost = [], []
        self.raises = 0
        self.used = set()

    def teardown(self):
        self.store.connections.close_thread()
        self.look.close()
        self.folder.cleanup()

    @property
    def now(self):
        return self.clock.now()

    # Raise.

    def _raised(self, name, delay, priority):
        """Do in the model what a raise does; return how."""
        due, flag = self.now + delay * SECOND, self.up.get(name)
        self.raises += 1
        if flag is None:
            flag = self.up[name] = Up(self._new_id(name), due, priority)
            how = "new"
        else:
            flag.generation += 1
            how = {"waiting": "coalesced", "claimed": "bumped", "dead": "revived"}[flag.state]
            if how == "revived" or (how == "bumped" and not flag.bumped):
                flag.due, flag.priority = due, priority
            else:
                flag.due = flag.due if flag.state == "waiting" and flag.attempts else min(flag.due, due)
                flag.priority = max(flag.priority, priority)
            if how == "revived":
                flag.afresh(flag.due)
            flag.bumped = flag.state == "claimed"
        flag.owed.add(self.raises)
        return how

    def _new_id(self, name):
        """Return the id that a new flag got: any that no flag ever had. A raise that meets a flag may use one up."""
        (id,) = self.look.execute("SELECT id FROM flagsweep_flag WHERE kind = ? AND key = ?", name).fetchone()
        assert id not in self.used
        self.used.add(id)
        return id

    @rule(kind=KINDS, key=KEYS, delay=DELAYS, priority=PRIORITIES)
    def raise_flag(self, kind, key, delay, priority):
        raised = self.verbs.raise_(kind, Item(key, "{}"), Terms(priority, self.now + delay * SECOND, self.now))
        assert raised.how == self._raised((kind, key), delay, priority)
        assert raised.id == self.up[kind, key].id

    @rule(kind=KINDS, keys=st.lists(KEYS, max_size=4), delay=DELAYS, priority=PRIORITIES)
    def raise_many(self, kind, keys, delay, priority):
        chunk = "[" + ",".join(f'["{key}","{{}}"]' for key in keys) + "]"
        counts = self.verbs.raise_many(kind, [chunk], Terms(priority, self.now + delay * SECOND, self.now))
        assert counts == Counter(self._raised((kind, key), delay, priority) for key in keys)

    @precondition(lambda self: self.held)
    @rule(pick=PICK, delay=DELAYS, priority=PRIORITIES)
    def bump(self, pick, delay, priority):
        self.raise_flag(*self.held[pick % len(self.held)].name, delay, priority)

    # Claim and settle.

    @rule(kind=KINDS, consumer=st.sampled_from(CONSUMERS), limit=st.sampled_from([1, 2, 50]))
    def claim(self, kind, consumer, limit):
        """Claim what is due of the kind, the most urgent priority first."""
        agenda = self.store.agenda([kind])
        waiting = [flag for name, flag in self.up.items() if flag.state == "waiting" and name[0] == kind]
        assert sorted(agenda) == sorted(
            (kind, p, min(flag.due for flag in waiting if flag.priority == p)) for p in {flag.priority for flag in waiting}
        )
        due = [priority for _, priority, earliest in agenda if earliest <= self.now]
        if not due:
            return
        with self.store.connections.write():
            taken = self.store.claim(kind, max(due), limit, consumer, self.now)
        ready = [flag for flag in waiting if flag.priority == max(due) and flag.due <= self.now]
        assert [each.id for each in taken] == [flag.id for flag in sorted(ready, key=lambda f: (f.due, f.id))][:limit]
        for each in taken:
            flag = self.up[kind, each.key]
            assert (each.attempts, each.suspect) == (flag.attempts, flag.suspect)
            flag.state, flag.consumer, flag.bumped = "claimed", consumer, False
            self.held.append(Claim(each, (kind, each.key), consumer, set(flag.owed)))

    def _settle(self, claim, outcome):
        """Settle in the database; return whether the claim still held."""
        flag = claim.flag
        with self.store.connections.write():
            if outcome == "success":
                return self.store.lower([flag.id], flag.token) != (0, 0)
            if outcome == "release":
                return self.store.release([flag.id], flag.token, self.now) == 1
            met = {
                "error": Failed("no", ValueError()),
                "final": Failed("no", ValueError(), final=True),
                "after": Failed("no", ValueError(), after=90),
                "snooze": Snoozed(30),
                "parked": Parked("odd"),
            }[outcome]
            step = met.step(self.handlers[flag.kind], flag, self.now)
            return self.store.settle_one(flag.id, flag.token, step, self.now) is not None

    @precondition(lambda self: self.held)
    @rule(pick=PICK, outcome=OUTCOMES, bump=st.none() | DELAYS)
    def settle(self, pick, outcome, bump):
        """Settle a claim; ``bump``: raise its flag with such a delay just before, too."""
        claim = self.held.pop(pick % len(self.held))
        if bump is not None:
            self.raise_flag(*claim.name, bump, 0)
        flag, now = self.up[claim.name], self.now
        assert self._settle(claim, outcome)
        self.lost.append(claim)
        if outcome != "release" and outcome != "success":
            flag.suspect = 0
        if outcome == "success":
            flag.owed -= claim.covers
            assert flag.bumped == bool(flag.owed), "a raise that no run has seen must let the flag run once more"
            if flag.bumped:
                flag.afresh(flag.due)
            else:
                del self.up[claim.name]
        elif outcome == "release":
            flag.wait(min(flag.due, now))
        elif outcome == "snooze":
            flag.wait(min(flag.due, now + 30 * SECOND) if flag.bumped else now + 30 * SECOND)
        elif outcome == "parked":
            flag.wait(now + CAP * SECOND, 0) if flag.bumped else flag.die(flag.attempts)
        elif outcome == "final" or flag.attempts + 1 >= MAX_ATTEMPTS:
            flag.wait(now + CAP * SECOND, 0) if flag.bumped else flag.die(flag.attempts + 1)
        else:
            flag.wait(now + (90 * SECOND if outcome == "after" else backoff(flag.attempts + 1)), flag.attempts + 1)

    @precondition(lambda self: self.lost)
    @rule(pick=PICK, outcome=OUTCOMES)
    def settle_a_claim_that_is_lost(self, pick, outcome):
        """Most of all one of a flag that somebody has claimed since."""
        claimed = {claim.name for claim in self.held}
        lost = [claim for claim in self.lost if claim.name in claimed] or self.lost
        assert not self._settle(lost[pick % len(lost)], outcome)

    # A consumer dies.

    @rule(consumer=st.sampled_from(CONSUMERS), running=st.integers(0, 7), crash=st.booleans())
    def die_and_be_rescued(self, consumer, running, crash):
        """``running``: which of its claims were running, bit by bit. ``crash``: whether the first of them was seen to crash."""
        mine = [claim for claim in self.held if claim.consumer == consumer]
        ran = [claim for number, claim in enumerate(mine) if running & (1 << number)]
        ids = {claim.flag.id for claim in ran}
        crashed = {ran[0].flag.id} if crash and ran else set()
        rows = sorted(self.store.claimed_by(consumer, ids), key=lambda row: row.id)
        steps = charge(rows, crashed, "report", lambda kind: self.handlers[kind].options, self.now)
        blamed = crashed or {claim.flag.id for claim in ran if self.up[claim.name].suspect} or ids
        freed, dead = self.store.rescue(consumer, [(row.id, row.claim_token, step) for row, step in steps], self.now)
        assert freed == len(mine)
        self.held = [claim for claim in self.held if claim.consumer != consumer]
        self.lost += mine
        charged = sorted((self.up[claim.name] for claim in ran if claim.flag.id in blamed), key=lambda flag: flag.id)
        assert dead == [flag.id for flag in charged if self._charge(flag, bool(crashed))]
        for claim in mine:
            flag = self.up[claim.name]
            if flag.state == "claimed":
                flag.wait(min(flag.due, self.now))

    def _charge(self, flag, crashed):
        """Charge in the model a flag that is to blame; return whether it died."""
        attempts = flag.attempts + (not crashed)
        flag.crashes += crashed
        flag.suspect = 0 if crashed else flag.suspect + 1
        dies = flag.crashes >= CRASHES if crashed else attempts >= MAX_ATTEMPTS
        if dies and not flag.bumped:
            flag.die(attempts)
            return True
        if dies:  # It would crash the process again at once, and for ever.
            flag.wait(self.now + CAP * SECOND, attempts if crashed else 0)
        else:
            flag.wait(min(flag.due, self.now), attempts)
        return False

    # People and time.

    @rule(seconds=st.sampled_from([1, 10, 30, 100]))
    def advance(self, seconds):
        self.clock.advance(seconds)

    @rule(kind=st.none() | KINDS)
    def retry(self, kind):
        again = [
            flag
            for name, flag in self.up.items()
            if kind in (None, name[0]) and (flag.state == "dead" or (flag.state == "waiting" and flag.attempts))
        ]
        assert self.flags.retry(kind=kind) == len(again)
        for flag in again:
            flag.afresh(self.now)

    @rule(kind=st.none() | KINDS)
    def discard(self, kind):
        gone = [name for name, flag in self.up.items() if kind in (None, name[0]) and flag.state == "dead"]
        assert self.flags.discard(kind=kind) == len(gone)
        for name in gone:
            del self.up[name]

    @rule(kind=KINDS, key=KEYS)
    def lower_by_hand(self, kind, key):
        gone = self.up.pop((kind, key), None)
        assert self.flags.lower(kind, key) is (gone is not None)
        self.lost += [claim for claim in self.held if claim.name == (kind, key)]
        self.held = [claim for claim in self.held if claim.name != (kind, key)]

    @rule()
    def a_right_clock_has_nothing_to_mend(self):
        assert self.store.heal_clock(self.now, self.now + 3600 * SECOND) == 0

    # What holds at any time.

    @invariant()
    def the_database_is_what_the_model_says(self):
        rows = self.look.execute(
            "SELECT kind, key, id, state, generation, attempts, crashes, suspect, priority, claimed_by,"
            " CASE state WHEN 'dead' THEN NULL ELSE due_at END FROM flagsweep_flag"
        ).fetchall()
        assert {row[:2]: row[2:] for row in rows} == {name: flag.shown() for name, flag in self.up.items()}
        assert len(rows) == len(self.up)

    @invariant()
    def a_flag_is_up_as_long_as_a_raise_of_it_is_owed_and_no_longer(self):
        assert all(flag.owed for flag in self.up.values())

    @invariant()
    def only_a_claimed_flag_bears_traces_of_a_claim_and_only_a_dead_one_of_a_death(self):
        (odd,) = self.look.execute(
            "SELECT count(*) FROM flagsweep_flag WHERE (state = 'claimed') <> (claim_token IS NOT NULL)"
            " OR (state = 'claimed') <> (claimed_by IS NOT NULL) OR (state = 'claimed') <> (claimed_generation IS NOT NULL)"
            " OR (state = 'claimed') <> (claimed_at IS NOT NULL) OR (state = 'dead') <> (died_at IS NOT NULL)"
        ).fetchone()
        assert odd == 0


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.slow
def test_the_machine_holds_for_long_lives():
    run_state_machine_as_test(Lifecycle, settings=settings(TestLifecycle.settings, max_examples=500, stateful_step_count=100))


# Controls: with a planted bug the machine must fail.

BUGS = {
    "a raise that does nothing to a flag that is up": (
        "RAISE",
        {
            Form(): texts.RAISE[Form()].partition("ON CONFLICT")[0]
            + "ON CONFLICT (kind, key) DO UPDATE SET payload = excluded.payload RETURNING id, raised_as, generation",
        },
    ),
    "lowering without a look at the generation": ("LOWER", texts.LOWER.replace("AND generation = claimed_generation", "")),
    "settling without the token": (
        "SETTLE_ONE",
        texts.SETTLE_ONE.replace("AND claim_token = :token", "AND state = 'claimed'"),
    ),
    "a bumped flag that is buried": ("SETTLE_ONE", texts.SETTLE_ONE.replace("generation > claimed_generation", "false")),
    "a rescue that forgets bumped flags": ("CLAIMED_BY", texts.CLAIMED_BY + " AND generation = claimed_generation"),
}


@pytest.mark.faults
@pytest.mark.parametrize("bug", BUGS)
def test_the_machine_finds(bug):
    name, statement = BUGS[bug]
    assert statement != getattr(texts, name)
    quick = settings(
        TestLifecycle.settings, max_examples=400, stateful_step_count=80, phases=[Phase.generate], database=None, derandomize=True
    )
    with mock.patch.object(texts, name, statement), pytest.raises(AssertionError):
        run_state_machine_as_test(Lifecycle, settings=quick)

"""The gatekeeper's books: what a turn that failed, or whose answer was lost, leaves of tokens, slots, notes and waits."""

from contextlib import suppress

import pytest
from rig import NEW_YEAR, Oops, lane_of

from flagsweep import FlagSweep
from flagsweep.config import SECOND
from flagsweep.gates import breaker
from flagsweep.gates.breaker import Breaker
from flagsweep.models import bump
from flagsweep.sweep.claims import new_token
from flagsweep.sweep.gatekeeper import Gatekeeper

DAY = 86400


class Desk:
    """What a lane does with its gates, a step at a time."""

    def __init__(self, flags, consumer=1, threads=8):
        self.flags = flags
        self.store = flags.store
        self.gates = Gatekeeper("default", flags.handlers, flags.store)
        self.consumer = consumer
        self.threads = threads
        self.now = NEW_YEAR
        if consumer not in self.store.peers():
            self.store.enlist("run", 1, "h", 0, lambda id: None)

    def turn(self, do, then=None):
        """Do something in a transaction; ``then`` it commits, or rolls back, or its answer is lost."""
        try:
            with suppress(Oops), self.store.connections.write():
                result = do()
                if then == "rollback":
                    raise Oops
        finally:
            self.gates.rolled_back() if then else self.gates.committed()
        return result

    def claim(self, wanted=10):
        grant = self.gates.enter("work", wanted, self.threads, self.consumer, self.now)
        if grant is None:
            return []
        self.probe = grant.probe
        token, flags = new_token(), self.gates.choose(grant, "work", 0, self.now) if grant.probe else None
        taken = (
            self.store.claim("work", 0, grant.count, self.consumer, self.now, token)
            if flags is None
            else self.store.claim_these("work", flags, self.consumer, self.now, token)
        )
        self.gates.leave(grant, taken, self.now)
        return taken

    def give_back(self, claimed):
        self.store.give_back(claimed, self.now)
        self.gates.returned(claimed)
        self.gates.write(self.now)

    def end_unstarted(self, claimed, then=None):
        """Have flags end unstarted, and take the next turn, which writes what the one before has told."""
        self.turn(lambda: self.give_back(claimed), then)
        self.turn(lambda: self.gates.write(self.now))

    def fail(self, claimed, fingerprint="E"):
        for each in claimed:
            self.gates.ended(each, fingerprint)
        self.gates.write(self.now)

    def row(self, column):
        engine = self.store.connections.engine
        return engine.execute_sql(f"SELECT {column} FROM flagsweep_gate WHERE name = 'work'").fetchone()[0]

    def holds(self):
        return dict(self.store.connections.engine.execute_sql("SELECT consumer, slots FROM flagsweep_hold").fetchall())


@pytest.fixture
def desk_for(url, clock, tmp_path):
    """Give `desk_for(many=40, **options)`: the desk of a site with so many flags of one kind of these options."""
    made = []

    def desk_for(many=40, **options):
        flags = FlagSweep(url, clock=clock, state_dir=tmp_path / "state", threads=8)
        flags.init()
        flags.handler("work", **options)(lambda n: None).raise_many([(n,) for n in range(many)])
        made.append(flags)
        return Desk(flags)

    yield desk_for
    for flags in made:
        flags.connections.close_engine()
        flags.connections.close_thread()


# Tokens.


@pytest.mark.parametrize("then", [None, "rollback", "lost"])
@pytest.mark.parametrize("options", [{"budget": "20/d"}, {"rate": "20/h burst 20"}, {"budget": "20/d", "rate": "20/h burst 20"}])
def test_what_is_given_back_unstarted_is_there_again_once_whatever_becomes_of_the_turn(desk_for, options, then):
    desk = desk_for(**options)
    claimed = desk.turn(desk.claim)
    ran, unstarted = claimed[:4], claimed[4:]
    if then:
        desk.end_unstarted(unstarted, then)
    desk.end_unstarted(unstarted)
    assert len(desk.turn(lambda: desk.claim(100))) == 20 - len(ran)


def test_what_is_given_back_once_more_since_an_answer_was_lost_gives_no_tokens_back_before(desk_for):
    desk = desk_for(budget="20/d")
    claimed = desk.turn(desk.claim)
    desk.end_unstarted(claimed, "lost")
    assert desk.row("used") == 10, "with the next turn, which gives them back again"


def test_a_note_that_waited_for_its_gate_is_written_once_though_the_answer_was_lost(desk_for, monkeypatch):
    desk = desk_for(budget="20/d")
    claimed = desk.turn(desk.claim)
    with monkeypatch.context() as patched:
        patched.setattr(desk.gates._dialect, "lock_gate", lambda *which: None)
        desk.end_unstarted(claimed[:3])
    assert desk.gates.has_notes and desk.row("used") == 10
    desk.turn(lambda: desk.gates.write(desk.now), "lost")
    desk.turn(lambda: desk.gates.write(desk.now))
    assert desk.row("used") == 7 and not desk.gates.has_notes


def test_what_was_used_yesterday_and_comes_back_today_is_no_credit_for_today(desk_for):
    desk = desk_for(budget="20/d")
    yesterday = desk.turn(desk.claim)
    desk.now += DAY * SECOND
    today = desk.turn(desk.claim)
    assert len(today) == 10
    desk.end_unstarted(yesterday)
    assert desk.row("used") == 10


def test_tokens_that_come_back_after_the_bucket_was_full_again_are_no_credit(desk_for):
    desk = desk_for(rate="600/m burst 10")
    early = desk.turn(desk.claim)
    desk.now += 5 * SECOND
    assert len(desk.turn(desk.claim)) == len(early) == 10
    desk.end_unstarted(early)
    assert desk.turn(desk.claim) == []


def test_a_turn_that_waited_for_its_transaction_counts_tokens_from_when_it_had_it(desk_for, clock, monkeypatch):
    flags, started, waits = desk_for(rate="600/m burst 4").flags, [], [2]
    flags.handlers["work"].function = lambda n: started.append(clock.passed)
    flags.store.connections.close_engine()
    with lane_of(flags, "default") as lane:
        turn = lane._pacer.turn
        monkeypatch.setattr(lane._pacer, "turn", lambda: (clock.advance(waits.pop() if waits else 0), turn()))
        lane.sweep()
    assert started == [2] * 4


def test_what_a_dead_consumer_had_claimed_gives_no_tokens_back_since_nobody_can_tell_what_of_it_ran(desk_for):
    """What a handler has done and no turn has settled looks like what never started: to give that back would let too many run."""
    desk = desk_for(budget="20/d", rate="20/h burst 20")
    claimed = desk.turn(desk.claim)
    assert desk.store.rescue(1, (), desk.now) == (len(claimed), [])
    heir = Desk(desk.flags, consumer=2)
    assert len(heir.turn(lambda: heir.claim(100))) == 20 - len(claimed)


# Slots.


def test_slots_count_for_threads_once_their_transaction_has_committed(desk_for):
    one = desk_for(limit=3)
    two = Desk(one.flags, consumer=2)
    with one.store.connections.write():
        one.store._dialect.hold(one.store.connections.engine, "work", 2, 2)
    one.turn(one.claim)
    assert one.gates.slots == {"work": 1}
    two.gates._holds._holding.add("work")
    two.turn(lambda: two.gates.free({}, 2))
    one.turn(one.claim, "rollback")
    assert two.turn(two.claim) and one.gates.slots == {"work": 1} and two.gates.slots == {"work": 2}
    assert one.holds() == {1: 1, 2: 2}


def test_slots_whose_return_was_rolled_back_are_given_up_again(desk_for):
    desk = desk_for(limit=3)
    desk.turn(desk.claim)
    desk.turn(lambda: desk.gates.free({}, 1), "rollback")
    assert desk.holds() == {1: 3}
    desk.turn(lambda: desk.gates.free({}, 1))
    assert desk.holds() == {}


def test_slots_of_a_part_that_was_undone_are_taken_again(desk_for):
    desk = desk_for(limit=3)

    def undone_then_claimed():
        with suppress(Oops), desk.store.connections.undoable():
            desk.claim()
            raise Oops
        return desk.claim()

    assert desk.turn(undone_then_claimed) and desk.holds() == {1: 3}


def test_what_dead_consumers_held_goes_with_them(desk_for):
    desk = desk_for(limit=3)
    desk.turn(desk.claim)
    desk.store.rescue(1, (), desk.now)
    assert desk.holds() == {}


# Waits.


def test_a_clock_that_is_set_back_keeps_no_kind_waiting(desk_for):
    desk = desk_for(rate="60/h burst 1")
    desk.turn(desk.claim)
    assert desk.turn(desk.claim) == [] and desk.gates.known.closing("work", desk.now)
    assert desk.gates.known.closing("work", desk.now - 3600 * SECOND) is None


def open_outage(desk):
    desk.turn(lambda: desk.fail(desk.claim(5)))
    assert desk.gates.known.closing("work", desk.now)
    desk.now += 31 * SECOND


def test_a_probe_whose_flag_somebody_holds_waits_a_moment_and_does_not_spin(desk_for, monkeypatch):
    desk = desk_for(rate="1000/s burst 1000")
    open_outage(desk)
    monkeypatch.setattr(desk.gates, "choose", lambda *which: [])
    assert desk.turn(desk.claim) == []
    closing = desk.gates.known.closing("work", desk.now)
    assert closing is not None and closing.until - desk.now <= SECOND


def test_what_is_raised_in_an_outage_probes_soon_though_a_look_found_nothing_fresh(desk_for, monkeypatch):
    desk = desk_for(rate="1000/s burst 1000")
    open_outage(desk)
    for _ in range(4):  # Each probe fails; the waits grow to minutes.
        desk.turn(lambda: desk.fail(desk.claim()))
        desk.now = max(desk.now, breaker.closed_until(Breaker.parse(desk.row("breaker")), desk.now))
    desk.turn(lambda: desk.fail(desk.claim()))
    desk.now += breaker.FRESH_EVERY
    with monkeypatch.context() as all_tried:
        all_tried.setattr(desk.gates, "choose", lambda *which: [])
        assert desk.turn(desk.claim) == [] and desk.probe.fresh
    assert desk.gates.known.closing("work", desk.now)
    desk.now += breaker.FRESH_EVERY
    assert desk.gates.known.closing("work", desk.now) is None
    assert len(desk.turn(desk.claim)) == 1 and desk.probe.fresh


def test_who_has_just_started_probes_soon_though_its_first_look_was_too_early(desk_for):
    desk = desk_for(rate="1000/s burst 1000")
    open_outage(desk)
    for _ in range(6):  # Each probe fails; the waits grow to minutes.
        probe = desk.turn(desk.claim)
        assert len(probe) == 1
        desk.turn(lambda probe=probe: desk.fail(probe))
        desk.now = max(desk.now, breaker.closed_until(Breaker.parse(desk.row("breaker")), desk.now))
    probe = desk.turn(desk.claim)
    desk.turn(lambda: desk.fail(probe))
    assert desk.turn(desk.claim) and desk.probe.fresh
    late = Desk(desk.flags)
    late.now = desk.now + SECOND
    late.gates.known.refresh(late.now)
    late.turn(late.claim)
    late.now = desk.now + 31 * SECOND
    assert len(late.turn(late.claim)) == 1 and not late.probe.fresh


# Two consumers, one of which has begun its turn a little earlier than the other that has written first.

A_LITTLE = SECOND // 100


def test_a_turn_that_began_before_anothers_note_forgets_nothing_of_it(desk_for):
    one = desk_for(breaker=5, rate="1000/s burst 1000")
    two = Desk(one.flags, consumer=2)
    flags = one.turn(lambda: one.claim(40))
    for failed in flags[:10]:
        for each, fingerprint in ((failed, "E"), (flags[-1], None)):
            one.gates.ended(each, fingerprint)
    one.turn(lambda: one.gates.write(one.now))
    two.now = one.now - A_LITTLE
    two.turn(lambda: two.fail(flags[10:20]))
    assert Breaker.parse(two.row("breaker")).outage is None, "what a success followed on is the flags' own failure"


def test_probes_go_one_at_a_time_though_a_turn_began_before_anothers_probe_set_out(desk_for):
    one = desk_for(breaker=5)
    two = Desk(one.flags, consumer=2)
    one.turn(lambda: one.fail(one.store.claim("work", 0, 5, 1, one.now)))
    for consumer in (one, two):
        consumer.gates.known.refresh(consumer.now)
        consumer.gates._restarted.add("work")
    one.now += 31 * SECOND
    two.now = one.now - A_LITTLE
    assert len(one.turn(one.claim)) == 1 and not one.probe.fresh
    assert len(one.turn(one.claim)) == 1 and one.probe.fresh
    assert two.turn(two.claim) == []


@pytest.mark.parametrize("options", [{"budget": "20/d"}, {"rate": "20/d burst 20"}], ids=str)
def test_what_one_gives_back_the_other_need_not_wait_for_until_tomorrow(desk_for, options):
    one = desk_for(**options)
    two = Desk(one.flags, consumer=2)
    claimed = one.turn(lambda: one.claim(20))
    two.gates.known.refresh(two.now)
    assert len(claimed) == 20 and two.turn(two.claim) == [] and two.gates.known.open(["work"], two.now) == []
    one.end_unstarted(claimed[:4])
    two.gates.known.refresh(two.now)
    assert two.gates.known.open(["work"], two.now) == ["work"] and len(two.turn(two.claim)) == 4


def test_what_was_shut_before_hurries_nobody_and_what_is_shut_by_another_does(desk_for):
    one = desk_for(breaker=5)
    one.flags.pause("work")
    two = Desk(one.flags, consumer=2)
    for look in ("the first", "one for another's sake"):
        two.gates.known.refresh(two.now)
        assert not two.gates.known.shut, look
        one.turn(lambda: bump(one.store.connections.engine, "gate"))
    one.flags.resume("work")
    two.gates.known.refresh(two.now)
    claimed = two.turn(two.claim)
    two.turn(lambda: None, "rollback")
    one.turn(lambda: one.fail(one.store.claim("work", 0, 5, 1, one.now, new_token())))
    two.gates.known.refresh(two.now)
    assert two.gates.is_behind(claimed[0], two.gates.known.take_shut()) and not two.gates.known.shut
    one.flags.pause("work")
    two.gates.known.refresh(two.now)
    assert two.gates.known.shut


@pytest.mark.parametrize("told", ["its own failures", "its next claim"])
def test_who_learns_of_anothers_outage_gives_back_what_it_has_claimed_ahead_however_it_learns(desk_for, told):
    """It read the rows later than it had learned of it otherwise, and took that for old."""
    one = desk_for(breaker=5, rate="1000/s burst 1000")
    two = Desk(one.flags, consumer=2)
    two.gates.known.refresh(two.now)
    claimed = two.turn(two.claim)
    one.turn(lambda: one.fail(one.store.claim("work", 0, 5, 1, one.now, new_token())))
    two.turn((lambda: two.fail(claimed[:5])) if told == "its own failures" else two.claim)
    two.gates.known.refresh(two.now)
    assert not two.gates.has_heard("work"), "what waits for its gate's answer is not to start"
    assert two.gates.is_behind(claimed[-1], two.gates.known.take_shut())


@pytest.mark.parametrize("options", [{"budget": "10/d"}, {"rate": "10/d burst 10"}], ids=str)
def test_who_reads_that_a_limit_is_used_up_asks_for_nothing_unless_a_wrong_clock_wrote_it(desk_for, options):
    one = desk_for(**options)
    two, ahead, three = (Desk(one.flags, consumer) for consumer in (2, 3, 4))
    assert len(one.turn(one.claim)) == 10
    two.gates.known.refresh(two.now)
    assert two.gates.known.open(["work"], two.now) == []
    assert two.gates.known.open(["work"], two.now + DAY * SECOND) == ["work"]
    ahead.now += 400 * DAY * SECOND
    ahead.turn(ahead.claim)
    three.gates.known.refresh(three.now)
    assert three.gates.known.open(["work"], three.now) == ["work"]
    three.turn(three.claim)
    two.gates.known.refresh(two.now)
    assert two.turn(two.claim) == [], "what was written with a wrong clock has been set right"
    assert two.gates.known.closing("work", two.now).until <= two.now + DAY * SECOND

"""A lane's threads, where its consumer goes on under a new id: what they still run starts not beside itself, and is not lost."""

import threading
from collections import deque
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from flagsweep.sweep.claims import Claimed
from flagsweep.sweep.outcomes import DONE
from flagsweep.sweep.threads import Pool


class Hooked(deque):
    """Call a function once, within the next ``append`` or right after the next ``popleft``: it holds a race open."""

    hook = None

    def append(self, item):
        self._call()
        super().append(item)

    def popleft(self):
        item = super().popleft()
        self._call()
        return item

    def _call(self):
        hook, self.hook = self.hook, None
        if hook:
            hook()


class Performer:
    """Note which claims are performed; the first ones wait until they may go on."""

    def look_for_spans(self): ...

    def __init__(self):
        spare = SimpleNamespace(performing=nullcontext)
        self.store = SimpleNamespace(connections=SimpleNamespace(close_thread=lambda: None, spare=spare))
        self.turns = None
        self.alone = threading.Lock()
        self.performed = []
        self.may_go_on = threading.Event()

    def perform(self, claimed):
        self.performed.append(claimed.token)
        if claimed.payload == "wait":
            assert self.may_go_on.wait(20)
        return DONE


def claimed(token, payload=None, flag=17, consumer=1):
    """Return a claim of a flag."""
    return Claimed("work", token, [0, flag, "key", payload, None], consumer)


@pytest.fixture
def pool():
    pool = Pool("default", 2, Performer(), SimpleNamespace(id=1, box=None))
    pool._done, pool.todo = Hooked(), Hooked()
    yield pool
    pool._performer.may_go_on.set()
    pool.close(10)


def goes_on_as(pool, id):
    """Have the consumer go on under a new id, and its lane take back what has not started, as at its next turn."""
    pool._member.id = id
    pool.recall()


def collected(pool, until, tokens):
    """Wait as a sweep does until the claims with these tokens have an outcome."""
    seen = []

    def all_seen():
        pool._unpark()
        seen.extend(flag.token for flag, *_ in pool.collect())
        return set(tokens) <= set(seen)

    until(all_seen)
    return seen


def test_a_flag_whose_run_ends_just_as_its_claim_is_given_back_can_run_again(pool, until):
    """The thread was done with it, and still named in what runs: nobody took that mark away, and the flag was parked for ever."""
    pool._done.hook = lambda: goes_on_as(pool, 2)
    pool.give([claimed(1)])
    collected(pool, until, [1])
    pool.give([claimed(2, consumer=2)])
    collected(pool, until, [2])
    assert pool._performer.performed == [1, 2] and pool.outstanding == 0


@pytest.mark.parametrize("id", [1, 2])
def test_a_flag_that_still_runs_under_a_claim_that_was_given_back_waits_for_its_end_and_others_do_not(pool, until, id):
    """Under the same id, too: until it knows that it was taken for dead, a consumer claims anew what others freed."""
    pool.give([claimed(1, "wait")])
    until(lambda: pool._performer.performed)
    goes_on_as(pool, id)
    pool.give([claimed(2, consumer=id), claimed(3, flag=18, consumer=id)])
    collected(pool, until, [3])
    assert pool._performer.performed == [1, 3]
    until(lambda: pool._parked)
    for _ in range(3):
        pool._unpark()
        assert pool._parked and not pool.todo, "no thread is woken for it in vain"
    pool._performer.may_go_on.set()
    collected(pool, until, [1, 2])
    assert pool._performer.performed == [1, 3, 2] and pool.outstanding == 0


def test_a_flag_that_is_taken_just_as_its_claim_is_given_back_does_not_run_under_it(pool, until):
    """It is in no list at that instant."""

    def given_back_and_claimed_anew():
        goes_on_as(pool, 2)
        pool.give([claimed(2, consumer=2)])

    pool.todo.hook = given_back_and_claimed_anew
    pool.give([claimed(1)])
    collected(pool, until, [1, 2])
    assert pool._performer.performed == [2] and pool.outstanding == 0


def test_a_pool_has_few_enough_attributes_for_python_to_read_them_the_short_way(pool):
    assert len(vars(pool)) < 30

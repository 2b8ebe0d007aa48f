"""A consumer that stays: it counts the stamp up while it works, and sees the database go back in time under it."""

from contextlib import contextmanager

import pytest

from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.origin import Stamp
from flagsweep.consumer.stamping import HELD, STAMP, Stamping
from flagsweep.models import fact


@pytest.fixture
def flags(flags_anywhere):
    return flags_anywhere


@contextmanager
def consumer(flags):
    """Be one; its keeper is us."""
    duties = flags._duties()
    member = Enlisted(duties)
    try:
        stamping = Stamping(duties, member)
        stamping.check()
        yield stamping
    finally:
        member.close()
        flags.connections.close_engine()


def number(flags):
    """Return how far the stamp has come."""
    with flags.connections.lent("") as db:
        return Stamp.parse(fact(db, STAMP).value).n


def set_stamp(flags, **values):
    with flags.connections.lent("") as db:
        row = fact(db, STAMP)
        stamp = Stamp.parse(row.value)
        text = Stamp(**{**stamp.__dict__, **values}).text()
        flags.connections.dialect.note_fact(db, STAMP, text, row.at)


def work(flags, stamping, seconds=1):
    """Have done something, and the keeper look."""
    flags.store.done += 1
    flags.clock.advance(seconds)
    stamping.look()


def seen(stamping):
    return stamping._sightings.beside()[0].n


def test_the_stamp_goes_up_at_the_first_work_then_once_a_minute_and_never_at_rest(flags):
    with consumer(flags) as stamping:
        work(flags, stamping)
        assert number(flags) == 1
        for _ in range(30):
            work(flags, stamping)
        assert number(flags) == 1
        for _ in range(30):
            work(flags, stamping)
        assert number(flags) == 2
        work(flags, stamping)
        for _ in range(20):
            flags.clock.advance(600)
            stamping.look()
        assert number(flags) == 3  # What was done after the last count; and no more.


def test_what_was_done_last_is_stamped_when_the_consumer_stops(flags):
    with consumer(flags) as stamping:
        work(flags, stamping)
        work(flags, stamping, 5)
        assert number(flags) == 1
        stamping.close()
        assert (number(flags), seen(stamping)) == (2, 2)


def test_it_is_noted_outside_only_once_it_is_surely_on_the_disk(flags):
    with consumer(flags) as stamping:
        work(flags, stamping)
        assert (number(flags), seen(stamping)) == (1, 0)
        flags.clock.advance(3.1)
        stamping.look()
        assert seen(stamping) == 1


def test_a_count_that_a_server_forgot_in_a_power_cut_is_no_alarm(flags):
    with consumer(flags) as stamping:
        work(flags, stamping)
        set_stamp(flags, n=0)
        work(flags, stamping, 0.5)
        assert stamping.held is None
    with consumer(flags) as stamping:
        assert stamping.held is None


def test_a_database_that_goes_back_under_a_consumer_is_held_back(flags, caplog):
    with consumer(flags) as stamping:
        work(flags, stamping)
        flags.clock.advance(4)
        stamping.look()
        set_stamp(flags, n=0)
        flags.clock.advance(1)
        stamping.look()
        assert stamping.held is None  # Nothing was done meanwhile; it is looked at once a minute.
        work(flags, stamping)
        assert stamping.held is not None
        assert flags.restored.finding == "older"
        assert "PAUSED" in caplog.text
        stamping.look()
        assert caplog.text.count("PAUSED") == 1
        flags.confirm()
        stamping.look()
        assert stamping.held is None
        work(flags, stamping, 61)
        assert stamping.held is None and number(flags) == 1


def test_others_count_too(flags):
    with consumer(flags) as stamping:
        work(flags, stamping)
        set_stamp(flags, n=17)
        work(flags, stamping)
        assert stamping.held is None
        flags.clock.advance(4)
        stamping.look()
        assert seen(stamping) == 17
        work(flags, stamping, 60)
        assert number(flags) == 18


def test_who_confirms_beside_a_running_consumer_disturbs_nobody(flags):
    with consumer(flags) as stamping:
        work(flags, stamping)
        flags.confirm()
        work(flags, stamping, 61)
        assert stamping.held is None and number(flags) == 1
    with consumer(flags) as stamping:
        assert stamping.held is None


@pytest.mark.parametrize("damage", ["", "no json", '{"token": 1}', "[]"])
def test_a_damaged_stamp_is_held_back_like_a_missing_one_where_flags_are_up(flags, damage):
    flags.handler("work")(lambda n: None).raise_flag(1)
    with consumer(flags):
        pass
    with flags.connections.lent("") as db:
        flags.connections.dialect.note_fact(db, STAMP, damage, 1)
    with consumer(flags) as stamping:
        assert stamping.held is not None
    with flags.connections.lent("") as db:
        flags.connections.dialect.note_fact(db, HELD, damage, 1)
    assert flags.restored.why
    flags.confirm()
    with consumer(flags) as stamping:
        assert stamping.held is None


def test_a_plain_start_writes_no_stamp(flags):
    def stamp():
        with flags.connections.lent("") as db:
            row = fact(db, STAMP)
        path = stamping._sightings._folder / "stamp"
        return row.value, row.at, path.stat().st_ino

    with consumer(flags) as stamping:
        before = stamp()
    flags.clock.advance(60)
    with consumer(flags) as stamping:
        assert stamp() == before

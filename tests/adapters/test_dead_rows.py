"""Own rows whose flag is dead, is tried again, or is discarded."""

import pytest
from own_rows import User, add, column

from flagsweep import Discard, Retry, Snooze


def test_discovery_never_revives_a_dead_flag(flags, db_path, clock):
    add(db_path, owed=1)

    @flags.when(User.owed, max_attempts=1)
    def work(user):
        raise ValueError("no")

    assert +flags.sweep() == {"dead": 1}
    clock.advance(10**6)
    assert not +flags.sweep()
    assert column(db_path, "owed") == 1


@pytest.mark.parametrize("how", ["retry", "raise"])
def test_a_person_or_a_raise_revives_a_dead_flag(flags, db_path, how):
    id = add(db_path, owed=1)
    fine = []

    @flags.when(User.owed, max_attempts=1)
    def work(user):
        if not fine:
            raise ValueError("no")

    flags.sweep()
    fine.append(1)
    if how == "retry":
        assert flags.retry(kind="work", key=str(id)) == 1
    else:
        assert work.raise_flag(id).how == "revived"
    assert +flags.sweep() == {"lowered": 1}
    assert column(db_path, "owed") == 0


@pytest.mark.parametrize("watched", ["owed", "owed_at"])
@pytest.mark.parametrize("atomic", [False, True])
def test_a_handler_that_discards_lowers_the_column(flags, db_path, watched, atomic):
    add(db_path, owed=1, owed_at="2026-01-01T10:00:00Z")

    @flags.when(getattr(User, watched), atomic=atomic)
    def work(user):
        raise Discard("no such address")

    assert +flags.sweep() == {"discarded": 1}
    assert not column(db_path, watched)
    assert not +flags.sweep()


@pytest.mark.parametrize("watched", ["owed", "owed_at"])
@pytest.mark.parametrize("how", ["discard", "lower"])
def test_a_person_who_takes_a_flag_down_lowers_the_column(flags, db_path, watched, how):
    id = add(db_path, owed=1, owed_at="2026-01-01T10:00:00Z")

    @flags.when(getattr(User, watched), max_attempts=1)
    def work(user):
        raise ValueError("no")

    flags.sweep()
    assert flags.discard(kind="work") if how == "discard" else flags.lower("work", str(id))
    assert not column(db_path, watched)
    assert not +flags.sweep()


def test_a_snoozed_or_retried_row_keeps_its_column(flags, db_path, clock):
    add(db_path, owed=1)
    outcomes = [Snooze(5), Retry(after=5)]

    @flags.when(User.owed)
    def work(user):
        if outcomes:
            raise outcomes.pop(0)

    for expected in ("snoozed", "again", "lowered"):
        assert +flags.sweep() == {expected: 1}
        assert column(db_path, "owed") == (expected != "lowered")
        clock.advance(5)

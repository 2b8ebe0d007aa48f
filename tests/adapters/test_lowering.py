"""Own rows: lowered after their handler or before it, and timestamps compared as they are stored."""

import pytest
from own_rows import User, add, column
from rig import count, plain

from flagsweep import Discard, FlagSweep
from flagsweep.databases.pacer import Pacer


def test_lowered_after_a_boolean_set_again_while_its_handler_runs_is_done(flags, db_path):
    add(db_path, owed=1)
    flags.when(User.owed, kind="work")(lambda user: plain(db_path, "UPDATE user SET owed = 1"))
    assert +flags.sweep() == {"lowered": 1}
    assert column(db_path, "owed") == 0


@pytest.mark.parametrize(
    ("watched", "value", "down"), [("owed", 1, 0), ("owed_at", "2026-01-01T10:00:00", None)], ids=["Boolean", "timestamp"]
)
def test_lowered_before_a_column_set_again_while_its_handler_runs_is_new_work(flags, db_path, watched, value, down):
    add(db_path, **{watched: value})
    seen = []

    @flags.when(getattr(User, watched), lower="before")
    def work(user):
        seen.append(column(db_path, watched))
        if len(seen) == 1:
            plain(db_path, f"UPDATE user SET {watched} = ?", value)

    assert +flags.sweep() == {"lowered": 2}
    assert seen == [down, down]
    assert column(db_path, watched) == down


@pytest.mark.parametrize("lower", ["after", "before"])
def test_a_row_that_another_sweep_does_between_finding_and_claiming_is_not_done_again(flags, db_path, monkeypatch, lower):
    add(db_path, owed=1)
    runs = []
    other = FlagSweep(db_path)
    for each in (flags, other):
        each.when(User.owed, kind="work", lower=lower)(lambda user: runs.append(user.id))
    turn, swept = Pacer.turn, []

    def turn_late(pacer):
        if not swept:
            swept.append(1)
            assert other.sweep() == {"lowered": 1}
        return turn(pacer)

    monkeypatch.setattr(Pacer, "turn", turn_late)
    flags.sweep()
    assert runs == [1]
    assert count(db_path) == 0


def test_lowered_before_a_failed_attempt_is_tried_again(flags, db_path, clock):
    add(db_path, owed=1)
    seen = []

    @flags.when(User.owed, lower="before", backoff=10)
    def work(user):
        seen.append(user.id)
        if len(seen) < 3:
            raise ValueError("no")

    for expected in ("again", "again", "lowered"):
        assert +flags.sweep() == {expected: 1}
        clock.advance(10)
    assert column(db_path, "owed") == 0


def test_lowered_before_a_column_set_during_a_discarded_run_stays_new_work(flags, db_path):
    add(db_path, owed=1)
    seen = []

    @flags.when(User.owed, lower="before")
    def work(user):
        seen.append(user.id)
        if len(seen) == 1:
            plain(db_path, "UPDATE user SET owed = 1")
            raise Discard("the old setting is void")

    assert +flags.sweep() == {"discarded": 1, "lowered": 1}


WHOLE = ["2026-01-01T10:00:00", "2026-01-01 10:00:00.123", "2026-01-01T10:00:00Z"]


RAW = [*WHOLE, "2026-01-01", "10:00", 1767225600, 1.5, "soon", ""]


@pytest.mark.parametrize("raw", RAW)
def test_a_timestamp_is_lowered_however_it_is_written(flags, db_path, raw):
    add(db_path, owed_at=raw)
    flags.when(User.owed_at, kind="work")(lambda user: None)
    assert +flags.sweep() == {"lowered": 1}
    assert column(db_path, "owed_at") is None


@pytest.mark.parametrize("again", RAW)
def test_a_timestamp_set_again_while_its_handler_runs_stays_up_and_runs_again(flags, db_path, again):
    add(db_path, owed_at="2026-01-01 10:00:00")
    seen = []

    @flags.when(User.owed_at)
    def work(user):
        seen.append(column(db_path, "owed_at"))
        if len(seen) == 1:
            plain(db_path, "UPDATE user SET owed_at = ?", again)

    assert +flags.sweep() == {"lowered": 2}
    assert seen == ["2026-01-01 10:00:00", again]
    assert column(db_path, "owed_at") is None


def test_the_same_moment_written_otherwise_is_a_new_setting(flags, db_path):
    add(db_path, owed_at="2026-01-01 10:00:00")
    runs = []

    @flags.when(User.owed_at)
    def work(user):
        runs.append(1)
        if len(runs) == 1:
            plain(db_path, "UPDATE user SET owed_at = '2026-01-01T10:00:00'")

    assert +flags.sweep() == {"lowered": 2}


def test_a_timestamp_set_again_while_its_row_is_loaded_stays_up_and_runs_again(flags, db_path):
    add(db_path, email="old", owed_at="2026-01-01 10:00:00")
    seen, loaded = [], []

    class Racing(User):
        """Be changed by another program at the very moment of loading."""

        def __init__(self, *arguments, **columns):
            super().__init__(*arguments, **columns)
            if not loaded:
                loaded.append(1)
                plain(db_path, "UPDATE user SET email = 'new', owed_at = '2026-02-02 10:00:00'")

        class Meta:
            table_name = "user"

    flags.database.bind([Racing])
    flags.when(Racing.owed_at, kind="work")(lambda user: seen.append(user.email))
    flags.sweep()
    assert seen[-1] == "new"
    assert column(db_path, "owed_at") is None


def test_a_timestamp_set_again_during_a_discarded_run_stays_new_work(flags, db_path):
    add(db_path, owed_at="2026-01-01")
    seen = []

    @flags.when(User.owed_at)
    def work(user):
        seen.append(1)
        if len(seen) == 1:
            plain(db_path, "UPDATE user SET owed_at = '2026-02-02'")
            raise Discard("void")

    assert +flags.sweep() == {"discarded": 1, "lowered": 1}
    assert column(db_path, "owed_at") is None

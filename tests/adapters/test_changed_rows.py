"""Own rows that changed meanwhile, or that cannot be asked for, trouble no other."""

import json
import logging

import pytest
from own_rows import Order, User, add, column
from rig import count, plain

from flagsweep import Discard


def test_a_row_that_no_longer_matches_is_lowered_without_running(flags, db_path):
    ids = [add(db_path, owed=1) for _ in range(5)]
    seen = []
    flags.settings.lanes["default"] = 1

    @flags.when(User.owed)
    def greet(user):
        seen.append(user.id)
        plain(db_path, "UPDATE user SET owed = 0 WHERE id > 1")

    assert +flags.sweep(raise_errors=True)
    assert seen == [ids[0]]
    assert count(db_path) == 0


def test_a_row_that_was_deleted_meanwhile_is_lowered_without_running(flags, db_path):
    id = add(db_path, owed=1)
    seen = []
    greet = flags.when(User.owed, kind="greet")(lambda user: seen.append(user.id))
    greet.raise_flag(id)
    plain(db_path, "DELETE FROM user")
    assert +flags.sweep() == {"lowered": 1}
    assert (seen, count(db_path)) == ([], 0)


@pytest.mark.parametrize("watched", ["owed", "owed_at"])
@pytest.mark.parametrize("atomic", [False, True])
def test_a_row_that_its_handler_deletes_is_done(flags, db_path, watched, atomic):
    add(db_path, owed=1, owed_at="2026-01-01")
    flags.when(getattr(User, watched), kind="work", atomic=atomic)(lambda user: user.delete_instance())
    assert +flags.sweep() == {"lowered": 1}
    assert count(db_path, "user") == 0


def test_a_condition_that_still_holds_after_success_is_a_failure_and_no_loop(flags, db_path):
    add(db_path, paid=5)
    runs = []
    flags.when(User.paid > 0, kind="work", max_attempts=2, backoff=0)(lambda user: runs.append(user.id))
    assert +flags.sweep() == {"again": 1, "dead": 1}
    assert runs == [1, 1]
    (flag,) = flags.find()
    assert "its condition still holds for row 1: change the row so that it does not" in flag.error


def test_a_discarded_row_whose_condition_holds_is_parked_and_not_found_anew(flags, db_path):
    add(db_path, paid=5)

    @flags.when(User.paid > 0)
    def work(user):
        raise Discard("no such address")

    assert +flags.sweep() == {"dead": 1}
    assert not +flags.sweep()
    assert "no such address" in flags.find()[0].error


@pytest.mark.parametrize("broken", ["table", "column", "function"])
def test_what_cannot_be_asked_parks_its_kind_alone_with_one_line(flags, db_path, caplog, broken):
    add(db_path, owed=1)
    done = []
    flags.when(User.owed, kind="greet")(lambda user: done.append(user.id))
    plain_work = flags.handler("plain")(lambda: done.append("plain"))
    if broken == "table":
        flags.when(Order.paid, kind="lost")(lambda order: None)
        plain(db_path, "DROP TABLE orders")
    elif broken == "column":
        flags.when(Order.paid, kind="lost")(lambda order: None)
        plain(db_path, "ALTER TABLE orders DROP COLUMN paid")
    else:
        works = [True]
        flags.when(lambda: Order.paid if works else 1 / 0, kind="lost")(lambda order: None)
        works.clear()
    plain_work.raise_flag()
    assert +flags.sweep() == {"lowered": 2}
    assert sorted(map(str, done)) == ["1", "plain"]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1 and "lost" in lines[0]


def test_a_table_that_comes_back_is_found_again(flags, db_path):
    done = []
    flags.when(Order.paid, kind="work")(lambda order: done.append(order.id))
    plain(db_path, "ALTER TABLE orders RENAME TO away")
    assert not +flags.sweep()
    plain(db_path, "ALTER TABLE away RENAME TO orders")
    plain(db_path, "INSERT INTO orders (user, paid) VALUES (1, 1)")
    assert +flags.sweep() == {"lowered": 1}


@pytest.mark.parametrize("lower", ["after", "before"])
def test_a_flag_whose_table_is_gone_fails_alone_and_can_be_discarded(flags, db_path, lower):
    done = []
    work = flags.when(Order.paid, kind="lost", lower=lower, max_attempts=1)(lambda order: None)
    other = flags.handler("other")(lambda n: done.append(n))
    plain(db_path, "INSERT INTO orders (user, paid) VALUES (1, 1)")
    work.raise_flag(1)
    other.raise_many([(n,) for n in range(3)])
    plain(db_path, "DROP TABLE orders")
    assert +flags.sweep() == {"lowered": 3, "dead": 1}
    assert sorted(done) == [0, 1, 2]
    assert "no such table" in flags.find()[0].error
    assert flags.discard() == 1
    assert flags.find() == []


@pytest.mark.parametrize("lower", ["after", "before"])
@pytest.mark.parametrize("row", ["abc", "", None, [1], "1.5", "99999999999999999999999"])
def test_a_damaged_own_row_flag_is_failed_alone(flags, db_path, lower, row):
    done = []
    work = flags.when(User.owed, kind="work", lower=lower, max_attempts=1)(lambda user: done.append(user.id))
    add(db_path, owed=0)
    id = add(db_path, owed=1)
    work.raise_flag(1)
    plain(db_path, "UPDATE flagsweep_flag SET key = 'x', payload = ?", json.dumps({"row": row}))
    flags.sweep()
    assert done == [id]
    assert column(db_path, "owed", id) == 0
    assert flags.discard() == plain(db_path, "SELECT count(*) FROM flagsweep_history WHERE event = 'discarded'")[0][0]

"""Own rows elsewhere, in number, atomically, and seen by a consumer."""

import threading

import pytest
from own_rows import Order, User, add, column
from peewee import SqliteDatabase
from rig import count, plain

from flagsweep import FlagSweep


def test_a_model_may_be_bound_to_another_database_object_on_the_same_file(flags, db_path):
    other = SqliteDatabase(db_path)
    add(db_path, owed=1)

    @flags.when(User.owed)
    def work(user):
        user.email = "changed"
        user.save(only=[User.email])
        other.close()

    with other.bind_ctx([User]):
        assert +flags.sweep(raise_errors=True) == {"lowered": 1}
    assert (column(db_path, "email"), column(db_path, "owed")) == ("changed", 0)


@pytest.mark.parametrize("autoconnect", [True, False])
def test_the_sites_connection_is_the_handlers_to_open(db_path, autoconnect):
    site = SqliteDatabase(db_path, autoconnect=autoconnect)
    flags = FlagSweep(site)
    flags.init()
    User.bind(site)
    with site.connection_context():
        site.create_tables([User])
    add(db_path, owed=1)

    @flags.when(User.owed)
    def work(user):
        site.connect()
        site.execute_sql("SELECT 1")
        site.close()

    assert flags.sweep() == {"lowered": 1}


@pytest.mark.long
def test_5000_rows_are_worked_through(flags, db_path):
    plain(
        db_path,
        """WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
           INSERT INTO user (email, owed, paid, sent) SELECT i, 1, 0, 0 FROM n""",
    )
    seen = []
    flags.when(User.owed, kind="work")(lambda user: seen.append(user.id))
    assert +flags.sweep() == {"lowered": 5000}
    assert sorted(seen) == list(range(1, 5001))
    assert plain(db_path, "SELECT count(*) FROM user WHERE owed") == [(0,)]


def test_a_limit_holds_for_own_rows_too(flags, db_path):
    for _ in range(5):
        add(db_path, owed=1)
    flags.when(User.owed, kind="work")(lambda user: None)
    assert +flags.sweep(limit=2) == {"lowered": 2}
    assert plain(db_path, "SELECT count(*) FROM user WHERE owed") == [(3,)]


@pytest.mark.parametrize("watched", ["owed", "owed_at"])
def test_an_atomic_handler_lowers_the_column_with_its_effect(flags, db_path, clock, watched):
    add(db_path, owed=1, owed_at="2026-01-01T10:00:00Z")
    runs = []

    @flags.when(getattr(User, watched), atomic=True)
    def work(user):
        runs.append(1)
        Order.create(user=user.id)
        assert column(db_path, watched), "nobody sees it lowered before"
        if len(runs) == 1:
            raise ValueError("no")

    assert +flags.sweep() == {"again": 1}
    assert (bool(column(db_path, watched)), count(db_path, "orders")) == (True, 0)
    clock.advance(60)
    assert +flags.sweep() == {"lowered": 1}
    assert (bool(column(db_path, watched)), count(db_path, "orders")) == (False, 1)


def test_an_atomic_handler_makes_its_condition_false_in_its_own_transaction(flags, db_path):
    add(db_path, paid=5)

    @flags.when((User.paid > 0) & ~User.sent, atomic=True)
    def work(user):
        User.update(sent=True).where(User.id == user.id).execute()

    assert +flags.sweep() == {"lowered": 1}


def test_an_atomic_handler_whose_condition_still_holds_is_rolled_back(flags, db_path):
    add(db_path, paid=5)
    flags.when(User.paid > 0, kind="work", atomic=True)(lambda user: Order.create(user=1))
    assert +flags.sweep() == {"again": 1}
    assert count(db_path, "orders") == 0


def test_a_consumer_finds_rows_that_another_program_sets(db_path, until):
    flags = FlagSweep(SqliteDatabase(db_path))
    flags.init()
    User.bind(flags.database)
    with flags.database:
        flags.database.create_tables([User])
    seen = []
    flags.when(User.owed, kind="work")(lambda user: seen.append(user.id))
    consumer = threading.Thread(target=flags.run)
    consumer.start()
    try:
        until(lambda: any(each["alive"] for each in flags.status()["consumers"]))
        for n in range(1, 4):
            id = add(db_path, owed=1)
            until(lambda n=n: len(seen) == n)
            until(lambda id=id: column(db_path, "owed", id) == 0)
    finally:
        flags.stop()
        consumer.join(10)
    assert seen == [1, 2, 3]

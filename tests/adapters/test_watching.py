"""What can be watched: a column, a condition, or a function that returns one; and what cannot."""

from datetime import datetime

import pytest
from own_rows import Order, Stamped, User, add, column
from peewee import (
    SQL,
    BooleanField,
    CompositeKey,
    IntegerField,
    Model,
    fn,
)
from rig import count, plain

from flagsweep import ConfigError


class Pair(Model):
    one = IntegerField()
    two = IntegerField()
    owed = BooleanField()

    class Meta:
        primary_key = CompositeKey("one", "two")


class Keyless(Model):
    owed = BooleanField()

    class Meta:
        primary_key = False


def test_a_boolean_column_is_lowered_when_its_work_is_done(flags, db_path):
    add(db_path, email="a@b", owed=1)
    add(db_path, email="c@d", owed=0)
    seen = []

    @flags.when(User.owed)
    def greet(user):
        seen.append((type(user), user.email, column(db_path, "owed")))

    assert +flags.sweep() == {"lowered": 1}
    assert seen == [(User, "a@b", 1)]
    assert column(db_path, "owed") == 0
    assert count(db_path) == 0
    assert not +flags.sweep()


def test_a_nullable_timestamp_is_set_to_null_when_its_work_is_done(flags, db_path):
    add(db_path, owed_at="2026-01-01 10:00:00")
    add(db_path)
    seen = []
    flags.when(User.owed_at, kind="work")(lambda user: seen.append(user.owed_at))
    assert +flags.sweep() == {"lowered": 1}
    assert seen == [datetime(2026, 1, 1, 10)]
    assert column(db_path, "owed_at") is None


def test_a_condition_is_made_false_by_its_handler(flags, db_path):
    add(db_path, paid=5)
    add(db_path, paid=5, sent=1)
    add(db_path)

    @flags.when((User.paid > 0) & ~User.sent)
    def send_receipt(user):
        user.sent = True
        user.save()

    assert +flags.sweep() == {"lowered": 1}
    assert not +flags.sweep()


def test_a_function_is_asked_for_its_condition_anew_each_time(flags, db_path):
    add(db_path, paid=60)
    now = [50]
    seen = []

    @flags.when(lambda: (User.paid <= now[0]) & ~User.sent)
    def remind(user):
        seen.append(user.id)
        user.sent = True
        user.save()

    assert not +flags.sweep()
    now[0] = 60
    assert +flags.sweep() == {"lowered": 1}
    assert seen == [1]


def test_a_column_with_another_name_in_the_database_is_lowered(flags, db_path):
    plain(db_path, "INSERT INTO stamped (due) VALUES (1767225600)")
    seen = []
    flags.when(Stamped.owed_at, kind="work")(lambda row: seen.append(row.owed_at))
    assert +flags.sweep() == {"lowered": 1}
    assert plain(db_path, "SELECT due FROM stamped") == [(None,)]


def test_a_condition_may_use_a_function_of_the_sites_database(flags, db_path):
    flags.database.register_function(lambda text: text.endswith("@b"), "is_ours", 1)
    add(db_path, email="a@b")
    add(db_path, email="a@c")

    @flags.when(fn.is_ours(User.email) & ~User.sent)
    def work(user):
        user.sent = True
        user.save()

    assert +flags.sweep() == {"lowered": 1}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda flags: flags.when(User.owed & Order.paid), "on one model, this one names Order, User"),
        (lambda flags: flags.when(User.id.in_(Order.select(Order.user))), "names Order, User"),
        (lambda flags: flags.when(fn.EXISTS(Order.select().where(Order.user == User.id))), "names Order, User"),
        (lambda flags: flags.when(lambda: User.owed & Order.paid), "names Order, User"),
        (lambda flags: flags.when(SQL("owed = 1")), "names none"),
        (lambda flags: flags.when(Pair.owed), "Pair needs a primary key of one column"),
        (lambda flags: flags.when(Keyless.owed), "Keyless needs a primary key of one column"),
        (lambda flags: flags.when(User.email), "User.email is neither Boolean nor nullable"),
        (lambda flags: flags.when("owed"), "got 'owed'"),
        (lambda flags: flags.when(lambda: True), "got True"),
        (lambda flags: flags.when(User.owed, lower="never"), "lower must be 'after' or 'before', got 'never'"),
        (lambda flags: flags.when(User.paid > 0, lower="before"), "needs a column that can be lowered"),
        (lambda flags: flags.when(User.owed, unique=False)(lambda user: None), "does not know unique"),
        (lambda flags: flags.when(User.owed, kind="x")(lambda: None), "must have one parameter"),
        (lambda flags: flags.when(User.owed, kind="x")(lambda one, two: None), "must have one parameter"),
    ],
)
def test_what_cannot_be_watched_is_refused_with_the_reason(flags, make, said):
    with pytest.raises(ConfigError, match=said):
        make(flags)


@pytest.mark.parametrize(
    "handler",
    [
        lambda seen: lambda user, flag: seen.append((user.id, flag.attempt)),
        lambda seen: lambda flag, user: seen.append((user.id, flag.attempt)),
        lambda seen: lambda *, user, flag: seen.append((user.id, flag.attempt)),
        lambda seen: lambda user, again=1, *, flag: seen.append((user.id, again)),
    ],
)
def test_the_row_and_the_context_may_stand_in_any_order(flags, db_path, handler):
    add(db_path, owed=1)
    seen = []
    flags.when(User.owed, kind="work")(handler(seen))
    assert +flags.sweep(raise_errors=True) == {"lowered": 1}
    assert seen == [(1, 1)]

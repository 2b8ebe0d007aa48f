"""Own rows: work is whatever a column or a condition of the site's own model finds."""

import json
import logging
import threading
import uuid
from datetime import datetime

import pytest
from peewee import (
    SQL,
    AutoField,
    BooleanField,
    CharField,
    CompositeKey,
    DateTimeField,
    ForeignKeyField,
    IntegerField,
    Model,
    SqliteDatabase,
    TextField,
    TimestampField,
    UUIDField,
    fn,
)
from rig import FakeClock, count, let_go, plain

from flagsweep import ConfigError, Discard, FlagSweep, Retry, SignatureError, Snooze
from flagsweep.sweep.lane import Pacer


class User(Model):
    email = TextField(default="")
    owed = BooleanField(default=False)
    owed_at = DateTimeField(null=True)
    paid = IntegerField(default=0)
    sent = BooleanField(default=False)

    class Meta:
        table_name = "user"


class Order(Model):
    user = IntegerField(default=0)
    paid = BooleanField(default=False)

    class Meta:
        table_name = "orders"


class Named(Model):
    name = CharField(primary_key=True)
    owed = BooleanField(default=True)


class Unique(Model):
    id = UUIDField(primary_key=True, default=uuid.uuid4)
    owed = BooleanField(default=True)


class Profile(Model):
    user = ForeignKeyField(User, primary_key=True)
    owed = BooleanField(default=True)


class Stamped(Model):
    id = AutoField(column_name="stamp_id")
    owed_at = TimestampField(null=True, default=None, column_name="due")


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


MODELS = (User, Order, Named, Unique, Profile, Stamped)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def flags(db_path, clock):
    flags = FlagSweep(SqliteDatabase(db_path), clock=clock, threads=2)
    flags.init()
    with flags.database.bind_ctx(MODELS), flags.database:
        flags.database.create_tables(MODELS)
    flags.database.bind(MODELS)
    yield flags
    flags.database.close()
    let_go(db_path.parent)


def add(db_path, **columns):
    """Insert a user as another program would, and return its id."""
    values = {"email": "", "owed": 0, "paid": 0, "sent": 0, **columns}
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    plain(db_path, f"INSERT INTO user ({names}) VALUES ({marks})", *values.values())
    return plain(db_path, "SELECT max(id) FROM user")[0][0]


def column(db_path, name, id=1):
    return plain(db_path, f"SELECT {name} FROM user WHERE id = ?", id)[0][0]


# What can be watched.


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


# Lowered after, or before.


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


# Timestamps are compared as they are stored.

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


# Rows that changed meanwhile.


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


# Other kinds go on.


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
    assert flags.discard() == count(db_path, "flagsweep_history")


# Dead flags, retries and discards.


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


# Keys of all sorts.


@pytest.mark.parametrize("name", ["a", "한국어", "with 'quotes'", "line\nbreak", "1", "", " ", "x" * 300, "100%", "*"])
def test_a_row_may_have_a_text_for_its_key(flags, db_path, name):
    plain(db_path, "INSERT INTO named (name, owed) VALUES (?, 1)", name)
    seen = []
    flags.when(Named.owed, kind="work")(lambda row: seen.append(row.name))
    assert +flags.sweep() == {"lowered": 1}
    assert seen == [name]
    assert plain(db_path, "SELECT owed FROM named") == [(0,)]


@pytest.mark.parametrize("raised", ["found", "by instance", "by key"])
def test_a_row_may_have_a_uuid_for_its_key(flags, db_path, raised):
    row = Unique.create()
    flags.database.close()
    seen = []
    work = flags.when(Unique.owed, kind="work")(lambda row: seen.append(row.id))
    if raised == "by instance":
        work.raise_flag(row)
    elif raised == "by key":
        work.raise_flag(row.id)
    assert +flags.sweep() == {"lowered": 1}
    assert seen == [row.id]
    assert plain(db_path, 'SELECT owed FROM "unique"') == [(0,)]


def test_a_uuid_row_is_found_once_while_its_flag_waits(flags, clock):
    Unique.create()
    flags.database.close()

    @flags.when(Unique.owed)
    def work(row):
        raise Snooze(60)

    assert +flags.sweep() == {"snoozed": 1}
    assert not +flags.sweep()
    assert len(flags.find()) == 1


def test_a_row_may_have_a_foreign_key_for_its_key(flags, db_path):
    profile = Profile.create(user=User.create())
    flags.database.close()
    seen = []
    work = flags.when(Profile.owed, kind="work")(lambda row: seen.append(row.user_id))
    assert work.raise_flag(profile).how == "new"
    assert +flags.sweep() == {"lowered": 1}
    assert seen == [1]


# Raised by hand.


def test_a_row_is_raised_by_instance_or_by_key_and_is_one_flag(flags, db_path):
    id = add(db_path, owed=1)
    seen = []
    work = flags.when(User.owed, kind="work")(lambda user: seen.append(user.id))
    assert work.raise_flag(id).how == "new"
    assert work.raise_flag(User(id=id)).how == "coalesced"
    assert work.raise_flag(user=str(id)).how == "coalesced"
    assert +work.raise_many([(id,), {"user": id}]) == {"coalesced": 2}
    assert +flags.sweep() == {"lowered": 1}
    assert seen == [id]


@pytest.mark.parametrize("value", [None, 1.5, object(), [1], True, b"1", Order(id=1), User()])
def test_what_names_no_row_is_refused(flags, db_path, value):
    work = flags.when(User.owed, kind="work")(lambda user: None)
    with pytest.raises(SignatureError):
        work.raise_flag(value)
    assert count(db_path) == 0


def test_an_own_row_takes_neither_further_arguments_nor_another_key(flags, db_path):
    work = flags.when(User.owed, kind="work")(lambda user, note="": None)
    with pytest.raises(SignatureError, match="note"):
        work.raise_flag(1, note="lost otherwise")
    with pytest.raises(ConfigError, match="key"):
        work.using(key="mine").raise_flag(1)
    assert count(db_path) == 0


def test_a_row_raised_by_hand_while_its_handler_runs_is_run_once_more(flags, db_path):
    id = add(db_path, owed=1)
    seen = []

    @flags.when(User.owed)
    def work(user):
        seen.append(column(db_path, "owed"))
        if len(seen) == 1:
            assert work.raise_flag(user).how == "bumped"

    assert +flags.sweep() == {"again": 1, "lowered": 1}
    assert seen == [1, 1]
    assert column(db_path, "owed", id) == 0


def test_a_delay_for_a_row_is_kept_by_discovery(flags, db_path, clock):
    id = add(db_path, owed=1)
    seen = []
    work = flags.when(User.owed, kind="work")(lambda user: seen.append(user.id))
    work.using(delay=60).raise_flag(id)
    assert not +flags.sweep()
    clock.advance(60)
    assert +flags.sweep() == {"lowered": 1}


def test_a_renamed_kind_takes_its_rows_with_it(flags, db_path):
    id = add(db_path, owed=1)
    runs = []
    plain(
        db_path,
        """INSERT INTO flagsweep_flag (kind, key, payload, state, due_at, raised_at)
           VALUES ('former', ?, ?, 'dead', 0, 0)""",
        str(id),
        f'{{"row": "{id}"}}',
    )
    flags.when(User.owed, kind="work", aliases="former")(lambda user: runs.append(user.id))
    assert not +flags.sweep()
    flags.retry()
    assert +flags.sweep() == {"lowered": 1}
    assert runs == [id]


# Elsewhere, in number, atomically, and seen by a consumer.


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

"""How a row's primary key is the key of its flag, and a row that is raised by hand."""

import pytest
from own_rows import Named, Order, Profile, Unique, User, add, column
from rig import count, plain

from flagsweep import ConfigError, SignatureError, Snooze


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

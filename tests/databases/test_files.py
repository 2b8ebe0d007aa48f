"""What a database's file that is no good is told, and what is made of one that is."""

import os

import pytest
from peewee import Model, SqliteDatabase, TextField
from rig import let_go, plain

from flagsweep import DatabaseAway, FlagSweep, NotReady

CALLS = {
    "raise": lambda flags: flags.handlers["work"].raise_flag(),
    "raise many": lambda flags: flags.handlers["work"].raise_many([()]),
    "sweep": lambda flags: flags.sweep(),
    "run": lambda flags: flags.run(),
    "status": lambda flags: flags.status(),
    "find": lambda flags: flags.find(),
    "retry": lambda flags: flags.retry(),
    "discard": lambda flags: flags.discard(),
    "lower": lambda flags: flags.lower("work", "{}"),
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make(db_path):
    """Give `make(own)`: flags on the path, or on a Peewee database of the site's own on that path."""
    made = []

    def make(own, **options):
        flags = FlagSweep(SqliteDatabase(db_path, **options) if own else db_path, shutdown_timeout=0)
        flags.handler("work")(lambda: None)
        made.append(flags)
        return flags

    yield make
    for flags in made:
        flags.database.close()
    let_go(db_path.parent)


@pytest.mark.parametrize("own", [False, True], ids=["path", "own"])
@pytest.mark.parametrize("call", CALLS)
def test_a_file_that_is_not_there_is_named_with_the_command_and_not_made(tmp_path, db_path, make, call, own):
    flags = make(own)
    with pytest.raises(NotReady) as caught:
        CALLS[call](flags)
    assert str(db_path) in str(caught.value) and "flagsweep init" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("own", [False, True], ids=["path", "own"])
@pytest.mark.parametrize("call", CALLS)
def test_a_file_without_our_tables_is_named_with_the_command(db_path, make, call, own):
    plain(db_path, "CREATE TABLE site (x)")
    with pytest.raises(NotReady) as caught:
        CALLS[call](make(own))
    assert str(db_path) in str(caught.value) and "flagsweep init" in str(caught.value)


@pytest.mark.parametrize("own", [False, True], ids=["path", "own"])
@pytest.mark.parametrize("call", [*CALLS, "init"])
def test_a_file_that_is_no_database_is_called_so(db_path, make, call, own):
    db_path.write_text("dear diary, " * 1000)
    with pytest.raises(NotReady, match="is no SQLite database: check the path") as caught:
        {**CALLS, "init": FlagSweep.init}[call](make(own))
    assert str(db_path) in str(caught.value)
    assert db_path.read_text() == "dear diary, " * 1000


@pytest.mark.parametrize("own", [False, True], ids=["path", "own"])
@pytest.mark.parametrize("call", [*CALLS, "init"])
def test_a_folder_is_no_database(db_path, make, call, own):
    db_path.mkdir()
    with pytest.raises(NotReady) as caught:
        {**CALLS, "init": FlagSweep.init}[call](make(own))
    assert str(db_path) in str(caught.value)
    assert list(db_path.iterdir()) == []


@pytest.mark.parametrize("call", ["raise", "raise many", "retry", "discard", "lower"])
def test_a_database_that_cannot_be_written_says_so(db_path, make, call):
    writable = make(own=True)
    writable.init()
    writable.handlers["work"].raise_flag()
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead'")
    flags = make(own=True, pragmas={"query_only": 1})
    with pytest.raises(DatabaseAway, match="is read-only: make it writable") as caught:
        CALLS[call](flags)
    assert str(db_path) in str(caught.value)
    assert len(flags.find()) == 1


def test_a_folder_that_is_not_there_is_told_by_init(tmp_path):
    path = tmp_path / "no" / "such" / "site.db"
    with pytest.raises(NotReady, match="cannot be created: No such file or directory; check the path") as caught:
        FlagSweep(path).init()
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["sweep", "run", "init"])
def test_tables_newer_than_this_code_are_left_alone(db_path, make, call):
    flags = make(own=False)
    flags.init()
    flags.handlers["work"].raise_flag()
    plain(db_path, "INSERT INTO flagsweep_schema VALUES (99, 0)")
    with pytest.raises(NotReady, match=r"have version 99, .*: install a newer flagsweep"):
        {**CALLS, "init": FlagSweep.init}[call](flags)
    assert len(flags.find()) == 1


@pytest.mark.parametrize("own", [False, True], ids=["path", "own"])
def test_init_may_be_called_again_and_creates_once(db_path, make, own):
    flags = make(own)
    assert flags.init() is True
    flags.handlers["work"].raise_flag()
    assert flags.init() is False
    assert len(flags.find()) == 1
    assert plain(db_path, "PRAGMA journal_mode") == [("wal",)]
    assert flags.database.is_closed()


def test_a_site_may_have_a_flag_and_a_history_of_its_own(db_path, make):
    class Flag(Model):
        kind = TextField()
        key = TextField()

        class Meta:
            indexes = ((("kind", "key"), True),)

    class History(Model):
        at = TextField(index=True)

    flags = make(own=True)
    with flags.database.bind_ctx([Flag, History]):
        flags.database.create_tables([Flag, History])
        Flag.create(kind="work", key="{}")
    flags.init()
    flags.handlers["work"].raise_flag()
    assert flags.handlers["work"].raise_flag().how == "coalesced"
    assert flags.sweep() == {"lowered": 1}
    names = {name for (name,) in plain(db_path, "SELECT name FROM sqlite_master")}
    assert {name for name in names if not name.startswith(("flagsweep_", "sqlite_"))} == {
        "flag",
        "history",
        "flag_kind_key",
        "history_at",
    }


@pytest.mark.parametrize("atomic", [False, True])
def test_nothing_is_written_into_a_file_that_was_moved_away_while_a_handler_ran(db_path, tmp_path, atomic):
    old, other = tmp_path / "old.db", tmp_path / "other.db"
    FlagSweep(other).init()
    flags = FlagSweep(db_path, shutdown_timeout=0.1)
    flags.init()

    @flags.handler(atomic=atomic)
    def work():
        for suffix in ("", "-wal", "-shm"):
            os.rename(f"{db_path}{suffix}", f"{old}{suffix}")
        os.rename(other, db_path)

    work.raise_flag()
    with pytest.raises(DatabaseAway, match="was replaced or deleted"):
        flags.sweep()
    assert plain(old, "SELECT state, attempts FROM flagsweep_flag") == [("claimed", 0)]
    assert plain(old, "SELECT count(*) FROM flagsweep_consumer") == [(1,)] and flags.find() == []

"""A queue in a SQLite file: its owner's alone, and whatever becomes of it, flags are raised and swept."""

import contextlib
import gc
import sqlite3

import psutil
import pytest
from queue_rig import delete, drop_the_tables, forbid_writing, goes_on, make_a_folder, scribble
from work import running

from flagsweep.queues.sqlite import SqliteQueue


@pytest.mark.parametrize("harm", [delete, scribble, make_a_folder, drop_the_tables, forbid_writing])
def test_a_queue_file_that_is_harmed_changes_nothing(make, tmp_path, until, impatient, harm, caplog):
    folder = tmp_path / "queue"
    folder.mkdir()
    work = make(f"sqlite:///{folder}/queue.db")
    try:
        with running(work.flags, until):
            goes_on(work, until, range(5))
            harm(folder / "queue.db")
            goes_on(work, until, range(5, 15))
    finally:
        folder.chmod(0o700)
    assert not [r for r in caplog.records if r.exc_info]
    assert len([r for r in caplog.records if "is away" in r.getMessage()]) <= 1


def test_a_damaged_queue_file_is_not_left_open(tmp_path):
    """Many tries in vain would use up the process's files: an error's frames hold what they opened until garbage is collected."""
    scribble(tmp_path / "queue.db")
    store = SqliteQueue("q", tmp_path / "queue.db", 0.2)
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(sqlite3.DatabaseError):
                store.hold("sweep:mail:0", "1", 5)
            store.disconnect()
            assert not [file for file in psutil.Process().open_files() if "queue.db" in file.path]
    finally:
        gc.enable()


def test_a_queue_file_that_was_deleted_is_made_anew_and_used_by_all(make, tmp_path, until, impatient):
    work = make(f"sqlite:///{tmp_path}/queue.db", watch="off")
    with running(work.flags, until):
        goes_on(work, until, [1])
        delete(tmp_path / "queue.db")
        until(lambda: work.raise_("work", 2) or "work:2" in work.journal.flags("end"), every=0.1)
        assert (tmp_path / "queue.db").exists()


def test_a_queue_file_that_somebody_locks_holds_up_no_sweep(make, tmp_path, until, impatient):
    work = make(f"sqlite:///{tmp_path}/queue.db")
    with running(work.flags, until):
        goes_on(work, until, [1])
        with contextlib.closing(sqlite3.connect(tmp_path / "queue.db", isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            goes_on(work, until, range(2, 12))


def test_the_queue_file_is_its_owners_alone(tmp_path):
    store = SqliteQueue("q", tmp_path / "queue.db", 1.0)
    store.post("mail", b"message")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    store.disconnect()

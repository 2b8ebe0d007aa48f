"""Who lives is known, not guessed: the kernel holds the lease, for this process alone, and drops it with its last breath."""

import fcntl
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import psutil
import pytest
from rig import living_fork, plain
from work import Ledger, Work, command, freeze, is_sound, running

from flagsweep import LeaseHeld
from flagsweep.consumer.file_lease import RUN, Lease
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.terms import RUN as RUN_TERMS
from flagsweep.databases.identity import OpenFiles
from flagsweep.sweep.blackbox import BlackBox

HOLD = """
import sys, time
from pathlib import Path
from flagsweep.consumer.file_lease import Lease
lease = Lease(Path(sys.argv[1]))
lease.take(int(sys.argv[2]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def site(db_path, tmp_path):
    work = Work(db_path, tmp_path / "journal").prepare()
    yield work
    work.close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "site.db.flagsweep"


@pytest.fixture
def consume(spawn, db_path, tmp_path, until):
    """Give `consume(mode)`: start a consumer as its own process."""

    def consume(mode="run", **settings):
        child = spawn(*command(mode, (db_path, tmp_path / "journal"), **settings))
        until(lambda: mode == "sweep" or "flagsweep sweeps" in child.log.read_text() or child.poll() is not None)
        return child

    return consume


@pytest.fixture
def lease(folder):
    """Give `lease()`: another lease on the same file, as another consumer in this process has."""
    made = []

    def lease():
        made.append(Lease(folder))
        return made[-1]

    yield lease
    for each in made:
        each.close()


@pytest.fixture(params=["open file", "process"])
def lock(request, monkeypatch):
    """Have the kernel's locks belong to the open file, as on Linux, or to the process, as elsewhere."""
    if request.param == "process":
        monkeypatch.delattr(fcntl, "F_OFD_SETLK")
        monkeypatch.delattr(fcntl, "F_OFD_GETLK")
    return request.param


@pytest.fixture
def holder(spawn, folder, until):
    """Give `holder(byte)`: another process that holds a byte."""

    def holder(byte):
        child = spawn(sys.executable, "-c", HOLD, folder, byte)
        until(lambda: "held" in child.log.read_text())
        return child

    return holder


# The lock.


def test_a_byte_is_held_once_even_within_one_process(lease, lock):
    mine, other = lease(), lease()
    mine.take(7)
    assert other.is_held(7) and not other.is_held(8)
    with pytest.raises(LeaseHeld):
        other.take(7)
    other.take(8)
    assert mine.is_held(8)


def test_a_consumer_is_not_another_to_itself(lease, lock):
    mine, other = lease(), lease()
    mine.take(7)
    assert not mine.is_held(7)
    assert other.is_held(7), "asking has not given it up"


def test_a_lease_that_is_given_up_frees_its_own_bytes_and_no_others(lease, lock, spawn, folder):
    mine, other = lease(), lease()
    mine.take(7)
    other.take(8)
    other.close()
    assert not mine.is_held(8)
    lease().close()
    assert held_elsewhere(folder, 7), "a lease that was opened and closed dropped another's lock"


def held_elsewhere(folder, byte):
    """Ask a forked child, to which this process is another, whether a byte is held."""
    pid = os.fork()
    if pid == 0:
        os._exit(Lease(folder).is_held(byte))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


@pytest.mark.long
def test_another_process_sees_what_is_held_and_a_killed_one_frees_it_at_once(lease, lock, holder):
    child = holder(7)
    mine = lease()
    assert mine.is_held(7)
    with pytest.raises(LeaseHeld):
        mine.take(7)
    child.kill()
    child.wait()
    assert not mine.is_held(7)
    mine.take(7)


def test_opening_and_closing_the_file_by_other_means_drops_nothing(lease, folder):
    lease().take(7)
    (folder / "lease").read_bytes()
    assert held_elsewhere(folder, 7)


def test_a_plain_lockf_would_have_been_dropped(tmp_path):
    """The control: what the open file's own lock is for."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert plain_lock_is_held(path)
        path.read_bytes()
        assert not plain_lock_is_held(path)


def plain_lock_is_held(path):
    pid = os.fork()
    if pid == 0:
        try:
            fcntl.lockf(os.open(path, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


# Children.


def test_a_forked_child_does_not_keep_its_parents_lease(lease, lock, until):
    mine, other = lease(), lease()
    mine.take(7)
    with living_fork():
        assert other.is_held(7)
        mine.close()
        until(lambda: not other.is_held(7), limit=2)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_child_of_multiprocessing_does_not_keep_its_parents_lease(lease, method, until):
    mine, other = lease(), lease()
    mine.take(7)
    context = multiprocessing.get_context(method)
    child = context.Process(target=time.sleep, args=(60,))
    child.start()
    assert other.is_held(7)
    mine.close()
    until(lambda: not other.is_held(7), limit=2)
    assert child.is_alive()
    child.kill()
    child.join()
    child.close()
    if method == "forkserver":
        multiprocessing.forkserver._forkserver._stop()
    if method in ("forkserver", "spawn"):
        multiprocessing.resource_tracker._resource_tracker._stop()


@pytest.mark.faults
def test_a_killed_consumers_claims_are_free_although_a_child_of_its_handler_lives_on(site, consume, until, tmp_path):
    gate = tmp_path / "gate"
    site.raise_("work", 1, do="forks", gate=str(gate))
    site.raise_("mail", 2, do="hang_once")
    child = consume()
    until(lambda: len(site.journal.flags("start")) == 2 and Path(f"{gate}.child").exists())
    child.kill()
    child.wait()
    orphan = int(Path(f"{gate}.child").read_text() or until(Path(f"{gate}.child").read_text))
    after = consume()
    until(lambda: any(event.pid == after.pid for event in site.journal.events("start")), limit=1.5)  # From its banner on.
    until(site.is_idle, limit=5)
    os.kill(orphan, 0)
    gate.touch()
    until(lambda: not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE)


# Who lives.


@pytest.mark.faults
def test_a_dead_consumers_claims_are_free_at_once_and_a_living_ones_never(site, consume, until, db_path, tmp_path):
    gate = tmp_path / "gate"
    site.raise_("work", 1, do="wait", gate=str(gate))
    first = consume()
    until(lambda: site.journal.flags("start"))
    freeze(first, db_path)
    site.flags.sweep()
    assert site.up()["work:1"].state == "claimed", "a process that stands still is alive"
    first.send_signal(signal.SIGCONT)
    site.flags.sweep()
    first.kill()
    first.wait()
    deaths = {first.pid: time.monotonic()}
    gate.touch()
    site.flags.sweep()
    ledger = Ledger(site.journal.events(), deaths)
    assert site.up() == {} and ledger.attempts("work:1") == [1, 2] and ledger.unexplained() == []


@pytest.mark.faults
def test_a_living_run_frees_what_a_killed_sweep_had_claimed(site, consume, until):
    site.raise_("work", 1, do="hang_once")
    sweeper = consume("sweep")
    until(lambda: site.journal.flags("start"))
    with running(site.flags, until):
        assert site.up()["work:1"].claimed_by == 1
        sweeper.kill()
        sweeper.wait()
        until(site.is_idle, limit=3)
    assert Ledger(site.journal.events()).attempts("work:1") == [1, 2]


def test_a_run_refuses_a_second_and_lets_itself_be_looked_at(site, lock, until, consume, folder):
    """Where locks belong to the process, looking must not drop them."""
    with running(site.flags, until):
        for _ in range(2):
            assert [c["alive"] for c in site.flags.status()["consumers"]] == [True]
            site.flags.sweep()
        with pytest.raises(LeaseHeld, match=f"pid {os.getpid()}"):
            other_of(site).run()
        assert held_elsewhere(folder, RUN)
    assert not held_elsewhere(folder, RUN)


def other_of(site):
    """Return another FlagSweep on the same file."""
    work = Work(site.flags.path, site.journal.path)
    work.close()
    return work.flags


def test_two_sweeps_of_one_process_do_not_take_each_other_for_dead(site, lock, until, tmp_path):
    gate = tmp_path / "gate"
    site.raise_("work", 1, do="wait", gate=str(gate))
    sweep = threading.Thread(target=site.flags.sweep)
    sweep.start()
    until(lambda: site.journal.flags("start"))
    for _ in range(3):
        site.flags.sweep()
    gate.touch()
    sweep.join()
    assert site.journal.flags("start") == ["work:1"]


# The file.


def test_a_lease_whose_file_was_replaced_is_not_intact(lease, folder):
    mine = lease()
    assert mine.is_intact()
    (folder / "lease").rename(folder / "aside")
    assert not mine.is_intact()
    (folder / "lease").touch()
    assert not mine.is_intact()


LEASE, DATABASE = "site.db.flagsweep/lease", "site.db"
SLOW = pytest.mark.slow


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "how"),
    [
        (DATABASE, "replaced"),
        *(pytest.param(*p, marks=SLOW) for p in [(LEASE, "deleted"), (LEASE, "replaced"), (DATABASE, "deleted")]),
    ],
)
def test_a_consumer_stops_when_its_lease_or_its_database_is_replaced(site, consume, until, what, how, tmp_path):
    child = consume(shutdown_timeout=1)
    content = (tmp_path / what).read_bytes()
    for name in (f"{what}-wal", f"{what}-shm", what):  # As one restores a backup: the log goes with its database.
        (tmp_path / name).unlink(missing_ok=True)
    if how == "replaced":
        (tmp_path / what).write_bytes(content)
    until(lambda: child.poll() is not None, limit=3)
    assert "stopping (" in child.log.read_text() and "Traceback" not in child.log.read_text(), child.log.read_text()


LOGS = ("site.db-wal", "site.db-shm")


@pytest.mark.long
@pytest.mark.parametrize(
    ("gone", "how"),
    [
        (LOGS, "deleted"),
        *(pytest.param(*each, marks=SLOW) for each in product([LOGS[:1], LOGS[1:]], ["deleted", "replaced"])),
        pytest.param(LOGS, "replaced", marks=SLOW),
    ],
)
def test_a_consumer_whose_log_is_deleted_ends_and_writes_nothing_over_what_others_wrote(
    site, consume, until, tmp_path, gone, how
):
    """It went on unnoticed; at its end it wrote its own log into the database, and deleted the new one."""
    child = consume(shutdown_timeout=1)
    site.raise_many("work", range(200))
    until(site.is_idle)
    for name in gone:
        (tmp_path / name).unlink()
        (tmp_path / name).touch() if how == "replaced" else None
    if gone == LOGS:  # Else others use a log and an index that do not fit: they are to wait until all have ended.
        site.raise_("work", 1000)
    assert child.wait(10) == 1, "a supervisor is to start it again"
    assert "was deleted or replaced while it was in use" in child.log.read_text(), child.log.read_text()
    assert "Traceback" not in child.log.read_text()
    site.raise_("work", 1001)
    raised = {"work:1000", "work:1001"} if gone == LOGS else {"work:1001"}
    assert raised <= site.up().keys()
    site.flags.confirm()  # What was lowered by that log is up again, as after a restore: somebody has to say that it may be.
    after = consume()
    until(site.is_idle)
    assert raised <= set(site.journal.flags("end"))
    after.terminate()
    assert after.wait(10) == 0 and is_sound(site.flags.path)


@pytest.mark.long
def test_a_sweep_whose_log_is_deleted_fails_and_writes_nothing_over_what_others_wrote(site, spawn, until, tmp_path):
    gate = tmp_path / "gate"
    site.raise_many("work", range(200))
    site.raise_("slow", 1, do="wait", gate=str(gate))
    child = spawn(*command("sweep", (site.flags.path, tmp_path / "journal"), shutdown_timeout=1))
    until(lambda: "slow:1" in site.journal.flags("start"))
    for name in LOGS:
        (tmp_path / name).unlink()
    site.raise_("work", 1000)
    gate.touch()
    assert child.wait(20) == 1
    assert "was deleted or replaced while it was in use" in child.log.read_text(), child.log.read_text()
    assert "work:1000" in site.up()
    site.flags.confirm()
    until(lambda: (site.flags.sweep(), site.is_idle())[1])
    assert "work:1000" in site.journal.flags("end") and is_sound(site.flags.path)


@pytest.mark.long
def test_a_process_that_still_has_a_deleted_log_open_sweeps_no_more(site, spawn, tmp_path):
    script = """
import sys
from pathlib import Path
from flagsweep import FlagSweep
flags = FlagSweep(sys.argv[1])
flags.database.connect()
flags.database.execute_sql("SELECT count(*) FROM flagsweep_flag").fetchall()
for name in ("-wal", "-shm"):
    Path(sys.argv[1] + name).unlink()
flags.sweep()
"""
    child = spawn(sys.executable, "-c", script, site.flags.path)
    assert child.wait(20) == 1
    assert "was deleted while this process has the database open" in child.log.read_text()
    assert is_sound(site.flags.path)


@pytest.mark.long
def test_a_log_that_is_written_back_or_used_by_others_is_no_log_that_was_replaced(site, until, monkeypatch):
    looks, lost = [], OpenFiles.lost
    monkeypatch.setattr(OpenFiles, "lost", lambda files: looks.append(lost(files)) or looks[-1])
    with running(site.flags, until):
        for number, statement in enumerate(["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode = WAL"]):
            plain(site.flags.path, statement)
            site.raise_("work", number)
            until(site.is_idle)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            plain(site.flags.path, "PRAGMA journal_mode = DELETE", timeout=0)
        seen = len(looks)
        until(lambda: len(looks) > seen + 2)
    assert not any(looks)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_database_reached_through_a_link_has_the_same_lease(site, consume, until, tmp_path, linked):
    """Or two consumers could run on it, each with a lease of its own; and commits are seen beside the file, not the link."""
    if linked == "folder":
        (tmp_path / "link").symlink_to(tmp_path)
        link = tmp_path / "link" / "site.db"
    else:
        (tmp_path / "elsewhere").mkdir()
        link = tmp_path / "elsewhere" / "link.db"
        link.symlink_to(site.flags.path)
    there = Work(link, tmp_path / "journal")
    with running(there.flags, until):
        with pytest.raises(LeaseHeld):
            Enlisted(site.flags._duties(), RUN_TERMS)
        until(lambda: not there.flags.find())
        site.raise_("work", 1)
        until(site.is_idle, limit=2)
    assert [entry.name for entry in tmp_path.rglob("*.flagsweep") if entry.parent == tmp_path] == ["site.db.flagsweep"]
    there.close()


# The black box.


def test_the_black_box_outlives_its_process(folder, tmp_path):
    folder.mkdir()
    pid = os.fork()
    if pid == 0:
        box = BlackBox(folder, 1)
        slot = box.slot()
        box.cells[slot : slot + 2] = memoryview(bytes(16)).cast("q")
        box.cells[slot], box.cells[slot + 1] = 17, 4711
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    clean, runs = BlackBox.read(folder, 1)
    assert not clean and [(run.flag, run.token) for run in runs] == [(17, 4711)]


def test_the_black_box_has_its_room_on_the_disk_before_it_is_used(folder):
    """A write into a hole of a file ends the process with SIGBUS where the disk is full."""
    folder.mkdir()
    with closing_box(BlackBox(folder, 1)) as box:
        assert box.path.stat().st_blocks * 512 >= box.path.stat().st_size > 0


def test_a_black_box_that_was_marked_clean_charges_nobody_and_one_that_is_missing_says_so(folder):
    folder.mkdir()
    with pytest.raises(FileNotFoundError):
        BlackBox.read(folder, 1)
    with closing_box(BlackBox(folder, 1)) as box:
        box.mark_clean()
        assert BlackBox.read(folder, 1) == (True, [])
    box.mark_clean()


@contextmanager
def closing_box(box):
    try:
        yield box
    finally:
        box.remove()


def test_a_forked_child_leaves_the_black_box_of_its_parent_alone(folder):
    folder.mkdir()
    with closing_box(BlackBox(folder, 1)) as box, living_fork():
        slot = box.slot()
        box.cells[slot] = 17
        assert [run.flag for run in BlackBox.read(folder, 1)[1]] == [17]

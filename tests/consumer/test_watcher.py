"""Seeing commits: whoever makes them, they start a handler at once; without a watcher, or where it is blind, nothing is lost."""

import errno
import json
import logging
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import inotify_simple
import psutil
import pytest
from rig import plain
from work import Work, running, sites_in

import flagsweep.consumer.wakeups
from flagsweep.config import Clock
from flagsweep.consumer.keeper import Keeper
from flagsweep.consumer.wakeups import Bell, FileBell, choose_bell
from flagsweep.consumer.watcher import Watcher
from flagsweep.databases.connections import Connections
from flagsweep.databases.sqlite import Sqlite
from flagsweep.sweep.claims import Store

INSERT = "INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) VALUES ('work', ?, ?, ?, ?)"
OTHER = f"import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute({INSERT!r}, sys.argv[2:]); db.commit()"
AT_ONCE = 0.8  # seconds: less than the second after which is looked again anyhow, far more than the millisecond it takes


@pytest.fixture
def make(db_path, tmp_path):
    """Give `make(**settings)`: a site with its tables."""
    with sites_in(db_path, tmp_path) as make:
        yield make


@pytest.fixture
def site(make):
    return make()


def started(site, flag):
    """Return when a flag's handler started, or None."""
    return next((event.at for event in site.journal.events("start") if event.flag == flag), None)


@pytest.fixture(params=["auto", "poll"])
def watched(request, make, until):
    """A site with a consumer that has nothing to do, and sees commits by inotify or by polling."""
    site = make(watch=request.param)
    with running(site.flags, until):
        site.raise_("work", 0)
        until(site.is_idle)
        yield site


# Commits.


@pytest.mark.long
def test_a_commit_of_this_process_starts_a_handler_at_once(watched, until):
    for number in range(1, 21):
        watched.raise_("work", number)
        until(lambda number=number: started(watched, f"work:{number}"), limit=AT_ONCE, every=0.001)


def test_a_commit_of_a_program_that_knows_nothing_but_sqlite_starts_a_handler_at_once(watched, spawn, until):
    now = watched.flags.clock.now()
    for number in (1, 2, 3):
        payload = json.dumps({"n": number})
        child = spawn(sys.executable, "-S", "-c", OTHER, watched.flags.path, payload, payload, now, now)
        until(lambda number=number: started(watched, f"work:{number}"), limit=AT_ONCE + 2)
        assert child.wait(5) == 0, child.log.read_text()


@pytest.mark.long
def test_a_commit_is_seen_however_long_after_its_write_it_comes(watched, until):
    """With a slow disk the log is written long before the commit can be read."""
    db = watched.flags.database
    for wait in (0.0, 0.03, 0.3):
        number = int(1000 * wait) + 1
        with db.connection_context(), db.atomic():
            watched.raise_("work", number)
            held = time.monotonic() + wait
            until(lambda held=held: time.monotonic() >= held)
        until(lambda number=number: started(watched, f"work:{number}"), limit=AT_ONCE)


@pytest.mark.long
def test_an_own_row_that_is_set_starts_its_handler_at_once(watched, until):
    """Also right after another: looking for own rows may take a tenth of the time only."""
    for number in range(1, 16):
        watched.add_people(1)
        until(lambda number=number: started(watched, f"greet:{number}"), limit=AT_ONCE)
        until(watched.is_idle)
    plain(watched.flags.path, "UPDATE person SET greet = 1 WHERE id = 1")
    until(lambda: watched.journal.flags("start").count("greet:1") == 2, limit=AT_ONCE)


def test_an_own_row_in_the_commit_of_a_raise_that_rings_is_found_at_once(tmp_path, until):
    """What is told of a commit is not all that it holds, and nothing else commits while the flag runs."""
    gate = tmp_path / "gate"
    with tempfile.TemporaryDirectory(prefix="fs") as folder:  # Else the path of the bell would be too long.
        site = Work(f"sqlite:///{folder}/site.db", tmp_path / "journal").prepare()
        db = site.flags.database
        with running(site.flags, until):
            lanes = site.flags._runner._lanes
            until(lambda: all(lane.demand.lingers for lane in lanes.values()))
            with db.connection_context(), db.atomic():
                site.add_people(1)
                site.raise_("mail", 1, do="wait", gate=str(gate))
            until(lambda: started(site, "greet:1"), limit=5)
            gate.touch()
            until(site.is_idle)
        site.close()


class EarlyClock(Clock):
    """Count from another moment than the system does: what is compared must come from one clock."""

    began = time.monotonic()

    def monotonic(self):
        return super().monotonic() - self.began


@pytest.mark.long
def test_an_own_row_that_may_not_be_looked_for_at_once_is_found_a_little_later_by_whatever_clock(make, until):
    site = make(clock=EarlyClock())
    with running(site.flags, until):
        for number in range(1, 16):
            site.add_people(1)
            until(lambda number=number: started(site, f"greet:{number}"), limit=5)
            until(site.is_idle)


def test_commits_that_make_nothing_due_start_no_sweep(watched, until, monkeypatch):
    until(lambda: not any(lane.busy for lane in lanes()))
    claims = []
    monkeypatch.setattr(watched.flags.store, "claim", lambda *args: claims.append(args) or [])
    seen = looks(monkeypatch)
    for number in range(20):
        plain(watched.flags.path, "INSERT INTO effect (n) VALUES (?)", number)
    until(lambda: seen)
    assert not claims


def test_a_lane_that_cannot_look_for_own_rows_is_not_asked_to_all_the_time(watched, until, monkeypatch):
    """It was asked a thousand times a second for as long as another program held the file."""
    discovery = next(lane.discovery for lane in lanes() if lane.discovery.has_rows)
    seen = looks(monkeypatch)
    monkeypatch.setattr(discovery, "find", lambda in_hand: [])  # Its turn comes no further than to here.
    discovery.wake_at = time.monotonic() - 1
    until(lambda: seen)
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 1)
    assert len(seen) < 100


def lanes():
    """Return the lanes of the consumer that runs in this process."""
    return list(next(t for t in threading.enumerate() if isinstance(t, Watcher))._lanes.values())


def looks(monkeypatch):
    """Return a list that grows with every look of the watcher."""
    seen, look = [], Watcher._look
    monkeypatch.setattr(Watcher, "_look", lambda watcher, changed: (look(watcher, changed), seen.append(changed)))
    return seen


# Due times.


@pytest.mark.long
def test_a_due_time_in_the_near_future_is_kept(watched, until):
    """Long before the next minute, and not before its time."""
    delays = {1: 0.05, 2: 0.2, 3: 0.4}
    due = {}
    for number, delay in sorted(delays.items(), reverse=True):
        due[number] = time.monotonic() + delay
        watched.work.using(delay=delay).raise_flag(n=number)
    for number in delays:
        until(lambda number=number: started(watched, f"work:{number}"), limit=AT_ONCE)
        assert started(watched, f"work:{number}") >= due[number]


def test_a_due_time_that_comes_forward_is_kept(watched, until):
    watched.work.using(delay="1h").raise_flag(n=1)
    watched.work.using(delay="1h").raise_flag(n=2)
    assert watched.work.raise_flag(n=1).how == "coalesced"
    until(lambda: started(watched, "work:1"), limit=AT_ONCE)
    watched.flags.find()
    assert started(watched, "work:2") is None


@pytest.mark.long
def test_a_retry_comes_when_its_backoff_is_over(watched, until):
    watched.raise_("work", 1, do="retry", seconds=0.2)
    until(lambda: watched.journal.flags("start").count("work:1") == 2, limit=AT_ONCE)
    first, second = (event.at for event in watched.journal.events("start") if event.flag == "work:1")
    assert second - first >= 0.2


# Falling back.


def test_without_inotify_descriptors_commits_are_polled_for(make, until, monkeypatch, caplog):
    monkeypatch.setattr(inotify_simple, "INotify", raising(OSError(24, "Too many open files")))
    site = make()
    with running(site.flags, until):
        site.raise_("work", 1)
        until(site.is_idle, limit=AT_ONCE)
    assert "commits are seen by polling" in caplog.text and "Too many open files" in caplog.text


def raising(error):
    def fail(*args, **options):
        raise error

    return fail


@pytest.mark.parametrize(
    ("mode", "wal", "kind", "bell"),
    [("auto", True, "ext4", FileBell), ("poll", True, "ext4", Bell), ("auto", False, "ext4", Bell), ("auto", True, "nfs4", Bell)],
)
def test_inotify_is_used_only_where_it_sees_every_writer(db_path, monkeypatch, mode, wal, kind, bell):
    monkeypatch.setattr(flagsweep.consumer.wakeups, "file_system", lambda path: kind)
    dialect = Sqlite()
    monkeypatch.setattr(dialect, "tells_writes", lambda db: wal)
    connections = Connections(SimpleNamespace(database=db_path), SimpleNamespace(), dialect, str(db_path), db_path)
    chosen = choose_bell(mode, Store(connections), 0.005)
    assert type(chosen) is bell
    chosen.close()
    if bell is FileBell:
        chosen.free()


def test_where_the_kernel_has_no_more_watches_a_database_is_polled_and_nothing_is_left_open(site, monkeypatch, caplog):
    def no_more(*_, **__):
        raise OSError(errno.EMFILE, "no more inotify instances")

    monkeypatch.setattr(inotify_simple, "INotify", no_more)
    before = psutil.Process().num_fds()
    site.flags.find()
    bell = choose_bell("auto", site.flags.store, 0.005)
    assert type(bell) is Bell and "inotify is not to be had" in caplog.text
    bell.free()
    site.flags.connections.close_thread()
    assert psutil.Process().num_fds() <= before


def test_a_database_that_is_not_in_wal_mode_is_polled(site, until, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    plain(site.flags.path, "PRAGMA journal_mode = DELETE")
    with running(site.flags, until):
        site.raise_("work", 1)
        until(site.is_idle, limit=AT_ONCE)
    assert "commits seen by polling" in caplog.text


@pytest.mark.long
@pytest.mark.parametrize("error", [flagsweep.DatabaseAway("the disk is gone"), MemoryError()])
def test_the_watcher_survives_a_database_that_cannot_be_read_for_a_while(watched, until, monkeypatch, error):
    broken, look = [], watched.flags.store.changes

    def changes():
        if len(broken) < 3:
            broken.append(time.monotonic())
            raise error
        return look()

    monkeypatch.setattr(watched.flags.store, "changes", changes)
    watched.raise_("work", 1)
    until(lambda: started(watched, "work:1"), limit=3)


# The bell alone.


@pytest.fixture
def bell(db_path):
    db_path.touch()
    bell = FileBell(db_path)
    yield bell
    bell.close()
    bell.free()


def test_the_bell_rings_for_the_database_and_its_log_and_for_no_other_file(bell, db_path):
    db_path.with_name("other.db").write_text("x")
    assert not bell.wait(0.05, None)
    db_path.with_name("site.db-wal").write_text("x")
    assert bell.wait(1, None)
    db_path.write_text("x")
    assert bell.wait(1, None)
    assert not bell.wait(0, None)


def test_the_bell_rings_for_a_file_that_is_moved_into_the_databases_place(bell, db_path):
    db_path.with_name("copy").write_text("x")
    bell.wait(0.01, None)
    db_path.with_name("copy").replace(db_path)
    assert bell.wait(1, None)


def test_an_overflow_of_the_kernels_queue_counts_as_a_ring(bell, monkeypatch):
    overflow = SimpleNamespace(name="", mask=inotify_simple.flags.Q_OVERFLOW)
    monkeypatch.setattr(
        bell, "_notify", SimpleNamespace(fileno=lambda: 7, read=lambda timeout: [overflow], close=bell._notify.close)
    )
    monkeypatch.setattr(bell, "_poll", SimpleNamespace(poll=lambda timeout: [(7, 1)]))
    assert bell.wait(0, None)


def test_a_closed_bell_lets_its_waiter_go_at_once(bell):
    waiter = threading.Thread(target=bell.wait, args=(30, None))
    waiter.start()
    bell.close()
    waiter.join(2)
    assert not waiter.is_alive()


def test_a_bell_that_its_waiter_has_freed_already_can_be_closed(db_path):
    """The watcher may see the stop by itself and go, just before it is woken: a consumer failed at its end for that."""
    bell = FileBell(db_path)
    bell.free()
    bell.close()


# The write-ahead log.


@pytest.mark.faults
def test_a_log_that_a_long_reader_let_grow_is_told_of_and_cut_off_once_the_reader_is_gone(
    make, until, db_path, caplog, monkeypatch
):
    monkeypatch.setattr(Keeper, "LONG_LOG", 8 << 20)
    site = make()
    log = db_path.with_name("site.db-wal")
    with closing(sqlite3.connect(db_path, isolation_level=None)) as reader, running(site.flags, until):
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM flagsweep_flag").fetchall()
        with closing(sqlite3.connect(db_path, isolation_level=None)) as writer:
            writer.execute("CREATE TABLE ballast (data)")
            for _ in range(10):
                writer.execute("INSERT INTO ballast VALUES (zeroblob(1000000))")
        until(lambda: "some program leaves a query or a transaction open" in caplog.text, limit=15)
        assert log.stat().st_size > 8 << 20
        reader.execute("ROLLBACK")
        until(lambda: log.stat().st_size <= 4 << 20, limit=15)

"""F5 to F8 and F33: what the database stands on fails, is full, is locked, is read for long, is replaced."""

import itertools
import os
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import psutil
import pytest
from nursery import Nursery
from rig import fill, plain
from work import Ledger, Work, command, is_sound

from flagsweep import FlagSweepError

FAULTS = {
    "EIO at pwrite": "pwrite64:error=EIO",
    "ENOSPC at pwrite": "pwrite64:error=ENOSPC",
    "short pwrite": "pwrite64:retval=0",
    "EIO at fdatasync": "fdatasync:error=EIO",
    "EIO at pread": "pread64:error=EIO",
}


@pytest.fixture
def site(db_path, tmp_path):
    work = Work(db_path, tmp_path / "journal").prepare()
    yield work
    work.close()


@pytest.fixture
def consume(spawn, db_path, tmp_path):
    """Give `consume()`: start a consumer as its own process."""
    return lambda database=db_path: spawn(*command("run", (database, tmp_path / "journal"), backoff=0.01, shutdown_timeout=2))


@pytest.fixture
def nursery(env, missing):
    if shutil.which("strace") is None:
        missing("strace is not installed: it injects the errors")
    nursery = Nursery(env)
    yield nursery
    nursery.close()


# F5: I/O errors.

EXACT = range(100, 150)


def test_f5_an_io_error_loses_nothing_and_the_consumer_recovers_or_ends(tmp_path, nursery, sized, bound, report):
    template = Work(tmp_path / "template.db", tmp_path / "template.journal").prepare()
    for n in range(30):
        template.raise_("work", n, do="slow", seconds=0.001)
    template.raise_many("exact", EXACT, do="effect")
    template.close()
    most = sized(40, 300, 5)
    cases = list(itertools.product(FAULTS, range(1, most + 1)))
    with ThreadPoolExecutor(4) as crew:
        ended = list(crew.map(lambda case: one_error(tmp_path, nursery, bound(5), *case), cases))
    for name in FAULTS:
        mine = [end for (fault, _), end in zip(cases, ended, strict=True) if fault == name]
        bad = [end for end in mine if end["wrong"]]
        figure = (
            f"{sum(end['injected'] > 0 for end in mine)} of {len(mine)} runs met it, "
            f"{sum(end['code'] is not None for end in mine)} ended, the others went on; wrong {len(bad)}; "
            f"done or ended at most {max(end['seconds'] for end in mine):.1f} s <= {bound(5):g} s after the last error"
        )
        report("F5", name, figure, not bad, why="; ".join(map(str, bad[:3])))


def one_error(tmp_path, nursery, soon, name, n):
    """Have a consumer work while its n-th call, in each thread, fails; return what became of it.

    :param soon: the seconds in which it has to recover or to end.
    """
    folder = tmp_path / f"{name.replace(' ', '-')}-{n}"
    folder.mkdir()
    database, journal = folder / "site.db", folder / "journal"
    for suffix, path in (("db", database), ("journal", journal)):
        shutil.copy(tmp_path / f"template.{suffix}", path)
    lanes = {"default": 1 if "sync" in name else 4, "mail": 1, "slow": 1}  # One thread meets more syncs than four do.
    fault = f"{FAULTS[name]}:when={n}"
    child = nursery.start(database, journal, folder / "log", fault, shutdown_timeout=2, batch=5, lanes=lanes)
    wrong, limit = [], time.monotonic() + 4 * soon
    while child.poll() is None and owed(database) and time.monotonic() < limit:
        time.sleep(0.02)
    ended, code, injected = time.time(), child.poll(), child.injected()
    seconds = max(0.0, ended - max(injected, default=ended))
    if code == 0 or (code is None and owed(database)):
        wrong.append("neither recovered nor ended with an error")
    if seconds > soon:
        wrong.append(f"took {seconds:.1f} s")
    child.end()
    site = Work(database, journal)
    try:
        while owed(database):
            site.flags.sweep()
        ledger = Ledger(site.journal.events(), {child.pid: time.monotonic()})
        if ledger.lost():
            wrong.append(f"lost {ledger.lost()}")
        if site.effects() != list(EXACT):
            wrong.append(f"effects {site.effects()}")
        if not is_sound(database):
            wrong.append("the file is damaged")
    except FlagSweepError as error:
        wrong.append(str(error))
    finally:
        site.close()
    if wrong:
        wrong.append(child.log.read_text()[-300:])
    return {"case": f"{name} {n}", "wrong": wrong, "injected": len(injected), "code": code, "seconds": seconds}


def owed(database):
    with suppress(sqlite3.Error):
        return plain(database, "SELECT count(*) FROM flagsweep_flag WHERE state <> 'dead'")[0][0]
    return 1


# F6: the disk is full.


def test_f6_a_full_disk_lowers_no_flag_without_its_effect(small_disk, nursery, tmp_path, until, sized, bound, seed, report):
    """The handlers swallow the database's errors, and the log is on the same disk."""
    site = Work(small_disk / "site.db", tmp_path / "journal").prepare()
    with site.flags.database.connection_context():
        site.flags.database.execute_sql("CREATE TABLE ballast (data)")
    database, rounds = site.flags.path, sized(20, 200, 3)
    child = nursery.start(database, tmp_path / "journal", small_disk / "log", shutdown_timeout=2)
    until((small_disk / "log").exists)
    until(lambda: "flagsweep sweeps" in (small_disk / "log").read_text())  # On a full disk none starts, and nobody can look.
    numbers, raised, refused, silent, slowest = itertools.count(), [], 0, 0, 0.0
    for number in range(rounds):
        site.raise_many("exact", more := [next(numbers) for _ in range(10)], do="swallow")
        raised += more
        if number % 2:
            until(lambda enough=len(raised) - 10: len(site.effects()) > enough)
        fill(small_disk)
        full = time.monotonic()
        for n in itertools.islice(numbers, 100):
            try:
                site.raise_("exact", n, do="swallow")
                raised.append(n)
            except FlagSweepError:
                refused += 1
        until(lambda full=full: time.monotonic() - full > 0.5)
        silent += unfounded(database, raised)
        (small_disk / "filler").unlink()
        freed = time.monotonic()
        until(lambda: owed(database) == 0, limit=20)
        slowest = max(slowest, time.monotonic() - freed)
        silent += unfounded(database, raised)
    gone = child.poll()
    child.end()
    effects = site.effects()
    ok = effects == sorted(raised) and not silent and gone is None and slowest <= bound(5) and is_sound(database) and refused
    site.close()
    report(
        "F6",
        "a tmpfs of 8 MB filled, then freed; handlers swallow the error; the log is on it",
        f"{rounds} rounds, {len(raised)} flags: lowered without effect {silent}, "
        f"effects twice {len(effects) - len(set(effects))}, "
        f"raises refused loudly {refused}; works again at the latest {slowest:.1f} s <= {bound(5):g} s after there is space",
        ok,
    )


def unfounded(database, raised):
    """Return how many flags are down although their effect is not there."""
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("BEGIN")  # Both looks at one moment.
        up = {int(key) for (key,) in db.execute("SELECT payload ->> '$.n' FROM flagsweep_flag")}
        effects = {n for (n,) in db.execute("SELECT n FROM effect")}
        db.execute("COMMIT")
    return len([n for n in raised if n not in up and n not in effects])


# F7: the database is locked.


@contextmanager
def locked(database):
    with closing(sqlite3.connect(database, isolation_level=None, timeout=5)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")


def spent(pid):
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


BUSY = 5.0  # seconds that a connection of the site's waits for the writer


def raise_until(site, numbers, over, took):
    """Raise one flag after the other until it is over, and note how long each took, whether it was refused or not."""
    while not over.is_set():
        asked = time.monotonic()
        with suppress(FlagSweepError):
            site.raise_("work", next(numbers))
        took.append(time.monotonic() - asked)
        over.wait(0.05)


def test_f7_a_locked_database_is_waited_for(site, consume, db_path, until, sized, bound, report):
    child = consume()
    until(lambda: "flagsweep sweeps" in child.log.read_text())
    numbers = itertools.count()
    for seconds in [1, *sized([10], [10, 60], [])]:
        site.raise_many("work", itertools.islice(numbers, 20), do="slow", seconds=0.01)
        took, over = [], threading.Event()
        raising = threading.Thread(target=raise_until, args=(site, numbers, over, took))
        with locked(db_path):
            began = time.monotonic()
            raising.start()
            until(lambda began=began: time.monotonic() - began > 0.5)  # What was claimed before is done by now.
            cpu, half = spent(child.pid), time.monotonic()
            until(lambda end=began + seconds: time.monotonic() > end, limit=seconds + 5, every=0.1)
            load = (spent(child.pid) - cpu) / (time.monotonic() - half)
        released = time.monotonic()
        starts = until(lambda released=released: [e.at for e in site.journal.events("start") if e.at > released], limit=40)
        over.set()
        raising.join()
        until(site.is_idle, limit=20)
        first_job = starts[0] - released
        tells = seconds >= 10  # A second is too short to tell the load.
        report(
            "F7",
            f"BEGIN EXCLUSIVE for {seconds} s",
            f"a raise took at most {max(took):.2f} s <= {BUSY:g} + {bound(0.5):g} s; "
            f"first job {first_job:.2f} s <= {bound(2):g} s after the release"
            + (f"; consumer CPU {load:.1%} < {bound(0.05):.1%}" if tells else ""),
            max(took) <= BUSY + bound(0.5) and first_job <= bound(2) and (load < bound(0.05) or not tells),
        )
    child.terminate()
    assert child.wait(10) == 0
    ledger = Ledger(site.journal.events())
    assert not ledger.lost() and not ledger.unexplained()


# F8: a reader that keeps the log from being written back.


def test_f8_a_log_is_short_again_soon_after_a_long_reader_has_gone(site, consume, db_path, until, sized, bound, report):
    seconds, child = sized(8, 600, 8), consume()
    log = db_path.with_name("site.db-wal")
    blob = max(4096, int(90e6 / (100 * seconds)))  # So that the log grows beyond the size of which the consumer warns.
    over, numbers = threading.Event(), itertools.count()
    plain(db_path, "CREATE TABLE ballast (id INTEGER PRIMARY KEY, data)")
    plain(db_path, "INSERT INTO ballast VALUES (1, NULL)")
    writing = threading.Thread(target=write_until, args=(db_path, blob, over))
    with closing(sqlite3.connect(db_path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM flagsweep_flag").fetchall()
        began = time.monotonic()
        writing.start()
        try:
            while time.monotonic() - began < seconds:
                site.raise_("work", next(numbers))
                over.wait(0.1)
            until(lambda: "cannot be written back" in child.log.read_text(), limit=30)
            most = log.stat().st_size
            reader.execute("ROLLBACK")
            released = time.monotonic()
            until(lambda: log.stat().st_size <= 4 << 20, limit=60)  # While the site goes on writing.
            took = time.monotonic() - released
        finally:
            over.set()
            writing.join()
    until(site.is_idle)
    child.terminate()
    assert child.wait(10) == 0
    ledger = Ledger(site.journal.events())
    report(
        "F8",
        f"a read transaction of {seconds} s beside 100 writes/s",
        f"the log grew to {most / 1e6:.0f} MB, the consumer warned, "
        f"{took:.1f} s <= {bound(60):g} s after the release it had at most 4 MiB; "
        f"lost {len(ledger.lost())}",
        took <= bound(60) and most > 64 << 20 and not ledger.lost() and not ledger.repeats(),
    )


def write_until(database, blob, over):
    with closing(sqlite3.connect(database, isolation_level=None, timeout=10)) as db:
        db.execute("PRAGMA synchronous = NORMAL")
        while not over.wait(0.01):
            db.execute("UPDATE ballast SET data = randomblob(?)", (blob,))


# F33: the database's file is replaced or deleted.


def moved(database, folder):
    """Move a database and its log away, as somebody does who restores a backup."""
    folder.mkdir()
    for suffix in ("", "-wal", "-shm"):
        os.rename(f"{database}{suffix}", folder / f"site.db{suffix}")
    return folder / "site.db"


def flags_in(database):
    return plain(database, "SELECT * FROM flagsweep_flag ORDER BY id"), plain(database, "SELECT n FROM effect ORDER BY n")


@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_f33_a_consumer_ends_and_writes_no_more_into_the_old_file_that_is(tmp_path, consume, until, sized, bound, report, how):
    times, slowest, written = sized(3, 20, 1), 0.0, 0
    backup = Work(tmp_path / "backup.db", tmp_path / "journal").prepare()
    backup.close()
    for number in range(times):
        folder = tmp_path / f"site-{number}"
        folder.mkdir()
        site = Work(folder / "site.db", tmp_path / "journal").prepare()
        done = len(site.journal.flags("end"))
        site.raise_many("work", range(2000), do="slow", seconds=0.002)
        site.raise_many("exact", range(5000, 5500), do="effect")
        child = consume(folder / "site.db")
        until(lambda site=site, enough=done + 50: len(site.journal.flags("end")) > enough)
        with locked(folder / "site.db"):
            before = flags_in(folder / "site.db")
            old = moved(folder / "site.db", folder / "old")
            if how == "replaced":
                shutil.copy(tmp_path / "backup.db", folder / "site.db")
        began = time.monotonic()
        until(lambda child=child: child.poll() is not None, limit=15)
        slowest = max(slowest, time.monotonic() - began)
        after = flags_in(old)
        written += len(set(before[0]) ^ set(after[0])) + len(set(before[1]) ^ set(after[1]))
        log = child.log.read_text()
        assert ("was replaced" in log or "is gone" in log) and "Traceback" not in log and is_sound(old)
        site.close()
    report(
        "F33",
        f"the file is {how} while its consumer works, {times} times",
        f"the consumer had ended {slowest:.1f} s <= {bound(5):g} s later at the latest; "
        f"rows changed in the old file after that {written}",
        slowest <= bound(5) and not written,
    )

"""One handler whose behaviour its payload chooses, a journal outside the database, and the ledger that checks what it shows.

``python tests/work.py run DATABASE JOURNAL SETTINGS`` is a consumer; ``sweep`` instead of ``run`` sweeps again and again until
the file JOURNAL.stop is there; ``crash FILE`` has consumers kill themselves. SETTINGS is JSON: ``attempts`` and ``backoff`` of
the handlers, and what ``FlagSweep`` takes.
"""

import faulthandler
import json
import logging
import os
import re
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from peewee import BooleanField, DatabaseError, IntegerField, Model

from flagsweep import Discard, FlagSweep, FlagSweepError, Retry, Snooze, testing
from flagsweep.config import SECOND
from flagsweep.gates.breaker import Breaker, Outage
from flagsweep.models import Gate, Schedule, bump
from flagsweep.schedules.book import Book
from flagsweep.schedules.declared import Plan, key_of
from flagsweep.sweep.threads import Pool

EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

GATED = {"rate": "6000/m burst 20", "budget": "1000/d", "limit": 2}
LIMIT = 30.0  # seconds for which a handler waits at the most: a test that fails must not leave it waiting


class Event(NamedTuple):
    """One line of a journal. ``at`` is on the monotonic clock, which all processes of a machine share."""

    at: float
    pid: int
    thread: int
    what: str
    flag: str
    more: dict


class Journal:
    """Append events to a file: each is one write, so that no kill leaves half of one, and none is lost."""

    def __init__(self, path):
        self.path = Path(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, what, flag, **more):
        event = (time.monotonic(), os.getpid(), threading.get_native_id(), what, flag, more)
        os.write(self._fd, json.dumps(event).encode() + b"\n")

    def events(self, what=None):
        whole, _, _ = self.path.read_text().rpartition("\n")  # Who reads while another writes may see the beginning of a line.
        events = [Event(*json.loads(line)) for line in whole.splitlines()]
        return [event for event in events if what in (None, event.what)]

    def flags(self, what):
        return [event.flag for event in self.events(what)]

    def close(self):
        os.close(self._fd)


class Work:
    """A site: its handlers, of which ``act`` does what a payload says, its tables, and its journal.

    :param schedules: declare one, which fires in a year.

    Kinds: ``work`` and ``exact`` (atomic) in lane default, ``mail`` and ``slow`` in lanes of their names, ``greet`` for own rows;
    ``gated`` has limits, ``away`` a provider.
    """

    def __init__(self, database, journal, attempts=1000, backoff=0.01, schedules=False, **settings):
        self.flags = FlagSweep(database, **{"lanes": {"default": 4, "mail": 4, "slow": 1}, **settings})
        self.journal = Journal(journal)
        self.seen = {}
        options = {"max_attempts": attempts, "backoff": backoff}
        self.work = self.flags.handler("work", **options)(self.act)
        self.exact = self.flags.handler("exact", atomic=True, **options)(self.act)
        self.mail = self.flags.handler("mail", lane="mail", **options)(self.act)
        self.slow = self.flags.handler("slow", lane="slow", **options)(self.act)
        self.gated = self.flags.handler("gated", lane="mail", **GATED, **options)(self.act)
        self.away = self.flags.handler("away", lane="mail", **options)(self.act)
        if schedules:
            self.work.every("365d", name="yearly", arguments={"n": 0})
        self.Person = type("Person", (Model,), {"greet": BooleanField(default=True, index=True), **_meta(self.flags, "person")})
        self.Effect = type("Effect", (Model,), {"n": IntegerField(), **_meta(self.flags, "effect")})
        self.greet = self.flags.when(self.Person.greet, kind="greet", **options)(self.greets)

    def prepare(self):
        self.flags.init()
        with self.flags.database.connection_context():
            self.flags.database.create_tables([self.Person, self.Effect])
        return self

    def close(self):
        self.journal.close()

    # The handlers.

    def act(self, n, do="ok", seconds=0.0, gate=None, flag=None):
        name = f"{flag.kind}:{n}"
        self.journal.write("start", name, key=flag.key, attempt=flag.attempt, **_occurrence(flag))
        try:
            getattr(self, f"_{do}")(n, seconds, gate, flag)
        except BaseException as error:
            self.journal.write("fail", name, error=type(error).__name__)
            raise
        self.journal.write("end", name)

    def greets(self, person, flag):
        self.journal.write("start", f"greet:{person.id}", attempt=flag.attempt)
        self.journal.write("end", f"greet:{person.id}")

    def _ok(self, n, seconds, gate, flag):
        pass

    def _slow(self, n, seconds, gate, flag):
        time.sleep(seconds)

    def _wait(self, n, seconds, gate, flag):
        """Go on once the file ``gate`` is there."""
        end = time.monotonic() + LIMIT
        while not os.path.exists(gate) and time.monotonic() < end:
            time.sleep(0.002)

    def _fail(self, n, seconds, gate, flag):
        raise RuntimeError("asked to fail")

    def _fail_once(self, n, seconds, gate, flag):
        if flag.attempt == 1:
            raise RuntimeError("asked to fail once")

    def _retry(self, n, seconds, gate, flag):
        if flag.attempt == 1:
            raise Retry(after=seconds)

    def _retry_all(self, n, seconds, gate, flag):
        """Have all others of the kind wait, too."""
        if flag.attempt == 1:
            raise Retry(after=seconds, all=True)

    def _snooze(self, n, seconds, gate, flag):
        if flag.cursor is None:
            flag.progress("snoozed")
            raise Snooze(seconds)

    def _discard(self, n, seconds, gate, flag):
        raise Discard("asked to")

    def _sysexit(self, n, seconds, gate, flag):
        if flag.attempt == 1:
            raise SystemExit(3)

    def _interrupt(self, n, seconds, gate, flag):
        if flag.attempt == 1:
            raise KeyboardInterrupt

    def _touch(self, n, seconds, gate, flag):
        """Let those go on that wait for ``gate``."""
        Path(gate).touch()

    def _crash(self, n, seconds, gate, flag):
        """Die of a segmentation fault, once ``gate`` is there."""
        self._wait(n, seconds, gate, flag)
        faulthandler._sigsegv()

    def _overflow(self, n, seconds, gate, flag):
        """Die of a stack that is used up, once ``gate`` is there."""
        self._wait(n, seconds, gate, flag)
        sys.setrecursionlimit(10**9)
        nested = []
        for _ in range(200_000):
            nested = [nested]
        repr(nested)

    def _exit_once(self, n, seconds, gate, flag):
        """End the process without a word once ``gate`` is there, on the first attempt."""
        if flag.attempt == 1:
            self._wait(n, seconds, gate, flag)
            os._exit(9)
        time.sleep(seconds)

    def _hang_once(self, n, seconds, gate, flag):
        """Hang on the first attempt."""
        if flag.attempt == 1:
            self._wait(n, seconds, f"{self.journal.path}.never", flag)
        time.sleep(seconds)

    def _let_none_start_once(self, n, seconds, gate, flag):
        """Have each thread that a lane starts from now on neither start nor fail."""
        if flag.attempt == 1:
            start, never = threading.Thread.start, threading.Event()

            def hang(thread):
                never.wait() if thread.name.startswith("flagsweep-") else start(thread)  # Huey may be starting its own just now.

            Pool.START, threading.Thread.start = 0.3, hang

    def _spin_once(self, n, seconds, gate, flag):
        """Never give up the interpreter, on the first attempt: a regular expression that backtracks without end."""
        if flag.attempt == 1:
            re.match(r"(a+)+$", "a" * 40 + "b")

    def _effect(self, n, seconds, gate, flag):
        """Write into the site's own table: once, if the flag is atomic."""
        self.Effect.insert(n=n).execute()

    def _swallow(self, n, seconds, gate, flag):
        """Write into the site's own tables, more than its cache holds, and take no notice where that fails."""
        ask = self.flags.database.execute_sql
        with suppress(DatabaseError):
            ask("PRAGMA cache_size = 2")
            ask("INSERT INTO effect (n) VALUES (?)", (n,))
            ask("INSERT INTO ballast (data) VALUES (randomblob(100000))")
            ask("DELETE FROM ballast")

    def _raises(self, n, seconds, gate, flag):
        """Owe more work."""
        self.raise_("work", n + 1_000_000)

    def _keyed(self, n, seconds, gate, flag):
        """Let this process know which raise of a key was seen last."""
        self.seen[flag.key] = n
        time.sleep(seconds)

    def _stop(self, n, seconds, gate, flag):
        """Once the other lanes are done have the consumer stop, and go on for so long. Do nothing in a sweep, without signals."""
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            return
        end = time.monotonic() + LIMIT
        while any(info.lane != "slow" for info in self.flags.find(limit=None)) and time.monotonic() < end:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)
        while not flag.should_stop():
            time.sleep(0.001)
        time.sleep(seconds)

    def _signal(self, n, seconds, gate, flag):
        """Give SIGTERM to this thread, which is not the main one."""
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    def _patient(self, n, seconds, gate, flag):
        """Work until the consumer stops, then ask for later."""
        end = time.monotonic() + LIMIT
        while not flag.should_stop() and time.monotonic() < end:
            time.sleep(0.002)
        raise Snooze(0)

    def _forks(self, n, seconds, gate, flag):
        """Leave a child behind that lives until ``gate`` is there."""
        if os.fork() == 0:
            try:
                Path(f"{gate}.child").write_text(str(os.getpid()))
                self._wait(n, seconds, gate, flag)
            finally:
                os._exit(0)

    # The site.

    def raise_(self, kind, n, key=None, **more):
        """Raise one flag; the journal has ``invoke`` before it and ``raised`` once it is committed."""
        self.journal.write("invoke", f"{kind}:{n}")
        self.flags.handlers[kind].using(key=key).raise_flag(n=n, **more)
        self.journal.write("raised", f"{kind}:{n}")

    def raise_many(self, kind, numbers, **more):
        """Raise many in one transaction."""
        numbers = list(numbers)
        self.flags.handlers[kind].raise_many([{"n": n, **more} for n in numbers])
        for n in numbers:
            self.journal.write("raised", f"{kind}:{n}")

    def add_schedule(self, name, kind, n, period, missed, next_at=None, **more):
        """Add a schedule by hand, as the command does.

        :param next_at: microseconds UTC; where it is left out it fires first when a period has passed.
        """
        item = self.flags.handlers[kind].item_of({"n": n, **more}, 4096)
        plan, book = Plan.of("every", period, "UTC", missed), Book(self.flags.connections)
        values = {"kind": kind, "payload": item.payload, "key": key_of(item, plan, single=True)}
        with self.flags.connections.write() as db:
            book.add(db, name, values, plan, "a test", self.flags.clock.now())
            if next_at is not None:
                book.set(db, name, next_at=next_at)
        self.flags.connections.close_engine()

    def schedules(self):
        """Return the schedules by name."""
        with self.flags.connections.lent("") as db:
            return {row.name: row for row in Schedule.select().execute(db)}

    def pause_schedules(self):
        """Have no schedule fire any more."""
        with self.flags.connections.write() as db:
            Schedule.update(paused_at=self.flags.clock.now()).execute(db)
            bump(db)
        self.flags.connections.close_engine()

    def add_people(self, count):
        """Add rows for which ``greet`` is owed."""
        with self.flags.database.connection_context(), self.flags.database.atomic():
            ids = [self.Person.insert().execute() for _ in range(count)]
        for id in ids:
            self.journal.write("raised", f"greet:{id}")

    def up(self):
        """Return the flags that are up, by name."""
        return {f"{flag.kind}:{flag.payload.get('n', flag.payload.get('row'))}": flag for flag in self.flags.find(limit=None)}

    def effects(self):
        """Return what the atomic handlers wrote, in order."""
        with self.flags.database.connection_context():
            return sorted(row[0] for row in self.flags.database.execute_sql("SELECT n FROM effect"))

    def begin_outage(self, kind="away", ago=60):
        """Have the gate of a kind be closed since its provider was away so many seconds ago: a probe may go."""
        state = Breaker(outage=Outage.began("ConnectionError", self.flags.clock.now() - ago * SECOND))
        with self.flags.database.connection_context():
            Gate.insert(sort="kind", name=kind, breaker=state.text()).execute(self.flags.database)

    def used(self, kind="gated"):
        """Return how much of its budget a kind has used."""
        with self.flags.database.connection_context():
            query = Gate.select(Gate.used).where(Gate.sort == "kind", Gate.name == kind).tuples()
            return sum(used or 0 for (used,) in query.execute(self.flags.database))

    def is_idle(self):
        """Return whether no flag is up but dead ones, and nobody is owed a greeting."""
        with self.flags.database.connection_context() as _:
            ask = self.flags.database.execute_sql
            owed = "SELECT count(*) FROM flagsweep_flag WHERE state != 'dead'"
            return ask(owed).fetchone()[0] == 0 and not self.Person.select().where(self.Person.greet).exists()


def _occurrence(flag):
    """Return for which time of a schedule a flag runs, in microseconds UTC, and how many it stands for besides."""
    if flag.intended is None:
        return {}
    return {"id": flag.id, "intended": (flag.intended - EPOCH) // MICROSECOND, "missed": flag.missed}


def _meta(flags, name):
    return {"__module__": __name__, "Meta": type("Meta", (), {"database": flags.database, "table_name": name})}


class Run(NamedTuple):
    """One run of a flag. ``end`` and ``how`` are None where the process ended first."""

    flag: str
    pid: int
    start: float
    end: float | None
    how: str | None
    attempt: int


class Ledger:
    """Say what the journal shows: which flags were lost, and which ran more often than they should.

    :param deaths: when each process was seen dead, by pid: only there may a run have been cut short, or be repeated.
    """

    def __init__(self, events, deaths=None):
        self.deaths = deaths or {}
        self.raised = {event.flag for event in events if event.what == "raised"}
        self.raises = Counter(event.flag for event in events if event.what == "invoke")
        self.runs = defaultdict(list)
        running = {}
        for event in sorted(events):
            if event.what == "start":
                running[event.pid, event.thread] = len(self.runs[event.flag])
                self.runs[event.flag].append(Run(event.flag, event.pid, event.at, None, None, event.more["attempt"]))
            elif event.what in ("end", "fail"):
                index = running.pop((event.pid, event.thread))
                self.runs[event.flag][index] = self.runs[event.flag][index]._replace(end=event.at, how=event.what)

    def lost(self, up=()):
        """Return the flags whose raise was committed, that never ran to their end, and that are not up, dead ones included."""
        done = {flag for flag, runs in self.runs.items() if any(run.how == "end" for run in runs)}
        return sorted(self.raised - done - set(up))

    def repeats(self):
        """Return the runs that followed one that was done, or cut short: not those that followed a failure."""
        return [after for before, after in self._pairs() if before.how != "fail"]

    def unexplained(self):
        """Return the repeats without a cause: the earlier run's process had not died before, nobody had raised the flag anew."""
        anew = {flag: raises - 1 for flag, raises in self.raises.items()}
        found = []
        for before, after in self._pairs():
            if before.how != "fail" and not before.start <= self.deaths.get(before.pid, -1) <= after.start:
                anew[before.flag] = anew.get(before.flag, 0) - 1
                if anew[before.flag] < 0:
                    found.append((before, after))
        return found

    def overlaps(self):
        """Return the pairs of runs of one flag that ran at the same time."""
        return [(before, after) for before, after in self._pairs() if after.start < self._end(before)]

    def of(self, kind):
        """Return the runs of a kind."""
        return [run for flag, runs in self.runs.items() if flag.startswith(f"{kind}:") for run in runs]

    def most_at_once(self, kind):
        """Return how many flags of a kind ran at the same time."""
        edges = sorted(edge for run in self.of(kind) for edge in ((run.start, 1), (self._end(run), -1)))
        return max(accumulate(step for _, step in edges), default=0)

    def attempts(self, flag):
        """Return which attempt each run of a flag was told to be."""
        return [run.attempt for run in self.runs[flag]]

    def _pairs(self):
        for runs in self.runs.values():
            yield from pairwise(runs)

    def _end(self, run):
        return run.end if run.end is not None else self.deaths.get(run.pid, float("inf"))


@contextmanager
def sites_in(database, folder):
    """Give `make(**settings)`: a site with its tables, which is closed in the end."""
    made = []

    def make(**settings):
        made.append(Work(database, folder / "journal", **settings).prepare())
        return made[-1]

    yield make
    for work in made:
        work.close()


@contextmanager
def running(flags, until):
    """Run a consumer in a thread of this process."""
    failed = []

    def run():
        try:
            failed.append(None if flags.run() else "handlers still ran")
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="consumer", daemon=True)
    thread.start()
    until(lambda: failed or (flags._runner and flags._runner._consumer))
    try:
        yield thread
    finally:
        flags.stop()
        thread.join(20)
        assert not thread.is_alive(), "the consumer did not stop"
        assert failed == [None], failed


def freeze(child, database):
    """Stop a process, and wait until each of its threads stands still: the signal alone says that they soon will.

    It does not stand still as it writes in a file, where nobody else could write then: it goes on a moment, and is stopped anew.

    :param database: the one that it works on.
    """
    while True:
        child.send_signal(signal.SIGSTOP)
        end = time.monotonic() + LIMIT
        while any(_state(thread) != "T" for thread in Path(f"/proc/{child.pid}/task").iterdir()):
            assert time.monotonic() < end, f"process {child.pid} goes on although it was stopped"
            time.sleep(0.001)
        if "://" in str(database) or not _is_locked(database):
            return
        child.send_signal(signal.SIGCONT)
        time.sleep(0.001)


def _state(thread):
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


def _is_locked(database):
    with closing(sqlite3.connect(database, isolation_level=None, timeout=0)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        db.execute("ROLLBACK")
    return False


def is_sound(database):
    """Return whether SQLite finds nothing wrong with its file. A server says by its answers alone that it is well."""
    if "://" in str(database):
        return True
    with closing(sqlite3.connect(database)) as db:
        return db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def command(mode, work_or_paths, **settings):
    """Return the command line of a process that consumes the flags of a site."""
    database, journal = work_or_paths
    return sys.executable, __file__, mode, database, journal, json.dumps(settings)


def main(mode, database, journal, settings):
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("flagsweep").setLevel(logging.INFO)
    testing.arm(os.environ)
    work = Work(database, journal, **json.loads(settings))
    if mode == "sweep":
        while not os.path.exists(f"{journal}.stop"):
            work.flags.sweep()
        return
    try:
        work.flags.run()
    except FlagSweepError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    os._exit(0)  # A handler may hang: nothing waits for it.


def crash(jobs):
    """Have one consumer after the other kill itself at its point, two at a time, forked from here: to import takes longest.

    :param jobs: a JSON file: `[point, nth, folder]` each. How and when each ended is added to it.
    """
    waiting, running, ended = json.loads(Path(jobs).read_text()), {}, []
    while waiting or running:
        while waiting and len(running) < 2:
            job = waiting.pop(0)
            running[_forked(*job)] = job
        pid, status = os.wait()
        ended.append([*running.pop(pid), pid, os.waitstatus_to_exitcode(status), time.monotonic()])
    Path(jobs).write_text(json.dumps(ended))


def _forked(point, nth, folder):
    """Start a consumer on the site in a folder in a child process, and return its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
            os.environ.update({testing.AT: f"{point}:{nth}", testing.LOG: f"{folder}/reached"})
            main("run", f"{folder}/site.db", f"{folder}/journal", '{"shutdown_timeout": 2, "schedules": true}')
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return pid


if __name__ == "__main__":
    crash(*sys.argv[2:]) if sys.argv[1] == "crash" else main(*sys.argv[1:])

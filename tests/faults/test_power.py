"""F4: the power goes. What was acknowledged is there, nothing is malformed, and what was running runs again."""

import json
import random
import sqlite3
import threading
from collections import Counter
from contextlib import closing, contextmanager
from itertools import count

from powercut import Disk, State
from work import Work

from flagsweep.databases.connections import Connections
from flagsweep.databases.raising import Terms
from flagsweep.models import Flag
from flagsweep.payloads import Item
from flagsweep.sweep.claims import Store

CUTS_PER_LIFE = 500


class NotedConnections(Connections):
    """Note on the disk, once a transaction has committed, what its caller may rely on from then on."""

    disk: Disk
    here: threading.local

    @contextmanager
    def write(self, *args, **kwargs):
        outermost = not getattr(self.here, "within", False)
        if outermost:
            self.here.within, self.here.settled = True, []
        try:
            with super().write(*args, **kwargs) as db:
                yield db
        finally:
            if outermost:
                self.here.within = False
        if outermost:
            for what in self.here.settled:
                self.disk.mark(*what)


class Notary(Store):
    """The store, which notes on the disk what is about to be settled, and what its caller may rely on from then on."""

    disk: Disk
    here: threading.local
    atomic: list

    def lower(self, ids, token):
        for id in ids:
            self.disk.mark("settling", id)
        found = super().lower(ids, token)
        left = {id for (id,) in Flag.select(Flag.id).where(Flag.id.in_(list(ids))).tuples().execute(self.connections.engine)}
        self.here.settled += [("bumped" if id in left else "lowered", id) for id in ids]
        return found

    def settle_one(self, id, token, step, now):
        state = super().settle_one(id, token, step, now)
        if state == "waiting":
            self.here.settled.append(("attempts", id, step.attempts))
        return state

    def settle_within(self, claimed, *rest):
        self.disk.mark("settling", claimed.id)
        how = super().settle_within(claimed, *rest)
        self.atomic.append(("bumped" if how == "again" else "lowered", claimed.id))
        return how


def live(folder, disk, chance, rounds):
    """Let a site live on a disk that forgets: raise, sweep, raise while it sweeps. Return its database's path."""
    work = Work(folder / "site.db", folder / "journal", attempts=1000, backoff=0.0)
    store = work.flags.store
    disk.serve(store.connections.site, store.connections.engine)
    store.__class__, store.disk, store.here, store.atomic = Notary, disk, threading.local(), []
    connections = store.connections
    connections.__class__, connections.disk, connections.here = NotedConnections, disk, store.here
    try:
        work.prepare()
        disk.mark("ready")
        numbers = count(1)
        for _ in range(rounds):
            raise_some(work, disk, chance, numbers, 8)
            beside = threading.Thread(target=raise_beside, args=(work, disk, random.Random(chance.random()), numbers))
            beside.start()
            work.flags.sweep()
            beside.join()
            for what in store.atomic:  # A sweep that has returned has committed them.
                disk.mark(*what)
            store.atomic.clear()
    finally:
        store.connections.close_thread()
        work.close()
    return folder / "site.db"


def raise_some(work, disk, chance, numbers, most):
    """Raise flags of every sort, some of them again, and note each as soon as its raise has returned."""
    for _ in range(chance.randint(1, most)):
        n = next(numbers)
        kind = chance.choice(("work", "work", "mail", "exact"))
        if kind == "exact":
            do = "effect"
        else:
            n, do = chance.randint(max(1, n - 10), n), chance.choice(("ok", "ok", "fail_once", "snooze", "raises"))
        gate = "x" * chance.choice((0, 0, 0, 9000))  # Payloads that take some pages.
        payload, now = json.dumps({"n": n, "do": do, "gate": gate}), work.flags.clock.now()
        raised = work.flags.verbs.raise_(kind, Item(str(n), payload), Terms(0, now, now))
        disk.mark("raised", raised.id, kind, n)


def raise_beside(work, disk, chance, numbers):
    for _ in range(4):
        raise_some(work, disk, chance, numbers, 4)
    work.flags.connections.close_thread()


class Known:
    """What a site may rely on at a moment of the log."""

    def __init__(self):
        self.ready = False
        self.raises = Counter()
        self.exact = {}
        self.attempts = {}
        self.settling = set()
        self.lowered = set()

    def learn(self, what, id=None, *more):
        if what == "ready":
            self.ready = True
        elif what == "raised":
            self.raises[id] += 1
            if more[0] == "exact":
                self.exact[id] = more[1]
        elif what == "settling":
            self.settling.add(id)
        elif what == "lowered":
            self.lowered.add(id)
        elif what == "bumped":
            self.settling.discard(id)
            self.attempts.pop(id, None)
        elif what == "attempts":
            self.attempts[id] = more[0]

    def compare(self, rows, effects):
        """Count what a database lacks, has again, or did by half.

        :param rows: generation and attempts by id.
        """
        found = Counter()
        for id, raises in self.raises.items():
            if id in self.lowered:
                found["came back"] += id in rows
            elif id not in self.settling:
                generation, attempts = rows.get(id, (0, 0))
                found["lost"] += generation < raises or attempts < self.attempts.get(id, 0)
        found["half done"] = sum((id in rows) == (n in effects) for id, n in self.exact.items())
        return +found


def look(database, known):
    """Return what is wrong with a database that a cut has left."""
    try:
        with closing(sqlite3.connect(database)) as db:
            if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                return {"malformed": 1}
            if not known.ready:
                return {}
            rows = {id: rest for id, *rest in db.execute("SELECT id, generation, attempts FROM flagsweep_flag")}
            return known.compare(rows, {n for (n,) in db.execute("SELECT n FROM effect")})
    except sqlite3.DatabaseError as error:
        return {"lost": 1} if "no such table" in str(error) else {"malformed": 1}


def put(files, folder):
    """Write what a cut has left into a folder, and nothing else."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("site.db*"):
        if old.is_file():
            old.unlink()
    for path, content in files.items():
        (folder / path.rpartition("/")[2]).write_bytes(content)
    return folder / "site.db"


def cut_often(log, chance, cuts, folder, resume=None):
    """Cut the power at random moments of a log; return what was wrong, counted.

    :param resume: called with the database that some of the cuts left.
    """
    state, known, found, at = State(), Known(), Counter(), 0
    for number, moment in enumerate(sorted(chance.randint(0, len(log)) for _ in range(cuts))):
        for entry in log[at:moment]:
            known.learn(*entry[1]) if entry[0] == "mark" else state.apply(entry)
        at = moment
        database = put(state.cut(chance), folder)
        wrong = look(database, known)
        found.update(wrong)
        found["cuts with a loss"] += bool(wrong)
        if resume and number % 50 == 0:
            resume(database, known)
    return +found


def go_on(database, known):
    """Let a site start again after the power is back: it gets everything done that was owed."""
    folder = database.parent
    (folder / "journal").unlink(missing_ok=True)
    work = Work(database, folder / "journal", backoff=0.0).prepare()
    try:
        owed = {flag.id for flag in work.flags.find(limit=None)}
        assert not known.ready or owed >= set(known.raises) - known.settling
        while not work.is_idle():
            work.flags.sweep()
        assert sorted(set(work.effects())) == work.effects(), "an atomic handler took effect twice"
        assert not known.ready or set(known.exact.values()) <= set(work.effects())
    finally:
        work.close()


def lives(tmp_path, seed, cuts, synchronous=None, resume=None):
    """Let as many sites live as it takes for so many cuts; return what was wrong, counted."""
    chance, found = random.Random(seed), Counter()
    for life in range(-(-cuts // CUTS_PER_LIFE)):
        folder = tmp_path / f"life-{life}"
        folder.mkdir()
        disk = Disk(synchronous)
        live(folder, disk, chance, rounds=8)
        found.update(cut_often(disk.log, chance, min(cuts, CUTS_PER_LIFE), folder / "cut", resume))
    return found


def test_f4_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path, sized, seed, report):
    cuts = sized(2_000, 50_000, 500)
    found = lives(tmp_path, seed, cuts, resume=go_on)
    figure = (
        f"{cuts} cuts: lost {found['lost']}, settled and back {found['came back']}, half done {found['half done']}, "
        f"malformed {found['malformed']}"
    )
    report("F4", "a VFS forgets what was not synced, torn at 512 or 4096 bytes", figure, not found)


def test_f4_control_the_same_cuts_show_a_loss_where_commits_are_not_synced(tmp_path, sized, seed, report):
    """A suite that could not see this loss would be worth nothing."""
    cuts = sized(500, 5_000)
    found = lives(tmp_path, seed, cuts, "NORMAL")
    figure = f"{cuts} cuts: {found['cuts with a loss']} lose what was acknowledged, malformed {found['malformed']}"
    report("F4", "control, synchronous=NORMAL", figure, found["cuts with a loss"] and not found["malformed"])


def test_f4_control_the_same_cuts_damage_the_file_where_nothing_is_synced(tmp_path, sized, seed, report):
    cuts = sized(500, 5_000)
    found = lives(tmp_path, seed, cuts, "OFF")
    report("F4", "control, synchronous=OFF", f"{cuts} cuts: malformed {found['malformed']}", found["malformed"])

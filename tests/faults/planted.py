"""Bugs planted in flagsweep from outside, for the controls of this suite; nothing in the package knows of them.

``python tests/faults/planted.py run DATABASE JOURNAL SETTINGS`` is a consumer of worse.py's site, with ``sweep`` instead of
``run`` as in work.py. Where PLANTED_BUG names a bug in the environment, it plants that in itself before anything else.
"""

import json
import os
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "sweep"))

import work
from worse import Worse

from flagsweep.config import SECOND
from flagsweep.consumer.file_lease import Lease
from flagsweep.databases import sqlite
from flagsweep.databases.sqlite import flags as texts
from flagsweep.handlers import options
from flagsweep.models import Schedule
from flagsweep.queues.client import SharedQueue
from flagsweep.schedules.book import Book
from flagsweep.sweep import claims, perform
from flagsweep.sweep.outcomes import Failed
from flagsweep.sweep.perform import Performer

PLANTED = "PLANTED_BUG"


def lower_before_run():
    """A flag is lowered when it is claimed, as a queue forgets a message that it has handed out."""
    claim = claims.Store.claim

    def claim_and_lower(self, *arguments):
        taken = claim(self, *arguments)
        for flag in taken:
            self.lower([flag.id], flag.token)
        return taken

    claims.Store.claim = claim_and_lower


def no_guard_savepoint():
    """Nobody looks whether an atomic handler's transaction is still the one that was begun for it."""
    assert perform.guarded
    perform.guarded = lambda db: nullcontext()


def synchronous_normal():
    """Settling is committed as cheaply as claiming."""
    synchronous = sqlite.Sqlite._synchronous
    sqlite.Sqlite._synchronous = lambda self, db, mode: synchronous(self, db, "NORMAL")


def settling_without_the_token():
    """A flag is settled by its id, whoever has claimed it since."""
    for name in ("LOWER", "LOWER_BUMPED", "RELEASE", "PROGRESS"):
        _edit(name, "claim_token = ?", "? IS NOT NULL")
    _edit("SETTLE_ONE", "claim_token = :token", ":token IS NOT NULL")


def lock_only_in_huey():
    """A claim marks nothing: what keeps two sweeps from one flag is Huey's lock, and in one process a list of what it has."""
    in_hand, dialect = set(), sqlite.Sqlite

    def claim(self, db, kind, priority, limit, consumer, token, now, way):
        due = "state = 'waiting' AND kind = ? AND priority = ? AND due_at <= ? ORDER BY due_at, id"
        found = db.execute_sql(f"SELECT {texts.ROW} FROM flagsweep_flag WHERE {due}", (kind, priority, now)).fetchall()
        rows = [row for row in (json.loads(text) for (text,) in found) if row[1] not in in_hand][:limit]
        for _, id, *_ in rows:
            in_hand.add(id)
            mine = "claim_token = ?, claimed_by = ?, claimed_at = ?, claimed_generation = generation"
            db.execute_sql(f"UPDATE flagsweep_flag SET {mine} WHERE id = ?", (token, consumer, now, id))
        return rows

    def letting_go(verb, ids_of):
        def settle(self, db, what, *arguments):
            in_hand.difference_update(ids_of(what))
            return verb(self, db, what, *arguments)

        return settle

    _one_token()
    dialect.claim = claim
    for name in ("lower", "lower_bumped", "release"):
        setattr(dialect, name, letting_go(getattr(dialect, name), lambda ids: ids))
    dialect.settle_one = letting_go(dialect.settle_one, lambda named: [named["id"]])


def lease_ignored():
    """Nobody's lease counts: whoever is entered is taken for dead by all others."""
    assert Lease.is_held
    Lease.is_held = lambda self, byte: False


def kick_inside_the_transaction():
    """A raise waits until its nudge is in the queue, and fails where that does."""

    def nudge(self, lane, database):
        with ThreadPoolExecutor(1) as courier:
            courier.submit(lambda: self._nudges._post(lane, self.place.open())).result()

    assert SharedQueue.nudge
    SharedQueue.nudge = nudge


def retry_without_limit():
    """A failed attempt is tried again whatever ``max_attempts`` says."""
    planned = Failed.step

    def step(self, handler, claimed, now):
        step = planned(self, handler, claimed, now)
        return step if self.final else step._replace(state="waiting", due=now)

    Failed.step = step


def naive_datetime():
    """A time is turned into UTC, its zone is dropped, and what is left is taken for local time."""
    assert options._moment
    options._moment = lambda at, what, now: int(at.astimezone(UTC).replace(tzinfo=None).timestamp() * SECOND)


def catch_exception_only():
    """What is no Exception goes up through the thread."""
    failed = Performer.failed

    def _failed(self, handler, error):
        if not isinstance(error, Exception):
            raise error
        return failed(self, handler, error)

    Performer.failed = _failed


def claim_without_a_token():
    """A claim is known by its consumer and its flag alone: there is one token for all."""
    claim = sqlite.Sqlite.claim

    def claim_as_one(self, db, kind, priority, limit, consumer, token, now, way):
        rows = claim(self, db, kind, priority, limit, consumer, unique := secrets.randbits(62), now, way)
        db.execute_sql("UPDATE flagsweep_flag SET claim_token = ? WHERE claim_token = ?", (token, unique))
        return rows

    _one_token()
    sqlite.Sqlite.claim = claim_as_one


def no_schedule_uniqueness():
    """Who fires a schedule does so whatever its row says by now."""
    advance = Book._advance

    def advance_from_wherever_it_is(self, db, row, due, now):
        mine = Schedule.select().where(Schedule.name == row.name)
        for found in list(mine.execute(db)):
            return advance(self, db, Schedule(**{**row.__data__, "next_at": found.next_at}), due, now)
        return False

    assert advance
    Book._advance = advance_from_wherever_it_is


def _one_token():
    assert claims.secrets
    claims.secrets = SimpleNamespace(randbits=lambda bits: 1)


def _edit(name, old, new):
    """Change the text of a statement."""
    text = getattr(texts, name)
    assert old in text, f"{name} has no {old!r}: the bug would be no bug"
    setattr(texts, name, text.replace(old, new))


BUGS = {
    "lower before run": lower_before_run,
    "no guard savepoint": no_guard_savepoint,
    "synchronous NORMAL": synchronous_normal,
    "unfenced completion": settling_without_the_token,
    "lock only in Huey": lock_only_in_huey,
    "heartbeat ignored": lease_ignored,
    "kick inside the transaction": kick_inside_the_transaction,
    "retry without limit": retry_without_limit,
    "naive datetime": naive_datetime,
    "catch Exception only": catch_exception_only,
    "claim without token": claim_without_a_token,
    "no schedule uniqueness": no_schedule_uniqueness,
}


def plant():
    """Plant the bug that the environment names, if it names one; handlers wait at their gates for as long as a check does."""
    work.LIMIT = 120.0
    if os.environ.get(PLANTED):
        BUGS[os.environ[PLANTED]]()


if __name__ == "__main__":
    plant()
    work.Work = Worse
    work.main(*sys.argv[1:])

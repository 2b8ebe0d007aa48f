"""The verbs of the tables, case by case as docs/states tells them: raise, claim, settle, rescue, and what people ask for."""

import json
import os
import sqlite3
import sys
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peewee import SqliteDatabase
from rig import plain

from flagsweep import Backoff, ClaimLost, ConfigError, DatabaseAway, FlagSweep, NotReady
from flagsweep.config import SECOND
from flagsweep.sweep.claims import Claimed, Step
from flagsweep.sweep.perform import Discarded, Failed, Parked, Snoozed, plan
from flagsweep.testing import FakeClock

NOW = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
ME, OTHER = 1, 2  # consumers


class Site:
    """One database, and the verbs with what does not matter to a test left out. Times are microseconds after ``NOW``."""

    def __init__(self, path):
        self.path = path
        self.clock = FakeClock(NOW)
        self.flags = FlagSweep(path, clock=self.clock)
        self.flags.init()
        self.store = self.flags.store
        backoff = Backoff(first=10, factor=2, cap="1h", jitter=0)
        self.handler = self.flags.handler("work", max_attempts=3, backoff=backoff)(lambda n=0: None)

    def raise_(self, key="k", due=0, now=0, payload='{"n":1}', priority=0, kind="work"):
        return self.store.raise_(kind, key, payload, priority, NOW + due, NOW + now)

    def claim(self, limit=100, now=0, kind="work", priority=0, consumer=ME):
        with self.store.write():
            return self.store.claim(kind, priority, limit, consumer, NOW + now)

    def claim_one(self, **more):
        (claimed,) = self.claim(**more)
        return claimed

    def lower(self, claimed):
        with self.store.write():
            return self.store.lower([claimed.id], claimed.token)

    def settle(self, claimed, outcome, now=0):
        step = plan(self.handler, claimed, outcome, NOW + now)
        with self.store.write():
            return self.store.settle_one(claimed.id, claimed.token, step, NOW + now)

    def fail(self, now=0, **more):
        """Claim the one flag that is due and let its attempt fail."""
        return self.settle(self.claim_one(now=now), Failed("boom", ValueError(), **more), now)

    def die(self):
        """Raise a flag and let it die at once."""
        self.raise_()
        assert self.fail(final=True) == "dead"

    def release(self, *claimed, now=0):
        with self.store.write():
            return self.store.release([c.id for c in claimed], claimed[0].token, NOW + now)

    def ask(self, statement, *arguments):
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, arguments)]

    def row(self, key="k"):
        """Return one flag as it is stored, its times after ``NOW``."""
        (row,) = self.ask("SELECT * FROM flagsweep_flag WHERE key = ?", key)
        return {name: v - NOW if name in ("due_at", "raised_at") else v for name, v in row.items()}

    def is_up(self, key="k"):
        return bool(self.ask("SELECT 1 FROM flagsweep_flag WHERE key = ?", key))

    def history(self):
        return [(row["event"], row["reason"]) for row in self.ask("SELECT * FROM flagsweep_history ORDER BY id")]

    def close(self):
        self.store.close_thread()


@pytest.fixture
def site(db_path):
    site = Site(db_path)
    yield site
    site.close()


def picked(row, *names):
    return tuple(row[name] for name in names)


def free(row):
    """Return whether a row bears no trace of a claim."""
    return picked(row, "claim_token", "claimed_by", "claimed_at", "claimed_generation") == (None,) * 4


# Raise.


def test_a_new_flag_waits_and_is_due_as_its_raise_says(site):
    raised = site.raise_(due=MINUTE, now=5, priority=7)
    row = site.row()
    assert raised == (row["id"], "new")
    assert picked(row, "state", "due_at", "raised_at", "priority", "generation", "attempts") == ("waiting", MINUTE, 5, 7, 1, 0)
    assert free(row)


def bring(site, state):
    """Bring the flag ``k`` into a state."""
    if state == "dead":
        return site.die()
    site.raise_()
    if state in ("claimed", "bumped"):
        site.claim()
    if state == "bumped":
        site.raise_(due=30)
    if state == "backing off":
        site.fail()


HOW = {"waiting": "coalesced", "backing off": "coalesced", "claimed": "bumped", "bumped": "bumped", "dead": "revived"}


@pytest.mark.parametrize("state", HOW)
def test_every_raise_writes_the_row_and_bumps_its_generation_whatever_its_state(site, state):
    bring(site, state)
    before = site.row()
    raised = site.raise_(now=99, due=99, payload='{"n":2}')
    after = site.row()
    assert raised == (before["id"], HOW[state])
    assert after["generation"] == before["generation"] + 1
    assert picked(after, "raised_at", "payload") == (99, '{"n":2}')


@pytest.mark.parametrize("state", HOW)
def test_raise_many_does_to_a_flag_what_raise_does(tmp_path, state):
    rows = []
    for many in (False, True):
        site = Site(tmp_path / f"{many}.db")
        bring(site, state)
        if many:
            chunk = json.dumps([["k", '{"n":3}']])
            assert site.store.raise_many("work", [chunk], 5, NOW + 70, NOW + 60) == {HOW[state]: 1}
        else:
            site.raise_(due=70, now=60, payload='{"n":3}', priority=5)
        rows.append({name: value for name, value in site.row().items() if name != "claim_token"})
        site.close()
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("old", "new"), [(50, 10), (10, 50), (10, 10)])
def test_raised_again_while_it_waits_the_earlier_due_time_wins(site, old, new):
    site.raise_(due=old)
    site.raise_(due=new)
    assert site.row()["due_at"] == min(old, new)


@pytest.mark.parametrize("new", [1, 2 * HOUR])
def test_raised_again_while_it_backs_off_the_backoff_stays(site, new):
    site.raise_()
    site.fail()
    site.raise_(due=new)
    assert picked(site.row(), "state", "attempts", "due_at", "error") == ("waiting", 1, 10 * SECOND, "boom")


def test_a_flag_that_snoozes_takes_the_earlier_due_time(site):
    """No attempt was counted, so it does not back off: new work need not wait for a snooze."""
    site.raise_()
    site.settle(site.claim_one(), Snoozed(3600))
    site.raise_(due=5)
    assert site.row()["due_at"] == 5


@pytest.mark.parametrize("new", [-50, 70, HOUR])
def test_the_first_raise_while_it_runs_decides_when_it_runs_again(site, new):
    site.raise_()
    site.claim()
    site.raise_(due=new)
    assert picked(site.row(), "state", "due_at") == ("claimed", new)


@pytest.mark.parametrize(("first", "second"), [(50, 10), (10, 50)])
def test_of_two_raises_while_it_runs_the_earlier_due_time_wins(site, first, second):
    site.raise_(due=-5)
    site.claim()
    site.raise_(due=first)
    site.raise_(due=second)
    assert site.row()["due_at"] == min(first, second)


def test_a_raise_revives_a_dead_flag_from_scratch(site):
    site.die()
    site.raise_(due=HOUR)
    row = site.row()
    assert picked(row, "state", "attempts", "crashes", "suspect", "died_at", "due_at") == ("waiting", 0, 0, 0, None, HOUR)


@pytest.mark.parametrize(
    ("state", "old", "new", "expected"),
    [
        ("waiting", 5, 1, 5),
        ("waiting", 1, 5, 5),
        ("claimed", 5, 1, 1),
        ("dead", 5, 1, 1),
    ],
)
def test_the_higher_priority_wins_while_it_waits_and_the_new_one_when_it_runs_or_is_dead(site, state, old, new, expected):
    site.raise_(priority=old)
    if state != "waiting":
        claimed = site.claim_one(priority=old)
    if state == "dead":
        site.settle(claimed, Parked("x"))
    site.raise_(priority=new)
    assert site.row()["priority"] == expected


def test_ids_never_repeat(site):
    first = site.raise_("a").id
    site.store.lower_one("work", "a", NOW)
    assert site.raise_("a").id > first


def test_a_raise_rolls_back_with_the_sites_transaction(site):
    site.raise_("old")
    before = site.row("old")
    with site.flags.database.connection_context(), site.flags.database.atomic() as transaction:
        site.raise_("new")
        site.raise_("old")
        site.handler.raise_many([(1,), (2,)])
        transaction.rollback()
    assert site.ask("SELECT key FROM flagsweep_flag") == [{"key": "old"}]
    assert site.row("old") == before


def test_a_raise_commits_with_the_sites_transaction_and_is_seen_by_nobody_before(site):
    with site.flags.database.connection_context(), site.flags.database.atomic():
        site.raise_()
        assert not site.is_up()
    assert site.is_up()


def test_a_raise_within_a_savepoint_that_is_rolled_back_is_gone_alone(site):
    with site.flags.database.connection_context(), site.flags.database.atomic():
        site.raise_("kept")
        with site.flags.database.atomic() as savepoint:
            site.raise_("gone")
            savepoint.rollback()
    assert (site.is_up("kept"), site.is_up("gone")) == (True, False)


# Connections and databases that are not ready.

VERBS = {
    "raise": lambda site: site.handler.raise_flag(1),
    "raise_many": lambda site: site.handler.raise_many([(1,)]),
    "find": lambda site: site.flags.find(),
    "status": lambda site: site.flags.status(),
    "retry": lambda site: site.flags.retry(kind="work"),
    "discard": lambda site: site.flags.discard(kind="work"),
    "lower": lambda site: site.flags.lower("work", "k"),
    "sweep": lambda site: site.flags.sweep(),
}
WRITING = [verb for verb in VERBS if verb not in ("find", "status", "sweep")]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_a_verb_leaves_the_connection_as_it_found_it(site, verb, is_open):
    db = site.flags.database
    if is_open:
        db.connect()
    before = db._state.conn
    VERBS[verb](site)
    assert db._state.conn is before
    assert (db.is_closed(), site.store.engine.is_closed()) == (not is_open, True)


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_a_verb_that_fails_leaves_the_connection_as_it_found_it(site, is_open):
    site.ask("DROP TABLE flagsweep_flag")
    if is_open:
        site.flags.database.connect()
    for verb in WRITING:
        with pytest.raises(NotReady):
            VERBS[verb](site)
    assert site.flags.database.is_closed() is not is_open


@pytest.mark.parametrize("own", [False, True], ids=["path", "the site's own database"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_database_that_is_not_there_is_named_by_its_absolute_path_and_not_made(tmp_path, monkeypatch, own, verb):
    site = Site.__new__(Site)
    monkeypatch.chdir(tmp_path)
    site.flags = FlagSweep(SqliteDatabase("site.db") if own else "site.db")
    site.handler = site.flags.handler("work")(lambda n: None)
    monkeypatch.chdir("/")
    with pytest.raises(NotReady, match=f"no database {tmp_path}/site.db: run 'flagsweep init'"):
        VERBS[verb](site)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_database_without_tables_is_named_with_the_command(db_path, verb):
    sqlite3.connect(db_path).close()
    db_path.touch()
    site = Site.__new__(Site)
    site.flags = FlagSweep(db_path)
    site.handler = site.flags.handler("work")(lambda n: None)
    with pytest.raises(NotReady, match=f"{db_path}.*run 'flagsweep init'"):
        VERBS[verb](site)


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_that_is_no_database_is_told_as_such(db_path, verb):
    db_path.write_bytes(b"no database at all. " * 100)
    site = Site.__new__(Site)
    site.flags = FlagSweep(db_path)
    site.handler = site.flags.handler("work")(lambda n: None)
    with pytest.raises(NotReady, match=f"{db_path}.*is no SQLite database: check the path"):
        VERBS[verb](site)


@pytest.mark.parametrize("verb", WRITING)
def test_a_database_that_somebody_else_holds_is_told_as_such(db_path, verb):
    FlagSweep(db_path).init()
    site = Site.__new__(Site)
    site.flags = FlagSweep(SqliteDatabase(db_path, timeout=0))
    site.handler = site.flags.handler("work")(lambda n: None)
    site.handler.raise_flag(-1)
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead', died_at = 1")
    with closing(sqlite3.connect(db_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseAway, match=f"{db_path}: database is locked"):
            VERBS[verb](site)
    VERBS[verb](site)


# Claim.


def keys(claimed):
    return [each.key for each in claimed]


def test_a_claim_takes_the_longest_due_first_and_then_the_lowest_id(site):
    for key, due in (("b", -1), ("late", -5), ("a", -1), ("first", -9)):
        site.raise_(key, due=due)
    assert keys(site.claim(3)) == ["first", "late", "b"]
    assert keys(site.claim(3)) == ["a"]


def test_a_claim_takes_only_what_is_due(site):
    site.raise_("now", due=0)
    site.raise_("later", due=1)
    assert keys(site.claim()) == ["now"]
    assert keys(site.claim(now=1)) == ["later"]


def test_a_claim_takes_one_kind_and_one_priority(site):
    for kind in ("work", "other"):
        for priority in (0, 5):
            site.raise_(f"{kind} {priority}", kind=kind, priority=priority)
    assert keys(site.claim(priority=5)) == ["work 5"]


def test_a_claim_takes_nothing_that_is_claimed_or_dead(site):
    site.die()
    site.raise_("claimed")
    assert keys(site.claim()) == ["claimed"]
    assert site.claim() == []


def test_a_claim_is_written_with_its_token_its_consumer_and_the_generation(site):
    site.raise_()
    site.raise_()
    claimed = site.claim_one(now=7, consumer=OTHER)
    row = site.row()
    assert picked(row, "state", "claim_token", "claimed_by", "claimed_at") == ("claimed", claimed.token, OTHER, NOW + 7)
    assert picked(row, "generation", "claimed_generation", "attempts") == (2, 2, 0)


def test_a_claim_brings_what_its_handler_needs(site):
    site.raise_(due=-5, payload='{"n":"\\ud800"}')
    site.fail()
    first = site.claim_one(now=HOUR)
    with site.store.write():
        site.store.engine.execute_sql("UPDATE flagsweep_flag SET cursor = '[1]', suspect = 1")
    site.release(first)
    claimed = site.claim_one(now=HOUR)
    assert (claimed.kind, claimed.key, claimed.payload) == ("work", "k", {"n": "\ud800"})
    assert (claimed.attempts, claimed.cursor, claimed.suspect, claimed.due_at) == (1, [1], 1, NOW)


def test_every_claim_has_a_token_of_its_own(site):
    for number in range(20):
        site.raise_(f"{number}")
    assert len({each.token for _ in range(20) for each in site.claim(1)}) == 20


def test_the_agenda_has_the_earliest_due_time_of_every_kind_and_priority_that_waits(site):
    for key, kind, priority, due in (
        ("a", "work", 0, 5),
        ("b", "work", 0, 3),
        ("c", "work", -7, 9),
        ("d", "b", 4, 1),
        ("e", "x", 0, 0),
    ):
        site.raise_(key, kind=kind, priority=priority, due=due)
    site.raise_("claimed", kind="work", priority=50)
    site.claim(priority=50)
    expected = [("b", 4, NOW + 1), ("work", -7, NOW + 9), ("work", 0, NOW + 3)]
    assert sorted(site.store.agenda(["work", "b", "none"])) == expected


def test_waiting_kinds_are_those_of_which_a_flag_waits(site):
    for kind in ("b", "a", "b", "c"):
        site.raise_(kind, kind=kind)
    site.claim(kind="c")
    assert site.store.waiting_kinds() == ["a", "b"]


# Settle, as the table says. ``BUMP`` is the due time of a raise while the handler ran.

BUMP = 5 * SECOND


def claimed(site, bumped, attempts=0, **more):
    """Return a flag that is claimed after so many failed attempts, raised again meanwhile or not."""
    site.raise_(**more)
    for _ in range(attempts):
        site.fail(now=HOUR)
        site.flags.clock.set(NOW)
        site.ask("UPDATE flagsweep_flag SET due_at = ?", NOW)
    flag = site.claim_one()
    if bumped:
        assert site.raise_(due=BUMP).how == "bumped"
    return flag


def test_success_lowers_the_flag(site):
    assert site.lower(claimed(site, bumped=False)) == (1, 0)
    assert not site.is_up()


@pytest.mark.parametrize("attempts", [0, 2])
def test_success_of_a_bumped_flag_lets_it_wait_from_scratch_and_due_as_the_raise_says(site, attempts):
    flag = claimed(site, bumped=True, attempts=attempts)
    assert site.store.progress(flag.id, flag.token, "5", atomic=False)
    assert site.lower(flag) == (0, 1)
    row = site.row()
    assert picked(row, "state", "attempts", "due_at", "error", "cursor") == ("waiting", 0, BUMP, None, None)
    assert free(row)


def test_lowering_a_batch_tells_apart_what_is_gone_bumped_and_lost(site):
    for key in "abcd":
        site.raise_(key)
    batch = site.claim()
    site.raise_("b")
    site.flags.lower("work", "c")
    with site.store.write():
        assert site.store.lower([each.id for each in batch], batch[0].token) == (2, 1)
    assert [row["key"] for row in site.ask("SELECT key FROM flagsweep_flag")] == ["b"]


@pytest.mark.parametrize("bumped", [False, True])
@pytest.mark.parametrize(("attempts", "wait"), [(0, 10), (1, 20)])
def test_an_error_counts_the_attempt_and_backs_off_bumped_or_not(site, bumped, attempts, wait):
    flag = claimed(site, bumped, attempts)
    assert site.settle(flag, Failed("no", ValueError()), now=3) == "waiting"
    row = site.row()
    assert picked(row, "attempts", "due_at", "error", "died_at") == (attempts + 1, 3 + wait * SECOND, "no", None)
    assert free(row)


@pytest.mark.parametrize("bumped", [False, True])
def test_retry_after_waits_that_long_bumped_or_not(site, bumped):
    site.settle(claimed(site, bumped), Failed("no", ValueError(), after=77), now=3)
    assert picked(site.row(), "state", "attempts", "due_at") == ("waiting", 1, 3 + 77 * SECOND)


@pytest.mark.parametrize("outcome", [Failed("no", ValueError()), Failed("no", ValueError(), after=5)], ids=["error", "Retry"])
def test_the_last_attempt_buries_the_flag(site, outcome):
    flag = claimed(site, bumped=False, attempts=2)
    assert site.settle(flag, outcome, now=3) == "dead"
    row = site.row()
    assert picked(row, "state", "attempts", "error", "died_at") == ("dead", 3, "no", NOW + 3)
    assert free(row)


@pytest.mark.parametrize("outcome", [Failed("no", ValueError()), Failed("no", ValueError(), final=True)], ids=["last", "final"])
def test_a_bumped_flag_is_not_buried_but_waits_for_the_longest_backoff(site, outcome):
    """So that a handler that raises itself and fails does not spin."""
    flag = claimed(site, bumped=True, attempts=2)
    assert site.settle(flag, outcome, now=3) == "waiting"
    assert picked(site.row(), "attempts", "due_at", "died_at") == (0, 3 + HOUR, None)


def test_an_error_that_is_not_to_be_retried_buries_the_flag_at_once(site):
    assert site.settle(claimed(site, bumped=False), Failed("no", ValueError(), final=True)) == "dead"
    assert site.row()["attempts"] == 1


@pytest.mark.parametrize("attempts", [0, 2])
def test_a_snooze_counts_no_attempt(site, attempts):
    flag = claimed(site, bumped=False, attempts=attempts)
    assert site.settle(flag, Snoozed(30), now=3) == "waiting"
    assert picked(site.row(), "attempts", "due_at") == (attempts, 3 + 30 * SECOND)


@pytest.mark.parametrize(("delay", "due"), [(30, BUMP), (2, 3 + 2 * SECOND)])
def test_a_snooze_of_a_bumped_flag_is_due_at_the_earlier_of_snooze_and_raise(site, delay, due):
    site.settle(claimed(site, bumped=True), Snoozed(delay), now=3)
    assert picked(site.row(), "state", "attempts", "due_at") == ("waiting", 0, due)


@pytest.mark.parametrize("bumped", [False, True])
def test_a_discard_lowers_the_flag_unless_it_was_bumped(site, bumped):
    """The sweep lowers what its handler discarded, as it lowers success, and records why."""
    assert site.lower(claimed(site, bumped)) == ((0, 1) if bumped else (1, 0))
    assert site.is_up() is bumped


def test_a_damaged_flag_is_parked_with_its_reason(site):
    assert site.settle(claimed(site, bumped=False), Parked("its row is odd"), now=3) == "dead"
    assert picked(site.row(), "attempts", "error", "died_at") == (0, "parked: its row is odd", NOW + 3)


@pytest.mark.parametrize("outcome", [Parked("odd"), Discarded("gave up")], ids=["parked", "discarded"])
def test_what_was_to_be_parked_and_is_bumped_waits_for_the_longest_backoff(site, outcome):
    assert site.settle(claimed(site, bumped=True, attempts=1), outcome) == "waiting"
    assert picked(site.row(), "attempts", "due_at") == (0, HOUR)


@pytest.mark.parametrize("bumped", [False, True])
@pytest.mark.parametrize("attempts", [0, 2])
@pytest.mark.parametrize(("now", "bumped_due"), [(3, 3), (HOUR, BUMP)])
def test_a_released_flag_waits_without_an_attempt_and_is_due_at_once(site, bumped, attempts, now, bumped_due):
    flag = claimed(site, bumped, attempts)
    assert site.release(flag, now=now) == 1
    row = site.row()
    assert picked(row, "state", "attempts", "due_at") == ("waiting", attempts, bumped_due if bumped else 0)
    assert free(row)


def test_an_error_is_kept_until_another_takes_its_place(site):
    site.raise_()
    site.fail()
    site.settle(site.claim_one(now=HOUR), Snoozed(1), now=HOUR)
    assert site.row()["error"] == "boom"


# Fencing.

SETTLE = {
    "lower": lambda site, flag: site.lower(flag) == (0, 0),
    "settle_one": lambda site, flag: site.settle(flag, Failed("no", ValueError())) is None,
    "release": lambda site, flag: site.release(flag) == 0,
    "progress": lambda site, flag: not site.store.progress(flag.id, flag.token, "1", atomic=False),
}


def lose(site, how):
    """Return a claim that was lost."""
    site.raise_(due=-9)
    flag = site.claim_one()
    if how == "rescued":
        site.store.rescue(ME, (), NOW)
    elif how == "claimed by another":
        site.store.rescue(ME, (), NOW)
        site.claim(consumer=OTHER)
    elif how == "claimed again by the same":
        site.release(flag)
        site.claim()
    else:
        site.flags.lower("work", "k")
        site.raise_()
        if how == "lowered, raised and claimed":
            site.claim()
    return flag


LOST = ["rescued", "claimed by another", "claimed again by the same", "lowered and raised", "lowered, raised and claimed"]


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("verb", SETTLE)
def test_who_has_lost_a_claim_changes_nothing_any_more(site, verb, how):
    flag = lose(site, how)
    before = site.row()
    assert SETTLE[verb](site, flag)
    assert site.row() == before


@pytest.mark.parametrize("how", LOST)
def test_who_has_lost_a_claim_cannot_commit_an_atomic_handler(site, how):
    flag = lose(site, how)
    before = site.row()
    db = site.flags.database
    with (
        db.connection_context(),
        pytest.raises(ClaimLost, match=f"flag {flag.id} was lowered by hand, or is no longer"),
        db.atomic(),
    ):
        site.store.settle_within(flag.id, flag.token, None)
    assert site.row() == before


def test_a_token_guards_its_own_flags_only(site):
    site.raise_("a")
    site.raise_("b")
    (a,), (b,) = site.claim(1), site.claim(1)
    with site.store.write():
        assert site.store.lower([a.id, b.id], a.token) == (1, 0)
    assert site.row("b")["state"] == "claimed"


def test_two_settlings_of_one_claim_count_once(site):
    flag = claimed(site, bumped=False)
    assert site.lower(flag) == (1, 0)
    assert site.lower(flag) == (0, 0)


# Rescue and release.


def test_what_a_dead_consumer_had_claimed_is_free_and_due_at_once(site):
    for key, due in (("a", -9), ("b", 5), ("theirs", 5)):
        site.raise_(key, due=due)
    site.claim(2, now=5)
    site.claim(1, now=5, consumer=OTHER)
    assert site.store.rescue(ME, (), NOW + 3) == (2, [])
    assert [picked(site.row(key), "state", "attempts", "due_at") for key in "ab"] == [("waiting", 0, -9), ("waiting", 0, 3)]
    assert free(site.row("a"))
    assert site.row("theirs")["state"] == "claimed"


def test_a_rescue_keeps_a_raise_that_came_meanwhile(site):
    flag = claimed(site, bumped=True)
    site.store.rescue(ME, (), NOW + 3)
    row = site.row()
    assert picked(row, "state", "generation", "due_at") == ("waiting", 2, 3)
    assert row["id"] == flag.id


def test_a_rescue_charges_those_to_blame_and_nobody_else(site):
    site.raise_("guilty")
    site.raise_("mate")
    guilty, _ = site.claim()
    step = Step("waiting", 1, NOW, 1, NOW, error="died", suspect=True)
    assert site.store.rescue(ME, [(guilty.id, guilty.token, step)], NOW) == (2, [])
    assert picked(site.row("guilty"), "attempts", "suspect", "error") == (1, 1, "died")
    assert picked(site.row("mate"), "attempts", "suspect", "error") == (0, 0, None)


def test_a_rescue_tells_which_flags_died(site):
    flag = claimed(site, bumped=False)
    step = Step("dead", 3, NOW, 0, NOW, error="crashed", crashed=1)
    assert site.store.rescue(ME, [(flag.id, flag.token, step)], NOW) == (1, [flag.id])
    assert picked(site.row(), "state", "crashes") == ("dead", 1)


def test_a_rescue_strikes_the_consumer_off(site):
    held = []
    consumer = site.store.enlist("run", os.getpid(), "here", NOW, held.append)
    assert (held, [c.id for c in site.store.consumers()]) == ([consumer], [consumer])
    site.store.rescue(consumer, (), NOW)
    assert site.store.consumers() == []


def test_a_consumer_without_a_lease_is_not_entered(site):
    def refuse(_):
        raise RuntimeError("held")

    with pytest.raises(RuntimeError):
        site.store.enlist("run", os.getpid(), "here", NOW, refuse)
    assert site.store.consumers() == []


def test_the_ids_of_consumers_never_repeat(site):
    first = site.store.enlist("sweep", 1, "here", NOW, lambda _: None)
    site.store.strike(first, NOW)
    assert site.store.enlist("sweep", 1, "here", NOW, lambda _: None) > first


# What people ask for.


@pytest.mark.parametrize("state", HOW)
def test_lowering_by_hand_takes_a_flag_down_in_whatever_state(site, state):
    bring(site, state)
    was = site.row()["state"]
    assert site.flags.lower("work", "k") is True
    assert not site.is_up()
    assert site.history()[-1] == ("lowered by hand", f"was {was}")
    assert site.flags.lower("work", "k") is False


def test_lowering_by_hand_takes_the_very_flag(site):
    site.raise_("a")
    site.raise_("A")
    site.raise_("a", kind="other")
    site.flags.lower("work", "a")
    assert [(flag.kind, flag.key) for flag in site.flags.find()] == [("work", "A"), ("other", "a")]


def test_a_discard_by_an_old_id_cannot_hit_a_newer_flag(site):
    site.die()
    old = site.row()["id"]
    assert site.flags.discard(old) == 1
    site.die()
    assert site.flags.discard(old) == 0
    assert site.row()["state"] == "dead"


def test_a_discard_drops_dead_flags_alone_and_keeps_a_line_of_history(site):
    site.die()
    for key in ("waiting", "claimed"):
        site.raise_(key, due=0 if key == "claimed" else 1)
    site.claim()
    assert site.flags.discard(reason="no such user") == 1
    assert sorted(flag.key for flag in site.flags.find()) == ["claimed", "waiting"]
    assert site.history() == [("discarded", "no such user")]


def test_a_retry_lets_a_dead_flag_wait_from_scratch(site):
    site.die()
    site.ask("UPDATE flagsweep_flag SET crashes = 3, suspect = 1")
    site.clock.advance(7)
    assert site.flags.retry() == 1
    row = site.row()
    assert picked(row, "state", "attempts", "crashes", "suspect", "died_at") == ("waiting", 0, 0, 0, None)
    assert row["due_at"] == 7 * SECOND


def test_a_retry_makes_a_flag_that_backs_off_due_now_and_touches_no_other(site):
    site.raise_()
    site.fail()
    site.raise_("later", due=HOUR)
    site.raise_("claimed")
    site.claim()
    others = [site.row("later"), site.row("claimed")]
    assert site.flags.retry() == 1
    assert picked(site.row(), "attempts", "due_at") == (0, 0)
    assert [site.row("later"), site.row("claimed")] == others


@pytest.mark.parametrize("by", ["id", "ids", "kind", "key", "all"])
@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_retry_and_discard_choose_by_id_kind_and_key(site, verb, by):
    for kind, key in (("work", "a"), ("work", "b"), ("other", "a")):
        site.raise_(key, kind=kind)
        site.settle(site.claim_one(kind=kind), Parked("x"))
    ids = [flag.id for flag in site.flags.find()]
    chosen, expected = {
        "id": ({"id": ids[1]}, 1),
        "ids": ({"id": ids[:2]}, 2),
        "kind": ({"kind": "work"}, 2),
        "key": ({"kind": "work", "key": "a"}, 1),
        "all": ({}, 3),
    }[by]
    assert getattr(site.flags, verb)(**chosen) == expected


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 has no setlimit before Python 3.11")
@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_retry_and_discard_take_more_flags_than_a_statement_takes_variables(site, verb):
    site.handler.raise_many([(n,) for n in range(1, 3101)])
    site.ask("UPDATE flagsweep_flag SET state = 'dead'")
    with site.flags.database.connection_context():
        site.flags.database.connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 3050)
        assert getattr(site.flags, verb)() == 3100


def test_find_meets_all_that_is_given_lowest_id_first(site):
    site.flags.handler("mail", lane="mail")(lambda: None)
    ids = {}
    for kind, key, due in (("work", "a", -1), ("mail", "a", 5), ("nobody", "b", -1), ("work", "b", 5)):
        ids[kind, key] = site.raise_(key, kind=kind, due=due).id
    site.claim()

    def found(**criteria):
        return [flag.id for flag in site.flags.find(**criteria)]

    assert found() == sorted(ids.values())
    assert found(kind="work") == [ids["work", "a"], ids["work", "b"]]
    assert found(key="a", kind="mail") == [ids["mail", "a"]]
    assert found(state="claimed") == [ids["work", "a"]]
    assert found(lane="mail") == [ids["mail", "a"]]
    assert found(lane="-") == [ids["nobody", "b"]]
    assert found(lane="none such") == []
    assert found(due=True) == [ids["nobody", "b"]]
    assert found(state="waiting", due=False) == [ids["mail", "a"], ids["work", "b"]]
    assert found(id=[ids["mail", "a"], 999]) == [ids["mail", "a"]]
    assert found(limit=2) == sorted(ids.values())[:2]
    assert found(limit=0) == []


@pytest.mark.parametrize("bad", [{"state": "up"}, {"limit": -1}, {"limit": "x"}])
def test_a_bad_question_is_refused_by_name(site, bad):
    with pytest.raises(ConfigError, match=f"{next(iter(bad))} must be"):
        site.flags.find(**bad)


def test_status_counts_by_lane_and_shows_what_nobody_handles(site):
    site.flags.handler("mail", lane="mail")(lambda: None)
    site.raise_("due", due=-3 * SECOND)
    site.raise_("later", due=HOUR)
    site.raise_("x", kind="nobody", due=-SECOND)
    site.raise_("y", kind="mail")
    site.claim(kind="mail")
    site.raise_("z", kind="mail")
    site.settle(site.claim_one(kind="mail"), Parked("x"))
    empty = {"waiting": 0, "due": 0, "claimed": 0, "dead": 0, "oldest_due_s": None}
    assert site.flags.status()["lanes"] == {
        "default": {**empty, "waiting": 2, "due": 1, "oldest_due_s": 3.0},
        "mail": {**empty, "claimed": 1, "dead": 1},
        "-": {**empty, "waiting": 1, "due": 1, "oldest_due_s": 1.0},
    }


def test_a_flag_is_shown_as_json_takes_it(site):
    site.raise_()
    (flag,) = site.flags.find()
    shown = json.loads(json.dumps(flag.to_dict()))
    assert (shown["payload"], shown["due_at"], shown["lane"]) == ({"n": 1}, "2026-01-01T00:00:00+00:00", "default")


def test_history_is_kept_until_it_is_pruned(site):
    site.die()
    site.flags.discard()
    assert site.store.prune(NOW) == 0
    assert site.store.prune(NOW + 1) == 1
    assert site.history() == []


# A wrong clock.

HORIZON = 10 * 366 * 24 * HOUR


def heal(site, now=0):
    return site.store.heal_clock(NOW + now, NOW + now + HORIZON)


def test_what_a_fast_clock_raised_for_now_is_due_now(site):
    site.raise_(due=2 * HOUR, now=2 * HOUR)
    assert heal(site) == 1
    assert picked(site.row(), "due_at", "raised_at") == (0, 0)


def test_what_was_raised_for_later_stays_so(site):
    site.raise_(due=2 * HOUR)
    assert heal(site) == 0
    assert site.row()["due_at"] == 2 * HOUR


def test_a_backoff_that_a_fast_clock_wrote_is_counted_from_now(site):
    site.raise_()
    site.fail(now=24 * HOUR)
    assert heal(site) == 1
    assert site.row()["due_at"] == 10 * SECOND
    assert heal(site) == 0


def test_a_backoff_within_its_bounds_stays(site):
    site.raise_()
    site.fail()
    assert heal(site) == 0
    assert site.row()["due_at"] == 10 * SECOND


@pytest.mark.parametrize(
    "outcome", [Failed("no", ValueError(), after=24 * 3600), Snoozed(24 * 3600)], ids=["Retry(after)", "Snooze after a failure"]
)
def test_a_wait_that_a_handler_asked_for_may_be_longer_than_any_backoff(site, outcome):
    site.raise_()
    site.fail()
    site.settle(site.claim_one(now=MINUTE), outcome, now=MINUTE)
    assert heal(site, now=MINUTE) == 0
    assert site.row()["due_at"] == MINUTE + 24 * HOUR


def test_a_snooze_that_a_fast_clock_wrote_is_mended_too(site):
    site.raise_()
    site.settle(site.claim_one(now=48 * HOUR), Snoozed(60), now=48 * HOUR)
    assert heal(site) == 1
    assert site.row()["due_at"] == MINUTE


def test_a_delay_that_a_fast_clock_counted_is_counted_from_now(site):
    site.raise_(due=25 * HOUR + MINUTE, now=25 * HOUR)
    assert heal(site) == 1
    assert picked(site.row(), "due_at", "raised_at") == (MINUTE, 0)
    assert heal(site) == 0


def test_a_moment_that_a_clock_a_little_fast_was_told_stays(site):
    site.raise_(due=24 * HOUR, now=MINUTE)
    assert heal(site) == 0
    assert site.row()["due_at"] == 24 * HOUR


def test_what_a_fast_clock_raised_again_when_it_was_due_is_due_now(site):
    site.raise_(due=24 * HOUR, now=24 * HOUR)
    site.raise_(due=48 * HOUR, now=48 * HOUR)
    assert heal(site) == 1
    assert picked(site.row(), "due_at", "raised_at") == (0, 0)


def test_what_a_person_retried_by_a_fast_clock_is_due_now(site):
    site.raise_()
    site.fail()
    assert site.store.retry([], NOW + 24 * HOUR) == 1
    assert heal(site) == 1
    assert site.row()["due_at"] == 0


def test_what_a_fast_clock_raised_while_it_ran_is_mended_before_it_has_ended(site):
    site.raise_()
    claimed = site.claim_one()
    site.raise_(due=24 * HOUR, now=24 * HOUR)
    assert heal(site) == 1
    site.store.lower([claimed.id], claimed.token)
    assert picked(site.row(), "state", "due_at") == ("waiting", 0)


def test_what_is_due_later_than_anybody_may_ask_for_is_parked(site):
    site.raise_(due=HORIZON + 1)
    assert heal(site) == 1
    assert site.row()["state"] == "dead"
    assert "parked: its due time" in site.row()["error"]


def test_the_clock_heals_no_claimed_and_no_dead_flag(site):
    for key in ("claimed", "dead"):
        site.raise_(key, due=2 * HOUR, now=2 * HOUR)
    for flag in site.claim(now=2 * HOUR):
        if flag.key == "dead":
            site.settle(flag, Parked("x"))
    before = [site.row("claimed"), site.row("dead")]
    assert heal(site) == 0
    assert [site.row("claimed"), site.row("dead")] == before


# The tables.


def test_init_creates_the_tables_once_and_puts_the_file_into_wal_mode(db_path):
    flags = FlagSweep(db_path)
    assert (flags.init(), flags.init(), FlagSweep(db_path).init()) == (True, False, False)
    with closing(sqlite3.connect(db_path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert {"flagsweep_flag", "flagsweep_consumer", "flagsweep_history", "flagsweep_schema"} <= tables
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_init_keeps_flags_and_the_sites_own_tables(site):
    site.raise_()
    site.ask("CREATE TABLE person (id INTEGER)")
    site.flags.init()
    assert site.is_up()
    assert site.ask("SELECT * FROM person") == []


def test_init_in_a_folder_that_is_not_there_names_the_file(tmp_path):
    with pytest.raises(NotReady, match=f"{tmp_path}/gone/site.db cannot be created: No such file or directory"):
        FlagSweep(tmp_path / "gone" / "site.db").init()


INIT = """
import os, sys, time
from flagsweep import FlagSweep
me, peers, rounds = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(rounds):
    open(f"ready-{number}-{me}", "w").close()
    while not all(os.path.exists(f"ready-{number}-{peer}") for peer in range(peers)):
        time.sleep(0)
    print(number, FlagSweep(f"{number}.db").init())
"""


def test_many_processes_may_init_at_once(tmp_path, spawn, until):
    peers, rounds = 3, 12
    children = [spawn(sys.executable, "-c", INIT, me, peers, rounds) for me in range(peers)]
    codes = lambda: [child.poll() for child in children]  # noqa: E731
    until(lambda: None not in codes() or any(codes()), limit=30)
    told = [child.log.read_text() for child in children]
    assert codes() == [0] * peers, told
    created = sorted(line.split()[0] for text in told for line in text.splitlines() if line.endswith("True"))
    assert created == sorted(str(number) for number in range(rounds)), told


@pytest.mark.parametrize("verb", ["init", "sweep", "run"])
def test_a_schema_newer_than_the_code_is_refused(site, verb):
    site.ask("INSERT INTO flagsweep_schema (version, applied_at) VALUES (99, 0)")
    with pytest.raises(NotReady, match=r"have version 99, this flagsweep knows \d+: install a newer flagsweep"):
        getattr(site.flags, verb)()
    assert site.store.engine.is_closed()


def test_a_state_that_is_none_cannot_be_written(site):
    site.raise_()
    with pytest.raises(sqlite3.IntegrityError):
        site.ask("UPDATE flagsweep_flag SET state = 'lowered'")


def test_one_kind_and_key_is_one_row(site):
    site.raise_()
    with pytest.raises(sqlite3.IntegrityError):
        site.ask("INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) VALUES ('work', 'k', '{}', 0, 0)")


@given(st.integers(0, 10**18), st.sampled_from([Failed("x", ValueError()), Snoozed(5), Parked("x")]))
def test_a_plan_is_made_for_any_number_of_attempts(attempts, outcome):
    """A row damaged by hand may claim any number of attempts."""
    handler = FlagSweep(":memory:").handler("work", max_attempts=1000)(lambda: None)
    step = plan(handler, Claimed("work", 1, [0, 1, "k", {}, attempts, 0, None]), outcome, NOW)
    assert step.due >= NOW

"""Counting what is up: exact, on every database, or said not to be."""

import pytest
from clients import Client

from flagsweep.config import SECOND
from flagsweep.databases import census

KINDS = ("a", "b", "c-d", "é")


@pytest.fixture
def flags(flags_anywhere):
    now = flags_anywhere.clock.now()
    for kind in KINDS:
        handler = flags_anywhere.handler(kind)(lambda n: None)
        handler.raise_many([(n,) for n in range(30)])
        handler.using(priority=5, delay=3600).raise_many([(n,) for n in range(30, 40)])
    with flags_anywhere.database.connection_context():
        flags_anywhere.database.execute_sql(f"UPDATE flagsweep_flag SET due_at = {now - 7 * SECOND} WHERE id = 3")
    return flags_anywhere


@pytest.fixture
def mixed(flags, client):
    """Return the flags, some of them dead or claimed."""
    client.ask("UPDATE flagsweep_flag SET state = 'dead', died_at = 1 WHERE id % 3 = 0 AND id > 3")
    client.ask(
        "UPDATE flagsweep_flag SET state = 'claimed', claimed_by = 9, claim_token = 9 WHERE id % 7 = 1 AND state = 'waiting'"
    )
    return flags


def counted_by_hand(client, now):
    found = {}
    for kind, state, due_at in client.ask("SELECT kind, state, due_at FROM flagsweep_flag"):
        kind, state = (each.decode() if isinstance(each, bytes) else each for each in (kind, state))
        many, due, earliest = found.get((kind, state), (0, 0, None))
        if state == "waiting":
            due += due_at <= now
            earliest = min(due_at, earliest or due_at)
        found[kind, state] = (many + 1, due, earliest)
    return sorted((*which, *more) for which, more in found.items())


def test_what_is_up_is_counted_by_kind_and_state(mixed, client):
    now = mixed.clock.now()
    counts = mixed.verbs.counts(now)
    assert counts.exact and sorted(counts, key=lambda row: row[:2]) == counted_by_hand(client, now)
    assert len({kind for kind, *_ in counts}) == len(KINDS)


def test_what_is_due_is_counted_by_kind(mixed, client):
    now = mixed.clock.now()
    wanted = [(kind, due, earliest) for kind, state, _, due, earliest in counted_by_hand(client, now) if state == "waiting"]
    assert sorted(mixed.verbs.due_counts(now)) == wanted
    assert mixed.verbs.dead_kinds() == sorted(KINDS) == mixed.verbs.kinds_up()


@pytest.mark.parametrize("url", ["postgresql", "mysql"], indirect=True)
def test_a_server_that_would_take_too_long_says_how_many_there_are_at_least(mixed, client, monkeypatch):
    now, dialect = mixed.clock.now(), type(mixed.connections.dialect)
    monkeypatch.setattr(census, "MOST", 0)
    monkeypatch.setattr(dialect, "all_counts", lambda self, db, now, patience: None)
    counts = mixed.verbs.counts(now)
    assert not counts.exact and sorted(counts, key=lambda row: row[:2]) == counted_by_hand(client, now), "none has a hundred"
    assert mixed.status()["exact"] is False


@pytest.mark.parametrize("url", ["postgresql", "mysql"], indirect=True)
@pytest.mark.parametrize("atomic", [False, True])
def test_a_server_gives_up_in_time_and_the_transaction_goes_on(flags, url, monkeypatch, atomic):
    """What is asked for takes a second here, whatever the machine."""
    dialect, db = flags.connections.dialect, flags.database
    slow = "SELECT kind, pg_sleep(1)::text, %s FROM flagsweep_flag LIMIT 1" if url.startswith("postgres") else None
    slow = slow or "SELECT kind, sleep(1), ? FROM flagsweep_flag LIMIT 1"
    with db.connection_context():
        if atomic:
            with db.atomic():
                flags.handlers["a"].raise_flag(n=1000)
                assert dialect._within(db, slow, (1,), 0.05) is None
                flags.handlers["a"].raise_flag(n=1001)
        else:
            assert dialect._within(db, slow, (1,), 0.05) is None
        assert len(flags.find(limit=None)) == len(KINDS) * 40 + 2 * atomic
        assert not url.startswith("postgres") or db.execute_sql("SHOW statement_timeout").fetchone()[0] == "0"


def test_a_flag_is_found_by_its_key_alone_whatever_its_state(mixed):
    for n, state in ((2, "waiting"), (5, "dead"), (0, "claimed")):
        found = mixed.find(key=f'{{"n":{n}}}')
        assert len(found) == len(KINDS) and state in {flag.state for flag in found}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_rows_damaged_by_hand_are_counted(mixed, client: Client):
    client.ask("UPDATE flagsweep_flag SET due_at = 'tomorrow' WHERE id IN (2, 5)")
    client.ask("UPDATE flagsweep_flag SET priority = 'high' WHERE id = 8")
    client.ask("UPDATE flagsweep_flag SET kind = x'ff' WHERE id = 11")
    counts = mixed.verbs.counts(mixed.clock.now())
    assert sum(many for _, _, many, _, _ in counts) == len(KINDS) * 40
    assert mixed.status()["lanes"]["-"]["waiting"] == 1

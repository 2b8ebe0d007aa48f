"""Pruning by hand, on every database."""

import pytest

from flagsweep import ConfigError
from flagsweep.config import EVENTS, SECOND

DAY = 86_400 * SECOND
LINE = "INSERT INTO flagsweep_history (at, flag, kind, key, event, reason) VALUES (?, 1, 'send', 'k', ?, 'r')"
COUNT = "INSERT INTO flagsweep_count (kind, span, at, consumer, failed) VALUES ('send', ?, ?, 1, 1)"


@pytest.fixture
def flags(flags_anywhere, client):
    """Return a site with a line of each event, two counts and a dead flag of each of five days, ten days apart."""
    now = flags_anywhere.clock.now()
    send = flags_anywhere.handler("send")(lambda n: None)
    send.raise_many([(n,) for n in range(5)])
    for n in range(5):
        at = now - n * 10 * DAY - DAY
        for event in EVENTS:
            client.ask(LINE, at, event)
        client.ask(COUNT, 60, at), client.ask(COUNT, 3600, at)
        client.ask("UPDATE flagsweep_flag SET state = 'dead', died_at = ? WHERE key = ?", at, f'{{"n":{n}}}')
    return flags_anywhere


def left(client):
    return [client.ask(f"SELECT count(*) FROM flagsweep_{table}")[0][0] for table in ("history", "count", "flag")]


def test_what_is_older_goes_and_the_rest_stays(flags, client):
    told = []
    assert flags.prune("15d", dry_run=True) == (3 * len(EVENTS), 6, 0) and left(client) == [5 * len(EVENTS), 10, 5]
    assert flags.prune("15d", progress=told.append) == (3 * len(EVENTS), 6, 0)
    assert left(client) == [2 * len(EVENTS), 4, 5] and told == sorted(told) and told[-1] == 3 * len(EVENTS)
    assert flags.prune("15d") == (0, 0, 0)


def test_without_an_age_the_settings_say_what_goes(flags, client):
    assert flags.prune(dry_run=True) == (2 * len(EVENTS), 6, 0)
    assert flags.prune() == (2 * len(EVENTS), 6, 0)
    assert left(client) == [3 * len(EVENTS), 4, 5]


def test_dead_flags_go_only_where_that_is_said_and_leave_a_line_each(flags, client):
    assert flags.prune("15d", dead=True, dry_run=True) == (3 * len(EVENTS), 6, 3)
    assert flags.prune("15d", dead=True) == (3 * len(EVENTS), 6, 3)
    assert left(client) == [2 * len(EVENTS) + 3, 4, 2]
    assert [line.reason for line in flags.history(event="discarded", limit=3)] == ["pruned"] * 3
    with pytest.raises(ConfigError, match="older_than"):
        flags.prune(dead=True)


def test_what_is_no_age_is_refused(flags):
    with pytest.raises(ConfigError, match="older_than"):
        flags.prune("soon")

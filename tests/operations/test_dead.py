"""The dead by what they died of, and deciding about many of them, on every database."""

from datetime import timedelta

import pytest

from flagsweep import ConfigError, FlagSweep
from flagsweep.config import utc
from flagsweep.operations import dead as of_dead

DAY = 86_400


@pytest.fixture
def flags(flags_anywhere):
    """Return flags of two kinds that died of three causes, an hour apart."""
    flags_anywhere.handler("send", max_attempts=1)(_send)
    flags_anywhere.handler("bill", max_attempts=1)(_bill)
    for kind, how, many in (("send", "refused", 3), ("send", "empty", 2), ("bill", "refused", 4)):
        flags_anywhere.handlers[kind].raise_many([(f"{how}-{n}",) for n in range(many)])
        flags_anywhere.sweep()
        flags_anywhere.clock.advance(3600)
    return flags_anywhere


def _send(how):
    if how.startswith("refused"):
        raise ConnectionError(f"100% refused {how}")
    [].pop()


def _bill(how):
    raise KeyError(how)


def states(flags):
    found = flags.find(limit=None)
    return {state: sum(flag.state == state for flag in found) for state in ("waiting", "dead")}


def test_dead_flags_are_grouped_by_kind_and_cause_the_latest_first(flags):
    groups = flags.dead()
    assert [(group.kind, group.count, group.died_as.split()[0]) for group in groups] == [
        ("bill", 4, "KeyError"),
        ("send", 2, "IndexError"),
        ("send", 3, "ConnectionError"),
    ]
    for group in groups:
        assert len(group.id) == 6 and int(group.id, 16) >= 0 and group.exact and group.lane == "default"
        example = flags.find(id=group.example_id)[0]
        assert (example.kind, example.key, example.headline) == (group.kind, group.example_key, group.error)
    assert groups[0].first_at == groups[0].last_at == utc(flags.clock.now()) - timedelta(hours=1)
    assert [group.kind for group in flags.dead(sort="count")] == ["bill", "send", "send"]
    assert [group.count for group in flags.dead(sort="count", limit=2)] == [4, 3]
    assert [group.count for group in flags.dead("send")] == [2, 3]


def test_the_id_of_a_group_stays_as_others_come_and_go(flags):
    before = {group.died_as: group.id for group in flags.dead()}
    flags.discard(group=before[flags.dead()[0].died_as])
    assert {group.died_as: group.id for group in flags.dead()}.items() < before.items()


def test_a_group_is_retried_and_no_other(flags):
    group = flags.dead()[1]
    assert flags.count_dead(group=group.id) == 2
    assert flags.retry(group=group.id.upper()) == 2
    assert states(flags) == {"waiting": 2, "dead": 7}
    assert {flag.payload["how"] for flag in flags.find(state="waiting")} == {"empty-0", "empty-1"}
    with pytest.raises(ConfigError, match="no group"):
        flags.retry(group=group.id)


def test_several_groups_are_discarded_with_a_line_each(flags, client):
    told = []
    assert flags.discard(group=[group.id for group in flags.dead("send")], reason="left", progress=told.append) == 5
    assert states(flags) == {"waiting": 0, "dead": 4} and told[-1] == 5
    assert client.ask("SELECT count(*) FROM flagsweep_history WHERE event = 'discarded' AND reason = 'left'") == [(5,)]


def test_they_are_chosen_by_text_in_the_error_which_is_no_pattern(flags):
    assert flags.count_dead(error="100% REFUSED") == 3
    assert flags.count_dead(error="100_ refused") == flags.count_dead(error="%") - 3 == 0
    assert flags.count_dead(error="connectionerror", kind="bill") == 0
    assert [flag.kind for flag in flags.some_dead(2, error="refused")] == ["send", "send"]


def test_they_are_chosen_by_when_they_died(flags):
    now = utc(flags.clock.now())
    assert (flags.count_dead(before="90m"), flags.count_dead(after="90m")) == (5, 4)
    assert flags.count_dead(before=now - timedelta(hours=2), after=now - timedelta(hours=3)) == 3
    assert flags.count_dead(after=now - timedelta(hours=2)) == 6
    with pytest.raises(ConfigError, match="time zone"):
        flags.count_dead(before=now.replace(tzinfo=None))


def test_a_rate_gives_each_its_own_due_time_in_its_row(flags):
    now = flags.clock.now()
    assert flags.retry(rate="10/m", backing_off=False) == 9
    due = sorted(round((flag.due_at - utc(now)).total_seconds()) for flag in flags.find(state="waiting"))
    assert due == [0, 6, 12, 18, 24, 30, 36, 42, 48]
    flags.clock.advance(13)
    assert flags.sweep()["dead"] == 3, "those whose turn has come"


def test_a_rate_goes_on_from_group_to_group_and_page_to_page(flags, monkeypatch):
    monkeypatch.setattr("flagsweep.models.IDS", 2)
    now = flags.clock.now()
    flags.retry(group=[group.id for group in flags.dead()], rate="1/s")
    due = sorted((flag.due_at - utc(now)).total_seconds() for flag in flags.find(state="waiting"))
    assert due == [*map(float, range(9))]


def test_what_backs_off_is_left_alone_where_the_dead_are_meant(flags):
    flags.handler("moody", max_attempts=5)(lambda: 1 / 0)
    flags.handlers["moody"].raise_flag()
    flags.sweep()
    (moody,) = flags.find(kind="moody")
    assert flags.retry(backing_off=False) == 9
    assert flags.find(kind="moody")[0].due_at == moody.due_at
    assert flags.retry() == 1


def test_those_that_died_before_there_were_fingerprints_are_told_apart_by_the_type_of_their_error(flags, client):
    client.ask("UPDATE flagsweep_flag SET died_as = NULL WHERE kind = 'send'")
    client.ask("UPDATE flagsweep_flag SET error = NULL WHERE kind = 'send' AND error LIKE '%refused-2%'")
    groups = {group.died_as: group for group in flags.dead("send")}
    assert {name: group.count for name, group in groups.items()} == {"ConnectionError": 2, "IndexError": 2, "unknown": 1}
    assert client.ask("SELECT count(*) FROM flagsweep_flag WHERE died_as IS NULL AND state = 'dead'") == [(5,)], (
        "nothing is written"
    )
    group = groups["ConnectionError"]
    assert flags.find(id=group.example_id)[0].headline == group.error
    assert [flag.kind for flag in flags.some_dead(1, group=group.id)] == ["send"]
    assert flags.count_dead(group=group.id) == 2 == flags.retry(group=group.id, rate="1/s")
    assert flags.discard(group=groups["unknown"].id) == 1
    assert {flag.payload["how"][:5] for flag in flags.find(kind="send", state="dead")} == {"empty"}


def test_of_many_without_a_fingerprint_the_latest_are_looked_at_and_all_are_acted_on(flags, client, monkeypatch):
    client.ask("UPDATE flagsweep_flag SET died_as = NULL WHERE kind = 'bill'")
    monkeypatch.setattr(of_dead, "LATEST", 3)
    (group,) = flags.dead("bill")
    assert (group.count, group.exact) == (3, False)
    assert flags.retry(group=group.id) == 4


@pytest.mark.parametrize("url", ["postgresql", "mysql"], indirect=True)
def test_where_a_server_would_take_too_long_there_are_at_least_so_many(flags, monkeypatch):
    exact = flags.dead()
    monkeypatch.setattr(type(flags.connections.dialect), "grouped", lambda *_: None)
    monkeypatch.setattr("flagsweep.models.SOME", 3)
    groups = {group.id: (group.count, group.exact, group.last_at) for group in flags.dead()}
    assert groups == {each.id: (min(each.count, 3), each.count < 3, each.last_at) for each in exact}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_rows_damaged_by_hand_are_shown(flags: FlagSweep, client):
    client.ask("UPDATE flagsweep_flag SET died_at = 'lately', died_as = x'ff', error = x'fe' WHERE id = 1")
    client.ask("UPDATE flagsweep_flag SET died_at = NULL, died_as = NULL, error = 'a'  || char(27) || '[31m' WHERE id = 2")
    found = flags.dead()
    assert sum(group.count for group in found) == 9
    assert all("\x1b" not in group.error for group in found)
    assert flags.discard(before=DAY * 300) == 0 and flags.discard() == 9


def test_what_is_no_sort_is_refused(flags):
    with pytest.raises(ConfigError, match="latest, count"):
        flags.dead(sort="first")
    with pytest.raises(ConfigError, match="rate"):
        flags.retry(rate="often")

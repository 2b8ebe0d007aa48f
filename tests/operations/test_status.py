"""What status shows of lanes, kinds and consumers."""

import pytest
from rig import idle

from flagsweep import UnknownKind


def test_status_has_the_shape_that_is_promised(flags, clock):
    work = idle(flags, lane="mail")
    work.raise_flag(1)
    work.using(delay=60).raise_flag(2)
    clock.advance(5)
    status = flags.status()
    assert status == {
        "lanes": {"mail": {"waiting": 2, "due": 1, "claimed": 0, "dead": 0, "oldest_due_s": 5.0}},
        "consumers": [],
        "overdue_schedules": [],
    }


def test_status_shows_lanes_in_which_nothing_is_up(make):
    flags = make(lanes={"mail": 4})
    idle(flags, lane="slow")
    empty = {"waiting": 0, "due": 0, "claimed": 0, "dead": 0, "oldest_due_s": None}
    assert flags.status()["lanes"] == {"mail": empty, "slow": empty}


def test_status_during_a_sweep_shows_the_claim_and_the_consumer(flags):
    seen = []
    work = flags.handler("work")(lambda: seen.append(flags.status()))
    work.raise_flag()
    flags.sweep()
    (status,) = seen
    assert status["lanes"]["default"]["claimed"] == 1
    (consumer,) = status["consumers"]
    assert set(consumer) == {"id", "mode", "pid", "host", "started_at", "alive"}
    assert (consumer["mode"], consumer["alive"]) == ("sweep", True)
    assert flags.status()["consumers"] == []


def test_a_kind_without_a_handler_waits_and_is_shown(flags, make):
    idle(flags, "known").raise_flag()
    idle(flags, "gone").raise_flag()
    other = make()
    idle(other, "known")
    assert other.sweep() == {"lowered": 1}
    assert other.status()["lanes"]["-"]["waiting"] == 1
    assert [flag.kind for flag in other.find(lane="-")] == ["gone"]
    assert [flag.lane for flag in other.find()] == ["-"]
    with pytest.raises(UnknownKind, match="no handler is registered for the kind 'gone'; there are known"):
        other.handler_of("gone")


def test_an_alias_takes_over_flags_of_a_former_kind(flags, make):
    idle(flags, "former").raise_flag()
    other = make()
    idle(other, "present", aliases="former")
    assert other.status()["lanes"]["default"]["waiting"] == 1
    assert list(other.handlers) == ["present"]
    assert other.sweep() == {"lowered": 1}


def test_a_schedule_that_is_overdue_and_has_no_handler_is_shown_until_it_is_paused(flags, make, clock):
    idle(flags, "gone").cron("0 * * * *", tz="Asia/Seoul")
    idle(flags, "known").cron("0 * * * *")
    flags.sweep()
    other = make()
    idle(other, "known")
    clock.advance(3629)
    assert other.status()["overdue_schedules"] == []
    clock.advance(1)
    due = {"due": "2026-01-01T10:00:00+09:00", "due_s": 30.0}
    assert other.status()["overdue_schedules"] == [{"name": "gone", "kind": "gone", **due}]
    assert [each["name"] for each in make().status()["overdue_schedules"]] == ["gone", "known"]
    other.schedules.pause("gone")
    assert other.status()["overdue_schedules"] == []

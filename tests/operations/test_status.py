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

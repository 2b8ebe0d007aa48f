"""Move: all that there is arrives in another database, whatever ends it on the way, and whoever raises meanwhile."""

import json
import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from clients import Client
from moved import HUGE, NAMES, carried, contents, every_pair, filled, killed_at, killed_pairs, made, opened, url_on
from peewee import PostgresqlDatabase
from places import Place
from rig import FakeClock, forked, lane_of

from flagsweep import ConfigError, DatabaseAway, FlagSweepError, LeaseHeld
from flagsweep.models import Flag
from flagsweep.operations.carrying.tables import LEFT_BEHIND, shapes
from flagsweep.operations.info import FlagInfo


class Pair:
    """Two databases, the first with tables."""

    def __init__(self, request, pair):
        self.kinds = pair.split("-")
        self.clock = FakeClock()
        self._stack = ExitStack()
        self._folder = request.getfixturevalue("tmp_path")
        source = url_on(request, self.kinds[0])
        if self.kinds[1] == "sqlite":
            target = f"sqlite:///{self._folder / 'target.db'}"
        else:
            target = self._stack.enter_context(made(source)) if self.kinds[0] == self.kinds[1] else url_on(request, self.kinds[1])
        self.urls = source, target
        self.source, self.target = (opened(url, self.clock, self._folder) for url in self.urls)
        self.source.init()

    def move(self, **options):
        try:
            return self.source.move(self.urls[1], **options)
        finally:
            self.let_go()

    def ask(self, place, sql, *arguments):
        client = Client(self.urls[place])
        try:
            return client.ask(sql, *arguments)
        finally:
            client.close()

    def let_go(self):
        for flags in (self.source, self.target):
            flags.connections.close_thread()

    def close(self):
        self.let_go()
        self._stack.close()

    def agree(self):
        """Return what both have, once that is the same; what was claimed in the first waits in the other."""
        here, there = (carried(contents(flags)) for flags in (self.source, self.target))
        assert {name: len(rows) for name, rows in there.items()} == {name: len(rows) for name, rows in here.items()}
        assert there == here
        return there


@pytest.fixture
def two(request, pair):
    found = Pair(request, pair)
    yield found
    found.close()


sqlite = pytest.mark.parametrize("pair", ["sqlite-sqlite"])


@every_pair
def test_all_that_there_is_arrives_as_it_was_and_goes_on_there(two):
    filled(two.source)
    moved = two.move()
    there = two.agree()
    assert moved.counts["flag"] == len(there["flag"]) and moved.counts["history"] > 3 and moved.counts["count"] > 1
    assert moved.parked == moved.mended == 0 and set(moved.checksums) == set(shapes())
    key, payload = (shapes()["flag"].columns.index(column) for column in ("key", "payload"))
    assert {json.dumps({"name": name}, separators=(",", ":")) for name in NAMES if len(name) < 9} <= {
        row[key] for row in there["flag"]
    }
    assert json.dumps({"name": HUGE}) in {row[payload] for row in there["flag"]}
    told = two.target.handler("told", lane="mail", result=True)(lambda name: name)
    highest = max(row[0] for row in there["flag"])
    assert told.raise_flag("new there").id > highest
    assert {gate.name for gate in two.target.gates() if gate.closed} == {"bad", "mail"}
    two.target.resume(lane="mail")
    assert two.target.sweep()["lowered"] == len(NAMES) * 2 + 2
    assert [each.name for each in two.target.schedules.list()] == ["nightly"]


@every_pair
def test_the_source_is_paused_and_told_and_resume_gives_it_back(two):
    work = two.source.handler("work")(lambda n: None)
    work.raise_flag(1)
    two.source.pause(reason="night", by="ada")
    two.move()
    (gate,) = two.source.gates()
    assert "was moved to" in gate.why and two.source.sweep() == {}
    (gate,) = two.target.gates()
    assert gate.why == "all paused by ada: night"
    two.source.resume()
    assert two.source.sweep() == {"lowered": 1}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql"])
def test_every_column_of_every_table_is_carried_or_left_for_a_reason(request, kind, tmp_path):
    url = url_on(request, kind)
    flags = opened(url, FakeClock(), tmp_path)
    flags.init()
    flags.connections.close_thread()
    place = Place(kind, url)
    tables = {name.removeprefix("flagsweep_") for name in place.tables() if name.startswith("flagsweep_")}
    assert tables == {*shapes(), *LEFT_BEHIND, "schema"}
    for shape in shapes().values():
        assert {name for name, _ in place.columns(shape.table)} == set(shape.columns)
        assert {name for name, nullable in place.columns(shape.table) if nullable} == set(shape.nullable)


@every_pair
def test_what_a_dead_consumer_had_claimed_waits_there(two):
    work = two.source.handler("work")(lambda n: None)
    id = work.raise_flag(1).id
    claim = "state = 'claimed', claim_token = 5, claimed_by = 9, claimed_at = 1, claimed_generation = 1"
    two.ask(0, f"UPDATE flagsweep_flag SET {claim} WHERE id = {id}")
    two.ask(
        0,
        "INSERT INTO flagsweep_consumer (id, mode, pid, host, started_at, comebacks) "
        f"{'OVERRIDING SYSTEM VALUE ' if two.kinds[0] == 'postgresql' else ''}VALUES (9, 'run', 1, 'h', 1, 0)",
    )
    two.move()
    (flag,) = two.target.find()
    assert (flag.id, flag.state, flag.claimed_by) == (id, "waiting", None)
    two.target.handler("work")(lambda n: None)
    assert two.target.sweep() == {"lowered": 1}


@every_pair
@pytest.mark.parametrize("side", ["source", "target"])
def test_nothing_is_moved_beside_a_living_consumer(two, side):
    two.source.handler("work")(lambda n: None).raise_flag(1)
    two.target.init()
    living = getattr(two, side)
    living.handler("other")(lambda n: None)
    with lane_of(living, "default"), pytest.raises(LeaseHeld, match="lives on"):
        two.move()
    assert [gate.sort for gate in two.source.gates()] == []
    two.move()
    assert len(two.target.find()) == 1


@sqlite
def test_a_run_that_has_just_begun_is_no_dead_one_either(two):
    from flagsweep.consumer.file_lease import RUN, Lease
    from flagsweep.databases.state_folder import folder_of

    lease = Lease(folder_of(two.source.path))
    lease.take(RUN)
    with pytest.raises(LeaseHeld, match="just begun"):
        two.move()
    lease.close()


@every_pair
def test_a_target_with_flags_of_its_own_is_refused_and_left_alone(two):
    two.source.handler("work")(lambda n: None).raise_flag(1)
    two.target.init()
    two.target.handler("theirs")(lambda n: None).raise_flag(1)
    with pytest.raises(FlagSweepError, match="holds 1 flag: a move needs a database without any"):
        two.move()
    assert [flag.kind for flag in two.target.find()] == ["theirs"]
    assert two.source.gates() == two.target.gates() == []


@sqlite
def test_a_database_is_not_moved_into_itself_nor_out_of_memory(two, tmp_path):
    (tmp_path / "link.db").symlink_to(two.source.path)
    with pytest.raises(ConfigError, match="is the database that the flags are in"):
        two.source.move(f"sqlite:///{tmp_path / 'link.db'}")
    with pytest.raises(ConfigError, match="nobody else's"):
        two.source.move(":memory:")


@every_pair
def test_what_changes_here_meanwhile_is_caught_up(two, monkeypatch):
    monkeypatch.setattr("flagsweep.operations.carrying.copying.PAGE", 50)
    work = two.source.handler("work")(lambda n, text="": None)
    dead = two.source.handler("dead", max_attempts=1)(lambda n: 1 / 0)
    dead.raise_many([(n,) for n in range(3)])
    two.source.sweep()
    work.raise_many([(n,) for n in range(200)])
    steps = iter(
        [
            lambda: work.using(key='{"n":3}').raise_flag(3, "changed"),
            lambda: two.source.lower("work", '{"n":5}'),
            lambda: (two.source.lower("work", '{"n":6}'), work.raise_flag(6)),
            lambda: work.raise_flag(1000),
            lambda: two.source.discard(kind="dead", key='{"n":1}'),
            lambda: two.source.retry(kind="dead", key='{"n":2}'),
            lambda: two.source.lower("work", '{"n":199}'),
        ]
    )
    moved = two.move(progress=lambda what, done, total: next(steps, lambda: None)())
    there = two.agree()
    assert moved.mended and moved.counts["flag"] == len(there["flag"]) == 201


@every_pair
@pytest.mark.parametrize("few", [0, 20_000])
def test_what_changes_in_the_last_moment_is_caught_up(two, monkeypatch, few):
    monkeypatch.setattr("flagsweep.operations.carrying.copying.FEW", few)
    work = two.source.handler("work")(lambda n: None)
    work.raise_many([(n,) for n in range(20)])
    from flagsweep.operations.carrying.move import Move

    compare = Move._compare

    def and_then(self):
        found = compare(self)
        work.raise_flag(3), work.raise_flag(100)
        two.source.lower("work", '{"n":4}')
        two.let_go()
        return found

    monkeypatch.setattr(Move, "_compare", and_then)
    two.move()
    there = two.agree()
    assert len(there["flag"]) == 20 and len(there["history"]) == 1


@pytest.mark.parametrize("pair", ["postgresql-sqlite", "mysql-sqlite"])
def test_what_an_open_transaction_has_raised_is_waited_for_and_comes_too(two, monkeypatch):
    monkeypatch.setattr("flagsweep.operations.carrying.move.WAIT", 1)
    work = two.source.handler("work")(lambda n: None)
    work.raise_flag(1)
    columns = "kind, key, payload, due_at, raised_at"
    other = Client(two.urls[0])
    other.ask("BEGIN")
    other.ask(f"INSERT INTO flagsweep_flag ({columns}) VALUES ('work', 'late', '{{}}', 1, 1)")
    work.raise_flag(2)
    with pytest.raises(DatabaseAway, match="somebody has a transaction open that writes flags"):
        two.move()
    assert "is being moved to" in two.source.gates()[0].why
    other.ask("COMMIT")
    other.close()
    two.move()
    assert [flag.key for flag in two.target.find()] == ['{"n":1}', "late", '{"n":2}']
    two.agree()


@every_pair
def test_what_is_raised_after_the_move_is_raised_there_by_the_same_command(two):
    work = two.source.handler("work")(lambda n: None)
    work.raise_many([(1,), (2,), (3,)])
    two.move()
    two.target.handler("work")(lambda n: None)
    assert two.target.sweep() == {"lowered": 3}
    two.clock.advance(60)
    work.raise_flag(2), work.using(priority=5).raise_flag(9)
    moved = two.move()
    assert (moved.again, moved.late) == (True, 2)
    assert {(flag.key, flag.priority) for flag in two.target.find()} == {('{"n":2}', 0), ('{"n":9}', 5)}
    assert two.target.sweep() == {"lowered": 2}
    two.clock.advance(60)
    assert two.move().late == 0


@pytest.mark.long
@killed_pairs
def test_killed_at_every_step_it_goes_on_and_nothing_is_lost_or_doubled(two, monkeypatch):
    monkeypatch.setattr("flagsweep.operations.carrying.copying.PAGE", 60)
    work = two.source.handler("work")(lambda n: None)
    work.raise_many([(n,) for n in range(200)])
    two.source.pause("work", reason="x")
    before = carried(contents(two.source))
    two.let_go()
    step, kills = 1, 0
    while code := killed_at(step, lambda: two.source.move(two.urls[1])):
        assert code == -signal.SIGKILL
        assert carried(contents(two.source)) == before
        kills, step = kills + 1, step + (1 if kills % 2 else 0)
    assert kills >= 10
    assert two.agree() == before
    assert two.move().again
    assert {gate.sort for gate in two.target.gates()} == {"kind"} and "was moved to" in two.source.gates()[0].why


@pytest.mark.long
@killed_pairs
def test_killed_at_every_step_beside_a_site_that_goes_on_nothing_is_lost_or_doubled(two, monkeypatch):
    monkeypatch.setattr("flagsweep.operations.carrying.copying.PAGE", 30)
    work = two.source.handler("work")(lambda n: None)
    work.raise_many([(n,) for n in range(100)])
    two.let_go()
    step = 1
    while killed_at(step, lambda: two.source.move(two.urls[1])):
        step += 1
        work.raise_flag(1000 + step), work.using(key='{"n":7}').raise_flag(step)
        two.source.lower("work", f'{{"n":{step + 30}}}')
        two.let_go()
    there = two.agree()
    assert len(there["flag"]) == 100 and len(there["history"]) == step - 1


@pytest.mark.long
@killed_pairs
def test_killed_five_times_at_random_it_goes_on_and_nothing_is_lost_or_doubled(two):
    rows = 8_000
    work = two.source.handler("work")(lambda n: None)
    work.raise_many([(n,) for n in range(rows)])
    two.let_go()
    kills = 0
    while kills < 5:
        child = forked(lambda: two.source.move(two.urls[1], progress=lambda *told: time.sleep(0.02)))
        time.sleep(random.uniform(0.02, 0.2))
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        kills += 1
    two.move()
    there = two.agree()
    assert len(there["flag"]) == rows == len({row[0] for row in there["flag"]})


@sqlite
def test_a_move_that_was_given_up_can_be_begun_anew(two):
    work = two.source.handler("work")(lambda n: None)
    work.raise_many([(n,) for n in range(10)])

    def give_up(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        two.move(progress=give_up)
    assert two.source.sweep() == {} and "is being moved to" in two.source.gates()[0].why
    with pytest.raises(FlagSweepError, match=r"is being moved to .*target\.db: go on with that"):
        two.source.move(f"sqlite:///{two.source.path.parent / 'third.db'}")
    two.source.resume()
    assert two.source.sweep(limit=4)["lowered"] == 4
    two.move()
    assert len(two.agree()["flag"]) == 6


@sqlite
def test_the_other_database_is_paused_until_it_has_all(two):
    work = two.source.handler("work")(lambda n: None)
    work.raise_many([(n,) for n in range(10)])
    two.target.handler("work")(lambda n: None)

    def stop(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        two.move(progress=stop)
    assert two.target.sweep() == {} and "is being moved here from" in two.target.gates()[0].why


GARBAGE = ("'x'", "-1", "9223372036854775807", "9e999", "X'00ff'", "CAST(X'41ff42' AS TEXT)", "CAST(X'410042' AS TEXT)")
DAMAGED = sorted(set(Flag._meta.fields) - {"id", "state", "kind", "key"})


@pytest.mark.long
@pytest.mark.parametrize("pair", ["sqlite-sqlite", "sqlite-postgresql", "sqlite-mysql"])
def test_what_a_hand_has_damaged_arrives_as_it_was_or_dead_and_says_what_it_was(two):
    work = two.source.handler("work")(lambda n: None)
    number = 0
    for column in DAMAGED:
        for garbage in GARBAGE:
            id, number = work.raise_flag(number).id, number + 1
            two.ask(0, f"UPDATE flagsweep_flag SET {column} = {garbage} WHERE id = {id}")
    for garbage in GARBAGE:
        values = f"{garbage}, {garbage}, 'k', 'k', 'e', {garbage}"
        two.ask(0, f"INSERT INTO flagsweep_history (at, flag, kind, key, event, reason) VALUES ({values})")
    moved = two.move()
    assert moved.counts["flag"] == number and moved.counts["history"] == len(GARBAGE)
    if two.kinds[1] == "sqlite":
        two.agree()
        assert moved.parked == 0
        assert two.ask(0, "SELECT id, typeof(payload), hex(payload) FROM flagsweep_flag") == two.ask(
            1, "SELECT id, typeof(payload), hex(payload) FROM flagsweep_flag"
        )
        return
    found = two.target.find(limit=None)
    assert len(found) == number and moved.parked > number // 4
    parked = [flag for flag in found if (flag.error or "").startswith("parked as it was carried here")]
    assert parked and all(flag.state == "dead" and isinstance(flag, FlagInfo) for flag in parked)
    assert any("due_at was 'x'" in flag.error for flag in parked)
    two.clock.advance(1)
    assert two.move().again


@every_pair
def test_ids_go_on_behind_the_highest_that_was_ever_given(two):
    work = two.source.handler("work")(lambda n: None)
    last = [work.raise_flag(n).id for n in range(5)][-1]
    two.source.sweep()
    two.move()
    assert two.target.find() == []
    assert two.target.handler("work")(lambda n: None).raise_flag(1).id > last


@sqlite
def test_older_tables_are_refused_with_the_command_that_upgrades_them(two):
    two.ask(0, "DELETE FROM flagsweep_schema WHERE version > 2")
    with pytest.raises(FlagSweepError, match="run 'flagsweep init'"):
        two.move()


@sqlite
def test_older_tables_there_are_upgraded(two):
    two.source.handler("work")(lambda n: None).raise_flag(1)
    Path(two.target.path).touch()
    dialect = two.target.connections.dialect
    for version, step in enumerate(dialect.steps[:2], 1):
        for statement in step:
            two.ask(1, statement)
        two.ask(1, f"INSERT INTO flagsweep_schema (version, applied_at) VALUES ({version}, 1)")
    two.move()
    assert len(two.agree()["flag"]) == 1


@pytest.mark.parametrize("pair", ["sqlite-postgresql"])
def test_a_target_may_be_a_peewee_database_over_psycopg_2(two):
    pytest.importorskip("psycopg2")
    filled(two.source)
    target = PostgresqlDatabase(two.urls[1], prefer_psycopg3=False)
    two.source.move(target)
    target.close()
    two.agree()


@sqlite
def test_newer_tables_there_are_refused(two):
    two.target.init()
    two.ask(1, "INSERT INTO flagsweep_schema (version, applied_at) VALUES (99, 1)")
    with pytest.raises(FlagSweepError, match="install a newer flagsweep"):
        two.move()


@sqlite
def test_what_is_told_of_a_move_is_json(two):
    two.source.handler("work")(lambda n: None).raise_flag(1)
    told = two.move().to_dict()
    assert json.loads(json.dumps(told))["counts"]["flag"] == 1

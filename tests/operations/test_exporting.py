"""Export and import: what was written comes back as it was, into a database of any kind, and what is damaged is refused whole."""

import io
import json

import pytest
from moved import carried, closing_client, contents, filled, opened, url_on
from rig import FakeClock, let_go

from flagsweep import ConfigError, FlagSweepError
from flagsweep.operations.carrying.lines import Damaged
from flagsweep.operations.carrying.tables import shapes


@pytest.fixture
def source(ready_url, tmp_path):
    flags = opened(ready_url, FakeClock(), tmp_path)
    flags.init()
    yield flags
    flags.connections.close_thread()
    let_go(tmp_path)


@pytest.fixture
def target(make, tmp_path):
    return make(tmp_path / "target.db")


def exported(flags, **options):
    out = io.BytesIO()
    told = flags.export(out, **options)
    lines = out.getvalue().splitlines()
    assert sum(told.counts.values()) == len(lines) - 2
    return lines


def imported(flags, lines, **options):
    return flags.import_(io.BytesIO(b"".join(line + b"\n" for line in lines)), **options)


def test_what_was_exported_comes_back_as_it_was_and_a_second_time_changes_nothing(source, target):
    filled(source)
    lines = exported(source)
    assert all(line.isascii() for line in lines)
    told = imported(target, lines)
    assert carried(contents(target)) == carried(contents(source))
    assert told.new["flag"] > 20 and not told.same.total() and not told.kept.total()
    again = imported(target, lines)
    assert not +again.new and not +again.kept and again.same == told.new
    assert exported(target)[1:-1] == lines[1:-1]


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_what_sqlite_has_comes_into_a_server(request, make, tmp_path, kind):
    here = make()
    filled(here)
    there = opened(url_on(request, kind), here.clock, tmp_path)
    there.init()
    assert imported(there, exported(here)).parked == 0
    assert carried(contents(there)) == carried(contents(here))
    assert there.handler("told", lane="mail")(lambda name: None).raise_flag("new").id > max(
        row[0] for row in contents(here)["flag"]
    )
    there.connections.close_thread()


def test_times_are_numbers_and_readable_besides(flags):
    flags.handler("work")(lambda n: None).raise_flag(1)
    first, flag, last = (json.loads(line) for line in exported(flags))
    assert first["flagsweep"]["format"] == 1 and first["flagsweep"]["schema"] and "when" in first["flagsweep"]
    assert flag["flag"]["due_at"] == flags.clock.now() and flag["flag"]["when"] == "2026-01-01T00:00:00+00:00"
    assert last["end"]["counts"] == {"flag": 1} and len(last["end"]["sha256"]) == 64


def test_a_part_can_be_exported(flags):
    filled(flags)
    tables = [next(iter(json.loads(line))) for line in exported(flags, history=False)[1:-1]]
    assert "history" not in tables and "schedule" in tables
    of_kind = [json.loads(line) for line in exported(flags, kind="bad")[1:-1]]
    assert {name for line in of_kind for name in line} == {"flag", "history", "count", "gate"}
    assert {values.get("kind", values.get("name")) for line in of_kind for values in line.values()} == {"bad"}
    dead = [json.loads(line)["flag"]["state"] for line in exported(flags, state="dead")[1:-1]]
    assert dead == ["dead"] * 2
    with pytest.raises(ConfigError, match="state must be one of"):
        exported(flags, state="gone")


def test_a_file_stands_at_its_path_once_it_is_whole(flags, tmp_path):
    flags.handler("work")(lambda n: None).raise_many([(n,) for n in range(10)])

    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flags.export(tmp_path / "out.jsonl", progress=stop)
    assert not [each for each in tmp_path.iterdir() if "out" in each.name]
    flags.export(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o077 == 0


GARBAGE = ("'x'", "-1", "9223372036854775807", "9e999", "X'00ff'", "CAST(X'41ff42' AS TEXT)", "CAST(X'410042' AS TEXT)")


@pytest.mark.long
def test_damaged_rows_come_back_as_they_were(flags, target):
    work = flags.handler("work")(lambda n: None)
    columns = [name for name in shapes()["flag"].columns if name not in ("id", "state", "kind", "key")]
    with closing_client(f"sqlite:///{flags.path}") as client:
        for n, (column, garbage) in enumerate((c, g) for c in columns for g in GARBAGE):
            client.ask(f"UPDATE flagsweep_flag SET {column} = {garbage} WHERE id = {work.raise_flag(n).id}")
    told = imported(target, exported(flags))
    assert told.parked == 0 and carried(contents(target)) == carried(contents(flags))


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_what_a_server_cannot_hold_comes_dead_and_says_why(request, make, tmp_path, kind):
    here = make()
    work = here.handler("work")(lambda n: None)
    with closing_client(f"sqlite:///{here.path}") as client:
        for n, garbage in enumerate(GARBAGE):
            client.ask(f"UPDATE flagsweep_flag SET due_at = {garbage}, error = {garbage} WHERE id = {work.raise_flag(n).id}")
    there = opened(url_on(request, kind), here.clock, tmp_path)
    there.init()
    told = imported(there, exported(here))
    found = there.find(limit=None)
    assert len(found) == len(GARBAGE) and told.parked >= 4
    assert [flag.state for flag in found].count("dead") == told.parked
    assert any("due_at was 'x'" in (flag.error or "") for flag in found)
    there.connections.close_thread()


def changed(lines, at, do):
    line = json.loads(lines[at])
    do(next(iter(line.values())))
    return [*lines[:at], json.dumps(line).encode(), *lines[at + 1 :]]


BROKEN = {
    "empty": (lambda lines: [], "it is empty"),
    "no header": (lambda lines: lines[1:], "line 1 is not that of an export"),
    "cut off": (lambda lines: lines[:-1], "line 4 is the last one, and no end"),
    "a line lost": (lambda lines: [*lines[:2], *lines[3:]], "a line was changed, added or lost"),
    "a line twice": (lambda lines: [*lines[:2], lines[1], *lines[2:]], "a line was changed, added or lost"),
    "a line changed": (lambda lines: changed(lines, 2, lambda flag: flag.update(key="other")), "a line was changed"),
    "no JSON": (lambda lines: [*lines[:2], b"{", *lines[3:]], "line 3 is no line of an export"),
    "cut within": (lambda lines: [*lines[:2], lines[2][:40]], "line 3 is no line of an export"),
    "another table": (lambda lines: [*lines[:2], b'{"user":{}}', *lines[2:]], "line 3 holds a 'user'"),
    "another column": (
        lambda lines: changed(lines, 2, lambda flag: flag.update(color=1)),
        "line 3: a flag has no column 'color'",
    ),
    "a column missing": (lambda lines: changed(lines, 2, lambda flag: flag.pop("due_at")), "line 3: 'due_at' is missing"),
    "newer": (lambda lines: changed(lines, 0, lambda first: first.update(schema=99)), "install a newer flagsweep"),
    "behind the end": (lambda lines: [*lines, lines[1]], "stands behind the end"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_damaged_export_is_refused_with_its_line_and_nothing_is_imported(flags, target, how):
    flags.handler("work")(lambda n: None).raise_many([(1,), (2,), (3,)])
    damage, match = BROKEN[how]
    with pytest.raises(Damaged, match=match):
        imported(target, damage(exported(flags)))
    assert target.find() == []


def test_what_an_older_version_did_not_know_gets_what_new_columns_have(flags, target):
    flags.handler("work")(lambda n: None).raise_flag(1)
    lines = changed(exported(flags), 0, lambda first: first.update(schema=1))
    lines = changed(lines, 1, lambda flag: [flag.pop(name) for name in ("missed", "strikes", "covered")])
    import hashlib

    end = json.loads(lines[-1])
    end["end"]["sha256"] = hashlib.sha256(b"".join(line + b"\n" for line in lines[:-1])).hexdigest()
    imported(target, [*lines[:-1], json.dumps(end).encode()])
    assert [flag.missed for flag in target.find()] == [0]


def test_what_is_up_already_stays_or_is_replaced(flags, target):
    for site in (flags, target):
        site.handler("work")(lambda n, text="": None)
    flags.handlers["work"].raise_many([(n,) for n in range(3)])
    target.handlers["work"].using(key='{"n":1}', priority=7).raise_flag(1, "theirs")
    lines = exported(flags)
    dry = imported(target, lines, dry_run=True)
    assert (dry.new["flag"], dry.kept["flag"], dry.dry_run) == (2, 1, True) and len(target.find()) == 1
    told = imported(target, lines)
    assert (told.new["flag"], told.kept["flag"], told.replaced.total()) == (2, 1, 0)
    assert told.named == ['flag 1 (work {"n":1})']
    assert [flag.priority for flag in target.find(key='{"n":1}')] == [7]
    told = imported(target, lines, replace=True)
    assert (told.same["flag"], told.replaced["flag"]) == (2, 1)
    assert [flag.priority for flag in target.find(key='{"n":1}')] == [0]


def test_a_flag_whose_id_another_one_has_gets_a_new_one_and_so_has_its_history(flags, target):
    bad = flags.handler("bad", max_attempts=2, backoff=0)(lambda n: 1 / 0)
    bad.raise_flag(1)
    flags.sweep()
    theirs = target.handler("theirs")(lambda n: None).raise_flag(1)
    lines = exported(flags)
    told = imported(target, lines)
    (mine,) = target.find(kind="bad")
    assert told.renumbered == 1 and mine.id != theirs.id
    history = contents(target)["history"]
    place = shapes()["history"].columns.index("flag")
    assert history and {row[place] for row in history} == {mine.id}
    again = imported(target, lines)
    assert not +again.new and again.same["history"] == len(history)


def test_what_was_claimed_comes_waiting(flags, target):
    id = flags.handler("work")(lambda n: None).raise_flag(1).id
    with closing_client(f"sqlite:///{flags.path}") as client:
        client.ask(
            f"UPDATE flagsweep_flag SET state = 'claimed', claim_token = 1, claimed_by = 1, claimed_at = 1 WHERE id = {id}"
        )
    lines = exported(flags)
    assert json.loads(lines[1])["flag"]["state"] == "claimed"
    imported(target, lines)
    assert [flag.state for flag in target.find()] == ["waiting"]


def test_an_import_that_was_cut_off_goes_on(flags, target, monkeypatch):
    monkeypatch.setattr("flagsweep.operations.carrying.importing.PAGE", 10)
    flags.handler("work")(lambda n: None).raise_many([(n,) for n in range(50)])
    lines = exported(flags)

    def stop(done):
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imported(target, lines, progress=stop)
    assert 0 < len(target.find()) < 50
    told = imported(target, lines)
    assert told.new["flag"] + told.same["flag"] == 50 and told.same["flag"]
    assert carried(contents(target)) == carried(contents(flags))


def test_an_export_is_of_one_moment(source, monkeypatch):
    monkeypatch.setattr("flagsweep.operations.carrying.exporting.PAGE", 5)
    work = source.handler("work")(lambda n: None)
    work.raise_many([(n,) for n in range(20)])
    changes = iter([lambda: work.raise_flag(99), lambda: source.lower("work", '{"n":19}')])
    lines = exported(source, progress=lambda done: next(changes, lambda: None)())
    keys = {json.loads(line)["flag"]["key"] for line in lines[1:-1]}
    assert keys == {f'{{"n":{n}}}' for n in range(20)}


def test_a_database_that_was_moved_is_exported_without_the_pause_of_the_move(flags, target, tmp_path):
    flags.handler("work")(lambda n: None).raise_flag(1)
    flags.pause(reason="night", by="ada")
    flags.move(f"sqlite:///{tmp_path / 'moved.db'}")
    imported(target, exported(flags))
    assert [gate.why for gate in target.gates()] == ["all paused by ada: night"]


def test_tables_that_are_missing_are_said_so(tmp_path, clock):
    flags = opened(f"sqlite:///{tmp_path / 'new.db'}", clock, tmp_path)
    with pytest.raises(FlagSweepError, match="no database"):
        flags.export(io.BytesIO())
    assert not (tmp_path / "new.db").exists()

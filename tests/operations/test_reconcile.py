"""Reconcile: what does not fit together is found, on each layer and database, and mended as a sweep would."""

import json

import pytest
from mapped import SITES
from peewee import BooleanField, Model, SqliteDatabase, TextField
from rig import FakeClock, lane_of, let_go

from flagsweep import FlagSweep
from flagsweep.models import Consumer, Flag, History, Hold, Schedule


@pytest.fixture(params=SITES)
def site(request, url):
    site = SITES[request.param](url)
    yield site
    site.close()


@pytest.fixture
def layered(site, url, tmp_path):
    flags = FlagSweep(url, clock=FakeClock(), threads=2, state_dir=str(tmp_path), connection=site.given)
    flags.init()
    if hasattr(site, "fresh"):
        flags.around(site.around)
    yield flags
    flags.database.close()
    let_go(tmp_path)


@pytest.fixture
def flags(flags_anywhere):
    return flags_anywhere


def told(found):
    return [(each.what, each.name, each.count, each.mended) for each in found]


def test_rows_without_a_flag_are_raised_and_flags_without_a_row_go_with_a_line_of_history(site, layered, client):
    ran = []
    flags = layered
    kind = "receipt"
    handler = flags.when(site.column("needs_receipt"), kind=kind)(lambda order: ran.append(order))
    pks = [site.add(number=n, needs_receipt=True) for n in range(4)]
    site.add(number=9)
    (row,) = flags.reconcile()
    assert (row.what, row.name, row.count, row.mended, row.left) == ("rows", kind, 4, 0, 4) and len(row.examples) == 4
    assert flags.find() == []
    (row,) = flags.reconcile(fix=True)
    assert (row.count, row.mended, row.left) == (4, 4, 0)
    assert sorted(flag.key for flag in flags.find()) == sorted(map(str, pks))
    assert flags.reconcile() == []
    table = handler.rows.model._meta.table_name
    client.ask(f"DELETE FROM {table} WHERE id = {pks[0]}")
    client.ask(f"DELETE FROM {table} WHERE id = {pks[1]}")
    client.ask(f"UPDATE flagsweep_flag SET state = 'dead', died_at = 1 WHERE key = '{pks[1]}'")
    (gone,) = flags.reconcile()
    assert (gone.what, gone.count, sorted(gone.examples)) == ("gone", 2, sorted(map(str, pks[:2])))
    (gone,) = flags.reconcile(fix=True)
    assert (gone.mended, gone.left) == (2, 0)
    with flags.connections.lent("") as db:
        lines = list(History.select().execute(db))
    assert {(line.event, line.reason) for line in lines} == {("discarded", "the row that it stands for is gone")}
    assert flags.sweep() == {"lowered": 2} and len(ran) == 2


class Person(Model):
    name = TextField(default="")
    greet = BooleanField(default=False)


@pytest.fixture
def people(db_path):
    flags = FlagSweep(SqliteDatabase(db_path), clock=FakeClock(), threads=2)
    flags.init()
    flags.database.bind([Person])
    with flags.database:
        flags.database.create_tables([Person])
    yield flags
    flags.database.close()
    let_go(db_path.parent)


@pytest.mark.parametrize("named", [True, False], ids=["by name", "model"])
def test_rows_of_peewee_and_of_tables_by_name_are_looked_at_on_every_database(flags, client, named):
    flags.database.bind([Person])
    with flags.database:
        flags.database.create_tables([Person])
    own = {"table": "person", "column": "greet", "pk": "id"} if named else {}
    flags.when(*([] if named else [Person.greet]), kind="greet", **own)(lambda person: None)
    with flags.database:
        ids = [Person.create(greet=True).id for _ in range(3)]
    assert told(flags.reconcile(fix=True)) == [("rows", "greet", 3, 3)]
    with flags.database:
        Person.delete().where(Person.id == ids[1]).execute()
        Person.update(greet=False).where(Person.id == ids[2]).execute()
    (gone,) = flags.reconcile(fix=True)
    assert (gone.what, gone.examples, gone.mended) == ("gone", [str(ids[1])], 1)
    assert sorted(flag.key for flag in flags.find()) == sorted([str(ids[0]), str(ids[2])])


@pytest.mark.long
def test_many_rows_are_raised_page_by_page(people):
    people.when(Person.greet, kind="greet")(lambda person: None)
    with people.database:
        Person.insert_many([{"greet": True}] * 1234).execute()
    (row,) = people.reconcile(fix=True)
    assert (row.count, row.mended, row.left) == (1234, 1234, 0)
    assert people.reconcile() == []
    with people.database:
        Person.delete().where(Person.id > 1).execute()
    (gone,) = people.reconcile(fix=True)
    assert (gone.what, gone.count, gone.mended) == ("gone", 1233, 1233)


def test_a_flag_whose_handler_runs_just_now_is_left_to_it(people):
    people.when(Person.greet, kind="greet")(lambda person: None)
    with people.database:
        person = Person.create(greet=True)
    people.reconcile(fix=True)
    with people.database:
        Flag.update(state="claimed", claim_token=1, claimed_by=1, claimed_at=1, claimed_generation=1).execute(people.database)
        person.delete_instance()
    assert [each.what for each in people.reconcile()] == ["claims"]


def test_a_table_that_is_missing_hides_no_other(people):
    people.when(Person.greet, kind="greet")(lambda person: None)

    class Elsewhere(Model):
        owed = BooleanField(default=True)

    people.database.bind([Elsewhere])
    people.when(Elsewhere.owed, kind="elsewhere")(lambda row: None)
    with people.database:
        Person.create(greet=True)
    found = people.reconcile(fix=True)
    assert {each.what for each in found if each.name == "elsewhere"} == {"blind"}
    assert [each.mended for each in found if each.what == "rows"] == [1]


def test_claims_of_nobody_are_given_back_and_those_of_the_living_are_not(flags, client):
    work = flags.handler("work")(lambda n: None)
    work.raise_many([(n,) for n in range(5)])
    claim = "UPDATE flagsweep_flag SET state = 'claimed', claim_token = 5, claimed_at = 1, claimed_generation = 1"
    ids = [flag.id for flag in flags.find()]
    with lane_of(flags, "default"):
        (living,) = (row[0] for row in client.ask("SELECT id FROM flagsweep_consumer"))
        client.ask(f"{claim}, claimed_by = {living} WHERE id = {ids[0]}")
        client.ask(f"{claim}, claimed_by = 99 WHERE id IN ({ids[1]}, {ids[2]})")
        client.ask(f"{claim}, claimed_by = NULL WHERE id = {ids[3]}")
        assert told(flags.reconcile()) == [("claims", "", 3, 0)]
        assert told(flags.reconcile(fix=True)) == [("claims", "", 3, 3)]
        assert [flag.state for flag in flags.find()] == ["claimed", "waiting", "waiting", "waiting", "waiting"]
        assert flags.reconcile() == []
    client.ask(f"{claim}, claimed_by = 77 WHERE id = {ids[4]}")
    with flags.connections.lent("") as db:
        Consumer.insert(mode="run", pid=1, host="gone", started_at=1).execute(db)
        Hold.insert(kind="work", consumer=98, slots=2).execute(db)
    assert {each.what for each in flags.reconcile()} == {"claims", "holds"}
    flags.reconcile(fix=True)
    assert flags.reconcile() == []


def test_kinds_and_schedules_without_a_handler_are_told_and_left_to_a_person(flags):
    flags.handler("work")(lambda n: None)
    other = FlagSweep(flags.connections.site, clock=flags.clock)
    other.handler("former")(lambda n: None).raise_flag(1)
    other.schedules.add("nightly", "former", cron="0 4 * * *", arguments=(1,))
    flags.schedules.add("broken", "work", cron="0 4 * * *", arguments=(1,))
    with flags.connections.lent("") as db:
        Schedule.update(spec="not at all").where(Schedule.name == "broken").execute(db)
    found = flags.reconcile(fix=True)
    assert [(each.what, each.name, each.left) for each in found] == [
        ("kinds", "former", 1),
        ("schedules", "broken", 1),
        ("schedules", "nightly", 1),
    ]
    assert all(each.fix and json.dumps(each.to_dict()) for each in found)
    assert [flag.kind for flag in flags.find()] == ["former"]
    other.connections.close_thread()

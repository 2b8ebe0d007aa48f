"""Own rows of every type that Peewee has, as a column that says what is owed and as a key, on every database."""

import threading
import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal

import peewee
import pytest
from peewee import BooleanField, ForeignKeyField, Model, SqliteDatabase
from playhouse import postgres_ext
from rig import let_go
from rig import plain as plain_sql

from flagsweep import ConfigError, Discard, FlagSweep, SignatureError

MOMENT = datetime(2026, 11, 26, 9, 30, 1, 500_000)
COLUMNS = {
    "float": (peewee.FloatField, 0.1, 0.2),
    "float, alike in six digits": (peewee.FloatField, 1234567.0, 1234567.5),
    "double": (peewee.DoubleField, 0.1, 0.30000000000000004),
    "decimal": (lambda **more: peewee.DecimalField(max_digits=12, decimal_places=4, **more), Decimal("0.1000"), Decimal("0.2")),
    "integer": (peewee.IntegerField, 7, 8),
    "big integer": (peewee.BigIntegerField, 2**60 + 1, 2**60 + 2),
    "char": (peewee.CharField, "A", "a"),
    "char, spaces": (peewee.CharField, "a", "a "),
    "text": (peewee.TextField, "안녕 🧹", "x" * 5000),
    "blob": (peewee.BlobField, b"\x00\xff", b"\xff"),
    "date and time": (peewee.DateTimeField, MOMENT, MOMENT + timedelta(days=1)),
    "date": (peewee.DateField, MOMENT.date(), date(2027, 1, 1)),
    "time": (peewee.TimeField, time(9, 30), time(9, 31)),
    "timestamp": (
        lambda **more: peewee.TimestampField(default=None, **more),
        MOMENT.replace(microsecond=0),
        datetime(2027, 1, 1),
    ),
    "address": (peewee.IPField, "10.0.0.1", "10.0.0.2"),
    "uuid": (peewee.UUIDField, uuid.UUID(int=1), uuid.UUID(int=2)),
    "binary uuid": (peewee.BinaryUUIDField, uuid.UUID(int=1), uuid.UUID(int=2)),
    "json": (peewee.JSONField, {"b": [1, 2.5, "ü"], "a": None}, [1]),
    "bits": (peewee.BitField, 5, 6),
}
ON_POSTGRES = {
    "array": (lambda **more: postgres_ext.ArrayField(peewee.IntegerField, **more), [1, 2], [3]),
    "text json": (postgres_ext.JSONField, {"b": 1, "a": 2}, {"a": 3}),
    "binary json": (postgres_ext.BinaryJSONField, {"b": 1, "a": [2]}, {"a": 3}),
    "interval": (postgres_ext.IntervalField, timedelta(days=1, seconds=5), timedelta(2)),
    "time with zone": (postgres_ext.DateTimeTZField, MOMENT, MOMENT + timedelta(1)),
}
KEYS = {
    "integer": (lambda: peewee.IntegerField(primary_key=True), 7),
    "auto": (lambda: peewee.AutoField(), 7),
    "big auto": (lambda: peewee.BigAutoField(), 2**60 + 1),
    "char": (lambda: peewee.CharField(primary_key=True), "Käse 🧀 %"),
    "fixed char": (lambda: peewee.FixedCharField(max_length=3, primary_key=True), "abc"),
    "uuid": (lambda: peewee.UUIDField(primary_key=True), uuid.UUID(int=2**127 + 5)),
    "binary uuid": (lambda: peewee.BinaryUUIDField(primary_key=True), uuid.UUID(int=2**127 + 5)),
    "blob": (lambda: Bytes(primary_key=True), b"\x00\xfe'%"),
    "date": (lambda: peewee.DateField(primary_key=True), date(2026, 11, 26)),
    "date and time": (lambda: peewee.DateTimeField(primary_key=True), MOMENT.replace(microsecond=0)),
    "time": (lambda: peewee.TimeField(primary_key=True), time(9, 30, 1)),
    "decimal": (lambda: peewee.DecimalField(primary_key=True, max_digits=10, decimal_places=5), Decimal("1.50000")),
    "timestamp": (lambda: peewee.TimestampField(primary_key=True), datetime(2026, 11, 26, 9, 30, 1)),
    "address": (lambda: peewee.IPField(primary_key=True), "10.0.0.1"),
}


class Bytes(peewee.BlobField):
    """A blob that MySQL takes for a key, which wants to know its length."""

    field_type = "BLOB"

    def ddl_datatype(self, ctx):
        mysql = isinstance(self.model._meta.database, peewee.MySQLDatabase)
        return peewee.SQL("VARBINARY(64)") if mysql else super().ddl_datatype(ctx)


@pytest.fixture
def flags(ready_url, tmp_path):
    flags = FlagSweep(ready_url, threads=2, state_dir=str(tmp_path / "state"))
    flags.init()
    yield flags
    flags.connections.close_thread()
    let_go(tmp_path)


def table(flags, **fields):
    meta = type("Meta", (), {"database": flags.database, "table_name": "thing"})
    model = type("Thing", (Model,), {**fields, "__module__": __name__, "Meta": meta})
    with flags.database.connection_context():
        flags.database.create_tables([model])
    return model


def column_of(name, flags):
    if name in ON_POSTGRES and flags.connections.dialect.name != "PostgreSQL":
        pytest.skip("PostgreSQL's alone")
    if name == "json" and flags.connections.dialect.name == "MySQL":
        pytest.skip("Peewee writes CAST(... AS JSON), which MariaDB does not know")
    make, value, other = {**COLUMNS, **ON_POSTGRES}[name]
    return make(null=True), value, other


@pytest.mark.parametrize("name", [*COLUMNS, *ON_POSTGRES])
@pytest.mark.parametrize("atomic", [False, True])
def test_a_column_of_any_type_is_work_once_and_null_afterwards(flags, name, atomic):
    column, value, _ = column_of(name, flags)
    thing = table(flags, what=column)
    with flags.database.connection_context():
        thing.create(what=value)
        thing.create(what=None)
    seen = []
    flags.when(thing.what, kind="work", atomic=atomic)(lambda row: seen.append(row.id))
    assert flags.sweep(raise_errors=True) == {"lowered": 1}
    assert (flags.sweep(), seen, flags.find()) == ({}, [1], [])
    with flags.database.connection_context():
        assert [row.what for row in thing.select()] == [None, None]


@pytest.mark.parametrize("name", [*COLUMNS, *ON_POSTGRES])
def test_a_column_of_any_type_that_is_set_anew_meanwhile_is_new_work(flags, name):
    column, value, other = column_of(name, flags)
    thing = table(flags, what=column)
    with flags.database.connection_context():
        thing.create(what=value)
    seen = []

    @flags.when(thing.what, kind="work")
    def work(row):
        seen.append(row.id)
        if len(seen) == 1:
            with flags.database.connection_context():
                thing.update({thing.what: other}).execute()

    assert flags.sweep(raise_errors=True) == {"lowered": 2}
    assert seen == [1, 1]


@pytest.mark.parametrize("name", KEYS)
def test_a_key_of_any_type_names_its_row_by_discovery_and_by_a_raise(flags, name):
    make, value = KEYS[name]
    thing = table(flags, id=make(), owed=BooleanField(default=True), broken=BooleanField(default=False))
    with flags.database.connection_context():
        thing.insert({thing.id: value}).execute()
    seen = []
    work = flags.when(thing.owed, kind="work", max_attempts=1)(lambda row: seen.append(row.get_id()))
    assert flags.sweep(raise_errors=True) == {"lowered": 1}
    with flags.database.connection_context():
        thing.update({thing.owed: True}).execute()
        assert work.raise_flag(thing.get()).how == "new"
        assert work.raise_flag(value).how == "coalesced"
    (raised,) = flags.find()
    assert flags.sweep(raise_errors=True) == {"lowered": 1}
    assert flags.sweep() == {} and len(seen) == 2
    with flags.database.connection_context():
        thing.update({thing.broken: True}).execute()
    flags.when(thing.broken, kind="fails", max_attempts=1)(lambda row: 1 / 0)
    assert flags.sweep() == {"dead": 1}
    assert [flag.key for flag in flags.find()] == [raised.key]
    assert flags.sweep() == {}


def test_a_key_that_is_a_foreign_key_is_of_the_type_it_points_to(flags):
    thing = table(flags, id=peewee.UUIDField(primary_key=True))
    meta = type("Meta", (), {"database": flags.database, "table_name": "part"})
    members = {"thing": ForeignKeyField(thing, primary_key=True), "owed": BooleanField(default=True)}
    part = type("Part", (Model,), {**members, "__module__": __name__, "Meta": meta})
    with flags.database.connection_context():
        flags.database.create_tables([part])
        part.create(thing=thing.create(id=uuid.UUID(int=2**127 + 5)))
    seen = []
    work = flags.when(part.owed, kind="work")(lambda row: seen.append(row.get_id()))
    assert flags.sweep(raise_errors=True) == {"lowered": 1}
    with flags.database.connection_context():
        assert work.raise_flag(part.get()).how == "new"
    assert flags.find()[0].key == uuid.UUID(int=2**127 + 5).hex


@pytest.mark.parametrize("make", [peewee.FloatField, peewee.DoubleField, peewee.BooleanField, peewee.JSONField, peewee.BareField])
def test_a_key_by_which_no_row_can_be_named_for_certain_is_refused_where_it_is_declared(tmp_path, make):
    db = SqliteDatabase(tmp_path / "site.db")
    meta = type("Meta", (), {"database": db})
    thing = type("Thing", (Model,), {"id": make(primary_key=True), "owed": BooleanField(), "__module__": __name__, "Meta": meta})
    with pytest.raises(ConfigError, match=r"primary key of type .* use a whole number"):
        FlagSweep(db).when(thing.owed)


def test_a_row_that_is_not_there_is_not_raised_where_the_database_is_asked_for_its_key(flags):
    thing = table(flags, id=peewee.DateField(primary_key=True), owed=BooleanField(default=True))
    work = flags.when(thing.owed, kind="work")(lambda row: None)
    with pytest.raises(SignatureError, match="saved Thing"):
        work.raise_flag(date(2026, 1, 1))


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("discards", [False, True])
def test_a_row_that_cannot_be_lowered_although_nothing_fails_is_tried_again_later_and_not_at_once(
    flags, client, discards, atomic
):
    """A trigger that puts the old value back: on MySQL that is an update which changes nothing."""
    thing = table(flags, what=peewee.IntegerField(null=True))
    with flags.database.connection_context():
        thing.create(what=7)
    keep(client)
    seen = []

    @flags.when(thing.what, kind="work", backoff=60, atomic=atomic)
    def work(row):
        seen.append(row.id)
        if discards:
            raise Discard("no")

    counts = flags.sweep()
    assert (counts, seen) == ({"again": 1}, [1])
    (flag,) = flags.find()
    assert "cannot be lowered" in flag.error and flag.attempts == 1


def keep(client):
    """Have every update of the table pass over its rows, without an error."""
    if client.scheme == "sqlite":
        client.ask("CREATE TRIGGER keep BEFORE UPDATE ON thing BEGIN SELECT RAISE(IGNORE); END")
    elif client.scheme == "postgresql":
        client.ask("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
        client.ask("CREATE TRIGGER keep BEFORE UPDATE ON thing FOR EACH ROW EXECUTE FUNCTION keep()")
    else:
        client.ask("CREATE TRIGGER keep BEFORE UPDATE ON thing FOR EACH ROW SET NEW.what = OLD.what")


# Rows that the site holds.


@pytest.mark.parametrize("url", ["postgresql", "mysql"], indirect=True)
@pytest.mark.parametrize("lower", ["after", "before"])
def test_a_row_that_the_site_holds_waits_alone_and_is_done_after(flags, client, until, lower):
    """The site's transaction is open as long as the test wants; all else is done meanwhile, of this kind, too."""
    thing = table(flags, owed=BooleanField(default=True), name=peewee.CharField(default=""))
    with flags.database.connection_context():
        thing.insert_many([{"name": f"n{n}"} for n in range(5)]).execute()
    seen, others = [], []
    flags.when(thing.owed, kind="rows", lower=lower)(lambda row: seen.append(row.id))
    flags.handler("plain")(lambda n: others.append(n))
    client.ask("BEGIN")
    client.ask("UPDATE thing SET name = 'held' WHERE id = 3")
    runner = threading.Thread(target=flags.run)
    runner.start()
    try:
        until(lambda: set(seen) >= {1, 2, 4, 5})
        flags.handlers["plain"].raise_many([{"n": n} for n in range(50)])
        until(lambda: len(others) == 50)
        until(lambda: {flag.key for flag in flags.find(kind="rows")} <= {"3"})
        assert (3 in seen) == (lower == "after")
        client.ask("COMMIT")
        until(lambda: sorted(seen) == [1, 2, 3, 4, 5] and not flags.find())
        until(lambda: not list(thing.select().where(thing.owed).tuples().execute(flags.database)))
    finally:
        flags.stop()
        runner.join(20)
        flags.connections.close_thread()


@pytest.mark.parametrize("url", ["postgresql", "mysql"], indirect=True)
@pytest.mark.parametrize("options", [{"budget": "9/d"}, {"rate": "9/h burst 9"}], ids=str)
@pytest.mark.parametrize("what", ["thing", "flagsweep_flag"])
def test_what_the_site_holds_takes_nothing_of_a_limit_and_is_not_asked_for_without_a_pause(flags, client, until, options, what):
    thing = table(flags, owed=BooleanField(default=True), name=peewee.CharField(default=""))
    with flags.database.connection_context():
        thing.insert_many([{"name": f"n{n}"} for n in range(5)]).execute()
    seen, looks, claim = [], [], flags.connections.dialect.claim
    flags.when(thing.owed, kind="rows", lower="before", **options)(lambda row: seen.append(row.id))
    with flags.connections.write():
        flags.store.discover("rows", [(str(n), f'{{"row":"{n}"}}') for n in range(1, 6)], 0, flags.clock.now())
    client.ask("BEGIN")
    client.ask(f"SELECT id FROM {what} WHERE id = 3 FOR UPDATE")
    flags.connections.dialect.claim = lambda *given: (looks.append(1), claim(*given))[1]
    assert flags.sweep()["lowered"] == 4
    client.ask("COMMIT")
    (shown,) = flags.gates()
    assert (shown.budget or shown.rate).left == 5 and len(looks) < 10
    until(lambda: (flags.sweep(), sorted(seen) == [1, 2, 3, 4, 5])[1])


@pytest.mark.parametrize("url", ["postgresql", "mysql"], indirect=True)
@pytest.mark.parametrize("options", [{}, {"budget": "9/d"}], ids=str)
def test_one_sweep_does_all_that_the_site_does_not_hold_though_it_holds_what_comes_first(url, tmp_path, client, until, options):
    flags = FlagSweep(url, threads=1, state_dir=tmp_path / "state")
    flags.init()
    thing = table(flags, owed=BooleanField(default=True))
    with flags.database.connection_context():
        thing.insert_many([{"owed": True} for _ in range(5)]).execute()
    seen = []
    flags.when(thing.owed, kind="rows", lower="before", **options)(lambda row: seen.append(row.id))
    with flags.connections.write():
        flags.store.discover("rows", [(str(n), f'{{"row":"{n}"}}') for n in range(1, 6)], 0, flags.clock.now())
    client.ask("BEGIN")
    for id in (1, 2, 3):  # One by one: MariaDB would lock more of a range.
        client.ask(f"SELECT id FROM thing WHERE id = {id} FOR UPDATE")
    flags.sweep()
    assert sorted(seen) == [4, 5]
    client.ask("COMMIT")
    until(lambda: (flags.sweep(), sorted(seen) == [1, 2, 3, 4, 5])[1])
    flags.connections.close_thread()


@pytest.mark.parametrize("url", ["postgresql", "mysql"], indirect=True)
def test_rows_whose_flags_the_site_is_just_raising_hinder_no_other(flags, client, until):
    thing = table(flags, owed=BooleanField(default=True))
    with flags.database.connection_context():
        thing.insert_many([{"owed": True} for _ in range(300)]).execute()
    seen = []
    flags.when(thing.owed, kind="rows")(lambda row: seen.append(row.id))
    client.ask("BEGIN")
    raised = "INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) VALUES (?, ?, ?, 0, 0)"
    for key in range(7, 300, 15):
        client.ask(raised, "rows", str(key), f'{{"row": "{key}"}}')
    assert flags.sweep()["lowered"] == 280
    client.ask("COMMIT")
    assert flags.sweep()["lowered"] == 20
    assert sorted(seen) == list(range(1, 301))


# Databases of the model.


def test_a_model_of_another_database_is_refused_where_it_is_declared(tmp_path):
    here, there = SqliteDatabase(tmp_path / "site.db"), SqliteDatabase(tmp_path / "other.db")
    thing = type(
        "Thing", (Model,), {"owed": BooleanField(), "__module__": __name__, "Meta": type("Meta", (), {"database": there})}
    )
    with pytest.raises(ConfigError, match=r"Thing lives in .*other\.db, and the flags in .*site\.db"):
        FlagSweep(here).when(thing.owed)
    for same in (f"sqlite:///{tmp_path / 'other.db'}", there, SqliteDatabase(tmp_path / "." / "other.db")):
        FlagSweep(same).when(thing.owed)
    late = peewee.DatabaseProxy()
    thing.bind(late)
    FlagSweep(here).when(thing.owed)
    late.initialize(there)
    with pytest.raises(ConfigError, match="lives in"):
        FlagSweep(here).when(thing.owed)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_model_on_a_server_is_refused_by_the_place_of_its_database(scheme):
    kind = peewee.PostgresqlDatabase if scheme == "postgresql" else peewee.MySQLDatabase
    thing = type("Thing", (Model,), {"owed": BooleanField(), "__module__": __name__})
    thing.bind(kind("site", host="127.0.0.1"))
    FlagSweep(f"{scheme}://me@localhost/site").when(thing.owed)
    for other in (kind("shop", host="127.0.0.1"), kind("site", host="10.0.0.9"), kind("site", host="localhost", port=7)):
        thing.bind(other)
        with pytest.raises(ConfigError, match="lives in"):
            FlagSweep(f"{scheme}://me@localhost/site").when(thing.owed)


@pytest.mark.parametrize("when", ["before", "after"])
def test_rows_of_an_attached_database_are_found_loaded_and_lowered(tmp_path, when):
    site = SqliteDatabase(tmp_path / "site.db")
    flags = FlagSweep(site)
    flags.init()
    if when == "after":
        assert flags.sweep() == {}
    site.attach(str(tmp_path / "archive.db"), "archive")
    meta = type("Meta", (), {"database": site, "schema": "archive", "table_name": "thing"})
    thing = type("Thing", (Model,), {"owed": BooleanField(default=True), "__module__": __name__, "Meta": meta})
    with site.connection_context():
        site.create_tables([thing])
        thing.create()
    seen = []
    flags.when(thing.owed, kind="work")(lambda row: seen.append(row.id))
    assert flags.sweep(raise_errors=True) == {"lowered": 1}
    assert (seen, flags.sweep()) == ([1], {})


def test_a_consumer_sees_what_is_attached_while_it_runs(tmp_path, until):
    """With the next commit to the database itself: of those to another file nobody tells."""
    site = SqliteDatabase(tmp_path / "site.db")
    flags, seen, plain = FlagSweep(site), [], []
    flags.init()
    meta = type("Meta", (), {"database": site, "schema": "archive", "table_name": "thing"})
    thing = type("Thing", (Model,), {"owed": BooleanField(default=True), "__module__": __name__, "Meta": meta})
    flags.when(thing.owed, kind="work")(lambda row: seen.append(row.id))
    flags.handler("plain")(lambda n: plain.append(n))
    runner = threading.Thread(target=flags.run)
    runner.start()
    try:
        flags.handlers["plain"].raise_flag(1)
        until(lambda: plain == [1])
        plain_sql(tmp_path / "archive.db", "CREATE TABLE thing (id INTEGER PRIMARY KEY, owed INTEGER)")
        plain_sql(tmp_path / "archive.db", "INSERT INTO thing (owed) VALUES (1)")
        site.attach(str(tmp_path / "archive.db"), "archive")
        flags.handlers["plain"].raise_flag(2)
        until(lambda: seen == [1])
    finally:
        flags.stop()
        runner.join(20)

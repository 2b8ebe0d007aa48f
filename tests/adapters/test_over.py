"""Raising over the site's own connection: with every layer, on every database."""

import pickle
import shutil

import pytest
from layers import LAYERS, TABLE, Mysqlclient, Psycopg, opened
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from rig import FakeClock, let_go

from flagsweep import ConfigError, FlagSweep, FlagSweepError, NotDone, NotReady
from flagsweep.models import Flag

CASES = [(database, layer) for database, layers in LAYERS.items() for layer in layers]

ODD = "50 % of %s, ?, $1, 'quoted' \"twice\" \\ back, 한국어 ☃"


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].__name__}")
def case(request, tmp_path):
    database, layer = request.param
    if layer is Mysqlclient:
        pytest.importorskip("MySQLdb")
    if database == "sqlite":
        return f"sqlite:///{tmp_path / 'site.db'}", layer
    return request.getfixturevalue("postgres_url" if database == "postgresql" else "mysql_url"), layer


@pytest.fixture
def flags(case, tmp_path, empty_site):
    if case[0].startswith("sqlite"):
        shutil.copyfile(empty_site, tmp_path / "site.db")
    flags = FlagSweep(case[0], clock=FakeClock(), threads=1, state_dir=str(tmp_path))
    flags.init()
    with flags.database:
        flags.database.execute_sql(TABLE)
    flags.database.close()
    flags.handler("send")(lambda n=0, text="": None)
    yield flags
    flags.database.close()
    let_go(tmp_path)


@pytest.fixture
def layer(case, flags):
    with opened(case[1], case[0]) as layer:
        yield layer


@pytest.fixture
def send(flags, layer):
    return flags.handler_of("send").using(connection=layer.connection)


def orders(flags):
    with flags.database.connection_context():
        return flags.database.execute_sql("SELECT count(*) FROM shop_order").fetchone()[0]


def keys(flags):
    return sorted(flag.key for flag in flags.find("send"))


def test_a_flag_commits_with_the_row_that_was_written_beside_it(flags, layer, send):
    layer.begin()
    layer.write()
    raised = send.raise_flag(n=1)
    assert raised.how == "new"
    assert (orders(flags), keys(flags)) == (0, [])
    layer.commit()
    assert orders(flags) == 1
    assert [flag.id for flag in flags.find("send")] == [raised.id]
    assert flags.sweep() == {"lowered": 1}


def test_a_flag_is_rolled_back_with_the_row(flags, layer, send):
    layer.begin()
    layer.write()
    send.raise_flag(n=1)
    send.raise_many([(2,), (3,)])
    layer.rollback()
    assert (orders(flags), keys(flags)) == (0, [])


def test_a_savepoint_that_is_rolled_back_takes_its_flags_along_and_no_others(flags, layer, send):
    layer.begin()
    layer.write()
    send.raise_flag(n=1)
    layer.execute("SAVEPOINT inner_one")
    send.raise_flag(n=2)
    layer.execute("ROLLBACK TO SAVEPOINT inner_one")
    send.raise_flag(n=3)
    layer.commit()
    assert keys(flags) == ['{"n":1}', '{"n":3}']


def test_a_raise_tells_what_it_did_and_means_the_same_flag(flags, layer, send, client):
    def raised():
        layer.begin()
        result = send.raise_flag(n=1)
        layer.commit()
        return result

    first = raised()
    assert first.how == "new"
    assert raised() == (first.id, "coalesced")
    client.ask("UPDATE flagsweep_flag SET state = 'claimed', claim_token = 1, claimed_by = 7, claimed_generation = generation")
    assert raised() == (first.id, "bumped")
    client.ask("UPDATE flagsweep_flag SET state = 'dead', claim_token = NULL, claimed_by = NULL, claimed_generation = NULL")
    assert raised() == (first.id, "revived")


def test_whatever_is_written_comes_to_the_handler_as_it_was(flags, layer):
    got = []
    flags.handler("odd % ? $1 한국어".replace(" ", "-"))(lambda text: got.append(text))
    odd = flags.handler_of("odd-%-?-$1-한국어")
    layer.begin()
    odd.using(connection=layer.connection, key=ODD).raise_flag(text=ODD)
    odd.using(connection=layer.connection).raise_many([{"text": f"{n} {ODD}"} for n in range(3)])
    layer.commit()
    assert flags.find(odd.kind, key=ODD)[0].key == ODD
    flags.sweep(raise_errors=True)
    assert sorted(got) == sorted([ODD, *(f"{n} {ODD}" for n in range(3))])


def test_options_of_a_raise_are_those_of_any_other(flags, layer, case):
    flags.handler("shaped", debounce="10m", longest="1h", per="n", replace=False)(lambda n: None)
    shaped = flags.handler_of("shaped")
    layer.begin()
    shaped.using(connection=layer.connection, priority=7, expires="1h").raise_flag(n=1)
    shaped.using(connection=layer.connection).raise_many([(1,), (2,)])
    layer.commit()
    with flags.database.connection_context():
        over = sorted((f.key, f.priority, f.due_at, f.expires_at, f.bucket) for f in flags.verbs.find([]))
    flags.lower("shaped", '{"n":1}')
    flags.lower("shaped", '{"n":2}')
    shaped.using(priority=7, expires="1h").raise_flag(n=1)
    shaped.raise_many([(1,), (2,)])
    with flags.database.connection_context():
        assert over == sorted((f.key, f.priority, f.due_at, f.expires_at, f.bucket) for f in flags.verbs.find([]))


def test_many_are_counted_and_come_in_chunks(flags, layer, send, client):
    layer.begin()
    send.raise_flag(n=5)
    assert send.raise_many({"n": n, "text": "x" * 300} for n in range(2500)) == {"new": 2500}
    assert send.raise_many([(5,), (5,), (6,)]) == {"coalesced": 2, "new": 1}
    layer.commit()
    assert client.ask("SELECT count(*) FROM flagsweep_flag") == [(2502,)]


@pytest.mark.long
def test_a_connection_to_another_database_is_refused_with_both_names(flags, layer, case, tmp_path):
    url, kind = case
    other = FlagSweep(f"sqlite:///{tmp_path / 'another.db'}", clock=FakeClock())
    other.init()
    other.handler("send")(lambda n: None)
    layer.begin()
    with pytest.raises(ConfigError, match=r"another\.db") as caught:
        other.handler_of("send").using(connection=layer.connection).raise_flag(n=1)
    name = "site.db" if url.startswith("sqlite") else kind.__name__ if kind in (Psycopg,) else ""
    assert name.lower() in str(caught.value).lower() and "the flag was not raised" in str(caught.value)
    layer.write()
    layer.commit()
    assert orders(flags) == 1
    let_go(tmp_path)


def test_missing_tables_are_told_and_the_sites_transaction_lives_on(case, tmp_path):
    url, kind = case
    flags = FlagSweep(url, clock=FakeClock(), state_dir=str(tmp_path))
    flags.connections.create_file()
    with flags.database:
        flags.database.execute_sql(TABLE)
    flags.database.close()
    send = flags.handler("send")(lambda n: None)
    with opened(kind, url) as layer:
        layer.begin()
        layer.write()
        with pytest.raises(NotReady, match="flagsweep init"):
            send.using(connection=layer.connection).raise_flag(n=1)
        layer.commit()
    assert orders(flags) == 1
    flags.init()
    with opened(kind, url) as layer:
        layer.begin()
        send.using(connection=layer.connection).raise_flag(n=1)
        layer.commit()
    assert keys(flags) == ['{"n":1}']
    let_go(tmp_path)


def test_an_error_of_the_connection_is_the_layers_own_with_a_note(flags, layer, send, client):
    layer.begin()
    send.raise_flag(n=1)
    layer.commit()
    client.ask("DROP TABLE flagsweep_flag")
    layer.begin()
    with pytest.raises(Exception, match="flagsweep_flag") as caught:
        send.raise_flag(n=2)
    assert "flagsweep: the flag was not raised" in caught.value.__notes__
    assert not type(caught.value).__module__.startswith("flagsweep")
    layer.rollback()


@pytest.fixture
def url(case):
    return case[0]


# What became of a raise.


def add_over(flags, layer, **options):
    return flags.handler("add", **options)(lambda a, b: a + b).using(connection=layer.connection)


def test_the_result_of_what_is_not_committed_is_waiting_and_found_after_the_commit(flags, layer):
    add = add_over(flags, layer, result=True)
    layer.begin()
    raised = add.raise_flag(1, 2)
    result = flags.result(raised)
    if tells_nothing := type(layer.raw).__module__.startswith("MySQLdb"):
        assert result.state == "gone", "mysqlclient does not say whether a transaction is open"
    else:
        assert (result.state, result.is_over) == ("waiting", False)
        with pytest.raises(FlagSweepError, match="wait\\(\\) within an open transaction would wait for ever"):
            result.wait(1)
    layer.commit()
    assert flags.result(raised).state == "waiting"
    flags.sweep()
    found = flags.result(raised) if tells_nothing else result.wait(20)
    assert (found.state, found.value) == ("lowered", 3)


def test_the_result_of_what_was_rolled_back_is_gone(flags, layer):
    add = add_over(flags, layer, result=True)
    layer.begin()
    raised = add.raise_flag(1, 2)
    result = flags.result(raised)
    layer.rollback()
    assert flags.result(raised).state == "gone" == result.wait(20).state


def test_what_was_done_without_a_result_is_gone_once_its_transaction_is_over(flags, layer):
    add = add_over(flags, layer)
    layer.begin()
    raised = add.raise_flag(1, 2)
    layer.commit()
    flags.sweep()
    assert flags.result(raised).state == "gone"


def test_a_later_transaction_on_the_connection_keeps_nobody_from_waiting(flags, layer):
    add = add_over(flags, layer, result=True)
    layer.begin()
    raised = add.raise_flag(1, 2)
    layer.commit()
    layer.begin()
    layer.write()
    with pytest.raises(NotDone, match="is waiting"):
        flags.result(raised).wait(0.01)
    layer.rollback()


def test_a_raise_over_a_connection_can_be_kept_elsewhere(flags, layer, send):
    layer.begin()
    raised = send.raise_flag(n=1)
    layer.commit()
    kept = pickle.loads(pickle.dumps(raised))
    assert (kept, kept.generation) == (raised, 1) and flags.result(kept).state == "waiting"


def test_a_raise_over_any_layer_takes_its_trace_along(flags, layer, send, monkeypatch):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider())
    layer.begin()
    with trace.get_tracer("site").start_as_current_span("request") as span:
        send.raise_flag(1), send.raise_many([(2,), (3,)])
    layer.commit()
    with flags.connections.lent("asked") as db:
        traces = [flag.trace.split("-") for flag in Flag.select().execute(db)]
    assert len(traces) == 3
    assert {each[1] for each in traces} == {f"{span.get_span_context().trace_id:032x}"}
